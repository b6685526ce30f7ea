-- Sums of the run log, so that health, history and metrics do not read it. The database keeps them itself, in the transaction that
-- writes the run: whoever writes it, and however, they agree with the log.
CREATE TABLE oa.run_hours (
    task      text             NOT NULL,
    hour      timestamptz      NOT NULL,
    status    text             NOT NULL,
    runs      bigint           NOT NULL,
    seconds   double precision NOT NULL,
    fetched   bigint           NOT NULL,
    inserted  bigint           NOT NULL,
    updated   bigint           NOT NULL,
    unchanged bigint           NOT NULL,
    rejected  bigint           NOT NULL,
    PRIMARY KEY (task, hour, status)
) WITH (fillfactor = 70);
COMMENT ON TABLE oa.run_hours IS 'Runs that ended, by task, the hour (UTC) in which they started, and status; without backfills. Stays when a month of the log is dropped.';
COMMENT ON COLUMN oa.run_hours.seconds IS 'Sum of their durations.';
CREATE INDEX run_hours_hour ON oa.run_hours (hour);

CREATE TABLE oa.run_days (
    task     text   NOT NULL,
    day      date   NOT NULL,
    status   text   NOT NULL,
    runs     bigint NOT NULL,
    fetched  bigint NOT NULL,
    rejected bigint NOT NULL,
    PRIMARY KEY (task, day, status)
) WITH (fillfactor = 70);
COMMENT ON TABLE oa.run_days IS 'The same by day, for histories: the day of Asia/Shanghai, as the service''s own tables have it.';

CREATE TABLE oa.run_totals (
    task      text             NOT NULL,
    status    text             NOT NULL,
    runs      bigint           NOT NULL,
    seconds   double precision NOT NULL,
    fetched   bigint           NOT NULL,
    inserted  bigint           NOT NULL,
    updated   bigint           NOT NULL,
    unchanged bigint           NOT NULL,
    rejected  bigint           NOT NULL,
    PRIMARY KEY (task, status)
) WITH (fillfactor = 70);
COMMENT ON TABLE oa.run_totals IS 'All outcomes ever recorded, backfills too. Only grows: a run taken for abandoned whose outcome comes after all counts under both.';

CREATE FUNCTION oa.sum_run() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    took double precision := extract(epoch FROM NEW.finished_at - NEW.started_at);
BEGIN
    IF TG_OP = 'UPDATE' THEN
        -- Taken for abandoned, and its outcome came after all.
        IF OLD.finished_at IS NOT NULL AND OLD.trigger <> 'backfill' THEN
            UPDATE oa.run_hours h
            SET runs = h.runs - 1, seconds = h.seconds - extract(epoch FROM OLD.finished_at - OLD.started_at), fetched = h.fetched - OLD.fetched,
                inserted = h.inserted - OLD.inserted, updated = h.updated - OLD.updated, unchanged = h.unchanged - OLD.unchanged,
                rejected = h.rejected - OLD.rejected
            WHERE h.task = OLD.task AND h.hour = date_trunc('hour', OLD.started_at, 'UTC') AND h.status = OLD.status;
            UPDATE oa.run_days d SET runs = d.runs - 1, fetched = d.fetched - OLD.fetched, rejected = d.rejected - OLD.rejected
            WHERE d.task = OLD.task AND d.day = (OLD.started_at AT TIME ZONE 'Asia/Shanghai')::date AND d.status = OLD.status;
        END IF;
    END IF;
    IF NEW.trigger <> 'backfill' THEN
        INSERT INTO oa.run_hours AS h VALUES (NEW.task, date_trunc('hour', NEW.started_at, 'UTC'), NEW.status, 1, took, NEW.fetched, NEW.inserted,
                                              NEW.updated, NEW.unchanged, NEW.rejected)
        ON CONFLICT (task, hour, status) DO UPDATE
        SET runs = h.runs + 1, seconds = h.seconds + took, fetched = h.fetched + NEW.fetched, inserted = h.inserted + NEW.inserted,
            updated = h.updated + NEW.updated, unchanged = h.unchanged + NEW.unchanged, rejected = h.rejected + NEW.rejected;
        INSERT INTO oa.run_days AS d VALUES (NEW.task, (NEW.started_at AT TIME ZONE 'Asia/Shanghai')::date, NEW.status, 1, NEW.fetched, NEW.rejected)
        ON CONFLICT (task, day, status) DO UPDATE
        SET runs = d.runs + 1, fetched = d.fetched + NEW.fetched, rejected = d.rejected + NEW.rejected;
    END IF;
    INSERT INTO oa.run_totals AS t VALUES (NEW.task, NEW.status, 1, took, NEW.fetched, NEW.inserted, NEW.updated, NEW.unchanged, NEW.rejected)
    ON CONFLICT (task, status) DO UPDATE
    SET runs = t.runs + 1, seconds = t.seconds + took, fetched = t.fetched + NEW.fetched, inserted = t.inserted + NEW.inserted,
        updated = t.updated + NEW.updated, unchanged = t.unchanged + NEW.unchanged, rejected = t.rejected + NEW.rejected;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION oa.sum_run() IS 'Keeps oa.run_hours, oa.run_days and oa.run_totals. Runs with its owner''s rights, so that a crawler''s role needs none to them.';
