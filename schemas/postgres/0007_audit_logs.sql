-- audit_logs: who decided what, and what was refused.

CREATE TABLE refold.audit_logs_v1 (
    position  bigint PRIMARY KEY,
    tenant_id text COLLATE "C" NOT NULL,
    at        timestamptz NOT NULL,
    actor     text NOT NULL,
    action    text NOT NULL,
    subject   text NOT NULL,
    before    jsonb,
    after     jsonb NOT NULL
);
CREATE INDEX audit_logs_v1_tenant ON refold.audit_logs_v1 (tenant_id, position);
-- Subjects are what operators wrote, of any length; an index entry holds 2,700 bytes.
CREATE INDEX audit_logs_v1_subject ON refold.audit_logs_v1 (left(subject, 64), position);
SELECT refold.protect_tenant_rows('refold.audit_logs_v1');

COMMENT ON COLUMN refold.audit_logs_v1.action IS 'The decision''s schema without its version: campaign.created';
COMMENT ON COLUMN refold.audit_logs_v1.subject IS 'campaign:7, firmware:3; empty for the refusal of something to be created';
COMMENT ON COLUMN refold.audit_logs_v1.before IS 'What the decision changed, where it changed something';
COMMENT ON COLUMN refold.audit_logs_v1.after IS 'The decision as it was recorded';

CREATE VIEW refold.audit_logs WITH (security_invoker = true) AS
SELECT position, at, actor, action, subject, before, after, tenant_id FROM refold.audit_logs_v1;
SELECT refold.grant_read('refold.audit_logs');
