-- A program whose connection broke at a commit asks what became of it. The number of a transaction does not say: after a crash, or on a server
-- that has taken over without having seen it, another transaction may have that number. A row that it leaves is its own.
CREATE TABLE oa.commits (
    id   uuid        PRIMARY KEY,
    at   timestamptz NOT NULL DEFAULT now(),
    kept boolean     NOT NULL DEFAULT false
);
COMMENT ON TABLE oa.commits IS 'Transactions of which nothing else says that they were committed, by ids that their programs gave them. Whoever asks puts the id in: if it is there, it was; if not, it never will be.';
COMMENT ON COLUMN oa.commits.kept IS 'Of oa-migrate sync, which may be asked for whenever it is run again; others are asked for at once, and removed after an hour.';

CREATE FUNCTION oa.note_commit(its_id uuid) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    caller text := CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END;
BEGIN
    -- What has changed nothing may be done again.
    IF pg_current_xact_id_if_assigned() IS NULL THEN
        RETURN;
    END IF;
    IF NOT has_table_privilege(caller, 'oa.commits', 'INSERT') THEN
        RAISE insufficient_privilege USING MESSAGE = 'permission denied for table commits';
    END IF;
    -- Those that somebody else removes just now are not waited for: his commit may take long.
    DELETE FROM oa.commits c
    WHERE c.id IN (SELECT o.id FROM oa.commits o WHERE NOT o.kept AND o.at < now() - interval '1 hour' FOR UPDATE SKIP LOCKED);
    INSERT INTO oa.commits (id) VALUES (its_id);
END
$$;
COMMENT ON FUNCTION oa.note_commit IS 'Leaves this transaction''s id in oa.commits, if it has changed anything.';

-- They belong to whom the others belong to, also where a superuser upgrades; and whoever may use tasks may use these.
DO $$
DECLARE
    held  record;
    owner name := (SELECT pg_get_userbyid(c.relowner) FROM pg_class c WHERE c.oid = 'oa.tasks'::regclass);
BEGIN
    IF owner <> current_user AND pg_has_role(owner, 'USAGE') AND has_schema_privilege(owner, 'oa', 'CREATE') THEN
        EXECUTE format('ALTER TABLE oa.commits OWNER TO %I', owner);
        EXECUTE format('ALTER FUNCTION oa.note_commit(uuid) OWNER TO %I', owner);
    END IF;
    FOR held IN
        SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS role, a.privilege_type
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'oa.tasks'::regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s ON oa.commits TO %s', held.privilege_type, held.role);
    END LOOP;
END
$$;
