-- How long ago a row was written is known without looking at its key: a transaction's number is in each row (xmin). Of a table of which
-- little was changed since a time, most rows are older than any of these changes, and need not be looked up among them.
ALTER TABLE oa.revisions ADD COLUMN oldest_xid xid8;
ALTER TABLE oa.revisions ALTER COLUMN oldest_xid SET DEFAULT pg_snapshot_xmin(pg_current_snapshot());
COMMENT ON COLUMN oa.revisions.oldest_xid IS 'The oldest transaction that went on when this was written: a row that an older one wrote had been there before. Null: written by a version that did not note it.';

-- Numbers of transactions mean nothing in another database, and nothing of a table that was another one.
ALTER TABLE oa.revised_tables ADD COLUMN followed_from bigint NOT NULL DEFAULT oa.next_in_order();
COMMENT ON COLUMN oa.revised_tables.followed_from IS 'Revisions later in the order than this are of the table "relation" in the database "origin".';
CREATE FUNCTION oa.follow_from_now() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    NEW.followed_from := oa.next_in_order();
    RETURN NEW;
END
$$;
CREATE TRIGGER followed_from BEFORE UPDATE ON oa.revised_tables FOR EACH ROW
    WHEN ((OLD.relation, OLD.origin) IS DISTINCT FROM (NEW.relation, NEW.origin)) EXECUTE FUNCTION oa.follow_from_now();

-- As before; but rows of the table that takes the place were written before what differs is noted, maybe long before: only what is noted
-- later says how old a row is that has not changed since.
CREATE OR REPLACE FUNCTION oa.replace_table(was regclass, is_now regclass, run uuid) RETURNS bigint
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
            UPDATE oa.revised_tables t SET followed_from = oa.next_in_order() WHERE t.schema_name = known.schema_name AND t.table_name = known.table_name;
            RETURN written;
        EXCEPTION WHEN undefined_column OR undefined_function OR datatype_mismatch OR data_exception THEN
            NULL;
        END;
    END IF;
    UPDATE oa.revised_tables t SET unknown_before = clock_timestamp() WHERE t.schema_name = known.schema_name AND t.table_name = known.table_name;
    RETURN 0;
END
$$;

-- Which transactions are so old that no row of a table that they wrote was changed since that time; null: not known. Only rows of PostgreSQL's
-- own kind of table have such numbers, and these go round after four thousand million.
CREATE FUNCTION oa.unchanged_before(relation regclass, at_time timestamptz) RETURNS xid
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    known oa.revised_tables := oa.revised_table(relation);
    later record;
BEGIN
    IF known.relation IS DISTINCT FROM relation OR known.origin <> oa.origin()
       OR EXISTS (SELECT FROM pg_partition_tree(relation) p JOIN pg_class c ON c.oid = p.relid LEFT JOIN pg_am a ON a.oid = c.relam
                  WHERE p.isleaf AND a.amname IS DISTINCT FROM 'heap') THEN
        RETURN NULL;
    END IF;
    SELECT bool_and(r.oldest_xid IS NOT NULL) AS noted, min(r.oldest_xid) AS oldest, min(r.seq) AS first INTO later
    FROM oa.revisions r
    WHERE r.schema_name = known.schema_name AND r.table_name = known.table_name AND r.at > at_time;
    IF later.noted AND later.first > known.followed_from
       AND pg_snapshot_xmax(pg_current_snapshot())::text::bigint - later.oldest::text::bigint BETWEEN 0 AND 1000000000 THEN
        RETURN later.oldest::xid;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION oa.unchanged_before IS 'Rows that a transaction before this one wrote have no revision after that time; null: unknown.';

