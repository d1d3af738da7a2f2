"""The part of naive_fold.py that is about certificates, authorities and CRLs, in plain words.

The first decision with an id, or with an authority and a serial number, makes the row. What is decided about something
unknown, or is no step from where it is, is in certificate_events only. A revoked certificate stays as it is.
"""

import datetime

INT8_MAX = 2**63 - 1

# Fields that must be there, and their types.
CERTIFICATE_CHANGED = {"change": str, "authority": str, "serial": str, "tenant_id": str, "device_id": str, "actor": str}
RENEWAL = {"step": str, "authority": str, "serial": str, "tenant_id": str, "device_id": str, "actor": str}
RENEWAL_STEPS = ("requested", "delivered", "refused", "resent", "installed", "failed")
CRL_ENFORCED = {"step": str, "broker": str, "authority": str, "tenant_id": str, "number": int, "actor": str}
CERTIFICATE_ADDED = {
    "origin": str, "authority": str, "serial": str, "tenant_id": str, "device_id": str, "common_name": str,
    "certificate": str, "sha256": str, "spki_sha256": str, "key_algorithm": str, "not_before": int, "not_after": int,
    "actor": str,
}
CERTIFICATE_EVENTS = {
    "authority.added/1": {"id": str, "tenant_id": str, "subject": str, "certificate": str, "spki_sha256": str, "key": str,
                          "not_before": int, "not_after": int, "actor": str},
    "authority.retired/1": {"id": str, "tenant_id": str, "actor": str},
    **{"certificate.%s/1" % verb: CERTIFICATE_ADDED for verb in ("issued", "imported")},
    **{"certificate.%s/1" % verb: CERTIFICATE_CHANGED for verb in ("superseded", "revoked", "held", "released")},
    "certificate.renewal_policy/1": {"policy": dict, "actor": str},
    "authority.renewal_ordered/1": {"id": str, "tenant_id": str, "actor": str},
    **{"certificate.renewal_%s/1" % step: RENEWAL for step in RENEWAL_STEPS},
    "crl.issued/1": {"authority": str, "tenant_id": str, "number": int, "this_update": int, "next_update": int,
                     "entries": int, "tbs_sha256": str, "signature": str, "sha256": str, "end": int, "actor": str},
    "crl.refused/1": {"authority": str, "tenant_id": str, "number": int, "reason": str, "actor": str},
    **{"crl.%s/1" % step: CRL_ENFORCED for step in ("written", "reloaded", "proved", "unproved", "uncut")},
    "client.cut/1": {"broker": str, "authority": str, "serial": str, "tenant_id": str, "device_id": str, "number": int,
                     "outcome": str, "actor": str},
    "client.ban_lifted/1": {"broker": str, "authority": str, "serial": str, "tenant_id": str, "device_id": str,
                            "actor": str},
}


def moment(microseconds):
    """A time in a decision's payload, as the tables show it."""
    found = datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=int(microseconds))
    return found.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def fold_certificates(tables, position, at, schema, fields):
    if schema == "certificate.renewal_policy":
        tables.audit_logs[position] = {
            "position": position, "at": at, "actor": fields["actor"], "action": schema, "subject": "renewal:policy",
        }
        return
    authority = fields["id"] if schema.startswith("authority.") else fields["authority"]
    number = min(fields["number"], INT8_MAX) if "number" in fields else None
    subject = schema.split(".")[0].replace("client", "certificate") + ":" + authority
    if "serial" in fields:
        subject += "/" + fields["serial"]
    elif "broker" in fields:
        subject = "enforcement:" + fields["broker"] + "/" + authority
    is_renewal = schema.startswith("certificate.renewal_")
    if is_renewal:
        subject = "renewal:" + fields["tenant_id"] + "/" + fields["device_id"]
    if not is_renewal or fields["actor"] != "engine":
        tables.audit_logs[position] = {
            "position": position, "at": at, "actor": fields["actor"], "action": schema, "subject": subject,
        }
    tables.certificate_events[position] = {
        "position": position, "tenant_id": fields["tenant_id"], "at": at, "event_type": schema, "authority_id": authority,
        "serial": fields.get("serial"), "device_id": fields.get("device_id"),
        "crl_number": number, "reason": fields.get("reason") or fields.get("error") or fields.get("outcome"),
        "note": fields.get("note", fields.get("evidence")),
        "related": next((fields[n] for n in ("replaces", "renews", "replaced_by", "broker", "issued") if fields.get(n)), None),
        "actor": fields["actor"],
    }
    if number is not None and "broker" in fields:
        enforce(tables.crl_enforcement, (fields["broker"], authority, number), position, at, schema, fields)
    if schema == "authority.added":
        add_authority(tables, position, at, fields)
    elif schema in ("certificate.issued", "certificate.imported"):
        add_certificate(tables, position, at, fields)
    elif schema.startswith("certificate."):
        row = tables.device_certificates.get((authority, fields["serial"]))
        if row is not None and change_certificate(row, at, schema, fields):
            row["last_position"] = position
    elif authority in tables.certificate_authorities:
        row = tables.certificate_authorities[authority]
        if schema == "authority.retired" and row["retired_at"] is None:
            row["status"], row["retired_at"], row["last_position"] = "RETIRED", at, position
        elif schema == "crl.issued":
            issue_crl(tables, row, position, at, fields)


