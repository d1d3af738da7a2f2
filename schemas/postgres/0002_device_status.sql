-- device_status: the latest of every device. The meaning of the numbers is DESIGN.md's, "What the numbers mean".

CREATE TABLE refold.device_status_v1 (
    tenant_id                  text COLLATE "C" NOT NULL,
    device_id                  text COLLATE "C" NOT NULL,
    site_id                    text,
    first_seen_at              timestamptz,
    last_seen_at               timestamptz,
    last_telemetry_at          timestamptz,
    last_heartbeat_at          timestamptz,
    message_count              bigint NOT NULL,
    telemetry_count            bigint NOT NULL,
    heartbeat_count            bigint NOT NULL,
    ack_count                  bigint NOT NULL,
    rejected_count             bigint NOT NULL,
    last_seq                   bigint,
    last_metrics               jsonb,
    reported_state             jsonb,
    reported_version           bigint,
    reported_rejected_position bigint,
    last_command_id            text,
    last_command_status        text,
    last_ack_at                timestamptz,
    connected                  boolean,
    last_connected_at          timestamptz,
    last_disconnected_at       timestamptz,
    last_position              bigint NOT NULL,
    PRIMARY KEY (tenant_id, device_id)
);
SELECT refold.protect_tenant_rows('refold.device_status_v1');

COMMENT ON TABLE refold.device_status_v1 IS
    'One row a device, folded from the log. All times are when Refold received a message, never what a payload says.';
COMMENT ON COLUMN refold.device_status_v1.first_seen_at IS
    'First accepted message that the broker did not replay; null when there was none (only rejected or retained ones)';
COMMENT ON COLUMN refold.device_status_v1.last_seen_at IS 'Last accepted message that the broker did not replay';
COMMENT ON COLUMN refold.device_status_v1.message_count IS
    'Accepted messages that the broker did not replay, those that could not be decoded included';
COMMENT ON COLUMN refold.device_status_v1.telemetry_count IS 'Those of message_count that are telemetry and decode';
COMMENT ON COLUMN refold.device_status_v1.rejected_count IS
    'Messages that the gate refused: too large, beyond the rate limit, on a command topic';
COMMENT ON COLUMN refold.device_status_v1.last_seq IS 'seq of the last telemetry or heartbeat that had one';
COMMENT ON COLUMN refold.device_status_v1.last_metrics IS
    'The last value of every metric, merged by name; at most 1 MiB, beyond which only the last message''s are kept';
COMMENT ON COLUMN refold.device_status_v1.reported_state IS 'reported of the shadow with the highest version';
COMMENT ON COLUMN refold.device_status_v1.reported_rejected_position IS
    'The last shadow report that was ignored because its version was not higher';
COMMENT ON COLUMN refold.device_status_v1.connected IS
    'What the device or its last will last said on …/connection; null when it never did';
COMMENT ON COLUMN refold.device_status_v1.last_position IS 'The last event that changed this row';

-- Presence depends on the passing of time, so no fold may hold it: views compute it from last_seen_at.
CREATE TABLE refold.presence_thresholds (
    singleton             boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    stale_after_seconds   double precision NOT NULL DEFAULT 90 CHECK (stale_after_seconds > 0),
    offline_after_seconds double precision NOT NULL DEFAULT 300,
    CHECK (offline_after_seconds >= stale_after_seconds)
);
INSERT INTO refold.presence_thresholds DEFAULT VALUES;
SELECT refold.grant_read('refold.presence_thresholds');
COMMENT ON TABLE refold.presence_thresholds IS 'One row, written by the daemon from its configuration when it starts';

CREATE FUNCTION refold.presence(last_seen timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN last_seen IS NULL THEN 'OFFLINE'
        WHEN now() - last_seen <= make_interval(secs => t.stale_after_seconds) THEN 'ONLINE'
        WHEN now() - last_seen <= make_interval(secs => t.offline_after_seconds) THEN 'STALE'
        ELSE 'OFFLINE'
    END
    FROM refold.presence_thresholds AS t
$$;
COMMENT ON FUNCTION refold.presence(timestamptz) IS
    'ONLINE, STALE or OFFLINE by the time since a device was last seen and the thresholds in force';

CREATE VIEW refold.device_status WITH (security_invoker = true) AS
SELECT tenant_id, device_id, site_id, refold.presence(last_seen_at) AS status, first_seen_at, last_seen_at,
       last_telemetry_at, last_heartbeat_at, message_count, telemetry_count, heartbeat_count, ack_count, rejected_count,
       last_seq, last_metrics, reported_state, reported_version, reported_rejected_position, last_command_id,
       last_command_status, last_ack_at, reported_state ->> 'firmware_version' AS firmware_version, connected,
       last_connected_at, last_disconnected_at, last_position
FROM refold.device_status_v1;
SELECT refold.grant_read('refold.device_status');
