-- jobs: work on queues, its attempts, queues and schedules, and sums of them. A job's arguments are in the log.
-- suffices: 0013

CREATE TABLE refold.jobs_v1 (
    id            bigint PRIMARY KEY,
    tenant_id     text COLLATE "C" NOT NULL,
    kind          text COLLATE "C" NOT NULL,
    queue         text COLLATE "C" NOT NULL CHECK (queue IN ('critical', 'high', 'normal', 'low')),
    key           text COLLATE "C",
    scope         text COLLATE "C",
    status        text COLLATE "C" NOT NULL
                  CHECK (status IN ('WAITING', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED', 'POISONED')),
    run_at        timestamptz NOT NULL,
    deadline      timestamptz,
    attempt       bigint NOT NULL,
    attempts_max  bigint NOT NULL,
    failures      bigint NOT NULL,
    rescues       bigint NOT NULL,
    lease_seconds bigint,
    worker        text COLLATE "C",
    token         bigint,
    error         text,
    result        text,
    cause         text COLLATE "C",
    queued_by     text NOT NULL,
    queued_at     timestamptz NOT NULL,
    started_at    timestamptz,
    ended_at      timestamptz,
    position      bigint NOT NULL,
    last_position bigint NOT NULL
);
CREATE INDEX jobs_v1_tenant ON refold.jobs_v1 (tenant_id, id);
CREATE INDEX jobs_v1_status ON refold.jobs_v1 (status, id) WHERE status <> 'SUCCEEDED';
CREATE INDEX jobs_v1_tenant_status ON refold.jobs_v1 (tenant_id, status, id) WHERE status <> 'SUCCEEDED';
CREATE INDEX jobs_v1_run_at ON refold.jobs_v1 (queue, run_at) WHERE status = 'WAITING';
CREATE INDEX jobs_v1_tenant_run_at ON refold.jobs_v1 (tenant_id, queue, run_at) WHERE status = 'WAITING';
CREATE INDEX jobs_v1_key ON refold.jobs_v1 (key, id) WHERE key IS NOT NULL;
SELECT refold.protect_tenant_rows('refold.jobs_v1');

COMMENT ON COLUMN refold.jobs_v1.key IS 'Unique among the tenant''s open jobs of the kind: those WAITING or RUNNING';
COMMENT ON COLUMN refold.jobs_v1.scope IS 'Rate limits of the kind may be separate for each scope, such as an authority';
COMMENT ON COLUMN refold.jobs_v1.run_at IS
    'The next attempt starts no earlier; of a job that is not WAITING: as when it waited last';
COMMENT ON COLUMN refold.jobs_v1.attempt IS 'Number of the last attempt; 0: none has started';
COMMENT ON COLUMN refold.jobs_v1.failures IS 'Attempts that failed; attempts_max of them end the job as FAILED';
COMMENT ON COLUMN refold.jobs_v1.rescues IS 'Attempts that ended without a result; the third one ends the job as POISONED';
COMMENT ON COLUMN refold.jobs_v1.lease_seconds IS
    'Of the last attempt: it ends without a heartbeat in this time; null: it runs in the daemon and ends with its process';
COMMENT ON COLUMN refold.jobs_v1.worker IS 'Of the last attempt';
COMMENT ON COLUMN refold.jobs_v1.token IS
    'Fencing token of the last attempt: the position of its start. A result with another token changes nothing';
COMMENT ON COLUMN refold.jobs_v1.error IS
    'Error of the last failed attempt; why the job was CANCELLED or POISONED; null once it has SUCCEEDED';
COMMENT ON COLUMN refold.jobs_v1.cause IS 'Why it was queued, such as schedule:sweep or job:7; null: queued_by asked for it';
COMMENT ON COLUMN refold.jobs_v1.started_at IS 'Start of the last attempt';
COMMENT ON COLUMN refold.jobs_v1.position IS 'The decision that queued it';
COMMENT ON COLUMN refold.jobs_v1.last_position IS 'The last decision that changed the row';

CREATE TABLE refold.job_attempts_v1 (
    job_id        bigint NOT NULL,
    token         bigint NOT NULL,
    report        bigint NOT NULL,
    tenant_id     text COLLATE "C" NOT NULL,
    attempt       bigint,
    worker        text COLLATE "C" NOT NULL,
    lease_seconds bigint,
    started_at    timestamptz,
    ended_at      timestamptz,
    outcome       text COLLATE "C" CHECK (outcome IN
                  ('SUCCEEDED', 'FAILED', 'RESCUED', 'RELEASED', 'POISONED', 'CANCELLED', 'LIMITED', 'LATE')),
    reported      text COLLATE "C",
    detail        text,
    next_at       timestamptz,
    PRIMARY KEY (job_id, token, report)
);
CREATE INDEX job_attempts_v1_worker ON refold.job_attempts_v1 (worker, started_at) WHERE outcome IS NULL;
CREATE INDEX job_attempts_v1_outcome ON refold.job_attempts_v1 (outcome, ended_at) WHERE outcome <> 'SUCCEEDED';
SELECT refold.protect_tenant_rows('refold.job_attempts_v1');

COMMENT ON TABLE refold.job_attempts_v1 IS 'Attempts of jobs, and late results: each result after its attempt''s end';
COMMENT ON COLUMN refold.job_attempts_v1.token IS 'Position of the start; of a late result: as it was reported';
COMMENT ON COLUMN refold.job_attempts_v1.report IS '0: the attempt. Otherwise a late result: its position';
COMMENT ON COLUMN refold.job_attempts_v1.tenant_id IS 'Of the job; * for a late result of an unknown one';
COMMENT ON COLUMN refold.job_attempts_v1.attempt IS '1 is the job''s first; null: a late result';
COMMENT ON COLUMN refold.job_attempts_v1.ended_at IS 'Of a late result: when it came';
COMMENT ON COLUMN refold.job_attempts_v1.outcome IS
    'Null: it runs. RESCUED: ended without a result, the job waits again. RELEASED: the worker gave the job back. '
    'POISONED: ended without a result, the job starts no more. LIMITED: a server asked for a pause. LATE: changed nothing';
COMMENT ON COLUMN refold.job_attempts_v1.reported IS 'Of a late result: succeeded, failed or limited';
COMMENT ON COLUMN refold.job_attempts_v1.detail IS
    'Result, error, reason; of a RESCUED, RELEASED or POISONED one: process_ended, lease_expired or released';
COMMENT ON COLUMN refold.job_attempts_v1.next_at IS 'The next attempt starts no earlier; null: none follows by itself';

CREATE TABLE refold.job_queues_v1 (
    name          text COLLATE "C" PRIMARY KEY,
    tenant_id     text COLLATE "C" NOT NULL,
    priority      bigint NOT NULL,
    paused_at     timestamptz,
    paused_by     text,
    note          text,
    last_position bigint NOT NULL
);
SELECT refold.protect_tenant_rows('refold.job_queues_v1');
CREATE POLICY tenants_read_shared ON refold.job_queues_v1 FOR SELECT
    USING (tenant_id = '*' AND current_setting('app.tenant_id', true) <> '');

COMMENT ON TABLE refold.job_queues_v1 IS 'Queues that had a job or were paused';
COMMENT ON COLUMN refold.job_queues_v1.tenant_id IS '*: every tenant''s jobs, and every tenant sees the rows';
COMMENT ON COLUMN refold.job_queues_v1.priority IS 'Jobs of the higher one start first';
COMMENT ON COLUMN refold.job_queues_v1.paused_at IS 'Null: it starts jobs';
COMMENT ON COLUMN refold.job_queues_v1.last_position IS 'The last decision that changed the row';

CREATE TABLE refold.job_schedules_v1 (
    name             text COLLATE "C" PRIMARY KEY,
    tenant_id        text COLLATE "C" NOT NULL,
    kind             text COLLATE "C" NOT NULL,
    cron             text,
    interval_seconds bigint,
    last_due         timestamptz,
    ticks            bigint NOT NULL,
    missed           bigint NOT NULL,
    last_job         bigint,
    policy_position  bigint NOT NULL,
    last_position    bigint NOT NULL
);
SELECT refold.protect_tenant_rows('refold.job_schedules_v1');

COMMENT ON COLUMN refold.job_schedules_v1.tenant_id IS '*: only readers of all tenants see the rows';
COMMENT ON COLUMN refold.job_schedules_v1.cron IS 'Five fields, in UTC; null: by interval_seconds';
COMMENT ON COLUMN refold.job_schedules_v1.last_due IS 'Time of the last tick';
COMMENT ON COLUMN refold.job_schedules_v1.missed IS 'Ticks that passed while no daemon ran; a later one took their place';
COMMENT ON COLUMN refold.job_schedules_v1.last_job IS 'Job of the last tick: queued by it, or still open then';
COMMENT ON COLUMN refold.job_schedules_v1.policy_position IS
    'The last policy that has it; the view shows the schedules of the newest policy';
COMMENT ON COLUMN refold.job_schedules_v1.last_position IS 'The last decision that changed the row';

CREATE TABLE refold.job_policies_v1 (
    position  bigint PRIMARY KEY,
    tenant_id text COLLATE "C" NOT NULL,
    at        timestamptz NOT NULL,
    actor     text NOT NULL,
    policy    jsonb NOT NULL
);
SELECT refold.protect_tenant_rows('refold.job_policies_v1');

COMMENT ON TABLE refold.job_policies_v1 IS 'Kinds of jobs and schedules as the settings gave them; the newest is in force';

-- Sums over jobs: statistics need not read the jobs.
CREATE TABLE refold.job_counts_v1 (
    tenant_id text COLLATE "C" NOT NULL,
    queue     text COLLATE "C" NOT NULL,
    kind      text COLLATE "C" NOT NULL,
    waiting   bigint NOT NULL DEFAULT 0,
    running   bigint NOT NULL DEFAULT 0,
    succeeded bigint NOT NULL DEFAULT 0,
    failed    bigint NOT NULL DEFAULT 0,
    cancelled bigint NOT NULL DEFAULT 0,
    poisoned  bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, queue, kind)
);
SELECT refold.protect_tenant_rows('refold.job_counts_v1');
COMMENT ON TABLE refold.job_counts_v1 IS 'Jobs by status';

CREATE TABLE refold.job_hours_v1 (
    tenant_id text COLLATE "C" NOT NULL,
    queue     text COLLATE "C" NOT NULL,
    kind      text COLLATE "C" NOT NULL,
    hour      bigint NOT NULL,
    queued    bigint NOT NULL DEFAULT 0,
    started   bigint NOT NULL DEFAULT 0,
    succeeded bigint NOT NULL DEFAULT 0,
    failed    bigint NOT NULL DEFAULT 0,
    rescued   bigint NOT NULL DEFAULT 0,
    limited   bigint NOT NULL DEFAULT 0,
    late      bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, queue, kind, hour)
);
CREATE INDEX job_hours_v1_hour ON refold.job_hours_v1 (hour);
SELECT refold.protect_tenant_rows('refold.job_hours_v1');
COMMENT ON TABLE refold.job_hours_v1 IS 'Jobs queued, attempts started and ended, and late results, of each hour';
COMMENT ON COLUMN refold.job_hours_v1.hour IS 'Hours since 1970, UTC';
COMMENT ON COLUMN refold.job_hours_v1.failed IS 'Attempts, not jobs';
COMMENT ON COLUMN refold.job_hours_v1.rescued IS 'Attempts that ended without a result; released ones are not counted';

