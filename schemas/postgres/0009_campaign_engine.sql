-- What the rollout engine decides, in rows: version 2 of the campaigns' tables, the decisions themselves as a timeline, and
-- groups of devices with the tenants' settings.
-- suffices: 0008

-- Readers of the API read as refold_app, so that row-level security holds for them too.
DO $$
BEGIN
    IF to_regrole('refold_app') IS NOT NULL AND NOT pg_has_role(current_user, 'refold_app', 'MEMBER') THEN
        EXECUTE format('GRANT refold_app TO %I', current_user);
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING '% may not become refold_app: the API tells tenants apart without row-level security', current_user
        USING HINT = format('Have an administrator run: GRANT refold_app TO %I;', current_user);
END $$;

-- campaigns, version 2.

CREATE TABLE refold.ota_campaigns_v2 (
    id                  bigint PRIMARY KEY,
    tenant_id           text COLLATE "C" NOT NULL,
    name                text NOT NULL,
    firmware_version_id bigint NOT NULL,
    target_group_id     bigint,
    rollout_strategy    text NOT NULL,
    rollout_rate        bigint,
    abort_threshold     double precision,
    plan                jsonb,
    status              text NOT NULL,
    total_devices       bigint NOT NULL,
    in_flight           bigint NOT NULL DEFAULT 0,
    succeeded           bigint NOT NULL DEFAULT 0,
    failed              bigint NOT NULL DEFAULT 0,
    skipped             bigint NOT NULL DEFAULT 0,
    dispatched          bigint NOT NULL DEFAULT 0,
    void_count          bigint NOT NULL DEFAULT 0,
    stage               bigint,
    stage_devices_max   bigint,
    stage_begun_at      timestamptz,
    status_at           timestamptz NOT NULL,
    status_by           text NOT NULL,
    status_code         text,
    status_reason       text,
    status_cause        bigint,
    started_at          timestamptz,
    completed_at        timestamptz,
    created_at          timestamptz NOT NULL,
    created_by          text NOT NULL,
    last_position       bigint NOT NULL,
    created_position    bigint NOT NULL,
    deleted_position    bigint
);
CREATE INDEX ota_campaigns_v2_tenant ON refold.ota_campaigns_v2 (tenant_id, id);
CREATE INDEX ota_campaigns_v2_deleted ON refold.ota_campaigns_v2 (id) WHERE deleted_position IS NOT NULL;
SELECT refold.protect_tenant_rows('refold.ota_campaigns_v2');

COMMENT ON COLUMN refold.ota_campaigns_v2.status IS 'CREATED, RUNNING, PAUSED, COMPLETED or ABORTED, as decided';
COMMENT ON COLUMN refold.ota_campaigns_v2.abort_threshold IS 'Share of failed devices, 0 to 1';
COMMENT ON COLUMN refold.ota_campaigns_v2.plan IS
    'How it goes about it, as recorded with its creation; null: recorded before there was an engine';
COMMENT ON COLUMN refold.ota_campaigns_v2.in_flight IS
    'Devices in DOWNLOADING, INSTALLING or VERIFYING; like all counts a sum over devices, written as deltas';
COMMENT ON COLUMN refold.ota_campaigns_v2.succeeded IS 'Devices in SUCCESS';
COMMENT ON COLUMN refold.ota_campaigns_v2.failed IS 'Devices in FAILED, TIMED_OUT or UNREACHABLE';
COMMENT ON COLUMN refold.ota_campaigns_v2.skipped IS 'Devices in SKIPPED';
COMMENT ON COLUMN refold.ota_campaigns_v2.dispatched IS 'Attempts that were begun: a device that is tried again counts again';
COMMENT ON COLUMN refold.ota_campaigns_v2.void_count IS
    'Decisions about a device that were made in ignorance of a later event, and so had no effect';
COMMENT ON COLUMN refold.ota_campaigns_v2.stage IS 'From 0; null while it has not begun';
COMMENT ON COLUMN refold.ota_campaigns_v2.stage_devices_max IS
    'So many devices may have been sent for when the stage comes to its end';
COMMENT ON COLUMN refold.ota_campaigns_v2.status_by IS 'Who set the status: an operator, or engine';
COMMENT ON COLUMN refold.ota_campaigns_v2.status_code IS
    'Why, for programs: ABORT_THRESHOLD, CONSECUTIVE_FAILURES, STAGE_FAILED, ALL_ENDED, SHARE_REACHED, DEADLINE';
