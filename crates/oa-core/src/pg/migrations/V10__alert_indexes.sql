-- What a check asks each minute must not take longer with every alert that was ever told.
CREATE INDEX deliveries_waiting ON oa.deliveries (channel, alert_id) WHERE state = 'pending' OR state = 'sending';

-- The same view as before, from one fingerprint to the next by the index instead of over all alerts.
CREATE OR REPLACE VIEW oa.troubles AS
WITH RECURSIVE fingerprints AS (
    (SELECT fingerprint FROM oa.alerts ORDER BY fingerprint LIMIT 1)
    UNION ALL
    SELECT (SELECT a.fingerprint FROM oa.alerts a WHERE a.fingerprint > f.fingerprint ORDER BY a.fingerprint LIMIT 1)
    FROM fingerprints f WHERE f.fingerprint IS NOT NULL
)
SELECT l.fingerprint, l.rule, l.task, l.severity, l.title, l.created_at AS told_at, l.silenced_by,
       (SELECT min(p.created_at) FROM oa.alerts p
        WHERE p.fingerprint = l.fingerprint AND p.kind = 'problem'
          AND p.id > coalesce((SELECT r.id FROM oa.alerts r WHERE r.fingerprint = l.fingerprint AND r.kind = 'recovery' ORDER BY r.id DESC LIMIT 1),
                              '00000000-0000-0000-0000-000000000000'::uuid)) AS since,
       k.by AS taken_on_by, k.note
FROM fingerprints f
CROSS JOIN LATERAL (SELECT a.* FROM oa.alerts a WHERE a.fingerprint = f.fingerprint AND a.kind <> 'message' ORDER BY a.id DESC LIMIT 1) l
LEFT JOIN oa.acks k ON k.fingerprint = l.fingerprint
WHERE l.kind = 'problem';
