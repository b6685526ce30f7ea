-- A backup may disappear without being pruned: a snapshot deleted by hand, a disk that was swapped or rolled back to an older state.
-- That is recorded, and is no removal. And WAL whose full backup is gone is there, but restores nothing.
ALTER TABLE oa.backups ADD COLUMN missing_since timestamptz, ADD COLUMN unrestorable text;
COMMENT ON TABLE oa.backups IS 'One row per backup in a repository; removed_at: pruned since then; missing_since: not there although it was not.';
COMMENT ON COLUMN oa.backups.missing_since IS 'When the repository was first seen without it. Empty again once it is back.';
COMMENT ON COLUMN oa.backups.unrestorable IS 'Why it cannot be restored although it is there: no full backup leads to its WAL.';

-- As before, but: what is missing or unrestorable restores nothing, and any dump is restored by itself, whatever its level.
CREATE OR REPLACE VIEW oa.repository_state AS
WITH standing AS (
    SELECT * FROM oa.backups
    WHERE removed_at IS NULL AND missing_since IS NULL AND unrestorable IS NULL AND kind <> 'files' AND restorable_to <= now() + interval '10 minutes'
), newest AS (
    SELECT DISTINCT ON (repository) repository, kind, restorable_to FROM standing ORDER BY repository, restorable_to DESC
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
    SELECT * FROM standing s WHERE s.repository = n.repository AND (s.level = 'full' OR s.kind = 'logical') AND s.kind = k.kind
    ORDER BY s.finished_at DESC LIMIT 1
) f ON true;