COMMENT ON COLUMN refold.ota_campaigns_v2.status_cause IS 'Position of the event that led to the status';
COMMENT ON COLUMN refold.ota_campaigns_v2.completed_at IS 'When it was completed or aborted; null again when it is retried';
COMMENT ON COLUMN refold.ota_campaigns_v2.created_position IS
    'The decision that created it: reports before it are unmatched';
COMMENT ON COLUMN refold.ota_campaigns_v2.last_position IS
    'The last decision about the campaign itself; devices move the counts only';
COMMENT ON COLUMN refold.ota_campaigns_v2.deleted_position IS
    'The decision that deleted it, while CREATED: the views do not show it, and reports behind this are unmatched';

CREATE TABLE refold.ota_device_status_v2 (
    campaign_id       bigint NOT NULL,
    device_id         text COLLATE "C" NOT NULL,
    id                bigint NOT NULL UNIQUE,
    tenant_id         text COLLATE "C" NOT NULL,
    status            text NOT NULL CHECK (status IN ('PENDING', 'DOWNLOADING', 'INSTALLING', 'VERIFYING',
                          'SUCCESS', 'FAILED', 'SKIPPED', 'TIMED_OUT', 'UNREACHABLE')),
    failure_kind      text COLLATE "C",
    skip_kind         text COLLATE "C",
    attempt           bigint NOT NULL,
    command_id        bigint,
    progress_pct      double precision CHECK (progress_pct BETWEEN 0 AND 100),
    error_message     text,
    started_at        timestamptz,
    dispatched_at     timestamptz,
    acknowledged_at   timestamptz,
    completed_at      timestamptz,
    created_at        timestamptz NOT NULL,
    report_count      bigint NOT NULL,
    late_report_count bigint NOT NULL,
    last_report_at    timestamptz,
    ended_position    bigint,
    has_begun         boolean NOT NULL,
    last_position     bigint NOT NULL,
    PRIMARY KEY (campaign_id, device_id)
);
CREATE INDEX ota_device_status_v2_device ON refold.ota_device_status_v2 (tenant_id, device_id, campaign_id);
SELECT refold.protect_tenant_rows('refold.ota_device_status_v2');

COMMENT ON TABLE refold.ota_device_status_v2 IS
    'The first terminal state that a device reports in an attempt stands; what the engine concluded from silence '
    '(TIMED_OUT, UNREACHABLE, SKIPPED) yields to a later report';
COMMENT ON COLUMN refold.ota_device_status_v2.failure_kind IS
    'DOWNLOAD, INSTALL, REJECTED, NOT_VERIFIED, ROLLED_BACK, TIMED_OUT or UNREACHABLE; null unless it has failed';
COMMENT ON COLUMN refold.ota_device_status_v2.skip_kind IS
    'ABORTED, DEADLINE, SHARE_REACHED or NOT_SENT; null unless it is SKIPPED';
COMMENT ON COLUMN refold.ota_device_status_v2.attempt IS 'How often it was sent for';
COMMENT ON COLUMN refold.ota_device_status_v2.command_id IS
    'Position of the decision that sent for it, and the command_id of its command';
COMMENT ON COLUMN refold.ota_device_status_v2.progress_pct IS
    'The last progress reported in this attempt, up to and with the terminal report; null while none was';
COMMENT ON COLUMN refold.ota_device_status_v2.error_message IS
    'error of the report that stands, or the reason of the engine''s decision that does';
COMMENT ON COLUMN refold.ota_device_status_v2.started_at IS 'When it was first sent for, or first reported';
COMMENT ON COLUMN refold.ota_device_status_v2.dispatched_at IS 'When it was sent for in this attempt';
COMMENT ON COLUMN refold.ota_device_status_v2.acknowledged_at IS 'The device''s first report in this attempt';
COMMENT ON COLUMN refold.ota_device_status_v2.completed_at IS 'When this attempt ended';
COMMENT ON COLUMN refold.ota_device_status_v2.ended_position IS 'The report or the decision that ended this attempt';
COMMENT ON COLUMN refold.ota_device_status_v2.late_report_count IS
    'Reports behind a terminal one, or of an older attempt: counted, and otherwise without effect';
COMMENT ON COLUMN refold.ota_device_status_v2.has_begun IS
    'It has reported DOWNLOADING in this attempt: from then on reports without a command_id are of this attempt';
