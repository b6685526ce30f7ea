-- What should happen, written ahead and closed once: nothing that was due disappears, whatever was off for however long. A run closes
-- the slot that it names, so a wrong clock closes nothing.
CREATE TABLE oa.slots (
    task      text        NOT NULL,
    due_at    timestamptz NOT NULL,
    day       date        NOT NULL,
    state     text        NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'done', 'skipped', 'missed', 'unfetchable')),
    owed      boolean     NOT NULL DEFAULT true,
    run_id    uuid,
    reason    text,
    closed_at timestamptz,
    filled_by uuid,
    filled_at timestamptz,
    reported_at timestamptz,
    PRIMARY KEY (task, due_at),
    CHECK ((state = 'open') = (closed_at IS NULL)),
    CHECK (state <> 'done' OR run_id IS NOT NULL),
    CHECK ((filled_by IS NULL) = (filled_at IS NULL))
);
CREATE INDEX slots_open ON oa.slots (due_at) WHERE state = 'open';
CREATE INDEX slots_holes ON oa.slots (closed_at) WHERE state IN ('missed', 'unfetchable') AND filled_by IS NULL;
CREATE INDEX slots_reported ON oa.slots (reported_at) WHERE reported_at IS NOT NULL;
CREATE INDEX slots_day ON oa.slots (day, task);
COMMENT ON TABLE oa.slots IS 'One row per moment at which a task should run: written ahead, closed once.';
COMMENT ON COLUMN oa.slots.day IS 'The day that the run of this slot is for, in the schedule''s own zone.';
COMMENT ON COLUMN oa.slots.state IS 'done: a run of it has ended, and its status says how; missed: none began and none will; unfetchable: none can, the site shows it no more; skipped: it was not to be.';
COMMENT ON COLUMN oa.slots.owed IS 'False: it was due before the task was expected to run; it may run, and is not missed.';
COMMENT ON COLUMN oa.slots.run_id IS 'The run that closed it as done, or that was skipped for it. Of an open one: a run that closed it while the clock was ahead.';
COMMENT ON COLUMN oa.slots.reason IS 'Why it was skipped, missed or cannot be fetched any more.';
COMMENT ON COLUMN oa.slots.reported_at IS 'When people were first notified that it did not run when it was due.';
COMMENT ON COLUMN oa.slots.filled_by IS 'The run that made up for it after it was closed as missed or unfetchable.';

-- What a source owes for each day, what came, how complete that is, and how that is known.
CREATE TABLE oa.days (
    task         text        NOT NULL,
    day          date        NOT NULL,
    expected     boolean     NOT NULL,
    state        text        NOT NULL CHECK (state IN ('pending', 'complete', 'partial', 'stale', 'failed', 'missing', 'unfetchable', 'skipped')),
    run_id       uuid,
    collected_at timestamptz,
    records      bigint,
    announced    bigint,
    usual        bigint,
    evidence     text,
    content      bytea,
    reported_at  timestamptz,
    filled_at    timestamptz,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (task, day)
);
CREATE INDEX days_day ON oa.days (day, task);
COMMENT ON TABLE oa.days IS 'One row per task and day for which it is due or has data: what was expected, what came, and how that is known.';
COMMENT ON COLUMN oa.days.expected IS 'A slot of the task is for this day.';
COMMENT ON COLUMN oa.days.run_id IS 'The run whose data stand for this day.';
COMMENT ON COLUMN oa.days.announced IS 'How many records the site says there are.';
COMMENT ON COLUMN oa.days.usual IS 'The median of the days before it.';
COMMENT ON COLUMN oa.days.evidence IS 'By what its completeness is known: total, end, history.';
COMMENT ON COLUMN oa.days.content IS 'SHA-256 of its records, to see that it is not another day''s content.';
COMMENT ON COLUMN oa.days.reported_at IS 'When people were first notified that it is not complete.';
COMMENT ON COLUMN oa.days.filled_at IS 'When it became complete after that.';

-- What cron starts each minute leaves one row a day, not one a start.
CREATE TABLE oa.starts (
    what      text        NOT NULL,
    host      text        NOT NULL,
    day       date        NOT NULL,
    starts    bigint      NOT NULL DEFAULT 1,
    failures  bigint      NOT NULL DEFAULT 0,
    first_at  timestamptz NOT NULL DEFAULT now(),
    last_at   timestamptz NOT NULL DEFAULT now(),
    longest_gap interval  NOT NULL DEFAULT '0',
    gap_from  timestamptz,
    gap_to    timestamptz,
    PRIMARY KEY (what, host, day)
);
COMMENT ON COLUMN oa.starts.longest_gap IS 'The longest time between two starts on this machine, the one that ended on this day.';
COMMENT ON COLUMN oa.starts.gap_from IS 'The last time no machine started it for more than five minutes: the start before that.';
COMMENT ON COLUMN oa.starts.gap_to IS 'The start that ended that.';
COMMENT ON TABLE oa.starts IS 'How often a day oa-alert check (check) and oa-crawl run --due (due) were started on each machine, and when last.';

