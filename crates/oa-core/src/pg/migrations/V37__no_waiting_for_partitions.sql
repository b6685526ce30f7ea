-- The partitions of months to come were made by waiting for whoever reads the run log: behind a dump of hours nothing could start, and a
-- reader of its tables in another order and whoever made them waited for each other. Now that is left to the next start while somebody is
-- there; for a month that has come it still waits.
DO $$
DECLARE
    was text := pg_get_functiondef('oa.ensure_partitions(timestamptz)'::regprocedure);
    is_now text := replace(replace(was,
        'IF parent = ''revisions'' THEN',
        'IF month > date_trunc(''month'', around AT TIME ZONE ''UTC'') THEN
                    EXECUTE format(''LOCK TABLE ONLY oa.%I IN ACCESS EXCLUSIVE MODE NOWAIT'', parent);
                    IF to_regclass(format(''oa.%I'', parent || ''_default'')) IS NOT NULL THEN
                        EXECUTE format(''LOCK TABLE ONLY oa.%I IN ACCESS EXCLUSIVE MODE NOWAIT'', parent || ''_default'');
                    END IF;
                END IF;
                IF parent = ''revisions'' THEN'),
        'EXCEPTION WHEN check_violation OR',
        'EXCEPTION WHEN lock_not_available THEN
                IF month <= date_trunc(''month'', around AT TIME ZONE ''UTC'') THEN
                    RAISE;
                END IF;
            WHEN check_violation OR');
BEGIN
    IF strpos(is_now, 'NOWAIT') = 0 OR strpos(is_now, 'lock_not_available') = 0 THEN
        RAISE EXCEPTION 'oa.ensure_partitions is not as the version before made it';
    END IF;
    EXECUTE is_now;
END
$$;

-- When the clock has gone back all tasks are changed, and others change some of them meanwhile: rows are locked in the order in which all
-- do.
DO $$
DECLARE
    was text := pg_get_functiondef('oa.watch_clock()'::regprocedure);
    is_now text := replace(replace(replace(was,
        'step := shown - now();',
        'step := shown - now();
            PERFORM FROM oa.tasks ORDER BY name FOR NO KEY UPDATE;
            PERFORM FROM oa.deliveries d JOIN oa.alerts a ON a.id = d.alert_id WHERE d.state IN (''pending'', ''sending'') ORDER BY a.seq FOR UPDATE OF d;'),
        'UPDATE oa.watches SET at = now() WHERE at > now();',
        'PERFORM FROM oa.starts WHERE last_at > now() ORDER BY what, host, day FOR UPDATE;
            UPDATE oa.watches SET at = now() WHERE at > now();'),
        'UPDATE oa.incidents SET opened_at = now() WHERE opened_at > now();',
        'PERFORM FROM oa.incidents WHERE opened_at > now() ORDER BY fingerprint FOR UPDATE;
            UPDATE oa.incidents SET opened_at = now() WHERE opened_at > now();');
BEGIN
    IF (SELECT count(*) FROM regexp_matches(is_now, 'PERFORM FROM', 'g')) <> 4 THEN
        RAISE EXCEPTION 'oa.watch_clock is not as the version before made it';
    END IF;
    EXECUTE is_now;
END
$$;
