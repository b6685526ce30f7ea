-- The run log and what belongs to it. Ids of runs are UUID version 7: their first 48 bits are the start's milliseconds, so
-- ordering by id is ordering by time, and a partition by range of id is a partition by month.

CREATE FUNCTION oa.uuid_floor(moment timestamptz) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT
    RETURN (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || '00000000000000000000')::uuid;

CREATE TABLE oa.runs (
    id            uuid PRIMARY KEY,
    tool          text        NOT NULL,
    task          text        NOT NULL,
    trigger       text        NOT NULL CHECK (trigger IN ('cron', 'manual', 'due', 'backfill')),
    host          text        NOT NULL,
    machine_id    text        NOT NULL,
    boot_id       text        NOT NULL,
    pid           integer     NOT NULL,
    pid_started   bigint      NOT NULL,
    version       text        NOT NULL,
    status        text        NOT NULL CHECK (status IN
                      ('running', 'retrying', 'success', 'partial', 'failed', 'timeout', 'skipped', 'abandoned')),
    started_at    timestamptz NOT NULL,
    finished_at   timestamptz,
    lease_until   timestamptz,
    attempts      integer     NOT NULL DEFAULT 0,
    fetched       bigint      NOT NULL DEFAULT 0,
    inserted      bigint      NOT NULL DEFAULT 0,
    updated       bigint      NOT NULL DEFAULT 0,
    unchanged     bigint      NOT NULL DEFAULT 0,
    rejected      bigint      NOT NULL DEFAULT 0,
    error_kind    text,
    error_message text,
    details       jsonb       NOT NULL DEFAULT '{}'
) PARTITION BY RANGE (id);
COMMENT ON TABLE oa.runs IS 'One row per start of any program''s task; written before the work starts.';
CREATE INDEX runs_task ON oa.runs (task, id DESC);
CREATE INDEX runs_status ON oa.runs (status, id DESC);
CREATE INDEX runs_unfinished ON oa.runs (id) WHERE finished_at IS NULL;

CREATE TABLE oa.attempts (
    run_id        uuid        NOT NULL,
    attempt       integer     NOT NULL,
    started_at    timestamptz NOT NULL,
    finished_at   timestamptz NOT NULL,
    outcome       text        NOT NULL CHECK (outcome IN ('success', 'partial', 'failed', 'timeout')),
    error_kind    text,
    error_message text,
    PRIMARY KEY (run_id, attempt)
) PARTITION BY RANGE (run_id);
COMMENT ON TABLE oa.attempts IS 'One row per try of a run.';

CREATE TABLE oa.raw (
    run_id        uuid        NOT NULL,
    seq           integer     NOT NULL,
    attempt       integer     NOT NULL,
    url           text        NOT NULL,
    status        integer     NOT NULL,
    content_type  text,
    sha256        text        NOT NULL,
    size_bytes    bigint      NOT NULL,
    stored_bytes  bigint      NOT NULL,
    fetched_at    timestamptz NOT NULL,
    PRIMARY KEY (run_id, seq)
) PARTITION BY RANGE (run_id);
COMMENT ON TABLE oa.raw IS 'Index of the raw archive: what was received, before anything was made of it. The bytes are in state_dir/raw.';
CREATE INDEX raw_sha256 ON oa.raw (sha256);

CREATE TABLE oa.quality (
    run_id         uuid PRIMARY KEY,
    task           text    NOT NULL,
    day            date,
    expected       bigint,
    collected      bigint  NOT NULL,
    completeness   double precision,
    duplicates     bigint  NOT NULL,
    fresh          boolean,
    score          integer NOT NULL CHECK (score BETWEEN 0 AND 100),
    findings       jsonb   NOT NULL DEFAULT '[]'
) PARTITION BY RANGE (run_id);
COMMENT ON TABLE oa.quality IS 'One row per run that collected: what share of what the source announced, how fresh, how many twice.';
CREATE INDEX quality_task ON oa.quality (task, run_id DESC);

-- Monthly partitions of all four, made ahead of time. A month whose rows already sit in the default partition (the clock had
-- jumped) stays there. SECURITY DEFINER, so that a crawler's role needs no right to create tables.
CREATE FUNCTION oa.ensure_partitions(around timestamptz DEFAULT now()) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    month timestamp;
    parent text;
    child text;
    made integer := 0;
