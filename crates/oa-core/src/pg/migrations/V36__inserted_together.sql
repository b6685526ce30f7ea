-- Of rows that a run adds by the thousand each had a revision of its own, which took as long as storing the rows. Now all of a statement have
-- one revision, with their keys.
ALTER TABLE oa.revisions ADD COLUMN keys jsonb[];
ALTER TABLE oa.revisions ALTER COLUMN key DROP NOT NULL;
COMMENT ON TABLE oa.revisions IS 'One row per change of a stored row: what it was before, which run changed it, and when. Of many rows that one statement inserted one row for all of them.';
COMMENT ON COLUMN oa.revisions.key IS 'The natural key: each column or expression of its unique index, by name, with its value; oa_row: what else names a row whose key is NULL. Null: see keys.';
COMMENT ON COLUMN oa.revisions.keys IS 'The natural keys of rows that were inserted together.';
CREATE INDEX revisions_keys ON oa.revisions (schema_name, table_name, at) WHERE keys IS NOT NULL;

-- Without SECURITY DEFINER and settings of its own, so that it becomes part of the query that asks it, and sees what the caller may see.
CREATE FUNCTION oa.revisions_since(its_schema text, its_table text, after timestamptz, OUT key jsonb, OUT operation text, OUT old_row json, OUT seq bigint)
    RETURNS SETOF record LANGUAGE sql STABLE AS
$$
    SELECT r.key, r.operation, r.old_row, r.seq FROM oa.revisions r
    WHERE r.schema_name = its_schema AND r.table_name = its_table AND r.at > after AND r.keys IS NULL
    UNION ALL
    SELECT k.key, r.operation, r.old_row, r.seq FROM oa.revisions r CROSS JOIN LATERAL unnest(r.keys) k (key)
    WHERE r.schema_name = its_schema AND r.table_name = its_table AND r.at > after AND r.keys IS NOT NULL
$$;
COMMENT ON FUNCTION oa.revisions_since IS 'The revisions of a table (its names are those of oa.revised_tables) after a time, one for each row and change.';

-- Views that an older version made of oa.as_of_query read the table itself, and would not see such a revision: while there is one, or a function
-- that is one (BEGIN ATOMIC), each row has its own as before.
CREATE FUNCTION oa.may_insert_together() RETURNS boolean
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    RETURN NOT EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_class'::regclass AND d.classid IN ('pg_rewrite'::regclass, 'pg_proc'::regclass)
                       AND d.refobjid IN (SELECT 'oa.revisions'::regclass UNION ALL SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = 'oa.revisions'::regclass));
END
$$;
COMMENT ON FUNCTION oa.may_insert_together IS 'Whether rows that are inserted together may have one revision: no view, and no function with BEGIN ATOMIC, reads oa.revisions itself.';

-- As before, by that function.
DO $$
DECLARE
    was text := pg_get_functiondef('oa.as_of_query(regclass, timestamptz)'::regprocedure);
    is_now text := regexp_replace(regexp_replace(was,
        'FROM oa\.revisions r\s+WHERE r\.schema_name = %4\$L AND r\.table_name = %5\$L AND r\.at > %6\$L AND', 'FROM oa.revisions_since(%4$L, %5$L, %6$L) r WHERE'),
        'FROM oa\.revisions r\s+WHERE r\.schema_name = %1\$L AND r\.table_name = %2\$L AND r\.at > %3\$L AND', 'FROM oa.revisions_since(%1$L, %2$L, %3$L) r WHERE');
BEGIN
    IF strpos(is_now, 'FROM oa.revisions r') > 0 THEN
        RAISE EXCEPTION 'oa.as_of_query is not as the version before made it';
    END IF;
    EXECUTE is_now;
END
$$;
