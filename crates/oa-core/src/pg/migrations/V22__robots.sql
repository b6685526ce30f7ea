-- How much a robot was sent of late, by all programs of all machines: robots refuse whoever is too fast, and then everybody for minutes.
-- A robot is known by a hash of its address, so that two channels of one robot share its limit.
CREATE TABLE oa.robots (
    robot           text          PRIMARY KEY,
    sent_at         timestamptz[] NOT NULL DEFAULT '{}',
    gathering_until timestamptz
);
COMMENT ON TABLE oa.robots IS 'One row a robot (or mail server, webhook), by a hash of its address: when it was sent something within the last two minutes.';
COMMENT ON COLUMN oa.robots.gathering_until IS 'A program waits until then for what else comes, to send all of it as one message.';

-- Whoever may use channels may use robots.
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS role, a.privilege_type
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'oa.channels'::regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s ON oa.robots TO %s', held.privilege_type, held.role);
    END LOOP;
END
$$;
