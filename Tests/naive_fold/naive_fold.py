#!/usr/bin/env python3
"""An independent fold of a Refold log, deliberately naive: the rules in plain Python, one dictionary a table.

It shares nothing with the program but the log's events as `refold log cat --json` prints them, and compares
what it folds with the tables as PostgreSQL gives them. Standard library only; needs `psql`.

    refold log cat --data DIR --json | naive_fold.py --database postgresql://...
    naive_fold.py --events events.ndjson                 # prints the tables that it folds, compares nothing

Exit code 0: every row agrees. 1: rows differ, the first differences are printed side by side. 2: wrong usage.
3: the events or the database cannot be read.
"""

import argparse
import base64
import datetime
import decimal
import json
import re
import subprocess
import sys
import threading
from decimal import Decimal

from naive_campaigns import fold_decision, fold_report, hide_deleted
from naive_certificates import CERTIFICATE_EVENTS, fold_certificates, moment
from naive_jobs import JOB_EVENTS, count_jobs, fold_jobs, newest_schedules

ID = r"[A-Za-z0-9._:\-]{1,128}"
TOPIC = re.compile(r"tenant/(%s)/device/(%s)/(.+)" % (ID, ID), re.DOTALL)


class Bad(Exception):
    """Why a payload is a dead letter."""


# --- payloads -----------------------------------------------------------------------------------------------------


class Number(str):
    """A JSON number as it was written: whether it is an integer is a matter of its form."""


def refuse_constant(word):
    raise ValueError(word)


class Members(list):
    """An object's members, all of them: of several with one name the last counts, but jsonb reads the others too."""


def parse(payload):
    """The value of a payload, or Bad. All of it must be JSON in UTF-8, and jsonb must be able to hold it."""
    try:
        text = payload.decode("utf-8")
        value = json.loads(
            text, parse_int=Number, parse_float=Number, parse_constant=refuse_constant, object_pairs_hook=Members)
    except (UnicodeDecodeError, ValueError):
        raise Bad("INVALID_JSON")
    check(value, 1, [0])
    return plain(value)


def plain(value):
    if isinstance(value, Members):
        return {name: plain(member) for name, member in value}
    return [plain(item) for item in value] if isinstance(value, list) else value


def check(value, depth, digits):
    """What jsonb refuses of JSON: U+0000, half surrogate pairs, numbers beyond numeric. Depth at most 512."""
    if isinstance(value, Number):
        digits[0] += number_digits(value)
        if digits[0] > 1 << 20:
            raise Bad("INVALID_VALUE")
    elif isinstance(value, str):
        if "\0" in value or any(0xD800 <= ord(c) <= 0xDFFF for c in value):
            raise Bad("INVALID_VALUE")
    elif isinstance(value, list):
        if depth > 512:
            raise Bad("INVALID_VALUE")
        for item in value:
            if isinstance(value, Members):
                check(item[0], depth, digits)
                item = item[1]
            check(item, depth + 1, digits)


def number_digits(number):
    """How many digits PostgreSQL writes for it; only numbers that are long or have an exponent are looked at."""
    if len(number) <= 300 and not re.search("[eE]", number):
        return 0
    mantissa, _, power = number.lstrip("-").lower().partition("e")
    whole, _, fraction = mantissa.partition(".")
    exponent = int((power or "0")[:10])
    significant = (whole + fraction).lstrip("0")
    before = len(significant) - len(fraction) + exponent if significant else 1
    scale = max(0, len(fraction) - exponent)
    if exponent > 200000:
        raise Bad("INVALID_VALUE")
    if before > 131072 or scale > 16383:
        raise Bad("INVALID_VALUE")
    return max(before, 1) + scale


def is_integer(value):
    if not isinstance(value, Number) or not re.fullmatch(r"-?[0-9]{1,19}", value):
        return False
    return -(2**63) <= int(value) < 2**63


def is_text(value):
    return isinstance(value, str) and not isinstance(value, Number)


def is_metrics(value):
    return isinstance(value, dict) and all(isinstance(v, (bool, str)) for v in value.values())


