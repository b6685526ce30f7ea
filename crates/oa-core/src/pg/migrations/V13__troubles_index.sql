-- Each message and each daily report has a fingerprint of its own, and none of them is a trouble: the view walked over all of them.
CREATE INDEX alerts_of_troubles ON oa.alerts (fingerprint, id DESC) WHERE kind <> 'message';

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
          AND p.id > coalesce((SELECT r.id FROM oa.alerts r WHERE r.fingerprint = l.fingerprint AND r.kind = 'recovery' ORDER BY r.id DESC LIMIT 1),
                              '00000000-0000-0000-0000-000000000000'::uuid)) AS since,
       k.by AS taken_on_by, k.note
FROM fingerprints f
CROSS JOIN LATERAL (SELECT a.* FROM oa.alerts a WHERE a.fingerprint = f.fingerprint AND a.kind <> 'message' ORDER BY a.id DESC LIMIT 1) l
LEFT JOIN oa.acks k ON k.fingerprint = l.fingerprint
WHERE l.kind = 'problem';
