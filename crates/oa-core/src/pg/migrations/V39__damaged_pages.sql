-- A server with damaged pages is backed up all the same, and the backup is marked. Whoever judges backups by these rows has to know.
ALTER TABLE oa.backups ADD COLUMN damaged_pages text;
COMMENT ON COLUMN oa.backups.damaged_pages IS 'Where pages of the server were damaged when it was made, and so are in it; null: nowhere that was seen.';