STRING, INTEGER, NUMERIC, OBJECT, METRICS = "string", "integer", "number", "object", "metrics"
TYPES = {
    STRING: is_text,
    INTEGER: is_integer,
    NUMERIC: lambda v: isinstance(v, Number),
    OBJECT: lambda v: isinstance(v, dict),
    METRICS: is_metrics,
}
# (field, type, required), in the order in which they are complained of
PAYLOADS = {
    "telemetry": [("ts", STRING, 0), ("site_id", STRING, 0), ("seq", INTEGER, 0), ("metrics", METRICS, 1)],
    "heartbeat": [("ts", STRING, 0), ("site_id", STRING, 0), ("seq", INTEGER, 0)],
    "shadow/reported": [("version", INTEGER, 1), ("reported", OBJECT, 1)],
    "commands/ack": [("command_id", STRING, 1), ("status", STRING, 1), ("details", OBJECT, 0)],
    "ota/status": [("status", STRING, 1), ("campaign_id", INTEGER, 1), ("progress", NUMERIC, 0), ("error", STRING, 0)],
    "connection": [("status", STRING, 1)],
}


def ascii_upper(text):
    return re.sub("[a-z]+", lambda m: m.group().upper(), text)


def decode(rest, tenant, device, payload):
    """The payload's fields, or Bad; None on a topic that is not folded."""
    if rest not in PAYLOADS:
        return None
    value = parse(payload)
    if not isinstance(value, dict):
        raise Bad("NOT_AN_OBJECT")
    for field, topics, reason in (("tenant_id", tenant, "TENANT"), ("device_id", device, "DEVICE")):
        if value.get(field) is not None:
            if not is_text(value[field]):
                raise Bad("INVALID_TYPE")
            if value[field] != topics:
                raise Bad(reason + "_MISMATCH_TOPIC_VS_PAYLOAD")
    for field, kind, required in PAYLOADS[rest]:
        if value.get(field) is None:
            if required:
                raise Bad("MISSING_FIELD")
        elif not TYPES[kind](value[field]):
            raise Bad("INVALID_TYPE")
    words = {"ota/status": ("DOWNLOADING", "INSTALLING", "SUCCESS", "FAILED"),
             "connection": ("CONNECTED", "DISCONNECTED", "CONNECTION_LOST")}.get(rest)
    if words:
        value["status"] = ascii_upper(value["status"])
        if value["status"] not in words:
            raise Bad("INVALID_VALUE")
    return value


# --- the fold -----------------------------------------------------------------------------------------------------


class Tables:
    def __init__(self):
        self.device_status = {}
        self.device_connection_events = {}
        self.firmware_versions = {}
        self.ota_campaigns = {}
        self.ota_device_status = {}
        self.ota_unmatched_reports = {}
        self.campaign_progress = {}
        self.campaign_events = {}
        self.device_groups = {}
        self.device_group_members = {}
        self.tenant_settings = {}
        self.parts = {}  # (campaign, device): what is known of the attempt and is in no column
        self.verifying = set()  # campaigns that want to see the version
        self.deleted = set()
        self.mqtt_connection_status = {}
        self.dead_letters = {}
        self.audit_logs = {}
        self.api_token_events = {}
        self.certificate_authorities = {}
        self.device_certificates = {}
        self.crls = {}
        self.certificate_events = {}
        self.crl_enforcement = {}
        self.jobs = {}
        self.job_attempts = {}
        self.job_queues = {}
        self.job_schedules = {}
        self.job_policies = {}
        self.job_counts = {}
        self.job_hours = {}
        self.job_places = set()  # (tenant, queue, kind) that ever had a job

    def device(self, tenant, device):
        return self.device_status.setdefault((tenant, device), {
            "tenant_id": tenant, "device_id": device, "site_id": None, "first_seen_at": None, "last_seen_at": None,
            "last_telemetry_at": None, "last_heartbeat_at": None, "message_count": 0, "telemetry_count": 0,
            "heartbeat_count": 0, "ack_count": 0, "rejected_count": 0, "last_seq": None, "last_metrics": None,
            "reported_state": None, "reported_version": None, "last_command_id": None, "last_command_status": None,
            "last_ack_at": None, "connected": None, "last_connected_at": None, "last_disconnected_at": None,
            "last_position": None,
        })

    def dead_letter(self, event, projection, reason, payload):
        named = TOPIC.fullmatch(event["topic"])
        self.dead_letters[(event["position"], projection)] = {
            "position": event["position"], "projection": projection, "tenant_id": named and named.group(1),
            "device_id": named and named.group(2), "topic": event["topic"].replace("\0", "\ufffd"), "reason": reason,
            "payload": payload.hex() if event["exact"] else None, "at": event["received_at"], "status": "NEW",
        }


