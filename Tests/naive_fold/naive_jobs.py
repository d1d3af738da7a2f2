"""The part of naive_fold.py that is about jobs, in plain words.

The first event with an id makes the job. A job that waits can start; the running attempt ends by its token only; a job
that has ended waits again when it is rescheduled, unless it succeeded. Everything else changes no row. Sums are counted
from the rows in the end, and the hours as the steps happen.
"""

import datetime

from naive_certificates import INT8_MAX, moment

PRIORITIES = {"critical": 10, "high": 7, "normal": 5, "low": 3}
STATUSES = ("waiting", "running", "succeeded", "failed", "cancelled", "poisoned")
# Fields that must be there, and their types.
JOB_EVENTS = {
    "job.queued/1": {"tenant_id": str, "jobs": list, "actor": str},
    "job.started/1": {"worker": str, "jobs": list},
    "job.succeeded/1": {"worker": str, "jobs": list},
    "job.failed/1": {"id": int, "token": int, "attempt": int, "worker": str, "error": str},
    "job.cancelled/1": {"tenant_id": str, "ids": list, "actor": str},
    "job.rescued/1": {"cause": str, "jobs": list},
    "job.poisoned/1": {"id": int, "token": int, "cause": str, "rescues": int},
    "job.late/1": {"id": int, "token": int, "worker": str, "outcome": str},
    "job.rescheduled/1": {"id": int, "tenant_id": str, "reset": bool, "actor": str},
    "job.policy/1": {"policy": dict, "actor": str},
    **{"queue.%s/1" % what: {"change": str, "queue": str, "tenant_id": str, "actor": str}
       for what in ("paused", "resumed")},
    "queue.limited/1": {"kind": str, "until": int, "jobs": list, "worker": str},
    "queue.rate_set/1": {"kind": str, "tenant_id": str, "actor": str},
    "schedule.ticked/1": {"name": str, "due": int, "missed": int},
}
STEPS = ("queued", "started", "succeeded", "failed", "rescued", "limited", "late")


def optional(time):
    return None if time is None else moment(time)


def fold_jobs(tables, position, at, schema, fields):
    audit(tables, position, at, schema, fields)
    step = schema.split(".")[1]
    if schema == "job.queued":
        queue_jobs(tables, position, at, fields)
    elif schema == "job.started":
        for job in fields["jobs"]:
            start(tables, position, at, tables.jobs.get(job["id"]), job["n"], fields)
    elif schema == "job.succeeded":
        for job in fields["jobs"]:
            row = end(tables, position, at, job, "SUCCEEDED", job.get("result"), None)
            if row is not None:
                row["status"], row["ended_at"], row["error"], row["result"] = "SUCCEEDED", at, None, job.get("result")
                count(tables, row, at, "succeeded")
    elif schema == "job.failed":
        again = fields.get("retry_at")
        row = end(tables, position, at, fields, "FAILED", fields["error"], optional(again))
        if row is not None:
            row["failures"] += 1
            row["error"] = fields["error"]
            if again is None:
                row["status"], row["ended_at"] = "FAILED", at
            else:
                row["status"], row["run_at"] = "WAITING", moment(again)
            count(tables, row, at, "failed")
    elif schema == "job.cancelled":
        for number in fields["ids"]:
            cancel(tables, position, at, tables.jobs.get(number), fields.get("reason"))
    elif schema == "job.rescued":
        released = fields["cause"] == "released"
        for job in fields["jobs"]:
            row = end(tables, position, at, job, "RELEASED" if released else "RESCUED", fields["cause"], at)
            if row is not None:
                row["status"], row["run_at"] = "WAITING", at
                if not released:
                    row["rescues"] += 1
                    count(tables, row, at, "rescued")
    elif schema == "job.poisoned":
        row = end(tables, position, at, fields, "POISONED", fields["cause"], None)
        if row is not None:
            row["status"], row["ended_at"], row["rescues"], row["error"] = "POISONED", at, fields["rescues"], fields["cause"]
            count(tables, row, at, "rescued")
    elif schema == "queue.limited":
        for job in fields["jobs"]:
            row = end(tables, position, at, job, "LIMITED", fields.get("reason"), moment(fields["until"]))
            if row is not None:
                row["status"], row["run_at"] = "WAITING", at
                count(tables, row, at, "limited")
    elif schema == "job.late":
        late(tables, position, at, fields)
    elif schema == "job.rescheduled":
        reschedule(tables, position, fields)
    elif step in ("paused", "resumed"):
        paused = step == "paused"
        tables.job_queues[fields["queue"]] = {
            "name": fields["queue"], "tenant_id": "*", "priority": PRIORITIES[fields["queue"]],
            "paused_at": at if paused else None, "paused_by": fields["actor"] if paused else None,
            "note": fields.get("note") if paused else None, "last_position": position,
        }
    elif schema == "job.policy":
        set_policy(tables, position, at, fields)
    elif schema == "schedule.ticked":
        row = tables.job_schedules.get(fields["name"])
        if row is not None:
            row["last_due"], row["last_position"] = moment(fields["due"]), position
            row["ticks"] += 1
            row["missed"] += fields["missed"]
            row["last_job"] = fields["open_job"] if fields.get("open_job") is not None else row["last_job"]


