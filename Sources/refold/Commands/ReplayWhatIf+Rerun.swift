import Campaigns
import EventModel
import WhatIf

// A campaign that went once more, for people and for programs.

extension CampaignRerun {
    func text(devicesMax: Int) -> String {
        let set = changes.map { "\($0.name)=\($0.value)" }.joined(separator: " ")
        var lines = [
            "campaign \(id) (\(name), tenant \(tenantID), \(devices) devices), "
                + (set.isEmpty ? "as it was" : "with \(set)")
        ]
        lines.append(
            comparison(
                recorded, whatIf,
                [
                    ("status", { $0.status.rawValue }),
                    ("ended at", { $0.endedAt?.description ?? "-" }),
                    ("by", { $0.actor ?? "-" }),
                    ("because", { $0.reason ?? $0.code ?? "-" }),
                    ("devices sent for", { "\($0.sentFor)" }),
                    ("commands", { "\($0.commands)" }),
                    ("last first command", { $0.lastSentAt?.description ?? "-" }),
                    ("succeeded", { "\($0.counts.succeeded)" }),
                    ("failed", { "\($0.counts.failed)" }),
                    ("skipped", { "\($0.counts.skipped)" }),
                    ("open", { "\($0.counts.open)" }),
                ]))
        let lists = [
            deviceList(spared, "failed and would not have", max: devicesMax),
            deviceList(lost, "succeeded and would not have", max: devicesMax),
            deviceList(gained, "did not succeed and would have", max: devicesMax),
        ]
        return (lines + lists.compactMap(\.self) + caveats.map { "note: " + $0 }).joined(separator: "\n")
    }

    var json: [String: Any] {
        var changed: [String: Any] = [:]
        for change in changes { changed[change.name] = change.value }
        return [
            "campaign_id": id, "tenant_id": tenantID, "name": name, "devices": devices, "set": changed,
            "recorded": recorded.json, "what_if": whatIf.json, "spared": spared, "lost": lost, "gained": gained,
            "borrowed_answers": borrowed, "notes": caveats,
        ]
    }
}

extension CampaignRerun.Course {
    fileprivate var json: [String: Any] {
        var object: [String: Any] = [
            "status": status.rawValue, "sent_for": sentFor, "commands": commands, "succeeded": counts.succeeded,
            "failed": counts.failed, "skipped": counts.skipped, "open": counts.open,
        ]
        object["ended_at"] = endedAt?.description
        object["ended_by"] = actor
        object["code"] = code
        object["reason"] = reason
        object["last_first_command_at"] = lastSentAt?.description
        return object
    }
}