def fold(tables, event):
    payload = event["bytes"]
    kind = event["kind"]
    if kind in ("message", "rejection"):
        broker = tables.mqtt_connection_status.setdefault(
            event["broker"], {"broker_name": event["broker"], "messages_received": 0, "last_message_at": None})
        broker["last_message_at"] = event["received_at"]
        broker["messages_received"] += rejected(payload) if kind == "rejection" else 1
        fold_message(tables, event, payload)
    elif kind in ("connection", "decision"):
        try:
            fields = own_fields(event["topic"], payload)
        except Bad as bad:
            tables.dead_letter(event, "decoding", str(bad), payload)
            return
        if fields is not None and kind == "decision":
            schema = event["topic"].split("/")[0]
            if schema.startswith(("authority.", "certificate.", "client.", "crl.")):
                fold_certificates(tables, event["position"], event["received_at"], schema, fields)
                return
            if schema.startswith(("job.", "queue.", "schedule.")):
                fold_jobs(tables, event["position"], event["received_at"], schema, fields)
                return
            fold_decision(tables, event, fields)
            if schema.startswith("token."):
                fold_token(tables, event, fields, schema)
        elif fields is not None:
            tables.mqtt_connection_status.setdefault(
                event["broker"], {"broker_name": event["broker"], "messages_received": 0, "last_message_at": None})
    elif kind == "system":
        schema, fields = event["topic"].split("/")[0], json.loads(payload)
        if schema in ("log.loss_accepted", "log.segments_removed"):
            tables.audit_logs[event["position"]] = {
                "position": event["position"], "at": event["received_at"], "actor": fields.get("operator", "retention"),
                "action": schema, "subject": "log:%d-%d" % (fields["from"], fields["to"]),
            }


CAMPAIGN_CHANGED = {"campaign_id": int, "tenant_id": str, "before": str, "after": str, "actor": str}
CAMPAIGN_CHANGED_BY = ("started", "paused", "resumed", "aborted", "completed", "deleted", "retried")
OWN = {
    "firmware.added/1": {"id": int, "tenant_id": str, "version": str, "file_url": str, "actor": str},
    "campaign.created/1": {"id": int, "tenant_id": str, "name": str, "firmware_version_id": int, "rollout_strategy": str,
                           "total_devices": int, "actor": str},
    "campaign.targets/1": {"campaign_id": int, "tenant_id": str, "first_id": int, "devices": list},
    "token.created/1": {"id": int, "name": str, "role": str, "tenant_id": str, "secret_sha256": str, "actor": str},
    "token.revoked/1": {"id": int, "name": str, "tenant_id": str, "actor": str},
    "command.rejected/1": {"command": str, "subject": str, "tenant_id": str, "actor": str, "reason": str},
    **{"campaign.%s/1" % verb: CAMPAIGN_CHANGED for verb in CAMPAIGN_CHANGED_BY},
    "campaign.stage_begun/1": {"campaign_id": int, "tenant_id": str, "stage": int, "devices_max": int, "actor": str,
                               "counts": dict},
    "campaign.dispatched/1": {"campaign_id": int, "tenant_id": str, "stage": int, "devices": list, "seen": list,
                              "pace_from": int, "pace_count": int, "cause": int},
    "campaign.dispatched/2": {"campaign_id": int, "tenant_id": str, "stage": int, "devices": list, "seen": list,
                              "pace_from": int, "pace_count": int, "cause": int, "firmware_url": str, "version": str},
    "campaign.archived/1": {"campaign_id": int, "tenant_id": str},
    "campaign.published/1": {"campaign_id": int, "tenant_id": str, "batches": list},
    "campaign.devices_ended/1": {"campaign_id": int, "tenant_id": str, "status": str, "devices": list, "seen": list,
                                 "actor": str},
    "group.created/1": {"id": int, "tenant_id": str, "name": str, "actor": str},
    "group.members/1": {"group_id": int, "tenant_id": str, "actor": str},
    "group.deleted/1": {"group_id": int, "tenant_id": str, "actor": str},
    "tenant.configured/1": {"tenant_id": str, "time_zone": str, "actor": str},
    **CERTIFICATE_EVENTS,
    **JOB_EVENTS,
    **{"broker.%s/1" % what: {"client_id": str} for what in (
        "connected", "disconnected", "session_lost", "subscribed", "subscription_refused")},
}


