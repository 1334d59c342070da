-- Who may come in by HTTP.  Only the hash of a key is kept: whoever reads this table can impersonate nobody.

CREATE TABLE api_keys (
    key_sha256 bytea       NOT NULL PRIMARY KEY CHECK (octet_length(key_sha256) = 32),
    created_at timestamptz NOT NULL,
    revoked_at timestamptz,
    actor      text        COLLATE "C" NOT NULL,
    role       text        COLLATE "C" NOT NULL,
    label      text        NOT NULL
);

-- The door reads keys under the role that may only add to the log, and can neither make nor change them.
DO $$
BEGIN
    EXECUTE format('GRANT SELECT ON api_keys TO %I', current_schema() || '_writer');
EXCEPTION WHEN undefined_object OR insufficient_privilege THEN
    RAISE NOTICE 'there is no role that could be let read api_keys: %', SQLERRM;
END
$$;
