"""The part of naive_fold.py that is about campaigns and groups: how a device's part in a campaign goes, in plain words.

The first terminal state that a device reports in an attempt stands. What was concluded from silence (TIMED_OUT,
UNREACHABLE, SKIPPED) yields to a later report. A decision about a device names the last event about its part that was
known, and is void when there is a later one.
"""

import re

IN_FLIGHT = ("DOWNLOADING", "INSTALLING", "VERIFYING")
FAILURES = ("FAILED", "TIMED_OUT", "UNREACHABLE")
ENDED = ("SUCCESS", "SKIPPED") + FAILURES


def move(tables, row, status, kind, at, position):
    """A device's part gets another status; the campaign's counts, and those of the minute, move with it."""
    campaign = tables.ota_campaigns[row["campaign_id"]]
    minute = at[:16] + ":00Z"
    for name, words in (("in_flight", IN_FLIGHT), ("succeeded", ("SUCCESS",)), ("failed", FAILURES), ("skipped", ("SKIPPED",))):
        change = (status in words) - (row["status"] in words)
        campaign[name] += change
        if change and name != "in_flight":
            in_minute(tables, campaign, minute)[name] += change
    row["status"], row["failure_kind"] = status, kind
    row["completed_at"] = at if status in ENDED else None
    row["ended_position"] = position if status in ENDED else None
    if status != "SKIPPED":
        row["skip_kind"] = None


def in_minute(tables, campaign, minute):
    return tables.campaign_progress.setdefault((campaign["id"], minute), {
        "campaign_id": campaign["id"], "minute": minute, "tenant_id": campaign["tenant_id"], "dispatched": 0,
        "succeeded": 0, "failed": 0, "skipped": 0,
    })


def command_of(fields):
    """The command that a report answers to: an integer or a string of digits, anything else is none."""
    given = fields.get("command_id")
    if isinstance(given, str) and re.fullmatch("[0-9]{1,19}", given) and int(given) < 2**63:
        return int(given)
    return None


def fold_report(tables, position, at, tenant, device, fields):
    campaign = int(fields["campaign_id"])
    known = tables.ota_campaigns.get(campaign)
    row = tables.ota_device_status.get((campaign, device))
    if known is None or campaign in tables.deleted or known["tenant_id"] != tenant or row is None:
        tables.ota_unmatched_reports[position] = {
            "position": position, "tenant_id": tenant, "device_id": device, "campaign_id": campaign,
            "status": fields["status"], "at": at,
        }
        return
    part = tables.parts[(campaign, device)]
    row["last_position"], row["last_report_at"] = position, at
    row["report_count"] += 1
    command = command_of(fields)
    if row["command_id"] is None:
        of_this_attempt = True
    elif command is not None:
        of_this_attempt = command >= row["command_id"]
    else:
        of_this_attempt = row["attempt"] == 1 or part["begun"] or fields["status"] == "DOWNLOADING"
    if not of_this_attempt or row["status"] in ("SUCCESS", "FAILED", "VERIFYING"):
        row["late_report_count"] += 1  # the first terminal state of an attempt stands
        return
    row["started_at"] = row["started_at"] or at
    row["acknowledged_at"] = row["acknowledged_at"] or at
    row["error_message"] = fields.get("error")
    if fields.get("progress") is not None:
        row["progress_pct"] = min(100.0, max(0.0, float(fields["progress"])))
    status, kind = fields["status"], None
    if status == "DOWNLOADING":
        part["begun"] = True
    elif status == "SUCCESS" and campaign in tables.verifying:
        status = "VERIFYING"
    elif status == "FAILED":
        kind = "INSTALL" if row["status"] == "INSTALLING" else "DOWNLOAD"
    move(tables, row, status, kind, at, position)


