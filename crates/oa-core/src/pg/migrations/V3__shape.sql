ALTER TABLE oa.tasks ADD COLUMN shape jsonb;
COMMENT ON COLUMN oa.tasks.shape IS 'The fields of the records of its last success and their kinds, for telling when a site changes them.';
