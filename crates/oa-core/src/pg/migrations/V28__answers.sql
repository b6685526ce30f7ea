-- What people ask for on a page or in a message: carried out by the program that cron starts each minute, never by the page itself.
CREATE TABLE oa.requests (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind         text        NOT NULL CHECK (kind IN ('run', 'backfill', 'test_channel')),
    subject      text        NOT NULL,
    params       jsonb       NOT NULL DEFAULT '{}',
    requested_by text        NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    state        text        NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'taken', 'done', 'failed', 'expired')),
    taken_by     text,
    leased_until timestamptz,
    tries        integer     NOT NULL DEFAULT 0,
    ended_at     timestamptz,
    run_id       uuid,
    result       text,
    CHECK ((state IN ('done', 'failed', 'expired')) = (ended_at IS NOT NULL))
);
-- What is asked for twice before it is done is done once.
CREATE UNIQUE INDEX requests_waiting ON oa.requests (kind, subject, params) WHERE state IN ('open', 'taken');
CREATE INDEX requests_ended ON oa.requests (ended_at) WHERE ended_at IS NOT NULL;
COMMENT ON TABLE oa.requests IS 'What people asked for on a page or in a message. Carried out within a minute by oa-crawl run --due (run, backfill) or oa-alert check (test_channel).';
COMMENT ON COLUMN oa.requests.subject IS 'The task, or the channel.';
COMMENT ON COLUMN oa.requests.params IS 'day of run, from and to of backfill, as dates; {} otherwise.';
COMMENT ON COLUMN oa.requests.state IS 'open: waits; taken: a program is at it; done, failed: it has ended, and result says how; expired: no program took it in time.';
COMMENT ON COLUMN oa.requests.taken_by IS 'The machine on which it is carried out.';
COMMENT ON COLUMN oa.requests.leased_until IS 'When another program may take it, because this one is gone.';
COMMENT ON COLUMN oa.requests.run_id IS 'The (last) run that came of it.';

-- An alert that follows from an incident which is its cause waits for the end of that.
ALTER TABLE oa.alerts ADD COLUMN follows text;
COMMENT ON COLUMN oa.alerts.follows IS 'The incident (fingerprint) from which this follows: nobody was notified of it while that was open.';
CREATE INDEX alerts_follows ON oa.alerts (follows) WHERE follows IS NOT NULL;

-- Links in messages work once.
CREATE TABLE oa.used_links (
    link    bytea       PRIMARY KEY,
    action  text        NOT NULL,
    alert   uuid        NOT NULL,
    channel text        NOT NULL,
    used_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE oa.used_links IS 'Links of messages that were used, by their hash: each works once.';

-- Whoever may acknowledge may ask; whoever may write the run log carries out; whoever reads alerts reads these.
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS role,
               bool_or(a.privilege_type = 'SELECT') AS reads,
               bool_or(a.privilege_type IN ('INSERT', 'UPDATE')) AS writes
        FROM (SELECT c.oid, c.relowner, x.grantee, x.privilege_type FROM pg_class c, aclexplode(c.relacl) x
              WHERE c.oid IN ('oa.incidents'::regclass, 'oa.tasks'::regclass)
              UNION ALL
              SELECT c.oid, c.relowner, x.grantee, x.privilege_type FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid, aclexplode(t.attacl) x
              WHERE c.oid = 'oa.incidents'::regclass) a
        WHERE a.grantee <> a.relowner GROUP BY 1
    LOOP
        IF held.reads THEN
            EXECUTE format('GRANT SELECT ON oa.requests, oa.used_links TO %s', held.role);
        END IF;
        IF held.writes THEN
            EXECUTE format('GRANT SELECT, INSERT, UPDATE ON oa.requests, oa.used_links TO %s', held.role);
        END IF;
    END LOOP;
END
$$;
