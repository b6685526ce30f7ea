-- Order and age by the server: a sequence and now(). Ids still carry the clock of the machine that made them, so they are names only.
CREATE SEQUENCE oa.event_order;
COMMENT ON SEQUENCE oa.event_order IS 'The order in which the database took runs and alerts.';

-- SECURITY DEFINER, so that a role that may write the log needs no right to the sequence.
CREATE FUNCTION oa.next_in_order() RETURNS bigint
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ SELECT nextval('oa.event_order') $$;

ALTER TABLE oa.runs ADD COLUMN seq bigint, ADD COLUMN recorded_at timestamptz, ADD COLUMN due_at timestamptz,
    ADD COLUMN other_day boolean NOT NULL DEFAULT false, ADD COLUMN clock_offset double precision;
ALTER TABLE oa.alerts ADD COLUMN seq bigint;
ALTER TABLE oa.tasks ADD COLUMN last_seq bigint;

-- For what is there, the order of the ids is the best there is. A row of the future was written while a clock was ahead: it goes to
-- the back and loses the time that has not come, or it would stay in front until that time.
DROP INDEX oa.runs_task, oa.runs_status, oa.runs_task_status, oa.alerts_fingerprint, oa.alerts_of_troubles;
ALTER TABLE oa.runs DISABLE TRIGGER USER;
UPDATE oa.runs r
SET seq = o.n, recorded_at = least(r.started_at, now()), started_at = least(r.started_at, now()), finished_at = CASE WHEN r.finished_at > now() THEN now() ELSE r.finished_at END,
    -- Such a run takes care of nothing that is due now.
    other_day = r.started_at > now()
FROM (SELECT id, row_number() OVER (ORDER BY id < oa.uuid_floor(now()), id) AS n FROM oa.runs) o
WHERE o.id = r.id;
ALTER TABLE oa.runs ENABLE TRIGGER USER;
UPDATE oa.alerts a
SET seq = o.n, created_at = least(a.created_at, now())
FROM (SELECT id, row_number() OVER (ORDER BY id < oa.uuid_floor(now()), id) AS n FROM oa.alerts) o
WHERE o.id = a.id;
SELECT setval('oa.event_order', greatest((SELECT max(seq) FROM oa.runs), (SELECT max(seq) FROM oa.alerts), 1));
UPDATE oa.tasks t
SET last_seq = (SELECT r.seq FROM oa.runs r WHERE r.id = t.last_run_id),
    last_started_at = CASE WHEN t.last_started_at > now() THEN now() ELSE t.last_started_at END,
    last_finished_at = CASE WHEN t.last_finished_at > now() THEN now() ELSE t.last_finished_at END,
    last_success_at = CASE WHEN t.last_success_at > now() THEN now() ELSE t.last_success_at END,
    failing_since = CASE WHEN t.failing_since > now() THEN now() ELSE t.failing_since END;
WITH ahead AS (DELETE FROM oa.run_hours WHERE hour > now() RETURNING *)
INSERT INTO oa.run_hours AS h
SELECT task, date_trunc('hour', now(), 'UTC'), status, sum(runs), sum(seconds), sum(fetched), sum(inserted), sum(updated), sum(unchanged), sum(rejected)
FROM ahead GROUP BY task, status
ON CONFLICT (task, hour, status) DO UPDATE
SET runs = h.runs + excluded.runs, seconds = h.seconds + excluded.seconds, fetched = h.fetched + excluded.fetched,
    inserted = h.inserted + excluded.inserted, updated = h.updated + excluded.updated, unchanged = h.unchanged + excluded.unchanged,
    rejected = h.rejected + excluded.rejected;
WITH ahead AS (DELETE FROM oa.run_days WHERE day > (now() AT TIME ZONE 'Asia/Shanghai')::date RETURNING *)
INSERT INTO oa.run_days AS d
SELECT task, (now() AT TIME ZONE 'Asia/Shanghai')::date, status, sum(runs), sum(fetched), sum(rejected) FROM ahead GROUP BY task, status
ON CONFLICT (task, day, status) DO UPDATE SET runs = d.runs + excluded.runs, fetched = d.fetched + excluded.fetched, rejected = d.rejected + excluded.rejected;

