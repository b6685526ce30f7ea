-- Sites revise their data, and upserts overwrite what was there. The old rows are kept, written in the transaction of the change, so
-- that a table can be read as it was known at any time since. An insert is noted by its key alone: without it nobody could say that a
-- row was not there yet, and whoever tests a strategy on the table would look into the future.
--
-- No constraints beyond NOT NULL: an upsert pays for each of them with every row that changes.
CREATE TABLE oa.revisions (
    schema_name text        NOT NULL,
    table_name  text        NOT NULL,
    key         jsonb       NOT NULL,
    operation   text        NOT NULL,
    old_row     json,
    run_id      uuid,
    -- Not now(): of two transactions that change a row one after the other, the later one may have begun first.
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    seq         bigint      NOT NULL DEFAULT oa.next_in_order(),
    role_name   text
) PARTITION BY RANGE (at);
COMMENT ON TABLE oa.revisions IS 'One row per change of a stored row: what it was before, which run changed it, and when.';
COMMENT ON COLUMN oa.revisions.table_name IS 'With schema_name the name in oa.revised_tables: that of the table when its revisions began.';
COMMENT ON COLUMN oa.revisions.key IS 'The natural key: each column or expression of its unique index, by name, with its value; oa_row: what else names a row whose key is NULL.';
COMMENT ON COLUMN oa.revisions.operation IS 'insert, update or delete.';
COMMENT ON COLUMN oa.revisions.old_row IS 'The whole row before the change; null: there was none.';
COMMENT ON COLUMN oa.revisions.run_id IS 'The run that changed it; null: something else, such as SQL by hand.';
COMMENT ON COLUMN oa.revisions.seq IS 'The order of the changes. Those of one statement have the same, and are of different rows.';
COMMENT ON COLUMN oa.revisions.role_name IS 'Of a change that no run made: the role that did.';
-- Of a time, because rows are written in its order, and of a row. A B-tree or hash index would make each change of a row dearer by a sixth.
CREATE INDEX revisions_at_key ON oa.revisions USING brin (at, jsonb_hash(key) int4_bloom_ops (n_distinct_per_range = 512))
    WITH (pages_per_range = 16, autosummarize = on);

-- A table keeps its revisions when it is renamed, and another one that takes its name begins its own.
CREATE TABLE oa.revised_tables (
    schema_name text        NOT NULL,
    table_name  text        NOT NULL,
    relation    oid         NOT NULL,
    origin      text        NOT NULL,
    key_names   text[]      NOT NULL,
    key_value   text        NOT NULL,
    began_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    unknown_before timestamptz,
    PRIMARY KEY (schema_name, table_name)
);
COMMENT ON TABLE oa.revised_tables IS 'The tables of which there are revisions.';
COMMENT ON COLUMN oa.revised_tables.relation IS 'The table, in the database "origin": a number means another table elsewhere, as after a logical restore, and then the name counts.';
COMMENT ON COLUMN oa.revised_tables.key_names IS 'The parts of oa.revisions.key.';
COMMENT ON COLUMN oa.revised_tables.key_value IS 'SQL that gives the key of a row oa_row.';
COMMENT ON COLUMN oa.revised_tables.unknown_before IS 'As of an earlier time the table cannot be given: revisions were removed, or have another key.';
CREATE TABLE oa.revisions_default PARTITION OF oa.revisions DEFAULT;

-- As before, and oa.revisions, whose partitions are of times instead of ids.
CREATE OR REPLACE FUNCTION oa.ensure_partitions(around timestamptz DEFAULT now()) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    month timestamp;
    parent text;
    child text;
    lower timestamptz;
    upper timestamptz;
    made integer := 0;
BEGIN
    FOR month IN SELECT generate_series(date_trunc('month', around AT TIME ZONE 'UTC'),
                                        date_trunc('month', around AT TIME ZONE 'UTC') + interval '2 months', interval '1 month')
    LOOP
        lower := month AT TIME ZONE 'UTC';
        upper := (month + interval '1 month') AT TIME ZONE 'UTC';
        FOREACH parent IN ARRAY ARRAY['runs', 'attempts', 'raw', 'quality', 'revisions'] LOOP
            child := parent || to_char(month, '_YYYY_MM');
            CONTINUE WHEN to_regclass('oa.' || child) IS NOT NULL;
            -- Two programs at once: the second waits here and then finds it made.
            PERFORM FROM oa.locks WHERE name = 'partitions' FOR UPDATE;
            CONTINUE WHEN to_regclass('oa.' || child) IS NOT NULL;
            BEGIN
                IF parent = 'revisions' THEN
                    EXECUTE format('CREATE TABLE oa.%I PARTITION OF oa.revisions FOR VALUES FROM (%L) TO (%L)', child, lower, upper);
                ELSE
                    EXECUTE format('CREATE TABLE oa.%I PARTITION OF oa.%I FOR VALUES FROM (%L) TO (%L)', child, parent,
                                   oa.uuid_floor(lower), oa.uuid_floor(upper));
                END IF;
                made := made + 1;
            EXCEPTION WHEN check_violation THEN
                NULL;
            END;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$;