def enforce(rows, key, position, at, schema, fields):
    if schema.startswith("client."):
        row = rows.get(key)
        if row is not None:
            row["cut"] += schema == "client.cut" and fields["outcome"] != "still_connected"
            row["last_position"] = position
            set_remaining(row, fields)
        return
    row = rows.setdefault(key, {
        "broker": key[0], "authority_id": key[1], "number": key[2], "tenant_id": fields["tenant_id"], "written_at": None,
        "reloaded_at": None, "proved_at": None, "cut": 0, "remaining": None, "error": None,
        "uncut_error": None,
    })
    row["last_position"] = position
    step = schema.split(".")[1]
    if step in ("unproved", "uncut"):
        row["error" if step == "unproved" else "uncut_error"] = fields.get("error") or "unknown"
        return
    row["error"] = None
    row[step + "_at"] = row[step + "_at"] or at
    if step == "proved":
        set_remaining(row, fields)


def set_remaining(row, fields):
    row["remaining"] = fields.get("remaining")
    if row["remaining"] == 0:
        row["uncut_error"] = None


def add_authority(tables, position, at, fields):
    if fields["id"] not in tables.certificate_authorities:
        tables.certificate_authorities[fields["id"]] = {
            "id": fields["id"], "tenant_id": fields["tenant_id"], "subject": fields["subject"],
            "spki_sha256": fields["spki_sha256"], "key_location": fields["key"], "not_before": moment(fields["not_before"]),
            "not_after": moment(fields["not_after"]), "status": "ACTIVE", "replaces": fields.get("replaces"),
            "replaced_by": None, "retired_at": None, "added_at": at, "added_by": fields["actor"],
            "added_position": position, "crl_number": None, "crl_this_update": None, "crl_next_update": None,
            "last_position": position,
        }
    old = tables.certificate_authorities.get(fields.get("replaces"))
    if old is not None and old["id"] != fields["id"] and old["replaced_by"] is None:
        old["replaced_by"], old["last_position"] = fields["id"], position
        if old["status"] == "ACTIVE":
            old["status"] = "REPLACED"


def issue_crl(tables, row, position, at, fields):
    number = min(fields["number"], INT8_MAX)
    if row["crl_number"] is not None and number <= row["crl_number"]:
        return
    row["crl_number"], row["last_position"] = number, position
    row["crl_this_update"], row["crl_next_update"] = moment(fields["this_update"]), moment(fields["next_update"])
    tables.crls[(row["id"], number)] = {
        "authority_id": row["id"], "number": number, "tenant_id": fields["tenant_id"],
        "this_update": moment(fields["this_update"]), "next_update": moment(fields["next_update"]),
        "entries": fields["entries"], "canary_serial": (fields.get("canary") or {}).get("serial"),
        "sha256": fields["sha256"], "at": at, "actor": fields["actor"], "position": position,
    }


def add_certificate(tables, position, at, fields):
    tables.device_certificates.setdefault((fields["authority"], fields["serial"]), {
        "authority_id": fields["authority"], "serial": fields["serial"], "tenant_id": fields["tenant_id"],
        "device_id": fields["device_id"], "common_name": fields["common_name"], "status": "ACTIVE",
        "key_algorithm": fields["key_algorithm"], "not_before": moment(fields["not_before"]),
        "not_after": moment(fields["not_after"]), "spki_sha256": fields["spki_sha256"], "sha256": fields["sha256"],
        "origin": fields["origin"], "renews": fields.get("renews"), "replaced_by": None, "superseded_at": None,
        "revoked_at": None, "reason": None, "added_at": at, "added_by": fields["actor"], "added_position": position,
        "last_position": position,
    })


def change_certificate(row, at, schema, fields):
    """Whether the row changed."""
    if row["status"] == "REVOKED":
        return False
    if schema == "certificate.revoked":
        row["status"], row["revoked_at"], row["reason"] = "REVOKED", at, fields.get("reason") or "unspecified"
    elif schema == "certificate.held" and row["status"] != "HELD":
        row["status"], row["revoked_at"], row["reason"] = "HELD", at, fields.get("reason") or "certificateHold"
    elif schema == "certificate.released" and row["status"] == "HELD":
        row["status"] = "ACTIVE" if row["superseded_at"] is None else "SUPERSEDED"
        row["revoked_at"] = row["reason"] = None
    elif schema == "certificate.superseded" and row["superseded_at"] is None:
        row["superseded_at"], row["replaced_by"] = at, fields.get("replaced_by")
        if row["status"] == "ACTIVE":
            row["status"] = "SUPERSEDED"
    else:
        return False
    return True
