-- api_tokens: who may use the API. A row a decision; secrets are nowhere, their SHA-256 is.
-- suffices: 0009

CREATE TABLE refold.api_token_events_v1 (
    position      bigint PRIMARY KEY,
    token_id      bigint NOT NULL,
    event_type    text COLLATE "C" NOT NULL CHECK (event_type IN ('created', 'revoked')),
    name          text NOT NULL,
    role          text,
    tenant_id     text COLLATE "C" NOT NULL,
    secret_sha256 text,
    expires_at    timestamptz,
    actor         text NOT NULL,
    at            timestamptz NOT NULL
);
CREATE INDEX api_token_events_v1_token ON refold.api_token_events_v1 (token_id, event_type);
SELECT refold.protect_tenant_rows('refold.api_token_events_v1');

COMMENT ON COLUMN refold.api_token_events_v1.tenant_id IS
    'The one tenant that it is for; * for all of them, and those rows only whoever sees all tenants sees';
COMMENT ON COLUMN refold.api_token_events_v1.expires_at IS 'Null: until it is revoked';

CREATE VIEW refold.api_token_events WITH (security_invoker = true) AS
SELECT position, token_id, event_type, name, role, tenant_id, secret_sha256, expires_at, actor, at
FROM refold.api_token_events_v1;
SELECT refold.grant_read('refold.api_token_events');

CREATE VIEW refold.api_tokens WITH (security_invoker = true) AS
SELECT c.token_id AS id, c.name, c.role, c.tenant_id, c.secret_sha256, c.expires_at, c.at AS created_at,
       c.actor AS created_by, r.at AS revoked_at, r.actor AS revoked_by, c.position
FROM refold.api_token_events_v1 AS c
LEFT JOIN LATERAL (
    SELECT at, actor FROM refold.api_token_events_v1 AS r
    WHERE r.token_id = c.token_id AND r.event_type = 'revoked' ORDER BY position LIMIT 1) AS r ON true
WHERE c.event_type = 'created';
SELECT refold.grant_read('refold.api_tokens');
