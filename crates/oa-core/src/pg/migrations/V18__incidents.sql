-- One row an incident, instead of what can be concluded from its alerts: whoever raises or resolves it holds its lock, so that people
-- are notified once, whoever finds it. And alerts are facts: their wording is made where they are shown or sent.
CREATE TABLE oa.incidents (
    fingerprint     text        PRIMARY KEY,
    rule            text        NOT NULL,
    task            text,
    severity        text        NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    causes          text[]      NOT NULL DEFAULT '{}',
    first_alert     uuid,
    last_alert      uuid,
    opened_at       timestamptz NOT NULL DEFAULT now(),
    notified_at     timestamptz NOT NULL DEFAULT now(),
    resolved_at     timestamptz,
    acknowledged_by text,
    acknowledged_at timestamptz,
    note            text,
    recoveries      timestamptz[] NOT NULL DEFAULT '{}'
);
CREATE INDEX incidents_open ON oa.incidents (opened_at) WHERE resolved_at IS NULL;
CREATE INDEX incidents_task ON oa.incidents (task) WHERE resolved_at IS NULL;
COMMENT ON TABLE oa.incidents IS 'One row a fingerprint: what is wrong (resolved_at is null), or was. Its lock makes one notifier.';
COMMENT ON COLUMN oa.incidents.causes IS 'The causes of which people were notified since it is open.';
COMMENT ON COLUMN oa.incidents.first_alert IS 'The alert that opened it.';
COMMENT ON COLUMN oa.incidents.last_alert IS 'The newest of its alerts.';
COMMENT ON COLUMN oa.incidents.notified_at IS 'When people were last notified of it.';
COMMENT ON COLUMN oa.incidents.acknowledged_by IS 'Who has acknowledged it: it is not repeated until it is resolved.';
COMMENT ON COLUMN oa.incidents.recoveries IS 'When it was resolved of late: what comes and goes counts as open until it stays away.';

ALTER TABLE oa.alerts ADD COLUMN event jsonb, ALTER COLUMN title DROP NOT NULL, ALTER COLUMN body DROP NOT NULL,
    ADD CONSTRAINT alerts_say_something CHECK (event IS NOT NULL OR (title IS NOT NULL AND body IS NOT NULL));
COMMENT ON COLUMN oa.alerts.event IS 'What happened, with its version v; null: an older version stored title and body instead.';

INSERT INTO oa.incidents (fingerprint, rule, task, severity, causes, first_alert, last_alert, opened_at, notified_at, resolved_at,
                          acknowledged_by, acknowledged_at, note, recoveries)
SELECT l.fingerprint, coalesce(p.rule, l.rule), l.task, coalesce(p.severity, l.severity), coalesce(p.causes, '{}'), p.first_alert, l.id,
       coalesce(p.opened_at, l.created_at), coalesce(p.notified_at, l.created_at), CASE WHEN l.kind = 'recovery' THEN l.created_at END,
       k.by, k.acked_at, k.note,
       ARRAY(SELECT r.created_at FROM oa.alerts r WHERE r.fingerprint = l.fingerprint AND r.kind = 'recovery' AND r.created_at > now() - interval '1 hour')
FROM (SELECT DISTINCT ON (fingerprint) * FROM oa.alerts WHERE kind <> 'message' ORDER BY fingerprint, seq DESC) l
-- The problems since it was opened: since the last recovery, or the one before that when it is resolved.
LEFT JOIN LATERAL (
    SELECT (array_agg(p.rule ORDER BY p.seq DESC))[1] AS rule, (array_agg(p.severity ORDER BY p.seq DESC))[1] AS severity,
           (array_agg(p.id ORDER BY p.seq))[1] AS first_alert, min(p.created_at) AS opened_at, (array_agg(p.created_at ORDER BY p.seq DESC))[1] AS notified_at,
           array_remove(array_agg(DISTINCT CASE r.error_kind WHEN 'network' THEN 'http_5xx' WHEN 'timeout' THEN 'http_5xx' WHEN 'empty' THEN 'partial'
                                                ELSE r.error_kind END), NULL) AS causes
    FROM oa.alerts p LEFT JOIN oa.runs r ON r.id = p.run_id
    WHERE p.fingerprint = l.fingerprint AND p.kind = 'problem'
      AND p.seq > coalesce((SELECT b.seq FROM oa.alerts b WHERE b.fingerprint = l.fingerprint AND b.kind = 'recovery' AND b.id <> l.id
                            ORDER BY b.seq DESC LIMIT 1), 0)
    HAVING count(*) > 0) p ON true
LEFT JOIN oa.acks k ON k.fingerprint = l.fingerprint AND l.kind = 'problem';
-- What somebody had acknowledged and is not open any more, or has no alert left.
INSERT INTO oa.incidents (fingerprint, rule, severity, opened_at, notified_at, resolved_at, acknowledged_by, acknowledged_at, note)
SELECT fingerprint, split_part(fingerprint, ':', 1), 'info', acked_at, acked_at, acked_at, by, acked_at, note FROM oa.acks
ON CONFLICT (fingerprint) DO NOTHING;

-- Whoever may use alerts may use incidents likewise; whoever could acknowledge one still can.
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS role,
               bool_or(c.oid = 'oa.alerts'::regclass AND a.privilege_type = 'SELECT') AS reads,
               bool_or(c.oid = 'oa.alerts'::regclass AND a.privilege_type = 'INSERT') AS writes,
               bool_or(c.oid = 'oa.acks'::regclass AND a.privilege_type = 'INSERT') AS acknowledges
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid IN ('oa.alerts'::regclass, 'oa.acks'::regclass) AND a.grantee <> c.relowner GROUP BY 1
    LOOP
        IF held.reads THEN
            EXECUTE format('GRANT SELECT ON oa.incidents TO %s', held.role);
        END IF;
        IF held.writes THEN
            EXECUTE format('GRANT SELECT, INSERT, UPDATE ON oa.incidents TO %s', held.role);
        ELSIF held.acknowledges THEN
            EXECUTE format('GRANT SELECT, UPDATE (acknowledged_by, acknowledged_at, note) ON oa.incidents TO %s', held.role);
        END IF;
    END LOOP;
END
$$;

DO $$
BEGIN
    EXECUTE replace(pg_get_functiondef('oa.delivery_due(oa.alerts, text, double precision, integer)'::regprocedure),
                    'EXISTS (SELECT FROM oa.acks k WHERE k.fingerprint = alert.fingerprint)',
                    'EXISTS (SELECT FROM oa.incidents i WHERE i.fingerprint = alert.fingerprint AND i.acknowledged_at IS NOT NULL)');
    -- Nobody has opened anything in the future.
    EXECUTE replace(pg_get_functiondef('oa.watch_clock()'::regprocedure),
                    'UPDATE oa.channel_routes SET seen_at = now() WHERE seen_at > now();',
                    'UPDATE oa.channel_routes SET seen_at = now() WHERE seen_at > now();
            UPDATE oa.incidents SET opened_at = now() WHERE opened_at > now();');
END
$$;

DROP VIEW oa.troubles;
DROP TABLE oa.acks;
DELETE FROM oa.locks WHERE name LIKE 'alerts:%';