def own_fields(schema, payload):
    """The payload of an event of our own, or Bad; None when its schema is not known."""
    try:
        fields = json.loads(payload.decode("utf-8"))
    except (UnicodeDecodeError, ValueError):
        raise Bad("INVALID_JSON")
    for name, kind in OWN.get(schema, {}).items():
        if fields.get(name) is None:
            raise Bad("MISSING_FIELD")
        if not isinstance(fields[name], kind):
            raise Bad("INVALID_TYPE")
    return fields if schema in OWN else None


def rejected(payload):
    try:
        return int(json.loads(payload)["count"])
    except (ValueError, KeyError, TypeError):
        return 1


def fold_message(tables, event, payload):
    named = TOPIC.fullmatch(event["topic"])
    position, at, retained = event["position"], event["received_at"], event["retain"]
    if event["kind"] == "rejection" or event["verdict"] != "ACCEPTED":
        tables.dead_letter(event, "ingest", event["verdict"], payload)
        if named and not retained:
            row = tables.device(named.group(1), named.group(2))
            row["rejected_count"] += rejected(payload) if event["kind"] == "rejection" else 1
            row["last_position"] = position
        return
    tenant, device, rest = named.groups()
    fields = None
    try:
        fields = decode(rest, tenant, device, payload)
    except Bad as bad:
        tables.dead_letter(event, "decoding", str(bad), payload)
    if retained:
        if fields is not None and rest == "shadow/reported":
            row = tables.device(tenant, device)
            fold_shadow(row, fields)
            row["last_position"] = position
        return
    row = tables.device(tenant, device)
    row["message_count"] += 1
    row["first_seen_at"] = row["first_seen_at"] or at
    row["last_seen_at"] = at
    row["last_position"] = position
    if fields is None:
        return
    if rest in ("telemetry", "heartbeat"):
        row[rest + "_count"] += 1
        row["last_%s_at" % rest] = at
        if fields.get("site_id") is not None:
            row["site_id"] = fields["site_id"]
        if fields.get("seq") is not None:
            row["last_seq"] = int(fields["seq"])
        if rest == "telemetry":
            row["last_metrics"] = {**(row["last_metrics"] or {}), **fields["metrics"]}
    elif rest == "shadow/reported":
        fold_shadow(row, fields)
    elif rest == "commands/ack":
        row["ack_count"] += 1
        row["last_ack_at"] = at
        row["last_command_id"] = fields["command_id"]
        row["last_command_status"] = fields["status"]
    elif rest == "connection":
        row["connected"] = fields["status"] == "CONNECTED"
        row["last_connected_at" if row["connected"] else "last_disconnected_at"] = at
        tables.device_connection_events[position] = {
            "position": position, "tenant_id": tenant, "device_id": device, "event_type": fields["status"], "at": at,
            "details": parse(payload),
        }
    elif rest == "ota/status":
        fold_report(tables, position, at, tenant, device, fields)


def fold_shadow(row, fields):
    version = int(fields["version"])
    if row["reported_version"] is None or version > row["reported_version"]:
        row["reported_version"] = version
        row["reported_state"] = fields["reported"]


def fold_token(tables, event, fields, schema):
    at = event["received_at"]
    tables.audit_logs[event["position"]] = {
        "position": event["position"], "at": at, "actor": fields["actor"], "action": schema,
        "subject": "token:%d" % fields["id"],
    }
    tables.api_token_events[event["position"]] = {
        "position": event["position"], "token_id": fields["id"], "event_type": schema.split(".")[1], "name": fields["name"],
        "role": fields.get("role"), "tenant_id": fields["tenant_id"], "secret_sha256": fields.get("secret_sha256"),
        "expires_at": fields.get("expires_at") and moment(fields["expires_at"]), "actor": fields["actor"], "at": at,
    }


# --- events in, tables out ----------------------------------------------------------------------------------------


def write(value):
    """A value as JSON again: every digit, every member and their order as they were; only white space is lost."""
    if isinstance(value, Number) or value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}.get(value, value)
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, Members):
        return "{%s}" % ",".join("%s:%s" % (json.dumps(name), write(member)) for name, member in value)
    return "[%s]" % ",".join(map(write, value))


