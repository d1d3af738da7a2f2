-- crl_enforcement: how far each CRL has come at each broker, and the clients that were disconnected.
-- suffices: 0011

CREATE TABLE refold.crl_enforcement_v1 (
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
    last_position bigint NOT NULL,
    PRIMARY KEY (broker, authority_id, number)
);
CREATE INDEX crl_enforcement_v1_tenant ON refold.crl_enforcement_v1 (tenant_id, authority_id, number);
SELECT refold.protect_tenant_rows('refold.crl_enforcement_v1');

COMMENT ON COLUMN refold.crl_enforcement_v1.tenant_id IS
    'Of the authority; rows with * may name devices of any tenant and are no tenant''s to read';
COMMENT ON COLUMN refold.crl_enforcement_v1.written_at IS
    'First in the broker''s CRL file; at a broker that fetches CRLs: first served for it';
COMMENT ON COLUMN refold.crl_enforcement_v1.proved_at IS
    'First proved to be in force: the broker refused the canary of this CRL and accepted a live one';
COMMENT ON COLUMN refold.crl_enforcement_v1.cut IS
    'Revoked certificates whose clients were disconnected, or were not connected, under this CRL';
COMMENT ON COLUMN refold.crl_enforcement_v1.remaining IS
    'Revoked certificates of the authority whose clients may be connected, after the last proof or cut of this CRL';
COMMENT ON COLUMN refold.crl_enforcement_v1.error IS
    'Why it is not proved, or clients not disconnected; null once that is done';
COMMENT ON COLUMN refold.crl_enforcement_v1.last_position IS 'The last decision that changed the row';

CREATE VIEW refold.crl_enforcement WITH (security_invoker = true) AS
SELECT broker, authority_id, number, tenant_id, written_at, reloaded_at, proved_at, cut, remaining, error, last_position
FROM refold.crl_enforcement_v1;
SELECT refold.grant_read('refold.crl_enforcement');

COMMENT ON COLUMN refold.certificate_events_v1.reason IS
    'Of a revocation as it was given; why a CRL was refused, or not proved to be in force; what came of a client.cut';
COMMENT ON COLUMN refold.certificate_events_v1.note IS 'As it was given; of a client.cut, what the broker reported';
COMMENT ON COLUMN refold.certificate_events_v1.related IS
    'The certificate that it renews or was replaced by (authority/serial), the authority that it replaces, or the broker '
    'where a CRL was written, reloaded or proved, or a client disconnected';
