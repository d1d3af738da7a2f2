-- certificates: authorities, device certificates, CRLs, and the life of each. Private keys are nowhere in the database;
-- certificates and CRLs themselves are in the log.
-- suffices: 0010

CREATE TABLE refold.certificate_authorities_v1 (
    id              text COLLATE "C" PRIMARY KEY,
    tenant_id       text COLLATE "C" NOT NULL,
    subject         text NOT NULL,
    spki_sha256     text COLLATE "C" NOT NULL,
    key_location    text COLLATE "C" NOT NULL CHECK (key_location IN ('file', 'command', 'none')),
    not_before      timestamptz NOT NULL,
    not_after       timestamptz NOT NULL,
    status          text COLLATE "C" NOT NULL CHECK (status IN ('ACTIVE', 'REPLACED', 'RETIRED')),
    replaces        text COLLATE "C",
    replaced_by     text COLLATE "C",
    retired_at      timestamptz,
    added_at        timestamptz NOT NULL,
    added_by        text NOT NULL,
    added_position  bigint NOT NULL,
    crl_number      bigint,
    crl_this_update timestamptz,
    crl_next_update timestamptz,
    last_position   bigint NOT NULL
);
CREATE INDEX certificate_authorities_v1_tenant ON refold.certificate_authorities_v1 (tenant_id, id);
SELECT refold.protect_tenant_rows('refold.certificate_authorities_v1');
CREATE POLICY tenants_read_shared ON refold.certificate_authorities_v1 FOR SELECT
    USING (tenant_id = '*' AND current_setting('app.tenant_id', true) <> '');

COMMENT ON COLUMN refold.certificate_authorities_v1.tenant_id IS
    'Whose devices it certifies; * for every tenant''s, and every tenant sees those rows';
COMMENT ON COLUMN refold.certificate_authorities_v1.subject IS 'RFC 4514';
COMMENT ON COLUMN refold.certificate_authorities_v1.key_location IS
    'Where the private key is: in a file, behind sign_command, or none: elsewhere, and it issues neither certificates nor CRLs';
COMMENT ON COLUMN refold.certificate_authorities_v1.status IS
    'REPLACED and RETIRED ones issue no certificates; their CRLs go on until their last certificate has expired';
COMMENT ON COLUMN refold.certificate_authorities_v1.added_position IS 'The decision with its certificate and chain in DER';
COMMENT ON COLUMN refold.certificate_authorities_v1.crl_number IS 'Of its newest CRL; null: it has issued none';
COMMENT ON COLUMN refold.certificate_authorities_v1.crl_next_update IS 'Brokers refuse every client of it after that';
COMMENT ON COLUMN refold.certificate_authorities_v1.last_position IS
    'The last decision that changed the row, its CRLs included';

CREATE TABLE refold.device_certificates_v1 (
    authority_id   text COLLATE "C" NOT NULL,
    serial         text COLLATE "C" NOT NULL,
    tenant_id      text COLLATE "C" NOT NULL,
    device_id      text COLLATE "C" NOT NULL,
    common_name    text NOT NULL,
    status         text COLLATE "C" NOT NULL CHECK (status IN ('ACTIVE', 'SUPERSEDED', 'HELD', 'REVOKED')),
    key_algorithm  text NOT NULL,
    not_before     timestamptz NOT NULL,
    not_after      timestamptz NOT NULL,
    spki_sha256    text COLLATE "C" NOT NULL,
    sha256         text COLLATE "C" NOT NULL,
    origin         text COLLATE "C" NOT NULL CHECK (origin IN ('issued', 'imported')),
    renews         text COLLATE "C",
    replaced_by    text COLLATE "C",
    superseded_at  timestamptz,
    revoked_at     timestamptz,
    reason         text,
    added_at       timestamptz NOT NULL,
    added_by       text NOT NULL,
    added_position bigint NOT NULL,
    last_position  bigint NOT NULL,
    PRIMARY KEY (authority_id, serial)
);
CREATE INDEX device_certificates_v1_device ON refold.device_certificates_v1 (tenant_id, device_id, added_position);
CREATE INDEX device_certificates_v1_not_after ON refold.device_certificates_v1 (tenant_id, not_after);
CREATE INDEX device_certificates_v1_position ON refold.device_certificates_v1 (tenant_id, added_position);
CREATE INDEX device_certificates_v1_spki ON refold.device_certificates_v1 (spki_sha256);
SELECT refold.protect_tenant_rows('refold.device_certificates_v1');

COMMENT ON COLUMN refold.device_certificates_v1.serial IS
    'In lower-case hex, without leading zeros; unique for its authority (RFC 5280, section 4.1.2.2)';
COMMENT ON COLUMN refold.device_certificates_v1.status IS
    'SUPERSEDED: its device uses a newer one, and brokers accept both. HELD: as REVOKED, until it is released. '
    'Nothing changes a REVOKED one. Expiry is no status: is_expired in the view';
COMMENT ON COLUMN refold.device_certificates_v1.sha256 IS 'Of the certificate in DER';
COMMENT ON COLUMN refold.device_certificates_v1.renews IS 'The certificate that it is to replace: authority/serial';
COMMENT ON COLUMN refold.device_certificates_v1.replaced_by IS 'The newer certificate of a superseded one: authority/serial';
COMMENT ON COLUMN refold.device_certificates_v1.revoked_at IS 'When it was revoked, or put on hold; null again when released';
COMMENT ON COLUMN refold.device_certificates_v1.reason IS
    'keyCompromise, … (RFC 5280, section 5.3.1), certificateHold while HELD; null unless HELD or REVOKED';
