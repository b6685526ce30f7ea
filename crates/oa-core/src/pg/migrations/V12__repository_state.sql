-- What each repository can restore, for whoever shows or judges it. A moment of the future was recorded while a clock was wrong, and
-- counts only where there is no other. The newest full backup is one that is gone on from: of dumps made beside physical backups, now
-- and then, none is.
CREATE VIEW oa.repository_state AS
WITH standing AS (
    SELECT *, restorable_to <= now() + interval '10 minutes' AS past FROM oa.backups WHERE removed_at IS NULL AND kind <> 'files'
), newest AS (
    SELECT DISTINCT ON (repository) repository, kind, restorable_to FROM standing ORDER BY repository, past DESC, restorable_to DESC
)
SELECT n.repository, n.restorable_to, k.kind, f.id AS full_id, f.finished_at AS full_at, f.checked AS full_checked, f.added_bytes AS full_added_bytes
FROM newest n
CROSS JOIN LATERAL (
    SELECT CASE WHEN EXISTS (
        SELECT FROM standing s WHERE s.repository = n.repository AND s.kind = 'physical'
          AND s.restorable_to BETWEEN n.restorable_to - interval '1 day' AND n.restorable_to
    ) THEN 'physical' ELSE n.kind END AS kind
) k
LEFT JOIN LATERAL (
    SELECT * FROM standing s WHERE s.repository = n.repository AND s.level = 'full' AND s.kind = k.kind
    ORDER BY s.past DESC, s.finished_at DESC LIMIT 1
) f ON true;

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
