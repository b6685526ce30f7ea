-- What should happen, written ahead and closed once: nothing that was due disappears, whatever was off for however long. A run closes
-- the slot that it names, so a wrong clock closes nothing.
CREATE TABLE oa.slots (
    task      text        NOT NULL,
    due_at    timestamptz NOT NULL,
    day       date        NOT NULL,
    state     text        NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'done', 'skipped', 'missed', 'unfetchable')),
    run_id    uuid,
    reason    text,
    closed_at timestamptz,
    filled_by uuid,
    filled_at timestamptz,
    PRIMARY KEY (task, due_at),
    CHECK ((state = 'open') = (closed_at IS NULL)),
    CHECK (state <> 'done' OR run_id IS NOT NULL),
    CHECK ((filled_by IS NULL) = (filled_at IS NULL))
);
CREATE INDEX slots_open ON oa.slots (due_at) WHERE state = 'open';
CREATE INDEX slots_day ON oa.slots (day, task);
COMMENT ON TABLE oa.slots IS 'One row per moment at which a task should run: written ahead, closed once.';
COMMENT ON COLUMN oa.slots.day IS 'The day that the run of this slot is for, in the schedule''s own zone.';
COMMENT ON COLUMN oa.slots.run_id IS 'The run that closed it as done, or that was skipped for it.';
COMMENT ON COLUMN oa.slots.reason IS 'Why it was skipped, missed or cannot be fetched any more.';
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
    PRIMARY KEY (what, host, day)
);
COMMENT ON TABLE oa.starts IS 'How often a day oa-alert check (check) and oa-crawl run --due (due) were started on each machine, and when last.';

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