ALTER TABLE oa.runs ALTER COLUMN seq SET DEFAULT oa.next_in_order(), ALTER COLUMN seq SET NOT NULL,
    ALTER COLUMN recorded_at SET DEFAULT now(), ALTER COLUMN recorded_at SET NOT NULL;
ALTER TABLE oa.alerts ALTER COLUMN seq SET DEFAULT oa.next_in_order(), ALTER COLUMN seq SET NOT NULL, ALTER COLUMN created_at SET DEFAULT now();
COMMENT ON COLUMN oa.runs.seq IS 'The order in which the database took them: what is newest has the largest.';
COMMENT ON COLUMN oa.runs.recorded_at IS 'When the database took it, by its own clock.';
COMMENT ON COLUMN oa.runs.started_at IS 'By the database''s clock: the machine''s own, corrected by clock_offset.';
COMMENT ON COLUMN oa.runs.clock_offset IS 'What the database''s clock was ahead of the machine''s, in seconds; null: not measured.';
COMMENT ON COLUMN oa.runs.due_at IS 'The moment of the schedule that it takes care of; null: those until its start.';
COMMENT ON COLUMN oa.runs.other_day IS 'It is about another day than the one on which it started, and so takes care of no moment.';
COMMENT ON COLUMN oa.alerts.seq IS 'The order in which the database took them.';
COMMENT ON COLUMN oa.tasks.last_seq IS 'oa.runs.seq of last_run_id.';

-- seq for what is newest, started_at for spans of time.
CREATE INDEX runs_task ON oa.runs (task, seq DESC);
CREATE INDEX runs_task_started ON oa.runs (task, started_at DESC, seq DESC);
CREATE INDEX runs_started ON oa.runs (started_at DESC, seq DESC);
CREATE INDEX runs_status ON oa.runs (status, started_at DESC, seq DESC);
CREATE INDEX runs_task_status ON oa.runs (task, status, started_at DESC, seq DESC);
CREATE INDEX quality_day ON oa.quality (task, day);
CREATE INDEX alerts_order ON oa.alerts (seq DESC);
CREATE INDEX alerts_fingerprint ON oa.alerts (fingerprint, seq DESC);
CREATE INDEX alerts_of_troubles ON oa.alerts (fingerprint, seq DESC) WHERE kind <> 'message';

-- The database's own clock can be wrong too. When it goes back, what it took before under later times is known to be misdated.
CREATE TABLE oa.clock (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    latest   timestamptz NOT NULL
);
COMMENT ON TABLE oa.clock IS 'The latest time that the database''s clock has shown, to the minute.';
INSERT INTO oa.clock (latest) VALUES (now());
CREATE TABLE oa.clock_steps (
    seq       bigint PRIMARY KEY DEFAULT oa.next_in_order(),
    back_to   timestamptz NOT NULL,
    back_from timestamptz NOT NULL
);
COMMENT ON TABLE oa.clock_steps IS 'When the database''s clock went back by more than a minute: rows before seq that were recorded after back_to are misdated.';

CREATE FUNCTION oa.watch_clock() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    shown timestamptz;
BEGIN
    SELECT latest INTO shown FROM oa.clock;
    IF shown < now() - interval '1 minute' OR shown > now() + interval '1 minute' THEN
        -- Two programs at once: the second finds it noted.
        SELECT latest INTO shown FROM oa.clock FOR UPDATE;
        IF shown > now() + interval '1 minute' THEN
            INSERT INTO oa.clock_steps (back_to, back_from) VALUES (now(), shown);
        END IF;
        UPDATE oa.clock SET latest = now() WHERE latest < now() - interval '1 minute' OR latest > now() + interval '1 minute';
    END IF;
END
$$;
COMMENT ON FUNCTION oa.watch_clock() IS 'Notes that the database''s clock went back. Every program calls it when it connects.';

-- The one answer to whether a run has taken care of a moment that was due: it started since, and names that moment or a later one
-- that has come, or none. A clock that was ahead when it was recorded proves nothing.
CREATE FUNCTION oa.takes_care(run oa.runs, due timestamptz) RETURNS boolean
    LANGUAGE sql STABLE AS $$
    SELECT run.trigger <> 'backfill' AND run.status <> 'skipped' AND NOT run.other_day
       AND run.started_at BETWEEN due AND now() + interval '1 minute'
       AND (run.due_at IS NULL OR run.due_at BETWEEN due AND now() + interval '1 minute')
       AND NOT EXISTS (SELECT FROM oa.clock_steps s WHERE s.seq > run.seq AND run.recorded_at > s.back_to)