SELECT oa.ensure_partitions();

-- Whoever may write down what came of a run may write revisions. Reading is another matter: old rows are the service's data, which not
-- everybody may see who may read the run log.
DO $$
DECLARE
    role text;
BEGIN
    FOR role IN
        SELECT DISTINCT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'oa.quality'::regclass AND a.privilege_type = 'INSERT' AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT INSERT ON oa.revisions TO %s', role);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE ON oa.revised_tables TO %s', role);
    END LOOP;
END
$$;

-- The parts of a unique index: name and type, the expression itself, the one whose value stands in oa.revisions.key, and the one that
-- gives the part back from there (of a row r). JSON shows a timestamptz in the session's zone, so in a key it is in UTC.
CREATE FUNCTION oa.key_parts(index oid, OUT name text, OUT type text, OUT expression text, OUT value text, OUT comparable text, OUT given text,
                             OUT nullable boolean) RETURNS SETOF record
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS
$$
    SELECT p.name, p.type, p.expression, CASE WHEN p.zoned THEN format('(%s AT TIME ZONE ''UTC'')', p.expression) ELSE p.expression END,
           CASE WHEN p.structured THEN format('to_jsonb(%s)', p.expression) WHEN p.textual THEN format('(%s)::text COLLATE "C"', p.expression) ELSE format('(%s)%s', p.expression, p.collated) END,
           CASE WHEN p.zoned THEN format('((r.key ->> %L)::timestamp AT TIME ZONE ''UTC'')', p.name) WHEN p.structured THEN format('(r.key -> %L)', p.name)
                WHEN p.textual THEN format('(r.key ->> %L) COLLATE "C"', p.name)
                ELSE format('(r.key ->> %L)::%s%s', p.name, p.type, p.collated) END,
           p.nullable
    FROM (SELECT n, coalesce(a.attname::text, CASE WHEN d.text LIKE '(%)' THEN substr(d.text, 2, length(d.text) - 2) ELSE d.text END) AS name,
                 format_type(k.atttypid, -1) AS type, coalesce(quote_ident(a.attname), d.text) AS expression,
                 k.atttypid = 'timestamptz'::regtype AS zoned,
                 t.typcategory IN ('A', 'C') OR k.atttypid IN ('json'::regtype, 'jsonb'::regtype) AS structured,
                 -- Equal is what has the same bytes, as in oa.revisions.key, also where the index takes more for equal (citext); and there is no need to
                 -- sort as people do.
                 t.typcategory = 'S' AND t.typtype = 'b' AND k.atttypid <> 'bpchar'::regtype AS textual,
                 CASE WHEN k.atttypid = 'bpchar'::regtype THEN ' COLLATE "C"' ELSE '' END AS collated,
                 NOT coalesce(a.attnotnull, false) AS nullable
          FROM pg_index i CROSS JOIN LATERAL generate_series(1, i.indnkeyatts::integer) n
          JOIN pg_attribute k ON k.attrelid = i.indexrelid AND k.attnum = n
          JOIN pg_type t ON t.oid = k.atttypid
          CROSS JOIN LATERAL (SELECT pg_get_indexdef(i.indexrelid, n, true)) d (text)
          LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[n - 1] AND i.indkey[n - 1] <> 0
          WHERE i.indexrelid = index) p
    ORDER BY p.n
$$;
COMMENT ON FUNCTION oa.key_parts IS 'The parts of a unique index, as oa.revisions.key has them.';