CREATE VIEW refold.jobs WITH (security_invoker = true) AS
SELECT id, tenant_id, kind, queue, key, scope, status, run_at, deadline, attempt, attempts_max, failures, rescues,
       lease_seconds, worker, token, error, result, cause, queued_by, queued_at, started_at, ended_at, position, last_position
FROM refold.jobs_v1;
SELECT refold.grant_read('refold.jobs');

CREATE VIEW refold.job_attempts WITH (security_invoker = true) AS
SELECT job_id, token, report, tenant_id, attempt, worker, lease_seconds, started_at, ended_at, outcome, reported, detail,
       next_at
FROM refold.job_attempts_v1;
SELECT refold.grant_read('refold.job_attempts');

CREATE VIEW refold.job_policies WITH (security_invoker = true) AS
SELECT position, tenant_id, at, actor, policy FROM refold.job_policies_v1;
SELECT refold.grant_read('refold.job_policies');

CREATE VIEW refold.job_schedules WITH (security_invoker = true) AS
SELECT name, tenant_id, kind, cron, interval_seconds, last_due, ticks, missed, last_job, policy_position, last_position
FROM refold.job_schedules_v1
WHERE policy_position = (SELECT max(position) FROM refold.job_policies_v1);
SELECT refold.grant_read('refold.job_schedules');