COMMENT ON COLUMN refold.device_certificates_v1.added_position IS 'The decision with the certificate in DER';
COMMENT ON COLUMN refold.device_certificates_v1.last_position IS 'The last decision that changed the row';

CREATE TABLE refold.crls_v1 (
    authority_id  text COLLATE "C" NOT NULL,
    number        bigint NOT NULL,
    tenant_id     text COLLATE "C" NOT NULL,
    this_update   timestamptz NOT NULL,
    next_update   timestamptz NOT NULL,
    entries       bigint NOT NULL,
    canary_serial text COLLATE "C",
    sha256        text COLLATE "C" NOT NULL,
    at            timestamptz NOT NULL,
    actor         text NOT NULL,
    position      bigint NOT NULL,
    PRIMARY KEY (authority_id, number)
);
CREATE INDEX crls_v1_tenant ON refold.crls_v1 (tenant_id, position);
SELECT refold.protect_tenant_rows('refold.crls_v1');
CREATE POLICY tenants_read_shared ON refold.crls_v1 FOR SELECT
    USING (tenant_id = '*' AND current_setting('app.tenant_id', true) <> '');

COMMENT ON TABLE refold.crls_v1 IS
    'The issued ones. A refused one is a crl.refused in certificate_events, and no row here';
COMMENT ON COLUMN refold.crls_v1.number IS 'RFC 5280, section 5.2.3; strictly rising for each authority';
COMMENT ON COLUMN refold.crls_v1.entries IS 'Certificates that it lists, canaries included';
COMMENT ON COLUMN refold.crls_v1.canary_serial IS
    'The certificate that was made to be revoked by it: a broker that refuses it has this CRL, or a later one, in force';
COMMENT ON COLUMN refold.crls_v1.sha256 IS 'Of the CRL in DER';
COMMENT ON COLUMN refold.crls_v1.position IS 'The decision with its signature: with the events before, it gives back the CRL';

CREATE TABLE refold.certificate_events_v1 (
    position     bigint PRIMARY KEY,
    tenant_id    text COLLATE "C" NOT NULL,
    at           timestamptz NOT NULL,
    event_type   text COLLATE "C" NOT NULL,
    authority_id text COLLATE "C" NOT NULL,
    serial       text COLLATE "C",
    device_id    text COLLATE "C",
    crl_number   bigint,
    reason       text,
    note         text,
    related      text COLLATE "C",
    actor        text NOT NULL
);
CREATE INDEX certificate_events_v1_tenant ON refold.certificate_events_v1 (tenant_id, position);
CREATE INDEX certificate_events_v1_certificate ON refold.certificate_events_v1 (authority_id, serial, position);
CREATE INDEX certificate_events_v1_device ON refold.certificate_events_v1 (tenant_id, device_id, position)
    WHERE device_id IS NOT NULL;
SELECT refold.protect_tenant_rows('refold.certificate_events_v1');

COMMENT ON TABLE refold.certificate_events_v1 IS
    'Every decision about certificates, authorities and CRLs, also one that changed no other row: about an unknown or '
    'revoked certificate, say';
COMMENT ON COLUMN refold.certificate_events_v1.event_type IS
    'The decision''s schema without its version: certificate.revoked, crl.refused';
COMMENT ON COLUMN refold.certificate_events_v1.serial IS 'Null where the decision is about the authority or a CRL of it';
COMMENT ON COLUMN refold.certificate_events_v1.reason IS
    'Of a revocation as it was given; why a CRL was refused, or not proved to be in force';
COMMENT ON COLUMN refold.certificate_events_v1.related IS
    'The certificate that it renews or was replaced by (authority/serial), the authority that it replaces, or the broker '
    'where a CRL was written, reloaded or proved';

CREATE VIEW refold.certificate_authorities WITH (security_invoker = true) AS
SELECT id, tenant_id, subject, spki_sha256, key_location, not_before, not_after, status, replaces, replaced_by, retired_at,
       added_at, added_by, added_position, crl_number, crl_this_update, crl_next_update, last_position
FROM refold.certificate_authorities_v1;
SELECT refold.grant_read('refold.certificate_authorities');

-- The second of not_after belongs to the validity (RFC 5280, section 4.1.2.5).
CREATE VIEW refold.device_certificates WITH (security_invoker = true) AS
SELECT authority_id, serial, tenant_id, device_id, common_name, status, key_algorithm, not_before, not_after, spki_sha256,
       sha256, origin, renews, replaced_by, superseded_at, revoked_at, reason, added_at, added_by, added_position,
       last_position, now() >= not_after + interval '1 second' AS is_expired
FROM refold.device_certificates_v1;
SELECT refold.grant_read('refold.device_certificates');

CREATE VIEW refold.crls WITH (security_invoker = true) AS
SELECT authority_id, number, tenant_id, this_update, next_update, entries, canary_serial, sha256, at, actor, position
FROM refold.crls_v1;
SELECT refold.grant_read('refold.crls');

CREATE VIEW refold.certificate_events WITH (security_invoker = true) AS
SELECT position, tenant_id, at, event_type, authority_id, serial, device_id, crl_number, reason, note, related, actor
FROM refold.certificate_events_v1;
SELECT refold.grant_read('refold.certificate_events');
