-- dead_letters: what the gate refused and what decoding could not understand, kept and shown with its reason.

CREATE TABLE refold.dead_letters_v1 (
    position   bigint NOT NULL,
    projection text COLLATE "C" NOT NULL,
    tenant_id  text COLLATE "C",
    device_id  text COLLATE "C",
    topic      text NOT NULL,
    reason     text NOT NULL,
    details    text NOT NULL,
    payload    bytea NOT NULL,
    at         timestamptz NOT NULL,
    status     text NOT NULL,
    PRIMARY KEY (position, projection)
);
CREATE INDEX dead_letters_v1_tenant ON refold.dead_letters_v1 (tenant_id, position);
CREATE INDEX dead_letters_v1_reason ON refold.dead_letters_v1 (reason, position);
SELECT refold.protect_tenant_rows('refold.dead_letters_v1');

COMMENT ON COLUMN refold.dead_letters_v1.projection IS 'ingest: refused by the gate; decoding: not understood';
COMMENT ON COLUMN refold.dead_letters_v1.tenant_id IS
    'The topic''s; null when the topic names no device, so that no tenant sees the row';
COMMENT ON COLUMN refold.dead_letters_v1.reason IS
    'The gate''s verdict, or INVALID_JSON, NOT_AN_OBJECT, MISSING_FIELD, INVALID_TYPE, INVALID_VALUE, '
    'TENANT_MISMATCH_TOPIC_VS_PAYLOAD, DEVICE_MISMATCH_TOPIC_VS_PAYLOAD';
COMMENT ON COLUMN refold.dead_letters_v1.details IS 'One sentence for a person';
COMMENT ON COLUMN refold.dead_letters_v1.payload IS
    'As it was kept: cut for PAYLOAD_TOO_LARGE, for RATE_LIMITED the list of what was refused';

CREATE VIEW refold.dead_letters WITH (security_invoker = true) AS
SELECT position, projection, tenant_id, device_id, topic, reason, details, payload, at, status FROM refold.dead_letters_v1;
SELECT refold.grant_read('refold.dead_letters');