def fold_dispatched(tables, position, at, fields):
    for device, seen in zip(fields["devices"], fields["seen"]):
        row = tables.ota_device_status.get((fields["campaign_id"], device))
        if row is None:
            continue
        campaign = tables.ota_campaigns[fields["campaign_id"]]
        if seen != row["last_position"] or row["status"] in IN_FLIGHT + ("SUCCESS",):
            campaign["void_count"] += 1
            continue
        row["attempt"] += 1
        row["command_id"] = row["last_position"] = position
        row["started_at"] = row["started_at"] or at
        row["dispatched_at"] = at
        row["acknowledged_at"] = row["progress_pct"] = row["error_message"] = None
        tables.parts[(fields["campaign_id"], device)]["begun"] = False
        campaign["dispatched"] += 1
        in_minute(tables, campaign, at[:16] + ":00Z")["dispatched"] += 1
        move(tables, row, "DOWNLOADING", None, at, position)


def fold_devices_ended(tables, position, at, fields):
    status = fields["status"]
    for device, seen in zip(fields["devices"], fields["seen"]):
        row = tables.ota_device_status.get((fields["campaign_id"], device))
        if row is None:
            continue
        if seen != row["last_position"] or row["status"] in ENDED or status not in ENDED:
            tables.ota_campaigns[fields["campaign_id"]]["void_count"] += 1
            continue
        row["last_position"] = position
        kind = {"FAILED": fields.get("kind"), "TIMED_OUT": "TIMED_OUT", "UNREACHABLE": "UNREACHABLE"}.get(status)
        if status in FAILURES and fields.get("reason") is not None:
            row["error_message"] = fields["reason"]
        move(tables, row, status, kind, at, position)
        if status == "SKIPPED":
            row["skip_kind"] = fields.get("kind")


def fold_decision(tables, event, fields):
    at, schema = event["received_at"], event["topic"].split("/")[0]
    if schema == "firmware.added":
        tables.firmware_versions[fields["id"]] = {
            "id": fields["id"], "tenant_id": fields["tenant_id"], "version": fields["version"],
            "description": fields.get("description"), "file_url": fields["file_url"],
            "file_size_bytes": fields.get("file_size_bytes"), "checksum_sha256": fields.get("checksum_sha256"),
            "device_type": fields.get("device_type"), "created_at": at, "created_by": fields["actor"],
        }
    elif schema == "campaign.created":
        tables.ota_campaigns[fields["id"]] = {
            "id": fields["id"], "tenant_id": fields["tenant_id"], "name": fields["name"],
            "firmware_version_id": fields["firmware_version_id"], "target_group_id": fields.get("target_group_id"),
            "rollout_strategy": fields["rollout_strategy"], "rollout_rate": fields.get("rollout_rate"),
            "abort_threshold": fields.get("abort_threshold"), "plan": fields.get("plan"), "status": "CREATED",
            "total_devices": fields["total_devices"], "in_flight": 0, "succeeded": 0, "failed": 0, "skipped": 0,
            "dispatched": 0, "void_count": 0, "stage": None, "stage_devices_max": None, "stage_begun_at": None,
            "status_at": at, "status_by": fields["actor"], "status_code": None, "status_reason": None,
            "status_cause": None, "started_at": None, "completed_at": None, "created_at": at,
            "created_by": fields["actor"], "created_position": event["position"], "last_position": event["position"],
        }
        if (fields.get("plan") or {}).get("verify"):
            tables.verifying.add(fields["id"])
    elif schema == "campaign.targets":
        for index, device in enumerate(fields["devices"]):
            if (fields["campaign_id"], device) in tables.ota_device_status:
                continue
            tables.parts[(fields["campaign_id"], device)] = {"begun": False}
            tables.ota_device_status[(fields["campaign_id"], device)] = {
                "id": fields["first_id"] + index, "tenant_id": fields["tenant_id"],
                "campaign_id": fields["campaign_id"], "device_id": device, "status": "PENDING", "failure_kind": None,
                "skip_kind": None, "attempt": 0, "command_id": None, "progress_pct": None, "error_message": None,
                "started_at": None, "dispatched_at": None, "acknowledged_at": None, "completed_at": None,
                "created_at": at, "report_count": 0, "late_report_count": 0, "last_report_at": None,
                "ended_position": None, "last_position": event["position"],
            }
    elif schema == "campaign.dispatched":
        fold_dispatched(tables, event["position"], at, fields)
    elif schema == "campaign.devices_ended":
        fold_devices_ended(tables, event["position"], at, fields)
    elif schema.startswith("group.") or schema == "tenant.configured":
        fold_group(tables, event["position"], at, schema, fields)
    elif schema.startswith("campaign.") and schema not in ("campaign.published", "campaign.archived"):
        fold_campaign_change(tables, event["position"], at, schema, fields)
    if schema.startswith("campaign.") and schema not in ("campaign.targets", "campaign.archived"):
        tables.campaign_events[event["position"]] = {
            "position": event["position"], "tenant_id": fields["tenant_id"],
            "campaign_id": fields["id"] if schema == "campaign.created" else fields["campaign_id"], "at": at,
            "event_type": schema.split(".")[1], "actor": fields.get("actor", "engine"),
            "status_after": {"campaign.created": "CREATED", "campaign.devices_ended": fields.get("status")}.get(
                schema, fields.get("after")),
            "reason": fields.get("reason"), "stage": fields.get("stage"), "counts": fields.get("counts"),
        }
    audit(tables, event["position"], at, schema, fields)


