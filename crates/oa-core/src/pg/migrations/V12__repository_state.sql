-- What each repository can restore, for whoever shows or judges it. A moment of the future was recorded while a clock was wrong, and
-- counts only where there is no other. The newest full backup is one of the same kind: a dump made beside physical backups is none
-- that the log goes on from.
CREATE VIEW oa.repository_state AS
SELECT DISTINCT ON (b.repository) b.repository, b.kind, b.restorable_to,
       f.id AS full_id, f.finished_at AS full_at, f.checked AS full_checked, f.added_bytes AS full_added_bytes
FROM oa.backups b
LEFT JOIN LATERAL (
    SELECT * FROM oa.backups c
    WHERE c.repository = b.repository AND c.removed_at IS NULL AND c.level = 'full' AND c.kind = b.kind
    ORDER BY c.finished_at <= now() + interval '10 minutes' DESC, c.finished_at DESC LIMIT 1
) f ON true
WHERE b.removed_at IS NULL AND b.kind <> 'files'
ORDER BY b.repository, b.restorable_to <= now() + interval '10 minutes' DESC, b.restorable_to DESC;

DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS role
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'oa.backups'::regclass AND a.grantee <> c.relowner AND a.privilege_type = 'SELECT'
    LOOP
        EXECUTE format('GRANT SELECT ON oa.repository_state TO %s', held.role);
    END LOOP;
END
$$;
