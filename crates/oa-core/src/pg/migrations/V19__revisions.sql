-- Sites revise their data, and upserts overwrite what was there. The old rows are kept, written in the transaction of the change, so
-- that a table can be read as it was known at any time since. An insert is noted by its key alone: without it nobody could say that a
-- row was not there yet, and whoever tests a strategy on the table would look into the future.
CREATE TABLE oa.revisions (
    schema_name text        NOT NULL,
    table_name  text        NOT NULL,
    key         jsonb       NOT NULL,
    operation   text        NOT NULL CHECK (operation IN ('insert', 'update', 'delete')),
    old_row     jsonb,
    run_id      uuid,
    -- Not now(): of two transactions that change a row one after the other, the later one may have begun first.
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    seq         bigint      NOT NULL DEFAULT oa.next_in_order(),
    CHECK ((operation = 'insert') = (old_row IS NULL))
) PARTITION BY RANGE (at);
COMMENT ON TABLE oa.revisions IS 'One row per change of a stored row: what it was before, which run changed it, and when.';
COMMENT ON COLUMN oa.revisions.key IS 'The natural key: each column or expression of its unique index, by name, with its value.';
COMMENT ON COLUMN oa.revisions.old_row IS 'The whole row before the change; null: there was none.';
COMMENT ON COLUMN oa.revisions.run_id IS 'The run that changed it; null: something else, such as SQL by hand.';
COMMENT ON COLUMN oa.revisions.seq IS 'The order of the changes. Those of one statement have the same, and are of different rows.';
-- Of a row: why it is as it is. A hash, because a key may be longer than a B-tree takes.
CREATE INDEX revisions_key ON oa.revisions USING hash (key);
-- Of a time: rows are written in its order.
CREATE INDEX revisions_at ON oa.revisions USING brin (at) WITH (pages_per_range = 16, autosummarize = on);
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
    END LOOP;
END
$$;

-- The parts of a unique index: name and type, the expression itself, and the one whose value stands in oa.revisions.key: JSON shows a
-- timestamptz in the session's zone, so there it is in UTC.
CREATE FUNCTION oa.key_parts(index oid, OUT name text, OUT type text, OUT expression text, OUT value text) RETURNS SETOF record
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS
$$
    SELECT coalesce(a.attname::text, CASE WHEN d.text LIKE '(%)' THEN substr(d.text, 2, length(d.text) - 2) ELSE d.text END),
           format_type(k.atttypid, -1), e.text, CASE WHEN k.atttypid = 'timestamptz'::regtype THEN format('(%s AT TIME ZONE ''UTC'')', e.text) ELSE e.text END
    FROM pg_index i CROSS JOIN LATERAL generate_series(1, i.indnkeyatts::integer) n
    JOIN pg_attribute k ON k.attrelid = i.indexrelid AND k.attnum = n
    CROSS JOIN LATERAL (SELECT pg_get_indexdef(i.indexrelid, n, true)) d (text)
    LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[n - 1] AND i.indkey[n - 1] <> 0
    CROSS JOIN LATERAL (SELECT coalesce(quote_ident(a.attname), d.text)) e (text)
    WHERE i.indexrelid = index ORDER BY n
$$;
COMMENT ON FUNCTION oa.key_parts IS 'The parts of a unique index, as oa.revisions.key has them.';

-- A table as it was known at a time: rows not changed since, and of each changed one the oldest revision after that time. With the rights
-- of the caller; names and expressions come from the catalogs alone.
CREATE FUNCTION oa.as_of(of_table anyelement, at_time timestamptz) RETURNS SETOF anyelement
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    relation   regclass;
    its_schema text;
    its_name   text;
    names      text[];
    key        text;
BEGIN
    SELECT c.oid, n.nspname, c.relname INTO relation, its_schema, its_name
    FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE t.oid = pg_typeof(of_table) AND c.relkind IN ('r', 'p');
    IF relation IS NULL THEN
        RAISE EXCEPTION 'oa.as_of is of a table: oa.as_of(NULL::TABLE, TIME)' USING ERRCODE = 'wrong_object_type';
    END IF;
    IF row_security_active(relation) THEN
        RAISE EXCEPTION 'you see only some rows of % (row security), and revisions do not know which', relation
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT ARRAY(SELECT jsonb_object_keys(r.key) ORDER BY 1) INTO names
    FROM oa.revisions r WHERE r.schema_name = its_schema AND r.table_name = its_name AND r.at > at_time LIMIT 1;
    IF names IS NULL THEN
        RETURN QUERY EXECUTE format('SELECT * FROM %s', relation);
        RETURN;
    END IF;
    SELECT string_agg(format('%L, %s', p.name, p.value), ', ') INTO key
    FROM (SELECT i.indexrelid FROM pg_index i
          WHERE i.indrelid = relation AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
            AND ARRAY(SELECT p.name FROM oa.key_parts(i.indexrelid) p ORDER BY 1) = names
          LIMIT 1) i, oa.key_parts(i.indexrelid) p;
    IF key IS NULL OR EXISTS (SELECT FROM oa.revisions r WHERE r.schema_name = its_schema AND r.table_name = its_name AND r.at > at_time
                                 AND ARRAY(SELECT jsonb_object_keys(r.key) ORDER BY 1) <> names) THEN
        RAISE EXCEPTION 'the unique index of % was changed since %: its rows cannot be followed back', relation, at_time
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN QUERY EXECUTE format(
        'WITH later AS MATERIALIZED (
             SELECT DISTINCT ON (r.key) r.key, r.old_row FROM oa.revisions r
             WHERE r.schema_name = $1 AND r.table_name = $2 AND r.at > $3 ORDER BY r.key, r.seq
         ), present AS (
             SELECT oa_row, jsonb_build_object(%2$s) AS oa_key FROM %1$s oa_row
         )
         SELECT (p.oa_row).* FROM present p WHERE NOT EXISTS (SELECT FROM later l WHERE l.key = p.oa_key)
         UNION ALL
         SELECT old.* FROM later l CROSS JOIN LATERAL jsonb_populate_record(NULL::%1$s, l.old_row) old WHERE l.old_row IS NOT NULL',
        relation, key) USING its_schema, its_name, at_time;
END
$$;
COMMENT ON FUNCTION oa.as_of IS 'The rows of a table as they were known at a time: SELECT * FROM oa.as_of(NULL::market_full_view, ''2025-12-01 16:00+08'').';