-- SQL for the key of a row oa_row. A unique index takes NULLs for different unless it says otherwise: such a row is named by its primary
-- key besides, or by all of it.
CREATE FUNCTION oa.key_value(index oid) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS
$$
    SELECT CASE WHEN i.indnullsnotdistinct OR k.missing IS NULL THEN k.key
                ELSE format('CASE WHEN %s THEN %s || jsonb_build_object(''oa_row'', %s) ELSE %s END', k.missing, k.key, coalesce(p.key, 'to_jsonb(oa_row)'), k.key) END
    FROM pg_index i
    CROSS JOIN LATERAL (SELECT format('jsonb_build_object(%s)', string_agg(format('%L, %s', name, value), ', ')),
                               string_agg(format('(%s) IS NULL', expression), ' OR ') FILTER (WHERE nullable)
                        FROM oa.key_parts(i.indexrelid)) k (key, missing)
    LEFT JOIN LATERAL (SELECT format('jsonb_build_object(%s)', string_agg(format('%L, %s', o.name, o.value), ', '))
                       FROM pg_index j, oa.key_parts(j.indexrelid) o WHERE j.indrelid = i.indrelid AND j.indisprimary HAVING count(*) > 0) p (key) ON true
    WHERE i.indexrelid = index
$$;

-- This database: numbers of tables mean nothing in another one.
CREATE FUNCTION oa.origin() RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    database text := (SELECT d.oid FROM pg_database d WHERE d.datname = current_database());
BEGIN
    IF has_function_privilege('pg_control_system()', 'EXECUTE') THEN
        RETURN (SELECT format('%s/%s', s.system_identifier, database) FROM pg_control_system() s);
    END IF;
    RETURN database;
END
$$;

-- Under which name a table's revisions stand. SECURITY DEFINER: whoever reads the table need not read the list.
CREATE FUNCTION oa.revised_table(relation oid) RETURNS oa.revised_tables
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
    SELECT r FROM oa.revised_tables r, pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = $1
      AND (r.relation = c.oid AND r.origin = oa.origin()
           OR r.schema_name = n.nspname AND r.table_name = c.relname
              AND (r.origin <> oa.origin() OR NOT EXISTS (SELECT FROM pg_class o WHERE o.oid = r.relation)))
    ORDER BY r.relation = c.oid AND r.origin = oa.origin() DESC LIMIT 1
$$;
COMMENT ON FUNCTION oa.revised_table IS 'The row of oa.revised_tables that is about a table.';

-- The unique index by which a table's rows are followed: that of its revisions, else a natural key before the primary one.
CREATE FUNCTION oa.revised_index(relation oid) RETURNS oid
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS
$$
    SELECT i.indexrelid FROM pg_index i
    WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
    ORDER BY ARRAY(SELECT p.name FROM oa.key_parts(i.indexrelid) p) = (SELECT t.key_names FROM oa.revised_table($1) t) DESC NULLS LAST, i.indisprimary, i.indexrelid
    LIMIT 1
$$;

-- Before revisions of a table are written, whose key is that unique index. Gives the name under which they stand, and SQL for the key.
CREATE FUNCTION oa.begin_revisions(relation oid, index oid) RETURNS oa.revised_tables
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    known oa.revised_tables := oa.revised_table(relation);
    names text[] := ARRAY(SELECT p.name FROM oa.key_parts(index) p);
    value text := oa.key_value(index);
    here  text := oa.origin();
    its_schema text;
    its_name   text;
BEGIN
    IF known.relation = relation AND known.origin = here AND known.key_names = names AND known.key_value = value THEN
        RETURN known;
    END IF;
    SELECT n.nspname, c.relname INTO its_schema, its_name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation;
    IF known.relation IS NULL AND EXISTS (SELECT FROM oa.revised_tables t WHERE t.schema_name = its_schema AND t.table_name = its_name) THEN
        -- The name is that of another table's revisions, which had it before.
        its_name := format('%s (%s)', its_name, relation);
    END IF;
    INSERT INTO oa.revised_tables AS t (schema_name, table_name, relation, origin, key_names, key_value)
    VALUES (coalesce(known.schema_name, its_schema), coalesce(known.table_name, its_name), relation, here, names, value)
    ON CONFLICT (schema_name, table_name) DO UPDATE SET relation = excluded.relation, origin = excluded.origin, key_value = excluded.key_value,
        unknown_before = CASE WHEN t.key_names = excluded.key_names THEN t.unknown_before ELSE clock_timestamp() END, key_names = excluded.key_names
    RETURNING * INTO known;
    RETURN known;
END
$$;