def fold_campaign_change(tables, position, at, schema, fields):
    row = tables.ota_campaigns.get(fields["campaign_id"])
    if row is None:
        return
    row["last_position"] = position
    if schema == "campaign.stage_begun":
        row["stage"], row["stage_devices_max"], row["stage_begun_at"] = fields["stage"], fields["devices_max"], at
        return
    row["status"], row["status_at"], row["status_by"] = fields["after"], at, fields["actor"]
    row["status_code"], row["status_reason"] = fields.get("code"), fields.get("reason")
    row["status_cause"] = fields.get("cause")
    if schema == "campaign.started":
        row["started_at"] = row["started_at"] or at
    elif schema in ("campaign.aborted", "campaign.completed"):
        row["completed_at"] = at
    elif schema == "campaign.retried":
        row["completed_at"] = None
    elif schema == "campaign.deleted":
        tables.deleted.add(row["id"])


def fold_group(tables, position, at, schema, fields):
    if schema == "tenant.configured":
        tables.tenant_settings[fields["tenant_id"]] = {
            "tenant_id": fields["tenant_id"], "time_zone": fields["time_zone"], "updated_at": at,
            "updated_by": fields["actor"], "position": position,
        }
    elif schema == "group.created":
        tables.device_groups.setdefault(fields["id"], {
            "id": fields["id"], "tenant_id": fields["tenant_id"], "name": fields["name"],
            "description": fields.get("description"), "query": fields.get("query"), "created_at": at,
            "created_by": fields["actor"], "last_position": position,
        })
    elif fields["group_id"] in tables.device_groups:
        group = tables.device_groups[fields["group_id"]]
        group["last_position"] = position
        if schema == "group.deleted":
            group["deleted"] = True
            return
        for device in fields.get("removed") or []:
            tables.device_group_members.pop((group["id"], device), None)
        for device in fields.get("added") or []:
            tables.device_group_members.setdefault((group["id"], device), {
                "group_id": group["id"], "device_id": device, "tenant_id": fields["tenant_id"], "added_at": at,
                "position": position,
            })


def audit(tables, position, at, schema, fields):
    if schema in ("campaign.targets", "campaign.dispatched", "campaign.published", "campaign.devices_ended", "campaign.archived"):
        return
    kind, verb = schema.split(".")
    if kind == "token":
        return
    if schema == "command.rejected":
        subject = fields["subject"]
    elif kind == "tenant":
        subject = "tenant:" + fields["tenant_id"]
    else:
        subject = "%s:%d" % (kind, fields["id"] if verb in ("added", "created") else fields["%s_id" % kind])
    tables.audit_logs[position] = {
        "position": position, "at": at, "actor": fields["actor"], "action": schema, "subject": subject,
    }


def hide_deleted(tables):
    """What the views leave out."""
    for id in tables.deleted:
        del tables.ota_campaigns[id]
        for key in [key for key in tables.ota_device_status if key[0] == id]:
            del tables.ota_device_status[key]
    for group in [group for group in tables.device_groups.values() if group.pop("deleted", False)]:
        del tables.device_groups[group["id"]]
        for key in [key for key in tables.device_group_members if key[0] == group["id"]]:
            del tables.device_group_members[key]