COMMENT ON COLUMN refold.ota_device_status_v2.last_position IS
    'The last event about this part of the campaign: what a decision must have seen';

CREATE TABLE refold.campaign_progress_v1 (
    campaign_id bigint NOT NULL,
    minute      bigint NOT NULL,
    tenant_id   text COLLATE "C" NOT NULL,
    dispatched  bigint NOT NULL,
    succeeded   bigint NOT NULL,
    failed      bigint NOT NULL,
    skipped     bigint NOT NULL,
    PRIMARY KEY (campaign_id, minute)
);
SELECT refold.protect_tenant_rows('refold.campaign_progress_v1');
COMMENT ON TABLE refold.campaign_progress_v1 IS
    'By how much a campaign''s counts changed in a minute: negative where a late report or a retry moved devices';
COMMENT ON COLUMN refold.campaign_progress_v1.minute IS 'Minutes since 1970, UTC';

-- The new columns at the end: what the live views had is where it was.
CREATE VIEW refold.ota_campaigns_v2_view WITH (security_invoker = true) AS
SELECT id, tenant_id, name, firmware_version_id, target_group_id, rollout_strategy, rollout_rate, abort_threshold, status,
       total_devices, succeeded, failed, skipped, total_devices - succeeded - failed - skipped AS open,
       started_at, completed_at, created_at, created_by, last_position, created_position,
       plan, total_devices - in_flight - succeeded - failed - skipped AS pending, in_flight, dispatched, void_count,
       stage, stage_devices_max, stage_begun_at, status_at, status_by, status_code, status_reason, status_cause
FROM refold.ota_campaigns_v2 WHERE deleted_position IS NULL;
SELECT refold.grant_read('refold.ota_campaigns_v2_view');

CREATE VIEW refold.ota_device_status_v2_view WITH (security_invoker = true) AS
SELECT id, tenant_id, campaign_id, device_id, status, progress_pct, error_message, started_at, completed_at, created_at,
       report_count, late_report_count, last_report_at, last_position,
       dispatched_at, acknowledged_at, failure_kind, skip_kind, attempt, command_id, ended_position
FROM refold.ota_device_status_v2 AS d
WHERE NOT EXISTS (
    SELECT FROM refold.ota_campaigns_v2 AS c WHERE c.id = d.campaign_id AND c.deleted_position IS NOT NULL);
SELECT refold.grant_read('refold.ota_device_status_v2_view');

CREATE VIEW refold.campaign_progress WITH (security_invoker = true) AS
SELECT campaign_id, tenant_id, to_timestamp(minute * 60) AS minute, dispatched, succeeded, failed, skipped
FROM refold.campaign_progress_v1;
SELECT refold.grant_read('refold.campaign_progress');

-- Where no rows of version 1 are, nothing has to be rebuilt first.
DO $$
DECLARE
    view text;
BEGIN
    IF EXISTS (SELECT FROM refold.projection_checkpoints WHERE projection = 'campaigns') THEN
        RETURN;
    END IF;
    FOREACH view IN ARRAY ARRAY['ota_campaigns', 'ota_device_status'] LOOP
        EXECUTE format('CREATE OR REPLACE VIEW refold.%I WITH (security_invoker = true) AS %s', view,
            pg_get_viewdef(format('refold.%I', view || '_v2_view')::regclass));
    END LOOP;
END $$;

-- campaign_events: the timeline. One row a decision.

CREATE TABLE refold.campaign_events_v1 (
    position      bigint PRIMARY KEY,
    tenant_id     text COLLATE "C" NOT NULL,
    campaign_id   bigint NOT NULL,
    at            timestamptz NOT NULL,
    event_type    text COLLATE "C" NOT NULL,
    actor         text NOT NULL,
    status_before text,
    status_after  text,
    stage         bigint,
    devices       bigint,
    code          text,
    reason        text,
    cause         bigint,
    counts        jsonb,
    evidence      jsonb
);
CREATE INDEX campaign_events_v1_campaign ON refold.campaign_events_v1 (campaign_id, position);
SELECT refold.protect_tenant_rows('refold.campaign_events_v1');

COMMENT ON COLUMN refold.campaign_events_v1.position IS 'The decision''s position in the log; of a dispatch: its command_id';
COMMENT ON COLUMN refold.campaign_events_v1.event_type IS
    'created, started, paused, resumed, aborted, completed, deleted, retried, stage_begun, dispatched, published, devices_ended';
