-- crl_enforcement, version 2: why clients are not disconnected has a column of its own, because the next proof clears
-- `error`.
-- suffices: 0012

CREATE TABLE refold.crl_enforcement_v2 (
    broker        text COLLATE "C" NOT NULL,
    authority_id  text COLLATE "C" NOT NULL,
    number        bigint NOT NULL,
    tenant_id     text COLLATE "C" NOT NULL,
    written_at    timestamptz,
    reloaded_at   timestamptz,
    proved_at     timestamptz,
    cut           bigint NOT NULL,
    remaining     bigint,
    error         text,
    uncut_error   text,
    last_position bigint NOT NULL,
    PRIMARY KEY (broker, authority_id, number)
);
CREATE INDEX crl_enforcement_v2_tenant ON refold.crl_enforcement_v2 (tenant_id, authority_id, number);
SELECT refold.protect_tenant_rows('refold.crl_enforcement_v2');

COMMENT ON COLUMN refold.crl_enforcement_v2.tenant_id IS
    'Of the authority; rows with * may name devices of any tenant and are no tenant''s to read';
COMMENT ON COLUMN refold.crl_enforcement_v2.written_at IS
    'First in the broker''s CRL file; at a broker that fetches CRLs: first served for it';
COMMENT ON COLUMN refold.crl_enforcement_v2.proved_at IS
    'First proved to be in force: the broker refused the canary of this CRL and accepted a live one';
COMMENT ON COLUMN refold.crl_enforcement_v2.cut IS
    'Revoked certificates whose clients were disconnected, or were not connected, under this CRL';
COMMENT ON COLUMN refold.crl_enforcement_v2.remaining IS
    'Revoked certificates of the authority whose clients may be connected, after the last proof, cut or lifted ban of this '
    'CRL';
COMMENT ON COLUMN refold.crl_enforcement_v2.error IS 'Why it is not proved; null after it was written or proved again';
COMMENT ON COLUMN refold.crl_enforcement_v2.uncut_error IS
    'Why clients were not disconnected, or bans not lifted, at the last attempt under this CRL; null if none remained then';
COMMENT ON COLUMN refold.crl_enforcement_v2.last_position IS 'The last decision that changed the row';

CREATE VIEW refold.crl_enforcement_v2_view WITH (security_invoker = true) AS
SELECT broker, authority_id, number, tenant_id, written_at, reloaded_at, proved_at, cut, remaining, error, last_position,
       uncut_error
FROM refold.crl_enforcement_v2;
SELECT refold.grant_read('refold.crl_enforcement_v2_view');

-- Without rows of version 1 the view can point to version 2 at once; otherwise the rebuild switches it.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM refold.projection_checkpoints WHERE projection = 'crl_enforcement') THEN
        EXECUTE format('CREATE OR REPLACE VIEW refold.crl_enforcement WITH (security_invoker = true) AS %s',
            pg_get_viewdef('refold.crl_enforcement_v2_view'::regclass));
    END IF;
END $$;