def read_events(stream):
    expected, gaps = None, []  # gaps: (first, behind) that no acceptance was seen for yet
    for line in stream:
        if not line.strip():
            continue
        event = dict(json.loads(line, parse_int=Number, parse_float=Number, object_pairs_hook=Members))
        event["exact"] = "payload_base64" in event
        if event["exact"]:
            event["bytes"] = base64.b64decode(event["payload_base64"])
        elif event.get("payload_is_json") is False:
            event["bytes"] = event["payload"].encode("utf-8")
            event["exact"] = True
        else:
            event["bytes"] = write(event["payload"]).encode("utf-8")
        event["position"] = int(event["position"])
        event["topic"] = event.get("topic") or ""
        event["broker"] = event.get("broker") or ""
        event["verdict"] = event.get("verdict") or "ACCEPTED"
        event["retain"] = bool(event.get("retain"))
        if expected is not None and event["position"] != expected:
            if event["position"] < expected:
                raise ValueError("position %d where %d was expected" % (event["position"], expected))
            gaps.append((expected, event["position"]))
        if event["topic"] == "log.loss_accepted/1":
            loss = json.loads(event["bytes"])
            gaps = [gap for gap in gaps if not (loss["from"] == gap[0] and loss["to"] + 1 == gap[1])]
        expected = event["position"] + 1
        yield event
    if gaps:
        raise ValueError("positions are missing that nobody signed for: %s" % gaps)


def canonical_number(text):
    number = Decimal(text)
    return str(number.normalize()) if number else "0"


def canonical(value):
    """Two values that mean the same become equal: numbers by value, times as microseconds."""
    if isinstance(value, Number):
        return "number " + canonical_number(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, (int, float)):
        return "number " + canonical_number(repr(value))
    if isinstance(value, dict):
        return {k: canonical(v) for k, v in value.items()}
    if isinstance(value, list):
        return [canonical(v) for v in value]
    return value


def canonical_cell(column, value):
    if column == "minute" and isinstance(value, Number):  # the table has a number where the view has a time
        value = datetime.datetime.fromtimestamp(int(value) * 60, datetime.timezone.utc).isoformat()
    is_time = column in ("at", "minute", "deadline", "last_due") or column.endswith(
        ("_at", "_update", "not_before", "not_after"))
    if value is not None and is_time:
        time = datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
        return time.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return canonical(value)


def database_rows(database, table, columns):
    fields = ", ".join("encode(payload, 'hex') AS payload" if c == "payload" else c for c in columns)
    # One row a line: a whole table in one JSON value would meet PostgreSQL's limit of 1 GB.
    query = "SELECT row_to_json(t) FROM (SELECT %s FROM refold.%s) t" % (fields, table)
    done = subprocess.run(["psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", "SET timezone = 'UTC'",
                           "-c", query], capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.decode("utf-8", "replace").strip())
    lines = [line for line in done.stdout.split(b"\n") if line]
    return [json.loads(line, parse_int=Number, parse_float=Number) for line in lines]


KEYS = {
    "device_status": ("tenant_id", "device_id"), "device_connection_events": ("position",),
    "firmware_versions": ("id",), "ota_campaigns": ("id",), "ota_device_status": ("campaign_id", "device_id"),
    "campaign_progress": ("campaign_id", "minute"), "campaign_events": ("position",), "device_groups": ("id",),
    "device_group_members": ("group_id", "device_id"), "tenant_settings": ("tenant_id",),
    "ota_unmatched_reports": ("position",), "mqtt_connection_status": ("broker_name",),
    "dead_letters": ("position", "projection"), "audit_logs": ("position",),
    "api_token_events": ("position",), "certificate_authorities": ("id",),
    "device_certificates": ("authority_id", "serial"), "crls": ("authority_id", "number"),
    "certificate_events": ("position",), "crl_enforcement": ("broker", "authority_id", "number"),
    "jobs": ("id",), "job_attempts": ("job_id", "token", "report"), "job_queues": ("name",), "job_schedules": ("name",),
    "job_policies": ("position",), "job_counts": ("tenant_id", "queue", "kind"),
    "job_hours": ("tenant_id", "queue", "kind", "hour"),
}


