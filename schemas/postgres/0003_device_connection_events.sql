-- device_connection_events: what devices and their last wills said of their connections, in order.

CREATE TABLE refold.device_connection_events_v1 (
    position   bigint PRIMARY KEY,
    tenant_id  text COLLATE "C" NOT NULL,
    device_id  text COLLATE "C" NOT NULL,
    event_type text NOT NULL CHECK (event_type IN ('CONNECTED', 'DISCONNECTED', 'CONNECTION_LOST')),
    at         timestamptz NOT NULL,
    details    jsonb NOT NULL
);
CREATE INDEX device_connection_events_v1_device ON refold.device_connection_events_v1 (tenant_id, device_id, position);
SELECT refold.protect_tenant_rows('refold.device_connection_events_v1');

COMMENT ON TABLE refold.device_connection_events_v1 IS
    'Messages on …/connection that were accepted and that the broker did not replay';
COMMENT ON COLUMN refold.device_connection_events_v1.position IS 'The message''s position in the log';
COMMENT ON COLUMN refold.device_connection_events_v1.at IS 'When Refold received the message';
COMMENT ON COLUMN refold.device_connection_events_v1.details IS 'The whole payload';

CREATE VIEW refold.device_connection_events WITH (security_invoker = true) AS
SELECT tenant_id, device_id, position, event_type, at, details FROM refold.device_connection_events_v1;
SELECT refold.grant_read('refold.device_connection_events');
