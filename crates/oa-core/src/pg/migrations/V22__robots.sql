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

-- Silences of many tasks, of a machine, from a time on, at hours of the day.
ALTER TABLE oa.silences ADD COLUMN host text, ADD COLUMN starts_at timestamptz NOT NULL DEFAULT now(), ADD COLUMN daily_from time,
    ADD COLUMN daily_until time, ADD COLUMN zone text NOT NULL DEFAULT 'UTC', DROP CONSTRAINT silences_check,
    ADD CONSTRAINT silences_name_something CHECK (task IS NOT NULL OR rule IS NOT NULL OR host IS NOT NULL),
    ADD CONSTRAINT silences_daily CHECK ((daily_from IS NULL) = (daily_until IS NULL));
UPDATE oa.silences SET starts_at = created_at;
COMMENT ON TABLE oa.silences IS 'Alerts of these tasks, rules and machines (* stands for anything; absent: any) are recorded but sent to nobody from starts_at until then.';
COMMENT ON COLUMN oa.silences.daily_from IS 'Only from this time of the day (of zone) until daily_until, over midnight when that is earlier.';

CREATE FUNCTION oa.silence_holds(silence oa.silences, at timestamptz) RETURNS boolean LANGUAGE sql STABLE AS
$$
SELECT at >= silence.starts_at AND at < silence.until
   AND (silence.daily_from IS NULL
        OR CASE WHEN silence.daily_from < silence.daily_until
                THEN (at AT TIME ZONE silence.zone)::time >= silence.daily_from AND (at AT TIME ZONE silence.zone)::time < silence.daily_until
                ELSE (at AT TIME ZONE silence.zone)::time >= silence.daily_from OR (at AT TIME ZONE silence.zone)::time < silence.daily_until END)
$$;
COMMENT ON FUNCTION oa.silence_holds IS 'Whether a silence holds at that time.';

CREATE FUNCTION oa.fits(name text, pattern text) RETURNS boolean LANGUAGE sql IMMUTABLE AS
$$
SELECT pattern IS NULL OR coalesce(name LIKE replace(replace(replace(replace(pattern, '\', '\\'), '%', '\%'), '_', '\_'), '*', '%'), false)
$$;
COMMENT ON FUNCTION oa.fits IS 'Whether a name fits a pattern, in which * stands for anything; no pattern fits all.';

-- As before; starts_at goes with created_at.
DO $$
BEGIN
    EXECUTE replace(pg_get_functiondef('oa.watch_clock()'::regprocedure),
                    'created_at = created_at - step WHERE created_at > now()',
                    'created_at = created_at - step, starts_at = starts_at - step WHERE created_at > now()');
END
$$;
