-- What the functions of schema oa that act as their owner let others do. Anybody may execute a new function, and make temporary tables. So
-- whoever could only read could have his own table's trigger call one, which then ran what he wrote there as the owner; or call one and keep
-- the locks that it took. After each upgrade, of functions that the upgrading role may change; nothing happens where all is as it should be.
DO $$
DECLARE
    one    record;
    was    text;
    is_now text;
    -- The role that asks, whichever the function acts as.
    caller CONSTANT text := 'CASE current_setting(''role'') WHEN ''none'' THEN session_user::text ELSE current_setting(''role'') END';
BEGIN
    -- To fire, a trigger needs no right; to be made, it does.
    FOR one IN SELECT p.oid::regprocedure AS name, p.oid, p.proowner FROM pg_proc p
               WHERE p.pronamespace = 'oa'::regnamespace AND p.prosecdef AND p.prorettype = 'trigger'::regtype
                 AND pg_has_role(p.proowner, 'USAGE') AND has_function_privilege('public', p.oid, 'EXECUTE')
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', one.name);
        -- Whose tables have it already makes it anew when they are exchanged.
        FOR is_now IN SELECT DISTINCT c.relowner::regrole::text FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
                      WHERE t.tgfoid = one.oid AND NOT t.tgisinternal AND c.relowner <> one.proowner AND c.relpersistence <> 't'
        LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', one.name, is_now);
        END LOOP;
    END LOOP;
    -- They take locks that keep everybody else waiting.
    FOR one IN SELECT p.oid, p.proname, f.otherwise FROM pg_proc p
               JOIN (VALUES ('oa.ensure_partitions(timestamptz)', 'RAISE insufficient_privilege USING MESSAGE = ''permission denied for table runs'''),
                            -- Who only reads has nothing that a wrong clock could make untrue.
                            ('oa.watch_clock()', 'RETURN')) f (name, otherwise) ON p.oid = to_regprocedure(f.name)
               WHERE pg_has_role(p.proowner, 'USAGE')
    LOOP
        was := pg_get_functiondef(one.oid);
        CONTINUE WHEN strpos(was, 'has_table_privilege') > 0;
        is_now := regexp_replace(was, E'\nBEGIN\n',
            format(E'\nBEGIN\n    IF NOT has_table_privilege(%s, ''oa.runs'', ''INSERT'') THEN\n        %s;\n    END IF;\n', caller, one.otherwise));
        IF is_now = was THEN
            RAISE EXCEPTION 'oa.% is not as the version before made it', one.proname;
        END IF;
        EXECUTE is_now;
    END LOOP;
END
$$;
