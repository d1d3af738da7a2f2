-- campaigns: firmware versions, OTA campaigns, what each device reported, and reports that fit no campaign.

CREATE TABLE refold.firmware_versions_v1 (
    id              bigint PRIMARY KEY,
    tenant_id       text COLLATE "C" NOT NULL,
    version         text NOT NULL,
    description     text,
    file_url        text NOT NULL,
    file_size_bytes bigint,
    checksum_sha256 text,
    device_type     text,
    created_at      timestamptz NOT NULL,
    created_by      text NOT NULL
);
CREATE INDEX firmware_versions_v1_tenant ON refold.firmware_versions_v1 (tenant_id, id);
SELECT refold.protect_tenant_rows('refold.firmware_versions_v1');

CREATE TABLE refold.ota_campaigns_v1 (
    id                  bigint PRIMARY KEY,
    tenant_id           text COLLATE "C" NOT NULL,
    name                text NOT NULL,
    firmware_version_id bigint NOT NULL,
    target_group_id     bigint,
    rollout_strategy    text NOT NULL,
    rollout_rate        bigint,
    abort_threshold     double precision,
    status              text NOT NULL,
    total_devices       bigint NOT NULL,
    succeeded           bigint NOT NULL DEFAULT 0,
    failed              bigint NOT NULL DEFAULT 0,
    skipped             bigint NOT NULL DEFAULT 0,
    started_at          timestamptz,
    completed_at        timestamptz,
    created_at          timestamptz NOT NULL,
    created_by          text NOT NULL,
    last_position       bigint NOT NULL,
    created_position    bigint NOT NULL
);
CREATE INDEX ota_campaigns_v1_tenant ON refold.ota_campaigns_v1 (tenant_id, id);
SELECT refold.protect_tenant_rows('refold.ota_campaigns_v1');

COMMENT ON COLUMN refold.ota_campaigns_v1.status IS 'CREATED, RUNNING, PAUSED, COMPLETED or ABORTED, as decided';
COMMENT ON COLUMN refold.ota_campaigns_v1.abort_threshold IS 'Share of failed devices, 0 to 1';
COMMENT ON COLUMN refold.ota_campaigns_v1.succeeded IS
    'Devices whose first terminal report was SUCCESS; a sum over devices, written as deltas';
COMMENT ON COLUMN refold.ota_campaigns_v1.failed IS 'Devices whose first terminal report was FAILED';
COMMENT ON COLUMN refold.ota_campaigns_v1.completed_at IS 'When it was completed or aborted';
COMMENT ON COLUMN refold.ota_campaigns_v1.created_position IS
    'The decision that created it: reports before it are unmatched';
COMMENT ON COLUMN refold.ota_campaigns_v1.last_position IS
    'The last decision about this campaign; device reports move the counts only';

CREATE TABLE refold.ota_device_status_v1 (
    campaign_id       bigint NOT NULL,
    device_id         text COLLATE "C" NOT NULL,
    id                bigint NOT NULL UNIQUE,
    tenant_id         text COLLATE "C" NOT NULL,
    status            text NOT NULL
        CHECK (status IN ('PENDING', 'DOWNLOADING', 'INSTALLING', 'SUCCESS', 'FAILED', 'SKIPPED')),
    progress_pct      double precision CHECK (progress_pct BETWEEN 0 AND 100),
    error_message     text,
    started_at        timestamptz,
    completed_at      timestamptz,
    created_at        timestamptz NOT NULL,
    report_count      bigint NOT NULL,
    late_report_count bigint NOT NULL,
    last_report_at    timestamptz,
    last_position     bigint NOT NULL,
    PRIMARY KEY (campaign_id, device_id)
);
CREATE INDEX ota_device_status_v1_device ON refold.ota_device_status_v1 (tenant_id, device_id);
SELECT refold.protect_tenant_rows('refold.ota_device_status_v1');

COMMENT ON TABLE refold.ota_device_status_v1 IS
    'The first terminal state that a device reports stands; before it, the last report does';
COMMENT ON COLUMN refold.ota_device_status_v1.progress_pct IS
    'The last progress reported, up to and with the terminal report; null while none was';
COMMENT ON COLUMN refold.ota_device_status_v1.error_message IS 'error of the report that stands';
COMMENT ON COLUMN refold.ota_device_status_v1.started_at IS 'First report of the device';
COMMENT ON COLUMN refold.ota_device_status_v1.completed_at IS 'The terminal report that stands';
COMMENT ON COLUMN refold.ota_device_status_v1.late_report_count IS
    'Reports behind the terminal one: counted, and otherwise without effect';

CREATE TABLE refold.ota_unmatched_reports_v1 (
    position    bigint PRIMARY KEY,
    tenant_id   text COLLATE "C" NOT NULL,
    device_id   text COLLATE "C" NOT NULL,
    campaign_id bigint NOT NULL,
    status      text NOT NULL,
    reason      text NOT NULL CHECK (reason IN ('UNKNOWN_CAMPAIGN', 'OTHER_TENANT', 'NOT_A_TARGET')),
    at          timestamptz NOT NULL
);
CREATE INDEX ota_unmatched_reports_v1_tenant ON refold.ota_unmatched_reports_v1 (tenant_id, position);
SELECT refold.protect_tenant_rows('refold.ota_unmatched_reports_v1');
COMMENT ON TABLE refold.ota_unmatched_reports_v1 IS
    'OTA reports of a device that no campaign of its tenant had among its targets when they arrived';

CREATE VIEW refold.firmware_versions WITH (security_invoker = true) AS
SELECT id, tenant_id, version, description, file_url, file_size_bytes, checksum_sha256, device_type, created_at, created_by
FROM refold.firmware_versions_v1;
SELECT refold.grant_read('refold.firmware_versions');

CREATE VIEW refold.ota_campaigns WITH (security_invoker = true) AS
SELECT id, tenant_id, name, firmware_version_id, target_group_id, rollout_strategy, rollout_rate, abort_threshold, status,
       total_devices, succeeded, failed, skipped, total_devices - succeeded - failed - skipped AS open,
       started_at, completed_at, created_at, created_by, last_position, created_position
FROM refold.ota_campaigns_v1;
SELECT refold.grant_read('refold.ota_campaigns');

CREATE VIEW refold.ota_device_status WITH (security_invoker = true) AS
SELECT id, tenant_id, campaign_id, device_id, status, progress_pct, error_message, started_at, completed_at, created_at,
       report_count, late_report_count, last_report_at, last_position
FROM refold.ota_device_status_v1;
SELECT refold.grant_read('refold.ota_device_status');

CREATE VIEW refold.ota_unmatched_reports WITH (security_invoker = true) AS
SELECT position, tenant_id, device_id, campaign_id, status, reason, at FROM refold.ota_unmatched_reports_v1;
SELECT refold.grant_read('refold.ota_unmatched_reports');
