-- History is protected in depth: triggers refuse changes whoever asks, and the application writes under a role that
-- was never granted them.

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the log is append-only: % of % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON commands
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TRIGGER append_only BEFORE INSERT OR DELETE OR TRUNCATE ON head
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- ALWAYS: a session that plays replica does not get past them either.
ALTER TABLE ledger_events ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE commands ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE head ENABLE ALWAYS TRIGGER append_only;

-- Roles belong to the whole server: another database may create this one at the same moment, or have created it long
-- ago, and some databases let us create none.  Then the ledger works without it, and "verify" says so.
DO $$
DECLARE
    writer text := current_schema() || '_writer';
BEGIN
    BEGIN
        EXECUTE format('CREATE ROLE %I NOLOGIN', writer);
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;
    END;
    BEGIN
        EXECUTE format('GRANT %I TO %I', writer, current_user);
    EXCEPTION WHEN unique_violation OR internal_error OR insufficient_privilege THEN
        NULL;
    END;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), writer);
    EXECUTE format('GRANT SELECT, INSERT ON ledger_events, commands TO %I', writer);
    EXECUTE format('GRANT SELECT, UPDATE (position, recorded_at, chain_sha256) ON head TO %I', writer);
    EXECUTE format('GRANT SELECT ON events, migrations TO %I', writer);
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'no role % could be set up: %', writer, SQLERRM;
END
$$;
