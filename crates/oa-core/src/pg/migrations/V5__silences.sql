-- What people say about troubles: seen, or not to be told of for a while.
CREATE TABLE oa.acks (
    fingerprint text PRIMARY KEY,
    by          text        NOT NULL,
    note        text        NOT NULL DEFAULT '',
    acked_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE oa.acks IS 'Troubles that a person has taken on: not repeated until they are over, which ends the row.';

CREATE TABLE oa.silences (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task       text,
    rule       text,
    by         text        NOT NULL,
    reason     text        NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    until      timestamptz NOT NULL,
    CHECK (task IS NOT NULL OR rule IS NOT NULL)
);
COMMENT ON TABLE oa.silences IS 'Alerts of this task and rule (absent: any) are recorded but sent to nobody until then.';

ALTER TABLE oa.alerts ADD COLUMN silenced_by bigint;
COMMENT ON COLUMN oa.alerts.silenced_by IS 'The silence for which nobody was sent it.';

-- Whoever delivers must be able to use them.
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS role, a.privilege_type
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'oa.alerts'::regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s ON oa.acks, oa.silences TO %s', held.privilege_type, held.role);
    END LOOP;
END
$$;
