-- When the database's clock was ahead and is put right, whatever was put off until "in ten minutes" would wait until that day: an
-- alert's next try, a robot's pause, a silence, a lease. All of it is moved back by as much as the clock.
CREATE OR REPLACE FUNCTION oa.watch_clock() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    shown timestamptz;
    step  interval;
BEGIN
    SELECT latest INTO shown FROM oa.clock;
    IF shown < now() - interval '1 minute' OR shown > now() + interval '1 minute' THEN
        -- Two programs at once: the second finds it noted.
        SELECT latest INTO shown FROM oa.clock FOR UPDATE;
        IF shown > now() + interval '1 minute' THEN
            step := shown - now();
            INSERT INTO oa.clock_steps (back_to, back_from) VALUES (now(), shown);
            UPDATE oa.deliveries SET next_try_at = next_try_at - step WHERE next_try_at > now() AND state IN ('pending', 'sending');
            UPDATE oa.deliveries SET leased_until = leased_until - step WHERE leased_until > now() AND state = 'sending';
            UPDATE oa.deliveries SET first_try_at = now() WHERE first_try_at > now() AND state IN ('pending', 'sending');
            UPDATE oa.channels SET paused_until = paused_until - step WHERE paused_until > now();
            UPDATE oa.silences SET until = until - step, created_at = created_at - step WHERE created_at > now();
            -- A run that goes on keeps its task: it may have begun before the clock was ahead.
            UPDATE oa.tasks SET lease_until = least(lease_until, greatest(lease_until - step, now() + interval '10 minutes'))
            WHERE lease_until > now();
            UPDATE oa.tasks SET expected_since = expected_since - step WHERE expected_since > now();
            UPDATE oa.runs SET lease_until = least(lease_until, greatest(lease_until - step, now() + interval '10 minutes'))
            WHERE finished_at IS NULL AND lease_until > now();
            UPDATE oa.tasks SET last_started_at = least(last_started_at, now()), last_finished_at = least(last_finished_at, now()),
                last_success_at = CASE WHEN last_success_at > now() THEN last_success_at - step ELSE last_success_at END,
                failing_since = CASE WHEN failing_since > now() THEN failing_since - step ELSE failing_since END
            WHERE greatest(last_started_at, last_finished_at, last_success_at, failing_since) > now();
            -- Nobody has watched in the future.
            UPDATE oa.watches SET at = now() WHERE at > now();
            UPDATE oa.channel_routes SET seen_at = now() WHERE seen_at > now();
        END IF;
        UPDATE oa.clock SET latest = now() WHERE latest < now() - interval '1 minute' OR latest > now() + interval '1 minute';
    END IF;
END
$$;

-- Rehearsals and backups bring the times of the machine that made them. None of the future is believed, and of two rehearsals the
-- newer one is the one that was recorded later.
ALTER TABLE oa.drills ADD COLUMN seq bigint;
UPDATE oa.drills d SET seq = o.n
FROM (SELECT run_id, row_number() OVER (ORDER BY least(started_at, now()), started_at DESC) AS n FROM oa.drills) o WHERE o.run_id = d.run_id;
SELECT setval('oa.event_order', greatest((SELECT max(seq) FROM oa.drills), nextval('oa.event_order')));
ALTER TABLE oa.drills ALTER COLUMN seq SET DEFAULT oa.next_in_order(), ALTER COLUMN seq SET NOT NULL;
COMMENT ON COLUMN oa.drills.seq IS 'The order in which the database took them: the newest has the largest.';
DROP INDEX oa.drills_newest;
CREATE INDEX drills_newest ON oa.drills (seq DESC);

CREATE FUNCTION oa.not_of_the_future() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    NEW.started_at := least(NEW.started_at, now());
    NEW.finished_at := least(NEW.finished_at, now());
    RETURN NEW;
END
$$;
UPDATE oa.drills SET started_at = least(started_at, now()), finished_at = least(finished_at, now()) WHERE finished_at > now();
UPDATE oa.backups SET started_at = least(started_at, now()), finished_at = least(finished_at, now()) WHERE finished_at > now();
CREATE TRIGGER not_of_the_future BEFORE INSERT OR UPDATE ON oa.drills FOR EACH ROW EXECUTE FUNCTION oa.not_of_the_future();
CREATE TRIGGER not_of_the_future BEFORE INSERT OR UPDATE ON oa.backups FOR EACH ROW EXECUTE FUNCTION oa.not_of_the_future();

-- What was due before a task was known, or enabled, is not missed; what was due since is, also when next_due_at was written by a clock
-- that was ahead.
ALTER TABLE oa.tasks ADD COLUMN expected_since timestamptz;
COMMENT ON COLUMN oa.tasks.expected_since IS 'Since when its runs by this schedule are expected.';
UPDATE oa.tasks SET expected_since = least(next_due_at, last_started_at, now()) WHERE next_due_at IS NOT NULL;

-- The same for what is there: a row of the future was written while a clock was ahead, and nobody knows by how much.
UPDATE oa.deliveries SET next_try_at = now(), leased_until = least(leased_until, now()), first_try_at = least(first_try_at, now())
WHERE next_try_at > now() + interval '1 day' AND state IN ('pending', 'sending');
UPDATE oa.channels SET paused_until = now() WHERE paused_until > now() + interval '1 day';
UPDATE oa.silences SET until = now() + (until - created_at), created_at = now() WHERE created_at > now();
-- V14 has given these runs the present time and marked them.
UPDATE oa.tasks SET lease_until = now() + interval '10 minutes'
WHERE lease_until > now() + interval '10 minutes' AND lease_run_id IN (SELECT id FROM oa.runs WHERE other_day);
UPDATE oa.runs SET lease_until = now() + interval '10 minutes'
WHERE finished_at IS NULL AND other_day AND lease_until > now() + interval '10 minutes';
