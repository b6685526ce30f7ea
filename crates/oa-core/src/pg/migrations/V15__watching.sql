-- A message that a channel will not have must not take down what is sent with it: in how large a group this one may still be sent.
ALTER TABLE oa.deliveries ADD COLUMN group_limit integer;
COMMENT ON COLUMN oa.deliveries.group_limit IS 'With how many it may be sent at once; 1 alone, 0 alone and without its text; null: no limit.';

-- Which machine serves which channel: an alert is settled when all of them have it, not only those of the machine that looks first.
CREATE TABLE oa.channel_routes (
    name          text             NOT NULL,
    host          text             NOT NULL,
    after_seconds double precision NOT NULL,
    min_rank      integer          NOT NULL,
    seen_at       timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (name, host)
);
COMMENT ON TABLE oa.channel_routes IS 'The channels that each machine has in its configuration; min_rank: 0 info, 1 warning, 2 critical.';

-- Who watches, and how that went.
CREATE TABLE oa.watches (
    what   text        NOT NULL,
    host   text        NOT NULL,
    at     timestamptz NOT NULL DEFAULT now(),
    ok     boolean     NOT NULL,
    detail text        NOT NULL DEFAULT '',
    PRIMARY KEY (what, host)
);
COMMENT ON TABLE oa.watches IS 'The last oa-alert check (check) and oa-crawl run --due (due) of each machine.';

-- Rows to lock. An advisory lock is taken by whoever may connect; a row only by who may change it, so a role that reads stops nothing.
CREATE TABLE oa.locks (
    name text PRIMARY KEY
);
COMMENT ON TABLE oa.locks IS 'What only one process does at a time holds the row of its name.';
INSERT INTO oa.locks (name) VALUES ('check'), ('daily'), ('partitions');

DO $$
BEGIN
    EXECUTE replace(pg_get_functiondef('oa.ensure_partitions(timestamptz)'::regprocedure),
                    $was$PERFORM pg_advisory_xact_lock(hashtext('oa.ensure_partitions'));$was$,
                    $now$PERFORM FROM oa.locks WHERE name = 'partitions' FOR UPDATE;$now$);
END
$$;

DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS role, a.privilege_type,
               CASE WHEN c.oid = 'oa.deliveries'::regclass THEN 'oa.channel_routes, oa.watches, oa.locks' ELSE 'oa.watches, oa.locks' END AS on_these
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid IN ('oa.deliveries'::regclass, 'oa.tasks'::regclass) AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s ON %s TO %s', held.privilege_type, held.on_these, held.role);
    END LOOP;
END
$$;