def shown(given):
    """What the views show of these rows of tables: nothing that was deleted, nor what belongs to it."""
    def deleted(table):
        return {row["id"] for row in given.get(table, []) if row.get("deleted_position") is not None}
    campaigns, groups = deleted("ota_campaigns"), deleted("device_groups")
    hidden = {
        "ota_campaigns": lambda row: row["id"] in campaigns, "ota_device_status": lambda row: row["campaign_id"] in campaigns,
        "device_groups": lambda row: row["id"] in groups,
        "device_group_members": lambda row: row["group_id"] in groups or not row["is_member"],
    }
    found = {table: [row for row in rows if not hidden[table](row)] if table in hidden else rows
             for table, rows in given.items()}
    found["job_schedules"] = newest_schedules(given.get("job_schedules", []), given.get("job_policies", []))
    return found


def keyed(rows, table):
    found = {}
    for row in rows:
        cells = {column: canonical_cell(column, value) for column, value in row.items()}
        found[tuple(str(cells[k]) for k in KEYS[table])] = cells
    return found


def compare(table, expected_rows, actual_rows, show):
    """Prints the first differences; returns how many rows differ."""
    expected, actual = keyed(expected_rows, table), keyed(actual_rows, table)
    for key, row in expected.items():
        if "payload" in row and row["payload"] is None and key in actual:
            actual[key]["payload"] = None  # its white space was lost on the way here
    differing = sorted(k for k in expected.keys() | actual.keys() if expected.get(k) != actual.get(k))
    for key in differing[:show]:
        print("%s %s" % (table, "/".join(key)))
        mine, theirs = expected.get(key), actual.get(key)
        if mine is None or theirs is None:
            print("    only in the %s: %s" % ("tables" if mine is None else "naive fold", mine or theirs))
            continue
        print("    %-26s %-40s %s" % ("", "naive fold", "tables"))
        for column in sorted(mine):
            if mine[column] != theirs[column]:
                print("    %-26s %-40s %s" % (column, mine[column], theirs[column]))
    return len(differing)


def main():
    arguments = argparse.ArgumentParser(description="An independent fold of a Refold log, compared with the tables.")
    arguments.add_argument("--events", default="-", help="NDJSON of `refold log cat --json`, - is stdin")
    arguments.add_argument("--database", help="connection string; without it the folded tables are printed")
    arguments.add_argument("--tables", help="compare with this JSON file, {table: [row]}, instead of a database")
    arguments.add_argument("--show", type=int, default=5, help="differences to print a table (default 5)")
    arguments = arguments.parse_args()
    sys.setrecursionlimit(1_000_000)
    tables, count = Tables(), 0
    try:
        stream = sys.stdin.buffer if arguments.events == "-" else open(arguments.events, "rb")
        for event in read_events(stream):
            fold(tables, event)
            count += 1
        hide_deleted(tables)
        count_jobs(tables)
        newest = newest_schedules(tables.job_schedules.values(), tables.job_policies.values())
        tables.job_schedules = {row["name"]: row for row in newest}
    except (OSError, ValueError, KeyError) as error:
        print("naive_fold: cannot read the events: %r" % error, file=sys.stderr)
        return 3
    given = None
    if arguments.tables:
        with open(arguments.tables, encoding="utf-8") as file:
            given = shown(json.load(file, parse_int=Number, parse_float=Number))
    elif not arguments.database:
        json.dump({t: list(getattr(tables, t).values()) for t in KEYS}, sys.stdout, indent=1)
        return 0
    wrong = total = 0
    for table in KEYS:
        expected = list(getattr(tables, table).values())
        columns = list(expected[0]) if expected else list(KEYS[table])
        try:
            if given is not None:
                actual = [{column: row[column] for column in columns} for row in given.get(table, [])]
            else:
                actual = database_rows(arguments.database, table, columns)
        except (OSError, RuntimeError) as error:
            print("naive_fold: %s" % error, file=sys.stderr)
            return 3
        total += len(expected)
        wrong += compare(table, expected, actual, arguments.show)
    print("naive_fold: %d events, %d rows, %d differ" % (count, total, wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    # Payloads may be nested as deeply as they are long; Python's parser and this page recurse.
    decimal.getcontext().prec = 200_000
    threading.stack_size(1 << 29)
    code = []
    thread = threading.Thread(target=lambda: code.append(main()))
    thread.start()
    thread.join()
    sys.exit(code[0] if code else 3)