-- A role that may write the log removes slots that are not due and not owed, without the right to delete anything else.
CREATE FUNCTION oa.remove_slots(tasks text[], due timestamptz[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    IF NOT has_table_privilege(session_user, 'oa.slots', 'UPDATE') THEN
        RAISE insufficient_privilege USING MESSAGE = 'permission denied for table slots';
    END IF;
    DELETE FROM oa.slots s WHERE s.task = ANY(tasks) AND s.state = 'open' AND ((due IS NULL AND s.due_at > now()) OR (NOT s.owed AND s.due_at = ANY(due)));
    DELETE FROM oa.days d WHERE d.task = ANY(tasks) AND d.state = 'pending' AND d.run_id IS NULL AND d.day >= (now() - interval '2 days')::date
      AND NOT EXISTS (SELECT FROM oa.slots s WHERE s.task = d.task AND s.day = d.day);
END
$$;
COMMENT ON FUNCTION oa.remove_slots(text[], timestamptz[]) IS 'Removes slots that are not due yet (due is null), or those of before a task was expected, and days to come that have none left.';

-- How far a task's slots are written, and by which plan.
ALTER TABLE oa.tasks ADD COLUMN slots_until timestamptz, ADD COLUMN slots_plan text, ADD COLUMN collects boolean NOT NULL DEFAULT false,
    ADD COLUMN backfills boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN oa.tasks.slots_until IS 'Its slots are in oa.slots since expected_since and until then; null: not yet.';
COMMENT ON COLUMN oa.tasks.slots_plan IS 'Schedule, days, sessions, zone and calendar by which they were written.';
COMMENT ON COLUMN oa.tasks.collects IS 'Its runs collect days: it is a source.';
COMMENT ON COLUMN oa.tasks.backfills IS 'oa-crawl backfill can collect its past days.';
-- Only sources had a schedule until now.
UPDATE oa.tasks SET collects = true WHERE tool = 'oa-crawl' AND schedule IS NOT NULL;
-- What was due when this came and has not run is the first slot, and those after it are written from there on: what the machine missed
-- while it was off before the upgrade is made up for like anything else. What was before has gone by.
INSERT INTO oa.slots (task, due_at, day)
SELECT t.name, t.next_due_at, (t.next_due_at AT TIME ZONE 'Asia/Shanghai')::date FROM oa.tasks t
WHERE t.schedule IS NOT NULL AND t.next_due_at <= now()
  AND NOT EXISTS (SELECT FROM oa.runs r WHERE r.task = t.name AND r.started_at >= t.next_due_at AND r.status <> 'abandoned' AND oa.takes_care(r, t.next_due_at));
INSERT INTO oa.days (task, day, expected, state) SELECT s.task, s.day, true, 'pending' FROM oa.slots s JOIN oa.tasks t ON t.name = s.task WHERE t.collects;
UPDATE oa.tasks t SET slots_until = CASE WHEN EXISTS (SELECT FROM oa.slots s WHERE s.task = t.name) THEN t.next_due_at ELSE now() END
WHERE t.schedule IS NOT NULL AND t.expected_since IS NOT NULL;

-- A clock that was ahead closed what was not due, and wrote what is not yet to be written. What did not run then is open again, what
-- is not due yet too, and is owed; a run that ended for a slot that has passed has ended. Open again, a slot keeps the run that closed
-- it: when it cannot be run once more, that was its run.
DO $$
BEGIN
    EXECUTE replace(replace(pg_get_functiondef('oa.watch_clock()'::regprocedure),
        'UPDATE oa.tasks SET expected_since = expected_since - step WHERE expected_since > now();',
        'UPDATE oa.tasks SET slots_until = CASE WHEN expected_since > now() THEN NULL ELSE now() END WHERE slots_until > now();
            UPDATE oa.tasks SET next_due_at = NULL WHERE next_due_at > now();
            UPDATE oa.tasks SET expected_since = expected_since - step WHERE expected_since > now();
            UPDATE oa.slots SET state = ''open'', closed_at = NULL, reason = NULL, reported_at = NULL, filled_by = NULL, filled_at = NULL
            WHERE closed_at > now() AND (state <> ''done'' OR due_at > now());
            UPDATE oa.slots SET owed = true WHERE NOT owed AND due_at > now();
            DELETE FROM oa.slots WHERE state = ''open'' AND run_id IS NULL AND due_at > now() + interval ''3 days'';
            UPDATE oa.days SET state = ''pending'', updated_at = now() WHERE updated_at > now() AND state IN (''missing'', ''unfetchable'', ''skipped'');
            DELETE FROM oa.days d WHERE d.state = ''pending'' AND d.day > (now() + interval ''2 days'')::date
              AND NOT EXISTS (SELECT FROM oa.slots s WHERE s.task = d.task AND s.day = d.day);'),
        'UPDATE oa.watches SET at = now() WHERE at > now();',
        'UPDATE oa.watches SET at = now() WHERE at > now();
            DELETE FROM oa.starts WHERE first_at > now() + interval ''1 day'';
            UPDATE oa.starts SET first_at = least(first_at, now()), last_at = least(last_at, now()), gap_from = NULL, gap_to = NULL WHERE last_at > now();');
END
$$;

-- Whoever may use tasks may use these.
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS role, a.privilege_type
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'oa.tasks'::regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s ON oa.slots, oa.days, oa.starts TO %s', held.privilege_type, held.role);
    END LOOP;
END
$$;
