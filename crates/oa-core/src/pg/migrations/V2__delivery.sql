-- A delivery is given up a day after its first try, not after the alert was made: what waited while this machine was off still
-- deserves its tries.
ALTER TABLE oa.deliveries ADD COLUMN first_try_at timestamptz;

CREATE TABLE oa.channels (
    name         text PRIMARY KEY,
    paused_until timestamptz NOT NULL
);
COMMENT ON TABLE oa.channels IS 'Channels that take nothing for a while, because they said "too fast". Holds for alerts that are made meanwhile too.';

-- Whoever delivers must be able to use it.
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS role, a.privilege_type
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'oa.deliveries'::regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s ON oa.channels TO %s', held.privilege_type, held.role);
    END LOOP;
END
$$;