$$;

CREATE OR REPLACE VIEW oa.troubles AS
WITH RECURSIVE fingerprints AS (
    (SELECT fingerprint FROM oa.alerts WHERE kind <> 'message' ORDER BY fingerprint LIMIT 1)
    UNION ALL
    SELECT (SELECT a.fingerprint FROM oa.alerts a WHERE a.kind <> 'message' AND a.fingerprint > f.fingerprint ORDER BY a.fingerprint LIMIT 1)
    FROM fingerprints f WHERE f.fingerprint IS NOT NULL
)
SELECT l.fingerprint, l.rule, l.task, l.severity, l.title, l.created_at AS told_at, l.silenced_by,
       (SELECT min(p.created_at) FROM oa.alerts p
        WHERE p.fingerprint = l.fingerprint AND p.kind = 'problem'
          AND p.seq > coalesce((SELECT r.seq FROM oa.alerts r WHERE r.fingerprint = l.fingerprint AND r.kind = 'recovery' ORDER BY r.seq DESC LIMIT 1),
                               0)) AS since,
       k.by AS taken_on_by, k.note
FROM fingerprints f
CROSS JOIN LATERAL (SELECT a.* FROM oa.alerts a WHERE a.fingerprint = f.fingerprint AND a.kind <> 'message' ORDER BY a.seq DESC LIMIT 1) l
LEFT JOIN oa.acks k ON k.fingerprint = l.fingerprint
WHERE l.kind = 'problem';

CREATE OR REPLACE FUNCTION oa.delivery_due(alert oa.alerts, channel text, after double precision, min_rank integer) RETURNS text
    LANGUAGE sql STABLE AS $$
    WITH before AS (
        -- The recovery that ended the trouble before this one.
        SELECT coalesce((SELECT r.seq FROM oa.alerts r WHERE r.fingerprint = alert.fingerprint AND r.kind = 'recovery' AND r.seq < alert.seq
                         ORDER BY r.seq DESC LIMIT 1), 0) AS seq
    )
    SELECT CASE
        -- A channel's own trouble is for the others.
        WHEN alert.fingerprint = 'channel:' || channel THEN 'never'
        WHEN after = 0 AND min_rank = 0 THEN 'now'
        -- Who has not heard of a trouble need not hear that it is over.
        WHEN alert.kind = 'recovery' THEN
            CASE WHEN EXISTS (
                SELECT FROM oa.alerts p JOIN oa.deliveries d ON d.alert_id = p.id AND d.channel = delivery_due.channel, before
                WHERE p.fingerprint = alert.fingerprint AND p.kind = 'problem' AND p.seq < alert.seq AND p.seq > before.seq)
            THEN 'now' ELSE 'never' END
        WHEN CASE alert.severity WHEN 'critical' THEN 2 WHEN 'warning' THEN 1 ELSE 0 END < min_rank THEN 'never'
        WHEN after = 0 THEN 'now'
        WHEN alert.kind = 'message' THEN 'never'
        WHEN EXISTS (SELECT FROM oa.acks k WHERE k.fingerprint = alert.fingerprint) THEN 'never'
        -- It is over, or its repetition speaks for it.
        WHEN EXISTS (SELECT FROM oa.alerts n WHERE n.fingerprint = alert.fingerprint AND n.seq > alert.seq) THEN 'never'
        WHEN now() - (SELECT min(p.created_at) FROM oa.alerts p, before
                      WHERE p.fingerprint = alert.fingerprint AND p.kind = 'problem' AND p.seq > before.seq) >= make_interval(secs => after)
            THEN 'now'
        ELSE 'later'
    END
$$;

-- Whoever may use the run log may use these.
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT DISTINCT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS role
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'oa.runs'::regclass AND a.grantee <> c.relowner AND a.privilege_type = 'SELECT'
    LOOP
        EXECUTE format('GRANT SELECT ON oa.clock, oa.clock_steps TO %s', held.role);
    END LOOP;
END
$$;