-- SQL that writes the revisions between two states of rows ($1: schema_name, $2: table_name, $3: run, $4: role, $5: seq, null: the next). Each is an item of FROM;
-- null: no rows.
CREATE FUNCTION oa.revision_statement(key text, old_rows text, new_rows text) RETURNS text
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS
$$
    SELECT format(
        'INSERT INTO oa.revisions (schema_name, table_name, key, operation, old_row, run_id, role_name, at, seq)
         SELECT $1, $2, coalesce(o.key, n.key), CASE WHEN o.key IS NULL THEN ''insert'' WHEN n.key IS NULL THEN ''delete'' ELSE ''update'' END,
                o.oa_row::json, $3, $4, (SELECT clock_timestamp()), (SELECT coalesce($5, oa.next_in_order()))
         FROM (SELECT r.*, %1$s AS oa_number FROM (%2$s) r) o FULL JOIN (SELECT r.*, %1$s AS oa_number FROM (%3$s) r) n
           ON o.key = n.key AND o.oa_number = n.oa_number
         WHERE o.oa_row IS DISTINCT FROM n.oa_row',
        -- Rows that are named by all of themselves may be equal, and each of them counts.
        CASE WHEN strpos(key, 'to_jsonb(oa_row)') > 0 THEN 'CASE WHEN r.key ? ''oa_row'' THEN row_number() OVER (PARTITION BY r.key) ELSE 1 END' ELSE '1' END,
        CASE WHEN old_rows IS NULL THEN 'SELECT NULL::jsonb AS key, NULL AS oa_row WHERE false'
             ELSE format('SELECT %s AS key, row_to_json(oa_row)::text AS oa_row FROM %s oa_row', key, old_rows) END,
        CASE WHEN new_rows IS NULL THEN 'SELECT NULL::jsonb AS key, NULL AS oa_row WHERE false'
             ELSE format('SELECT %s AS key, row_to_json(oa_row)::text AS oa_row FROM %s oa_row', key, new_rows) END)
$$;

-- Revisions of whatever changes a table: SQL by hand, another application. The run, where one says so (oa.run_id), else the role. For all
-- who may write the table, whatever they may do in schema oa.
CREATE FUNCTION oa.audit() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET extra_float_digits = 1 SET intervalstyle = postgres SET datestyle = iso AS
$$
DECLARE
    relation oid := coalesce(pg_partition_root(TG_RELID), TG_RELID);
    known    oa.revised_tables := oa.revised_table(relation);
    index    oid := oa.revised_index(relation);
    run      uuid;
    old_rows text;
    new_rows text;
    depth    integer := pg_trigger_depth();
