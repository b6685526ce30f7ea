-- Whether a channel that wants only some alerts gets this one: 'now', 'later' (its trouble does not go on long enough yet), 'never'.
-- after: seconds for which a trouble must go on, without anybody having taken it on; min_rank: 0 info, 1 warning, 2 critical.
CREATE FUNCTION oa.delivery_due(alert oa.alerts, channel text, after double precision, min_rank integer) RETURNS text
    LANGUAGE sql STABLE AS $$
    WITH before AS (
        -- The recovery that ended the trouble before this one.
        SELECT coalesce((SELECT r.id FROM oa.alerts r WHERE r.fingerprint = alert.fingerprint AND r.kind = 'recovery' AND r.id < alert.id
                         ORDER BY r.id DESC LIMIT 1), '00000000-0000-0000-0000-000000000000'::uuid) AS id
    )
    SELECT CASE
        -- A channel's own trouble is for the others.
        WHEN alert.fingerprint = 'channel:' || channel THEN 'never'
        WHEN after = 0 AND min_rank = 0 THEN 'now'
        -- Who has not heard of a trouble need not hear that it is over.
        WHEN alert.kind = 'recovery' THEN
            CASE WHEN EXISTS (
                SELECT FROM oa.alerts p JOIN oa.deliveries d ON d.alert_id = p.id AND d.channel = delivery_due.channel, before
                WHERE p.fingerprint = alert.fingerprint AND p.kind = 'problem' AND p.id < alert.id AND p.id > before.id)
            THEN 'now' ELSE 'never' END
        WHEN CASE alert.severity WHEN 'critical' THEN 2 WHEN 'warning' THEN 1 ELSE 0 END < min_rank THEN 'never'
        WHEN after = 0 THEN 'now'
        WHEN alert.kind = 'message' THEN 'never'
        WHEN EXISTS (SELECT FROM oa.acks k WHERE k.fingerprint = alert.fingerprint) THEN 'never'
        -- It is over, or its repetition speaks for it.
        WHEN EXISTS (SELECT FROM oa.alerts n WHERE n.fingerprint = alert.fingerprint AND n.id > alert.id) THEN 'never'
        WHEN now() - (SELECT min(p.created_at) FROM oa.alerts p, before
                      WHERE p.fingerprint = alert.fingerprint AND p.kind = 'problem' AND p.id > before.id) >= make_interval(secs => after)
            THEN 'now'
        ELSE 'later'
    END
$$;
