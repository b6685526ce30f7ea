-- What backups there are and what came of restoring them. The repository itself is the truth: these rows are for people and alerts,
-- and oa-backup puts them right when the two differ.
CREATE TABLE oa.backups (
    id             text PRIMARY KEY,
    run_id         uuid        NOT NULL,
    repository     text        NOT NULL,
    kind           text        NOT NULL CHECK (kind IN ('physical', 'logical', 'files')),
    level          text        NOT NULL CHECK (level IN ('full', 'incremental')),
    parent_id      text,
    host           text        NOT NULL,
    database       text        NOT NULL,
    server_version integer     NOT NULL,
    system_id      text        NOT NULL,
    timeline       integer     NOT NULL,
    start_lsn      text,
    end_lsn        text,
    restorable_from timestamptz NOT NULL,
    restorable_to  timestamptz NOT NULL,
    started_at     timestamptz NOT NULL,
    finished_at    timestamptz NOT NULL,
    files          bigint      NOT NULL,
    size_bytes     bigint      NOT NULL,
    added_bytes    bigint      NOT NULL,
    tables         jsonb       NOT NULL DEFAULT '{}',
    checked        text        NOT NULL DEFAULT 'none' CHECK (checked IN ('none', 'structure', 'data')),
    checked_at     timestamptz,
    check_error    text,
    removed_at     timestamptz
);
COMMENT ON TABLE oa.backups IS 'One row per backup in a repository; removed_at: pruned since then.';
COMMENT ON COLUMN oa.backups.id IS 'The snapshot''s id in the repository.';
COMMENT ON COLUMN oa.backups.parent_id IS 'The full backup that an incremental physical one continues.';
COMMENT ON COLUMN oa.backups.restorable_from IS 'With restorable_to: the moments that it can restore, together with its parent. One moment for a logical one.';
COMMENT ON COLUMN oa.backups.size_bytes IS 'Bytes that were backed up; added_bytes: what the repository grew by for it, compressed.';
COMMENT ON COLUMN oa.backups.tables IS 'Rows and hash of each table when it was made, which a drill compares.';
COMMENT ON COLUMN oa.backups.checked IS 'The last verification: structure (all is there) or data (every byte was read back).';
CREATE INDEX backups_newest ON oa.backups (repository, restorable_to DESC) WHERE removed_at IS NULL;

CREATE TABLE oa.drills (
    run_id       uuid PRIMARY KEY,
    backup_id    text        NOT NULL,
    repository   text        NOT NULL,
    host         text        NOT NULL,
    target       timestamptz NOT NULL,
    started_at   timestamptz NOT NULL,
    finished_at  timestamptz NOT NULL,
    ok           boolean     NOT NULL,
    rto_seconds  double precision,
    rpo_seconds  double precision,
    tables       integer     NOT NULL DEFAULT 0,
    checks       jsonb       NOT NULL DEFAULT '[]',
    error        text
);
COMMENT ON TABLE oa.drills IS 'One row per rehearsed restore.';
COMMENT ON COLUMN oa.drills.rto_seconds IS 'From the first byte out of the repository until the server answered.';
COMMENT ON COLUMN oa.drills.rpo_seconds IS 'What would have been lost had the machine died when the drill began: its start minus the newest restorable moment.';
COMMENT ON COLUMN oa.drills.tables IS 'Tables whose content was compared with what was recorded.';
CREATE INDEX drills_newest ON oa.drills (started_at DESC);

CREATE TABLE oa.repositories (
    repository   text        NOT NULL,
    measured_at  timestamptz NOT NULL,
    size_bytes   bigint      NOT NULL,
    backups      integer     NOT NULL,
    free_bytes   bigint,
    PRIMARY KEY (repository, measured_at)
);
COMMENT ON TABLE oa.repositories IS 'The size of a repository after each full backup and prune, for its growth. free_bytes: of its disk, where it has one.';

-- Whoever may use the run log may use these.
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS role, a.privilege_type
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'oa.tasks'::regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s ON oa.backups, oa.drills, oa.repositories TO %s', held.privilege_type, held.role);
    END LOOP;
END
$$;
