-- A recovery ends the row of who had taken the trouble on (oa.acks): whoever tells alerts must be able to delete it.
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS role
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'oa.alerts'::regclass AND a.grantee <> c.relowner AND a.privilege_type = 'INSERT'
    LOOP
        EXECUTE format('GRANT DELETE ON oa.acks TO %s', held.role);
    END LOOP;
END
$$;