BEGIN
    -- A statement in a trigger is noted before the one that fired it, whose rows it may have changed again: the outer one's place in the order is
    -- kept for it. Each begins without one.
    IF TG_WHEN = 'BEFORE' AND TG_OP <> 'TRUNCATE' THEN
        PERFORM set_config('oa.order_' || depth, '', true);
        RETURN NULL;
    END IF;
    FOR outer_depth IN 1 .. depth - 1 LOOP
        IF coalesce(current_setting('oa.order_' || outer_depth, true), '') = '' THEN
            PERFORM set_config('oa.order_' || outer_depth, oa.next_in_order()::text, true);
        END IF;
    END LOOP;
    IF current_setting('oa.run_id', true) ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN
        run := current_setting('oa.run_id', true);
    END IF;
    IF TG_OP = 'TRUNCATE' THEN
        IF NOT has_table_privilege(TG_RELID, 'SELECT') OR row_security_active(TG_RELID) THEN
            RAISE EXCEPTION 'the rows of % are kept before it is emptied, but role %, which owns the audit, may not read all of them; as the owner of the table: GRANT SELECT ON % TO %; or remove the rows with DELETE',
                TG_RELID::regclass, current_user, TG_RELID::regclass, quote_ident(current_user)
                USING ERRCODE = 'insufficient_privilege';
        END IF;
        PERFORM set_config('oa.order_' || depth, '', true);
        -- A partition with this trigger notes its own rows.
        old_rows := format('(SELECT t.* FROM %s t WHERE t.tableoid = %s OR NOT EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = t.tableoid AND g.tgname = %L))',
                           TG_RELID::regclass, TG_RELID, TG_NAME);
    ELSIF TG_OP <> 'INSERT' THEN
        old_rows := 'oa_old_rows';
    END IF;
    IF TG_OP IN ('INSERT', 'UPDATE') THEN
        new_rows := 'oa_new_rows';
    END IF;
    IF TG_OP = 'UPDATE' AND EXISTS (SELECT FROM pg_constraint c WHERE c.conrelid = relation AND c.confrelid = relation AND c.contype = 'f') THEN
        -- What the table's reference to itself changes is in the same two tables: of a row that is changed twice the state between is in both.
        SELECT format(f.text, 'oa_old_rows', 'oa_new_rows'), format(f.text, 'oa_new_rows', 'oa_old_rows') INTO old_rows, new_rows
        FROM (SELECT '(SELECT (a.one).* FROM (SELECT t AS one, row_to_json(t)::text AS text, row_number() OVER (PARTITION BY row_to_json(t)::text) AS n FROM %s t) a
                       WHERE NOT EXISTS (SELECT FROM (SELECT row_to_json(t)::text AS text, row_number() OVER (PARTITION BY row_to_json(t)::text) AS n FROM %s t) b
                                         WHERE b.text = a.text AND b.n = a.n))') f (text);
    END IF;
    -- Within a transaction that makes the table's indexes again its key is the one it had.
    IF index IS NOT NULL AND (known.relation IS NULL OR ARRAY(SELECT p.name FROM oa.key_parts(index) p) = known.key_names) THEN
        known := oa.begin_revisions(relation, index);
    ELSE
        -- Not what stands in oa.revised_tables: this runs with the rights of the schema's owner, and others may write that table.
        known.key_value := nullif(TG_ARGV[0], '');
    END IF;
    IF known.relation IS NULL OR known.key_value IS NULL THEN
        RAISE EXCEPTION 'table % has no unique index, so changes of its rows cannot be kept; create one, or end the audit: oa-migrate init --no-audit', relation::regclass
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    EXECUTE oa.revision_statement(known.key_value, old_rows, new_rows)
        USING known.schema_name, known.table_name, run, CASE WHEN run IS NULL THEN session_user::text END, nullif(current_setting('oa.order_' || depth, true), '')::bigint;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION oa.audit IS 'Trigger that keeps the revisions of a table whoever changes it: oa-migrate init --audit.';

-- Sets the triggers of a table and of its partitions; with the rights of the caller.
CREATE FUNCTION oa.start_audit(relation regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    one regclass;
    key text := coalesce(oa.key_value(oa.revised_index(relation)), '');
BEGIN
    FOR one IN SELECT relation UNION SELECT t.relid FROM pg_partition_tree(relation) t LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = one AND t.tgname = 'oa_audit_insert');
        EXECUTE format('CREATE TRIGGER oa_audit_insert AFTER INSERT ON %s REFERENCING NEW TABLE AS oa_new_rows FOR EACH STATEMENT EXECUTE FUNCTION oa.audit(%L)', one, key);
        EXECUTE format('CREATE TRIGGER oa_audit_update AFTER UPDATE ON %s REFERENCING OLD TABLE AS oa_old_rows NEW TABLE AS oa_new_rows FOR EACH STATEMENT EXECUTE FUNCTION oa.audit(%L)', one, key);
        EXECUTE format('CREATE TRIGGER oa_audit_delete AFTER DELETE ON %s REFERENCING OLD TABLE AS oa_old_rows FOR EACH STATEMENT EXECUTE FUNCTION oa.audit(%L)', one, key);
        EXECUTE format('CREATE TRIGGER oa_audit_begin BEFORE INSERT OR UPDATE OR DELETE ON %s FOR EACH STATEMENT EXECUTE FUNCTION oa.audit()', one);
        EXECUTE format('CREATE TRIGGER oa_audit_truncate BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION oa.audit(%L)', one, key);
    END LOOP;
END
$$;
CREATE FUNCTION oa.stop_audit(relation regclass) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    one    record;
    active boolean := false;
BEGIN
    FOR one IN SELECT t.tgrelid::regclass AS its_table, t.tgname FROM pg_trigger t
               WHERE t.tgname IN ('oa_audit_begin', 'oa_audit_insert', 'oa_audit_update', 'oa_audit_delete', 'oa_audit_truncate')
                 AND t.tgrelid IN (SELECT relation UNION SELECT p.relid FROM pg_partition_tree(relation) p)
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', one.tgname, one.its_table);
        active := true;
    END LOOP;
    RETURN active;
