-- A backup that is listed is one that recovered: after each full physical one, and weekly for its chain, a private server recovers it
-- to the end of its WAL.
ALTER TABLE oa.backups ADD COLUMN recovered_to timestamptz, ADD COLUMN recovery_at timestamptz, ADD COLUMN recovery_seconds double precision,
    ADD COLUMN recovery_error text;
COMMENT ON COLUMN oa.backups.recovered_to IS 'The newest point in time to which a private server recovered with it.';
COMMENT ON COLUMN oa.backups.recovery_at IS 'When that was last tried.';
COMMENT ON COLUMN oa.backups.recovery_seconds IS 'How long the last recovery took, from the first byte out of the repository until the server answered.';
COMMENT ON COLUMN oa.backups.recovery_error IS 'Why the last recovery failed; null: it succeeded, or was never tried.';