def audit(tables, position, at, schema, fields):
    """What people decide; steps of jobs are in the jobs' tables."""
    actor = fields.get("actor")
    if schema in ("job.queued", "job.rescheduled") and actor == "engine":
        return
    if schema in ("job.started", "job.succeeded", "job.failed", "job.rescued", "job.poisoned", "job.late",
                  "schedule.ticked"):
        return
    if schema == "queue.limited":
        actor = fields["worker"]
    ids = fields.get("ids") or [job["id"] for job in fields.get("jobs", [])]
    if schema == "job.rescheduled":
        ids = [fields["id"]]
    subject = "job:%d" % ids[0] if len(ids) == 1 else "jobs"
    if schema.startswith("queue."):
        subject = "queue:" + fields["queue"] if "queue" in fields else "kind:" + fields["kind"]
    tables.audit_logs[position] = {"position": position, "at": at, "actor": actor, "action": schema, "subject": subject}


def count(tables, row, at, step):
    time = datetime.datetime.fromisoformat(at.replace("Z", "+00:00"))
    hour = int(time.timestamp() // 3600)
    key = (row["tenant_id"], row["queue"], row["kind"], hour)
    sums = tables.job_hours.setdefault(key, {
        "tenant_id": key[0], "queue": key[1], "kind": key[2], "hour": hour, **{name: 0 for name in STEPS}})
    sums[step] += 1


def count_jobs(tables):
    """A row of zeros stays where jobs were: in a queue, say, that all of its jobs have left."""
    for key in tables.job_places:
        tables.job_counts[key] = {
            "tenant_id": key[0], "queue": key[1], "kind": key[2], **{name: 0 for name in STATUSES}}
    for row in tables.jobs.values():
        tables.job_counts[(row["tenant_id"], row["queue"], row["kind"])][row["status"].lower()] += 1


def use_queue(tables, position, name):
    tables.job_queues.setdefault(name, {
        "name": name, "tenant_id": "*", "priority": PRIORITIES[name], "paused_at": None, "paused_by": None, "note": None,
        "last_position": position,
    })


def queue_jobs(tables, position, at, fields):
    for job in fields["jobs"]:
        use_queue(tables, position, job["queue"])
        if job["id"] in tables.jobs:
            continue
        row = tables.jobs[job["id"]] = {
            "id": job["id"], "tenant_id": fields["tenant_id"], "kind": job["kind"], "queue": job["queue"],
            "key": job.get("key"), "scope": job.get("scope"), "status": "WAITING",
            "run_at": optional(job.get("run_at")) or at, "deadline": optional(job.get("deadline")), "attempt": 0,
            "attempts_max": job["attempts_max"], "failures": 0, "rescues": 0, "lease_seconds": None, "worker": None,
            "token": None, "error": None, "result": None, "cause": fields.get("cause"), "queued_by": fields["actor"],
            "queued_at": at, "started_at": None, "ended_at": None, "position": position, "last_position": position,
        }
        tables.job_places.add((row["tenant_id"], row["queue"], row["kind"]))
        count(tables, row, at, "queued")
    first = fields["jobs"][0] if fields["jobs"] else {}
    name = first.get("key")
    if name is not None and fields.get("cause") == "schedule:" + name and fields["tenant_id"] == "*":
        if name in tables.job_schedules:
            tables.job_schedules[name].update(last_job=first["id"], last_position=position)


def start(tables, position, at, row, number, fields):
    if row is None or row["status"] != "WAITING":
        return
    row.update(status="RUNNING", attempt=number, token=position, worker=fields["worker"],
               lease_seconds=fields.get("lease_seconds"), started_at=at, last_position=position)
    count(tables, row, at, "started")
    tables.job_attempts[(row["id"], position, 0)] = {
        "job_id": row["id"], "token": position, "report": 0, "tenant_id": row["tenant_id"], "attempt": number,
        "worker": fields["worker"], "lease_seconds": fields.get("lease_seconds"), "started_at": at, "ended_at": None,
        "outcome": None, "reported": None, "detail": None, "next_at": None,
    }


def end(tables, position, at, attempt, outcome, detail, next_at):
    """The job whose running attempt this is, with the attempt's end noted; else None."""
    row = tables.jobs.get(attempt["id"])
    if row is None or row["status"] != "RUNNING" or row["token"] != attempt["token"]:
        return None
    row["last_position"] = position
    tables.job_attempts[(row["id"], row["token"], 0)].update(
        ended_at=at, outcome=outcome, detail=detail, next_at=next_at)
    return row


def cancel(tables, position, at, row, reason):
    if row is None or row["status"] not in ("WAITING", "RUNNING"):
        return
    if row["status"] == "RUNNING":
        tables.job_attempts[(row["id"], row["token"], 0)].update(ended_at=at, outcome="CANCELLED", detail=reason)
    row.update(status="CANCELLED", ended_at=at, error=reason, last_position=position)


def late(tables, position, at, fields):
    row, token = tables.jobs.get(fields["id"]), min(fields["token"], INT8_MAX)
    tables.job_attempts[(fields["id"], token, position)] = {
        "job_id": fields["id"], "token": token, "report": position, "tenant_id": row["tenant_id"] if row else "*",
        "attempt": None, "worker": fields["worker"], "lease_seconds": None, "started_at": None, "ended_at": at,
        "outcome": "LATE", "reported": fields["outcome"], "detail": fields.get("detail"), "next_at": None,
    }
    if row is not None:
        count(tables, row, at, "late")


def reschedule(tables, position, fields):
    if fields.get("queue") is not None:
        use_queue(tables, position, fields["queue"])
    row = tables.jobs.get(fields["id"])
    if row is None or row["status"] in ("RUNNING", "SUCCEEDED"):
        return
    row["queue"] = fields.get("queue") or row["queue"]
    tables.job_places.add((row["tenant_id"], row["queue"], row["kind"]))
    row["deadline"] = optional(fields.get("deadline")) or row["deadline"]
    if fields["reset"]:
        row["failures"] = row["rescues"] = 0
    row["run_at"] = optional(fields.get("run_at")) or row["ended_at"] or row["run_at"]
    row.update(status="WAITING", ended_at=None, last_position=position)


def set_policy(tables, position, at, fields):
    tables.job_policies[position] = {
        "position": position, "tenant_id": "*", "at": at, "actor": fields["actor"], "policy": fields["policy"],
    }
    for schedule in fields["policy"]["schedules"]:
        row = tables.job_schedules.setdefault(schedule["name"], {
            "name": schedule["name"], "tenant_id": "*", "kind": None, "cron": None, "interval_seconds": None,
            "last_due": None, "ticks": 0, "missed": 0, "last_job": None,
        })
        if row.get("policy_position") != position:  # of two with one name the first
            row.update(kind=schedule["kind"], cron=schedule.get("cron"), policy_position=position,
                       interval_seconds=schedule.get("interval_seconds"), last_position=position)


def newest_schedules(schedules, policies):
    """What the view shows: the schedules of the newest policy."""
    newest = max((int(row["position"]) for row in policies), default=None)
    return [row for row in schedules if int(row["policy_position"]) == newest]
