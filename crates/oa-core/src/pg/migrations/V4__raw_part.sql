ALTER TABLE oa.raw ADD COLUMN part text;
COMMENT ON COLUMN oa.raw.part IS 'What the answer is of, when a run asks for several things: the value of [each], or [image].';