BEGIN
    FOR month IN SELECT generate_series(date_trunc('month', around AT TIME ZONE 'UTC'),
                                        date_trunc('month', around AT TIME ZONE 'UTC') + interval '2 months', interval '1 month')
    LOOP
        FOREACH parent IN ARRAY ARRAY['runs', 'attempts', 'raw', 'quality'] LOOP
            child := parent || to_char(month, '_YYYY_MM');
            CONTINUE WHEN to_regclass('oa.' || child) IS NOT NULL;
            -- Two programs at once: the second waits here and then finds it made.
            PERFORM pg_advisory_xact_lock(hashtext('oa.ensure_partitions'));
            CONTINUE WHEN to_regclass('oa.' || child) IS NOT NULL;
            BEGIN
                EXECUTE format('CREATE TABLE oa.%I PARTITION OF oa.%I FOR VALUES FROM (%L) TO (%L)', child, parent,
                               oa.uuid_floor(month AT TIME ZONE 'UTC'),
                               oa.uuid_floor((month + interval '1 month') AT TIME ZONE 'UTC'));
                made := made + 1;
            EXCEPTION WHEN check_violation THEN
                NULL;
            END;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$;
CREATE TABLE oa.runs_default PARTITION OF oa.runs DEFAULT;
CREATE TABLE oa.attempts_default PARTITION OF oa.attempts DEFAULT;
CREATE TABLE oa.raw_default PARTITION OF oa.raw DEFAULT;
CREATE TABLE oa.quality_default PARTITION OF oa.quality DEFAULT;
SELECT oa.ensure_partitions();

-- Not partitioned and never pruned by month: a row here may be the only copy of a record.
CREATE TABLE oa.rejects (
    run_id     uuid        NOT NULL,
    seq        bigint      NOT NULL,
    task       text        NOT NULL,
    target     text,
    source_key text,
    field      text,
    reason     text        NOT NULL,
    record     jsonb,
    raw        bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, seq)
);
COMMENT ON TABLE oa.rejects IS 'Every record that was not stored, with the reason and the record itself (raw where JSON cannot hold it).';
CREATE INDEX rejects_task ON oa.rejects (task, run_id DESC);

CREATE TABLE oa.tasks (
    name                 text PRIMARY KEY,
    tool                 text        NOT NULL,
    title                text        NOT NULL DEFAULT '',
    schedule             text,
    last_run_id          uuid,
    last_status          text,
    last_started_at      timestamptz,
    last_finished_at     timestamptz,
    last_success_at      timestamptz,
    last_error           text,
    consecutive_failures integer     NOT NULL DEFAULT 0,
    failing_since        timestamptz,
    next_due_at          timestamptz,
    lease_run_id         uuid,
    lease_host           text,
    lease_machine        text,
    lease_until          timestamptz
);
COMMENT ON TABLE oa.tasks IS 'One row per task, kept in the same transaction as its runs, so that health never scans the log.';

CREATE TABLE oa.alerts (
    id          uuid PRIMARY KEY,
    fingerprint text        NOT NULL,
    rule        text        NOT NULL,
    task        text,
    run_id      uuid,
    severity    text        NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    kind        text        NOT NULL CHECK (kind IN ('problem', 'recovery', 'message')),
    title       text        NOT NULL,
    body        text        NOT NULL,
    created_at  timestamptz NOT NULL,
    settled_at  timestamptz
);
COMMENT ON TABLE oa.alerts IS 'The outbox: committed with the event that caused the alert, delivered by oa-alert, settled when every channel has it.';
CREATE INDEX alerts_unsettled ON oa.alerts (id) WHERE settled_at IS NULL;
CREATE INDEX alerts_fingerprint ON oa.alerts (fingerprint, id DESC);

CREATE TABLE oa.deliveries (
    alert_id     uuid        NOT NULL REFERENCES oa.alerts ON DELETE CASCADE,
    channel      text        NOT NULL,
    state        text        NOT NULL CHECK (state IN ('pending', 'sending', 'sent', 'failed')),
    tries        integer     NOT NULL DEFAULT 0,
    next_try_at  timestamptz NOT NULL DEFAULT now(),
    leased_until timestamptz,
    last_error   text,
    sent_at      timestamptz,
    PRIMARY KEY (alert_id, channel)
);
COMMENT ON TABLE oa.deliveries IS 'One row per alert and channel.';

-- The names that the service's own plan gives.
CREATE VIEW oa.crawler_task_logs AS
SELECT id,
       task                                                         AS task_name,
       coalesce(details ->> 'provider', tool)                       AS spider_name,
       status,
       started_at                                                   AS start_time,
       finished_at                                                  AS end_time,
       extract(epoch FROM finished_at - started_at)::double precision AS duration_seconds,
       greatest(fetched - rejected, 0)                              AS records_count,
       error_message,
       greatest(attempts - 1, 0)                                    AS retry_count,
       started_at                                                   AS created_at
FROM oa.runs;
COMMENT ON VIEW oa.crawler_task_logs IS 'oa.runs under the names of the service''s own plan.';

DO $$
BEGIN
    IF to_regclass('public.crawler_task_logs') IS NULL AND has_schema_privilege('public', 'CREATE') THEN
        CREATE VIEW public.crawler_task_logs AS SELECT * FROM oa.crawler_task_logs;
    END IF;
END
$$;