END
$$;
CREATE FUNCTION oa.is_audited(relation oid) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS
$$
    SELECT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = $1 AND t.tgname = 'oa_audit_update' AND t.tgenabled IN ('O', 'A')
                   AND t.tgfoid = 'oa.audit()'::regprocedure)
$$;

-- What differs between two states of some rows of a table: items of FROM. Its own triggers note that themselves, and rows without a key
-- cannot be followed.
CREATE FUNCTION oa.note_difference(relation regclass, old_rows text, new_rows text, run uuid) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET intervalstyle = postgres SET datestyle = iso AS
$$
DECLARE
    index oid := oa.revised_index(relation);
    known oa.revised_tables;
BEGIN
    IF index IS NOT NULL AND NOT oa.is_audited(relation) THEN
        known := oa.begin_revisions(relation, index);
        EXECUTE oa.revision_statement(known.key_value, old_rows, new_rows) USING known.schema_name, known.table_name, run, NULL::text, NULL::bigint;
    END IF;
END
$$;

-- One table has taken another's place (null: it was gone): what that changed, and the revisions go on under the same name. Only where there are revisions
-- already; gives how many were written. Where the rows of the two cannot be told by one key, times before are not known any more.
CREATE FUNCTION oa.replace_table(was regclass, is_now regclass, run uuid) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET intervalstyle = postgres SET datestyle = iso AS
$$
DECLARE
    known   oa.revised_tables := oa.revised_table(was);
    index   oid;
    written bigint;
BEGIN
    IF oa.is_audited(was) THEN
        PERFORM oa.start_audit(is_now);
    END IF;
    IF known.relation IS NULL THEN
        known := oa.revised_table(is_now);
    END IF;
    IF known.relation IS NULL THEN
        RETURN 0;
    END IF;
    UPDATE oa.revised_tables t SET relation = is_now, origin = oa.origin() WHERE t.schema_name = known.schema_name AND t.table_name = known.table_name;
    index := oa.revised_index(is_now);
    IF was IS NOT NULL AND index IS NOT NULL AND ARRAY(SELECT p.name FROM oa.key_parts(index) p) = known.key_names THEN
        known := oa.begin_revisions(is_now, index);
        BEGIN
            EXECUTE oa.revision_statement(known.key_value, was::text, is_now::text) USING known.schema_name, known.table_name, run, NULL::text, NULL::bigint;
            GET DIAGNOSTICS written = ROW_COUNT;
            RETURN written;
        EXCEPTION WHEN undefined_column OR undefined_function OR datatype_mismatch OR data_exception THEN
            NULL;
        END;
    END IF;
    UPDATE oa.revised_tables t SET unknown_before = clock_timestamp() WHERE t.schema_name = known.schema_name AND t.table_name = known.table_name;
    RETURN 0;
END
$$;

-- SECURITY DEFINER: whoever reads revisions need not read that table.
CREATE FUNCTION oa.misdated_until(at_time timestamptz) RETURNS bigint
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
    SELECT coalesce(max(s.seq), 0) FROM oa.clock_steps s WHERE s.back_to <= at_time
$$;
COMMENT ON FUNCTION oa.misdated_until IS 'The server''s clock went back to that time or an earlier one: what it had dated later until then (seq) was there by that time.';

CREATE FUNCTION oa.has_revisions(its_schema text, its_table text, after timestamptz) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS
$$
    SELECT EXISTS (SELECT FROM oa.revisions r WHERE r.schema_name = its_schema AND r.table_name = its_table AND r.at > after)
$$;

-- SQL for a table as it was known at a time: rows not changed since, and of each changed one the oldest revision after that time. Names
-- and expressions come from the catalogs alone.
CREATE FUNCTION oa.as_of_query(relation regclass, at_time timestamptz) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    known oa.revised_tables := oa.revised_table(relation);
    key   record;
    whole boolean;
