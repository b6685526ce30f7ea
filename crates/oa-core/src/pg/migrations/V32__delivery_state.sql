-- A link in a message silences the incident that it is about, and nothing else.
ALTER TABLE oa.silences ADD COLUMN fingerprint text, DROP CONSTRAINT silences_name_something,
    ADD CONSTRAINT silences_name_something CHECK (task IS NOT NULL OR rule IS NOT NULL OR host IS NOT NULL OR fingerprint IS NOT NULL);
COMMENT ON TABLE oa.silences IS 'Alerts of these tasks, rules and machines (* stands for anything; absent: any) or of this incident are recorded but sent to nobody from starts_at until then.';
COMMENT ON COLUMN oa.silences.fingerprint IS 'The incident; null: any.';
CREATE FUNCTION oa.silence_covers(silence oa.silences, fingerprint text, task text, rule text, host text) RETURNS boolean LANGUAGE sql STABLE AS
$$
SELECT (silence.fingerprint IS NULL OR silence.fingerprint = silence_covers.fingerprint)
   AND oa.fits(silence_covers.task, silence.task) AND oa.fits(silence_covers.rule, silence.rule) AND oa.fits(silence_covers.host, silence.host)
$$;
COMMENT ON FUNCTION oa.silence_covers IS 'Whether a silence is of an alert or incident, whenever it holds.';

-- What was sent and not answered may have arrived: it is repeated twice, and not for a day.
ALTER TABLE oa.deliveries ADD COLUMN unanswered integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN oa.deliveries.unanswered IS 'How often it was sent without an answer.';

-- Somebody outside hears when no channel took its last message, whenever that was.
ALTER TABLE oa.channels ADD COLUMN took_last boolean;
COMMENT ON TABLE oa.channels IS 'What is known of channels: whether one took its last message, and until when it takes nothing, because it said "too fast". Holds for alerts that are made meanwhile too.';
COMMENT ON COLUMN oa.channels.took_last IS 'Whether it took the last message that it was sent; null: not known.';