-- As before, with three changes: what an old transaction wrote is not looked up (its parts of the key are NULL, which no revision has, and
-- hash to nothing); the parts of the key are sorted by first, whose texts PostgreSQL compares by their first bytes; and a view that is made
-- while there is nothing to undo yet goes on being right.
CREATE OR REPLACE FUNCTION oa.as_of_query(relation regclass, at_time timestamptz) RETURNS text
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
    IF known.relation IS NULL THEN
        RETURN format('SELECT oa_row.* FROM %s oa_row', relation);
    END IF;
    SELECT string_agg(format('CASE WHEN NOT r.key ? ''oa_row'' THEN %s END AS oa_k%s', p.given, p.n), ', ') AS given, string_agg(format('oa_k%s', p.n), ', ') AS names,
           string_agg(format('l.oa_k%s = CASE WHEN age(oa_row.xmin) > age((SELECT oa.unchanged_before(%L, %L))) THEN NULL ELSE %s END',
                             p.n, relation, at_time, p.comparable), ' AND ') AS same,
           string_agg(format('(%s) IS NOT NULL', p.expression), ' AND ') FILTER (WHERE p.nullable) AS complete,
           string_agg(format('r.key -> %L = ''null''', p.name), ' OR ') AS missing, oa.key_value(min(i.indexrelid::bigint)::oid) AS value,
           ARRAY(SELECT a.attname FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped) AS columns INTO key
    FROM (SELECT i.indexrelid FROM pg_index i
          WHERE i.indrelid = relation AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
            AND ARRAY(SELECT p.name FROM oa.key_parts(i.indexrelid) p) = known.key_names
          LIMIT 1) i, LATERAL (SELECT *, row_number() OVER () AS n FROM oa.key_parts(i.indexrelid)) p;
    IF key.names IS NULL AND NOT oa.has_revisions(known.schema_name, known.table_name, at_time) THEN
        RETURN format('SELECT oa_row.* FROM %s oa_row', relation);
    ELSIF key.names IS NULL THEN
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
             SELECT DISTINCT ON (%1$s, oa_key) oa_key, %1$s, oa_old
             FROM (SELECT CASE WHEN r.key ? ''oa_row''%2$s THEN r.key END AS oa_key, %3$s, r.old_row AS oa_old, r.seq FROM oa.revisions r
                   WHERE r.schema_name = %4$L AND r.table_name = %5$L AND r.at > %6$L AND r.seq > (SELECT oa.misdated_until(%6$L))%10$s) r ORDER BY %1$s, oa_key, seq
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

-- The planner knows nothing of the values of a CTE and would rather sort the table than hash the changes.
CREATE OR REPLACE FUNCTION oa.as_of(of_table anyelement, at_time timestamptz) RETURNS SETOF anyelement
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET work_mem = '64MB' SET enable_mergejoin = off SET jit = off AS
$$
DECLARE
    relation regclass := (SELECT c.oid FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid WHERE t.oid = pg_typeof(of_table) AND c.relkind IN ('r', 'p'));
    known    record;
    query    text;
BEGIN
    IF relation IS NULL THEN
        RAISE EXCEPTION 'oa.as_of is of a table: oa.as_of(NULL::TABLE, TIME)' USING ERRCODE = 'wrong_object_type';
    END IF;
    query := oa.as_of_query(relation, at_time);
    SELECT t.schema_name, t.table_name INTO known FROM oa.revised_table(relation) t;
    IF NOT oa.has_revisions(known.schema_name, known.table_name, at_time) THEN
        query := format('SELECT oa_row.* FROM %s oa_row', relation);
    END IF;
    RETURN QUERY EXECUTE query;
END
$$;

-- A day that is collected once more when it is over (again in a source file) has a slot for that: missed, it is a hole like any other.
ALTER TABLE oa.slots ADD COLUMN again boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN oa.slots.again IS 'Its run collects a day once more that has had its own slots.';
ALTER TABLE oa.tasks ADD COLUMN again text;
COMMENT ON COLUMN oa.tasks.again IS 'When its days are collected once more, as its source file says it.';

-- Closed slots that are old leave with the answers of their runs; what became of each day stays in oa.days. A role that may write the log
-- does this without the right to delete anything else.
CREATE FUNCTION oa.prune_slots(before timestamptz) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    gone bigint;
BEGIN
    IF NOT has_table_privilege(session_user, 'oa.slots', 'UPDATE') THEN
        RAISE insufficient_privilege USING MESSAGE = 'permission denied for table slots';
    END IF;
    DELETE FROM oa.slots s WHERE s.state <> 'open' AND s.due_at < least(before, now() - interval '90 days');
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END
$$;
COMMENT ON FUNCTION oa.prune_slots IS 'Removes closed slots that were due before that time, and none of the last 90 days.';
