-- mqtt_connection_status: one row a broker connection of ours.

CREATE TABLE refold.mqtt_connection_status_v1 (
    broker_name             text COLLATE "C" PRIMARY KEY,
    connected               boolean NOT NULL,
    last_connected_at       timestamptz,
    last_disconnected_at    timestamptz,
    connection_error        text,
    messages_received       bigint NOT NULL,
    last_message_at         timestamptz,
    subscribed_topics_count bigint NOT NULL,
    sessions_lost           bigint NOT NULL,
    client_id               text,
    broker_info             jsonb,
    updated_at              timestamptz NOT NULL,
    last_position           bigint NOT NULL
);
SELECT refold.grant_read('refold.mqtt_connection_status_v1');

COMMENT ON COLUMN refold.mqtt_connection_status_v1.connection_error IS
    'Why the connection ended or a subscription was refused; null since the last connection';
COMMENT ON COLUMN refold.mqtt_connection_status_v1.messages_received IS
    'Every message that came over it: accepted, refused, replayed by the broker, and those that rejection records list';
COMMENT ON COLUMN refold.mqtt_connection_status_v1.sessions_lost IS
    'How often the broker had lost our session, so that messages may have been lost there';
COMMENT ON COLUMN refold.mqtt_connection_status_v1.updated_at IS 'The time of the last event of this connection';

CREATE VIEW refold.mqtt_connection_status WITH (security_invoker = true) AS
SELECT broker_name, NULL::bigint AS product_id, connected, last_connected_at, last_disconnected_at, connection_error,
       messages_received, last_message_at, subscribed_topics_count, sessions_lost, client_id, broker_info, updated_at,
       last_position
FROM refold.mqtt_connection_status_v1;
SELECT refold.grant_read('refold.mqtt_connection_status');
COMMENT ON COLUMN refold.mqtt_connection_status.product_id IS
    'Null: brokers are named in the configuration and belong to no product';