BEGIN
    -- What is there now would be taken for what was known then.
    IF at_time IS NULL THEN
        RAISE EXCEPTION 'as of which time? It is null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF known.relation IS NULL AND (oa.revised_table(pg_partition_root(relation))).relation IS NOT NULL THEN
        RAISE EXCEPTION '% is a partition, and revisions are those of its table: ask for that, with a condition', relation
            USING ERRCODE = 'wrong_object_type';
    END IF;
    IF row_security_active(relation) THEN
        RAISE EXCEPTION 'you see only some rows of % (row security), and revisions do not know which', relation
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF known.unknown_before > at_time THEN
        RAISE EXCEPTION 'revisions of % are complete since % only (older ones were removed, or its unique index was changed)', relation, known.unknown_before
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF NOT oa.has_revisions(known.schema_name, known.table_name, at_time) THEN
        RETURN format('SELECT oa_row.* FROM %s oa_row', relation);
    END IF;
    SELECT string_agg(format('CASE WHEN NOT r.key ? ''oa_row'' THEN %s END AS oa_k%s', p.given, p.n), ', ') AS given, string_agg(format('oa_k%s', p.n), ', ') AS names,
           string_agg(format('l.oa_k%s = %s', p.n, p.comparable), ' AND ') AS same,
           string_agg(format('(%s) IS NOT NULL', p.expression), ' AND ') FILTER (WHERE p.nullable) AS complete,
           string_agg(format('r.key -> %L = ''null''', p.name), ' OR ') AS missing, oa.key_value(min(i.indexrelid::bigint)::oid) AS value,
           ARRAY(SELECT a.attname FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped) AS columns INTO key
    FROM (SELECT i.indexrelid FROM pg_index i
          WHERE i.indrelid = relation AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
            AND ARRAY(SELECT p.name FROM oa.key_parts(i.indexrelid) p) = known.key_names
          LIMIT 1) i, LATERAL (SELECT *, row_number() OVER () AS n FROM oa.key_parts(i.indexrelid)) p;
    IF key.names IS NULL THEN
        RAISE EXCEPTION 'the unique index of % was changed since %: its rows cannot be followed back', relation, at_time
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    whole := key.complete IS NOT NULL AND strpos(key.value, 'to_jsonb(oa_row)') > 0;
    -- Rows whose key has a NULL, and rows that were removed as duplicates, are told apart by the whole key. Their parts are NULL, so that no
    -- filter hides from the planner how many rows are joined.
    --
    -- A row that only all of itself names (oa_whole) has another name after a column was added or dropped, and equal rows have the same one. They
    -- are counted by the columns that all such revisions have: of those that are there now and those that were changed or removed since, as many
    -- are too many as came since then, and these are the latest ones.
    RETURN format(
        'WITH oa_later AS MATERIALIZED (
             SELECT DISTINCT ON (oa_key, %1$s) oa_key, %1$s, oa_old
             FROM (SELECT CASE WHEN r.key ? ''oa_row''%2$s THEN r.key END AS oa_key, %3$s, r.old_row AS oa_old, r.seq FROM oa.revisions r
                   WHERE r.schema_name = %4$L AND r.table_name = %5$L AND r.at > %6$L AND r.seq > (SELECT oa.misdated_until(%6$L))%10$s) r ORDER BY oa_key, %1$s, seq
         )%11$s
         SELECT oa_row.* FROM %7$s oa_row WHERE NOT EXISTS (SELECT FROM oa_later l WHERE %8$s)%9$s
         UNION ALL
         SELECT (o.oa_row).* FROM (SELECT json_populate_record(NULL::%7$s, l.oa_old) AS oa_row FROM oa_later l WHERE l.oa_old IS NOT NULL OFFSET 0) o%12$s',
        key.names, CASE WHEN key.complete IS NULL THEN '' ELSE ' OR ' || key.missing END, key.given,
        known.schema_name, known.table_name, at_time, relation, key.same,
        CASE WHEN key.complete IS NULL THEN ''
             WHEN whole THEN format(' AND ((%s) OR NOT EXISTS (SELECT FROM oa_whole))', key.complete)
             ELSE format(' AND ((%s) OR %s NOT IN (SELECT oa_key FROM oa_later l WHERE oa_key IS NOT NULL))', key.complete, key.value) END,
        CASE WHEN whole THEN format(' AND NOT (r.key ? ''oa_row'' AND (%s))', key.missing) ELSE '' END,
        CASE WHEN whole THEN format(
            ', oa_whole AS MATERIALIZED (
             SELECT r.key -> ''oa_row'' AS oa_named, r.operation <> ''delete'' AS oa_came, r.old_row AS oa_old, r.seq FROM oa.revisions r
             WHERE r.schema_name = %1$L AND r.table_name = %2$L AND r.at > %3$L AND r.seq > (SELECT oa.misdated_until(%3$L)) AND r.key ? ''oa_row'' AND (%4$s)
         ), oa_unknown AS MATERIALIZED (
             SELECT ARRAY(SELECT c FROM unnest(%5$L::text[]) c WHERE EXISTS (SELECT FROM oa_whole w WHERE NOT w.oa_named ? c)) AS columns
         )', known.schema_name, known.table_name, at_time, key.missing, key.columns) ELSE '' END,
        CASE WHEN whole THEN format(
            '
         UNION ALL
         SELECT (o.oa_row).* FROM (
             SELECT i.oa_row FROM (
                 SELECT e.oa_row, e.oa_is, row_number() OVER (PARTITION BY e.oa_named, e.oa_is ORDER BY e.seq) AS oa_number,
                        count(*) FILTER (WHERE e.oa_is) OVER named - count(*) FILTER (WHERE NOT e.oa_is) OVER named AS oa_many
                 FROM (SELECT oa_row, to_jsonb(oa_row) - u.columns AS oa_named, NULL::bigint AS seq, true AS oa_is FROM %1$s oa_row, oa_unknown u
                       WHERE NOT (%2$s) AND EXISTS (SELECT FROM oa_whole)
                       UNION ALL
                       SELECT CASE WHEN s.oa_is THEN json_populate_record(NULL::%1$s, w.oa_old) END,
                              to_jsonb(jsonb_populate_record(NULL::%1$s, w.oa_named)) - u.columns, w.seq, s.oa_is
                       FROM oa_whole w, oa_unknown u, (VALUES (true), (false)) s (oa_is)
                       WHERE CASE WHEN s.oa_is THEN w.oa_old IS NOT NULL ELSE w.oa_came END) e
                 WINDOW named AS (PARTITION BY e.oa_named)) i
             WHERE i.oa_is AND i.oa_number <= i.oa_many OFFSET 0) o', relation, key.complete) ELSE '' END);
END
$$;
COMMENT ON FUNCTION oa.as_of_query IS 'The query of oa.as_of, for views and for conditions that should use the table''s indexes.';

-- The planner knows nothing of the values of a CTE and would rather sort the table than hash the changes.
CREATE FUNCTION oa.as_of(of_table anyelement, at_time timestamptz) RETURNS SETOF anyelement
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET work_mem = '64MB' SET enable_mergejoin = off SET jit = off AS
$$
DECLARE
    relation regclass := (SELECT c.oid FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid WHERE t.oid = pg_typeof(of_table) AND c.relkind IN ('r', 'p'));
BEGIN
    IF relation IS NULL THEN
        RAISE EXCEPTION 'oa.as_of is of a table: oa.as_of(NULL::TABLE, TIME)' USING ERRCODE = 'wrong_object_type';
    END IF;
    RETURN QUERY EXECUTE oa.as_of_query(relation, at_time);
END
$$;
COMMENT ON FUNCTION oa.as_of IS 'The rows of a table as they were known at a time: SELECT * FROM oa.as_of(NULL::market_full_view, ''2025-12-01 16:00+08'').';

-- Whole months before that time are dropped; gives the partitions. Tables are not known then as of earlier times. For whoever may delete
-- revisions, without being the owner of the partitions.
CREATE FUNCTION oa.prune_revisions(before timestamptz) RETURNS SETOF text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    month_start timestamp := date_trunc('month', before AT TIME ZONE 'UTC');
    child       text;
    any_gone    boolean;
    caller      text := CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END;
BEGIN
    IF NOT has_table_privilege(caller, 'oa.revisions', 'DELETE') THEN
        RAISE EXCEPTION 'role % may not remove revisions; as their owner: GRANT DELETE ON oa.revisions TO %', caller, quote_ident(caller)
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    DELETE FROM oa.revisions_default WHERE at < month_start AT TIME ZONE 'UTC';
    any_gone := FOUND;
    FOR child IN SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                 WHERE i.inhparent = 'oa.revisions'::regclass AND c.relname ~ '^revisions_[0-9]{4}_[0-9]{2}$' ORDER BY 1
    LOOP
        EXIT WHEN to_date(substr(child, 11), 'YYYY_MM') >= month_start;
        EXECUTE format('DROP TABLE oa.%I', child);
        any_gone := true;
        RETURN NEXT child;
    END LOOP;
    IF any_gone THEN
        UPDATE oa.revised_tables t SET unknown_before = month_start AT TIME ZONE 'UTC'
        WHERE t.began_at < month_start AT TIME ZONE 'UTC' AND coalesce(t.unknown_before, '-infinity') < month_start AT TIME ZONE 'UTC';
    END IF;
END
$$;
