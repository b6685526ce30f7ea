-- Two programs that make the partitions of the same month at once: the second one waits for the first, and may still not see what that has
-- made, because a session remembers which names it did not find. Then the table is there, and that is all that was wanted.
DO $$
BEGIN
    EXECUTE replace(pg_get_functiondef('oa.ensure_partitions(timestamptz)'::regprocedure),
                    'EXCEPTION WHEN check_violation THEN',
                    'EXCEPTION WHEN check_violation OR duplicate_table OR unique_violation THEN');
END
$$;
