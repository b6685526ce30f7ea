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

-- Silences of some days of the week; hours over midnight belong to the day they begin on.
ALTER TABLE oa.silences ADD COLUMN weekdays integer[], ADD CONSTRAINT silences_weekdays CHECK (weekdays <@ ARRAY[1, 2, 3, 4, 5, 6, 7] AND weekdays <> '{}');
COMMENT ON COLUMN oa.silences.weekdays IS 'Only on these days of the week, 1 for Monday; null: on each.';
CREATE OR REPLACE FUNCTION oa.silence_holds(silence oa.silences, at timestamptz) RETURNS boolean LANGUAGE sql STABLE AS
$$
SELECT at >= silence.starts_at AND at < silence.until
   AND (silence.daily_from IS NULL
        OR CASE WHEN silence.daily_from < silence.daily_until
                THEN (at AT TIME ZONE silence.zone)::time >= silence.daily_from AND (at AT TIME ZONE silence.zone)::time < silence.daily_until
                ELSE (at AT TIME ZONE silence.zone)::time >= silence.daily_from OR (at AT TIME ZONE silence.zone)::time < silence.daily_until END)
   AND (silence.weekdays IS NULL
        OR extract(isodow FROM (at AT TIME ZONE silence.zone)::date
                   - CASE WHEN silence.daily_from > silence.daily_until AND (at AT TIME ZONE silence.zone)::time < silence.daily_until THEN 1 ELSE 0 END
                  )::integer = ANY(silence.weekdays))
$$;

-- Which alerts a channel gets, so that other machines know for what it waits.
ALTER TABLE oa.channel_routes ADD COLUMN takes jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN oa.channel_routes.takes IS 'tasks, rules and providers: patterns, of which an alert must fit one of each that is given.';
ALTER TABLE oa.tasks ADD COLUMN provider text;
COMMENT ON COLUMN oa.tasks.provider IS 'The site that the task collects; null: none, or not known yet.';
CREATE FUNCTION oa.route_takes(alert oa.alerts, takes jsonb) RETURNS boolean LANGUAGE sql STABLE AS
$$
SELECT (NOT takes ? 'tasks' OR EXISTS (SELECT FROM jsonb_array_elements_text(takes->'tasks') p WHERE oa.fits(alert.task, p)))
   AND (NOT takes ? 'rules' OR EXISTS (SELECT FROM jsonb_array_elements_text(takes->'rules') p WHERE oa.fits(alert.rule, p)))
   AND (NOT takes ? 'providers'
        OR EXISTS (SELECT FROM jsonb_array_elements_text(takes->'providers') p
                   WHERE oa.fits(coalesce(nullif(alert.event->>'provider', ''), (SELECT t.provider FROM oa.tasks t WHERE t.name = alert.task)), p))
        -- A source that has never ended a run: what is not known of it keeps its alerts from nobody.
        OR (coalesce(alert.event->>'provider', '') = ''
            AND EXISTS (SELECT FROM oa.tasks t WHERE t.name = alert.task AND t.collects AND t.provider IS NULL)))
$$;
COMMENT ON FUNCTION oa.route_takes(oa.alerts, jsonb) IS 'Whether an alert is for a channel with these patterns.';

-- Links in messages work once.
CREATE TABLE oa.used_links (
    link    bytea       PRIMARY KEY,
    action  text        NOT NULL,
    alert   uuid        NOT NULL,
    channel text        NOT NULL,
    used_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE oa.used_links IS 'Links of messages that were used, by their hash: each works once.';

-- What has ended and what was used leaves with the answers of runs. A role that may write the log does this without the right to delete
-- anything else. No link works for longer than some days, so that none works once more.
CREATE FUNCTION oa.prune_answers(before timestamptz) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    latest timestamptz := least(before, now() - interval '90 days');
    gone   bigint;
    more   bigint;
BEGIN
    IF NOT has_table_privilege(session_user, 'oa.requests', 'UPDATE') THEN
        RAISE insufficient_privilege USING MESSAGE = 'permission denied for table requests';
    END IF;
    DELETE FROM oa.requests r WHERE r.ended_at < latest;
    GET DIAGNOSTICS gone = ROW_COUNT;
    DELETE FROM oa.used_links l WHERE l.used_at < latest;
    GET DIAGNOSTICS more = ROW_COUNT;
    RETURN gone + more;
END
$$;
COMMENT ON FUNCTION oa.prune_answers IS 'Removes requests that ended and links that were used before that time, and none of the last 90 days.';

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