CREATE TRIGGER sum_inserted AFTER INSERT ON oa.runs
    FOR EACH ROW WHEN (NEW.finished_at IS NOT NULL) EXECUTE FUNCTION oa.sum_run();
CREATE TRIGGER sum_finished AFTER UPDATE ON oa.runs
    FOR EACH ROW WHEN (NEW.finished_at IS NOT NULL AND (OLD.status, OLD.finished_at) IS DISTINCT FROM (NEW.status, NEW.finished_at))
    EXECUTE FUNCTION oa.sum_run();

INSERT INTO oa.run_hours
SELECT task, date_trunc('hour', started_at, 'UTC'), status, count(*), sum(extract(epoch FROM finished_at - started_at)), sum(fetched), sum(inserted),
       sum(updated), sum(unchanged), sum(rejected)
FROM oa.runs WHERE finished_at IS NOT NULL AND trigger <> 'backfill' GROUP BY 1, 2, 3;
INSERT INTO oa.run_days
SELECT task, (started_at AT TIME ZONE 'Asia/Shanghai')::date, status, count(*), sum(fetched), sum(rejected)
FROM oa.runs WHERE finished_at IS NOT NULL AND trigger <> 'backfill' GROUP BY 1, 2, 3;
INSERT INTO oa.run_totals
SELECT task, status, count(*), sum(extract(epoch FROM finished_at - started_at)), sum(fetched), sum(inserted), sum(updated), sum(unchanged), sum(rejected)
FROM oa.runs WHERE finished_at IS NOT NULL GROUP BY 1, 2;

-- What the cron expression alone does not say about when a task is due; absent: not known.
ALTER TABLE oa.tasks ADD COLUMN days text;
ALTER TABLE oa.tasks ADD COLUMN sessions text[];
ALTER TABLE oa.tasks ADD COLUMN forgotten_at timestamptz;
COMMENT ON COLUMN oa.tasks.days IS 'On which days its schedule applies: all, trading, night.';
COMMENT ON COLUMN oa.tasks.sessions IS 'Within which sessions: day, night; empty for any time.';
COMMENT ON COLUMN oa.tasks.forgotten_at IS 'When it was given up (oa-crawl forget); a later run takes it up again.';

-- Filtered pages of the log, whatever share of the runs the filter leaves.
CREATE INDEX runs_task_status ON oa.runs (task, status, id DESC);

-- Whoever may read the log may read its sums.
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS role
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'oa.runs'::regclass AND a.grantee <> c.relowner AND a.privilege_type = 'SELECT'
    LOOP
        EXECUTE format('GRANT SELECT ON oa.run_hours, oa.run_days, oa.run_totals TO %s', held.role);
    END LOOP;
END
$$;