COMMENT ON COLUMN refold.campaign_events_v1.actor IS 'An operator, or engine';
COMMENT ON COLUMN refold.campaign_events_v1.status_after IS 'The campaign''s; of devices_ended: the devices''';
COMMENT ON COLUMN refold.campaign_events_v1.devices IS 'How many devices the decision names';
COMMENT ON COLUMN refold.campaign_events_v1.cause IS 'Position of the event that led to it';
COMMENT ON COLUMN refold.campaign_events_v1.counts IS 'How the devices stood when it was decided';
COMMENT ON COLUMN refold.campaign_events_v1.evidence IS
    'Positions of the events that weigh in it; where it is about devices, of the first 20: [{"device_id", "position"}]';

CREATE VIEW refold.campaign_events WITH (security_invoker = true) AS
SELECT position, tenant_id, campaign_id, at, event_type, actor, status_before, status_after, stage, devices, code, reason,
       cause, counts, evidence
FROM refold.campaign_events_v1;
SELECT refold.grant_read('refold.campaign_events');

-- device_groups: devices under one name, and what holds for all of a tenant.

CREATE TABLE refold.device_groups_v1 (
    id               bigint PRIMARY KEY,
    tenant_id        text COLLATE "C" NOT NULL,
    name             text NOT NULL,
    description      text,
    query            jsonb,
    member_count     bigint NOT NULL,
    created_at       timestamptz NOT NULL,
    created_by       text NOT NULL,
    last_position    bigint NOT NULL,
    deleted_position bigint
);
CREATE INDEX device_groups_v1_tenant ON refold.device_groups_v1 (tenant_id, id);
SELECT refold.protect_tenant_rows('refold.device_groups_v1');
COMMENT ON COLUMN refold.device_groups_v1.query IS 'What finds its devices; null: it is a list';
COMMENT ON COLUMN refold.device_groups_v1.member_count IS 'Of a list';
COMMENT ON COLUMN refold.device_groups_v1.last_position IS 'The last decision about it, its members included';

CREATE TABLE refold.device_group_members_v1 (
    group_id  bigint NOT NULL,
    device_id text COLLATE "C" NOT NULL,
    tenant_id text COLLATE "C" NOT NULL,
    is_member boolean NOT NULL,
    added_at  timestamptz NOT NULL,
    position  bigint NOT NULL,
    PRIMARY KEY (group_id, device_id)
);
CREATE INDEX device_group_members_v1_device ON refold.device_group_members_v1 (tenant_id, device_id);
SELECT refold.protect_tenant_rows('refold.device_group_members_v1');
COMMENT ON COLUMN refold.device_group_members_v1.is_member IS 'False: it was one, and was taken out';
COMMENT ON COLUMN refold.device_group_members_v1.position IS 'The decision that put it in or took it out';

CREATE TABLE refold.tenant_settings_v1 (
    tenant_id  text COLLATE "C" PRIMARY KEY,
    time_zone  text NOT NULL,
    updated_at timestamptz NOT NULL,
    updated_by text NOT NULL,
    position   bigint NOT NULL
);
SELECT refold.protect_tenant_rows('refold.tenant_settings_v1');
COMMENT ON COLUMN refold.tenant_settings_v1.time_zone IS
    'A name of the IANA time zone database; campaigns created from then on have their windows in it';

CREATE VIEW refold.device_groups WITH (security_invoker = true) AS
SELECT id, tenant_id, name, description, query, CASE WHEN query IS NULL THEN member_count END AS member_count, created_at,
       created_by, last_position
FROM refold.device_groups_v1 WHERE deleted_position IS NULL;
SELECT refold.grant_read('refold.device_groups');

CREATE VIEW refold.device_group_members WITH (security_invoker = true) AS
SELECT m.group_id, m.device_id, m.tenant_id, m.added_at, m.position
FROM refold.device_group_members_v1 AS m
WHERE m.is_member AND EXISTS (
    SELECT FROM refold.device_groups_v1 AS g WHERE g.id = m.group_id AND g.deleted_position IS NULL);
SELECT refold.grant_read('refold.device_group_members');

CREATE VIEW refold.tenant_settings WITH (security_invoker = true) AS
SELECT tenant_id, time_zone, updated_at, updated_by, position FROM refold.tenant_settings_v1;
SELECT refold.grant_read('refold.tenant_settings');

-- What the pages ask for most.
CREATE INDEX audit_logs_v1_of_subject ON refold.audit_logs_v1 (tenant_id, left(subject, 64), position);
