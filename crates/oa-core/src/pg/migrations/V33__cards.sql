-- Messages of application robots have buttons, and are changed where they stand when their incident is acknowledged or resolved.
CREATE TABLE oa.cards (
    channel     text        NOT NULL,
    message     text        NOT NULL,
    alert       uuid        NOT NULL,
    content     jsonb       NOT NULL,
    shown       jsonb       NOT NULL DEFAULT '{}',
    sent_at     timestamptz NOT NULL DEFAULT now(),
    tries       integer     NOT NULL DEFAULT 0,
    next_try_at timestamptz NOT NULL DEFAULT now(),
    last_error  text,
    ended_at    timestamptz,
    PRIMARY KEY (channel, message)
);
CREATE INDEX cards_open ON oa.cards (channel, sent_at) WHERE ended_at IS NULL;
COMMENT ON TABLE oa.cards IS 'Messages with buttons that an application robot has sent, to be changed where they stand.';
COMMENT ON COLUMN oa.cards.message IS 'The id by which the platform knows the message.';
COMMENT ON COLUMN oa.cards.content IS 'What it was sent with: title, text, severity, and the links behind its buttons without their signatures, so that none works.';
COMMENT ON COLUMN oa.cards.shown IS 'What it shows of the incident now; {}: that it is open, and nobody has done anything.';
COMMENT ON COLUMN oa.cards.ended_at IS 'Since when it is not changed any more: it shows the end, or the platform changes it no more.';

-- Who takes what is pressed on them: one program for each application.
CREATE TABLE oa.listeners (
    robot        text        PRIMARY KEY,
    host         text        NOT NULL,
    place        text        NOT NULL,
    holder       uuid        NOT NULL,
    leased_until timestamptz NOT NULL,
    connected_at timestamptz,
    last_error   text
);
COMMENT ON TABLE oa.listeners IS 'The oa-alert listen of each application robot.';
COMMENT ON COLUMN oa.listeners.robot IS 'A hash of the application''s address and id.';
COMMENT ON COLUMN oa.listeners.place IS 'The state directory: of a process there that is gone, the next one takes over at once.';
COMMENT ON COLUMN oa.listeners.connected_at IS 'When it was last seen connected.';

ALTER TABLE oa.used_links ADD COLUMN used_by text;
-- What was done from a message is asked for each that is open, every two seconds.
CREATE INDEX used_links_alert ON oa.used_links (alert, channel);
COMMENT ON COLUMN oa.used_links.used_by IS 'The name that was given, or the account of the platform on which it was pressed.';

-- What has ended and what was used leaves with the answers of runs. No platform changes a message that is so old.
CREATE OR REPLACE FUNCTION oa.prune_answers(before timestamptz) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    latest timestamptz := least(before, now() - interval '90 days');
    gone   bigint;
    more   bigint;
    cards  bigint;
BEGIN
    IF NOT has_table_privilege(session_user, 'oa.requests', 'UPDATE') THEN
        RAISE insufficient_privilege USING MESSAGE = 'permission denied for table requests';
    END IF;
    DELETE FROM oa.requests r WHERE r.ended_at < latest;
    GET DIAGNOSTICS gone = ROW_COUNT;
    DELETE FROM oa.used_links l WHERE l.used_at < latest;
    GET DIAGNOSTICS more = ROW_COUNT;
    DELETE FROM oa.cards c WHERE c.sent_at < latest;
    GET DIAGNOSTICS cards = ROW_COUNT;
    RETURN gone + more + cards;
END
$$;
COMMENT ON FUNCTION oa.prune_answers IS 'Removes requests that ended, links that were used and messages with buttons from before that time, and none of the last 90 days.';

-- Whoever sends alerts sends these, too.
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS role, a.privilege_type
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'oa.deliveries'::regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s ON oa.cards, oa.listeners TO %s', held.privilege_type, held.role);
    END LOOP;
END
$$;
