CREATE VIEW oa.troubles AS
SELECT l.fingerprint, l.rule, l.task, l.severity, l.title, l.created_at AS told_at, l.silenced_by,
       (SELECT min(p.created_at) FROM oa.alerts p
        WHERE p.fingerprint = l.fingerprint AND p.kind = 'problem'
          AND p.id > coalesce((SELECT r.id FROM oa.alerts r WHERE r.fingerprint = l.fingerprint AND r.kind = 'recovery' ORDER BY r.id DESC LIMIT 1),
                              '00000000-0000-0000-0000-000000000000'::uuid)) AS since,
       k.by AS taken_on_by, k.note
FROM (SELECT DISTINCT ON (fingerprint) * FROM oa.alerts WHERE kind <> 'message' ORDER BY fingerprint, id DESC) l
LEFT JOIN oa.acks k ON k.fingerprint = l.fingerprint
WHERE l.kind = 'problem';
COMMENT ON VIEW oa.troubles IS 'What is wrong and not over: the last alert of each fingerprint, since when, and who has taken it on.';

-- Whoever reads alerts may read this.
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS role
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'oa.alerts'::regclass AND a.grantee <> c.relowner AND a.privilege_type = 'SELECT'
    LOOP
        EXECUTE format('GRANT SELECT ON oa.troubles TO %s', held.role);
    END LOOP;
END
$$;