CREATE VIEW refold.job_counts WITH (security_invoker = true) AS
SELECT tenant_id, queue, kind, waiting, running, succeeded, failed, cancelled, poisoned FROM refold.job_counts_v1;
SELECT refold.grant_read('refold.job_counts');

CREATE VIEW refold.job_hours WITH (security_invoker = true) AS
SELECT tenant_id, queue, kind, hour, queued, started, succeeded, failed, rescued, limited, late,
       to_timestamp(hour * 3600) AS begins_at
FROM refold.job_hours_v1;
SELECT refold.grant_read('refold.job_hours');

-- The counts are those of the reader's tenant. The last 24 hours are whole ones, this hour included.
CREATE VIEW refold.job_queues WITH (security_invoker = true) AS
SELECT q.name, q.tenant_id, q.priority, q.paused_at, q.paused_by, q.note, q.last_position,
       c.waiting, c.running, h.completed_24h, h.failed_24h,
       (SELECT min(j.run_at) FROM refold.jobs_v1 AS j WHERE j.queue = q.name AND j.status = 'WAITING') AS oldest_at
FROM refold.job_queues_v1 AS q
CROSS JOIN LATERAL (
    SELECT coalesce(sum(waiting), 0)::bigint AS waiting, coalesce(sum(running), 0)::bigint AS running
    FROM refold.job_counts_v1 WHERE queue = q.name) AS c
CROSS JOIN LATERAL (
    SELECT coalesce(sum(succeeded), 0)::bigint AS completed_24h, coalesce(sum(failed), 0)::bigint AS failed_24h
    FROM refold.job_hours_v1
    WHERE queue = q.name AND hour > floor(extract(epoch FROM now()) / 3600)::bigint - 24) AS h;
SELECT refold.grant_read('refold.job_queues');

COMMENT ON VIEW refold.job_queues IS
    'oldest_at: the earliest run_at of its waiting jobs; failed_24h counts attempts, not jobs';
