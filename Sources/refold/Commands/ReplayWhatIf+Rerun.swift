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
        func row(_ name: String, _ value: (Course) -> String) -> [String: Any] {
            ["": name, "recorded": value(recorded), "what if": value(whatIf)]
        }
        let table = TextTable(columns: [.init("", ""), .init("recorded", "recorded"), .init("what if", "what if")])
        lines.append(
            table.text([
                row("status") { $0.status.rawValue }, row("ended at") { $0.endedAt?.description ?? "-" },
                row("by") { $0.actor ?? "-" }, row("because") { $0.reason ?? $0.code ?? "-" },
                row("devices sent for") { "\($0.sentFor)" }, row("commands") { "\($0.commands)" },
                row("last first command") { $0.lastSentAt?.description ?? "-" },
                row("succeeded") { "\($0.counts.succeeded)" }, row("failed") { "\($0.counts.failed)" },
                row("skipped") { "\($0.counts.skipped)" }, row("open") { "\($0.counts.open)" },
            ]))
        func list(_ devices: [String], _ words: String) {
            guard !devices.isEmpty else { return }
            let shown = devices.prefix(devicesMax).map { TextTable.cell($0) }.joined(separator: ", ")
            let more = devices.count > devicesMax ? ", …" : ""
            lines.append("\(devices.count) \(words)" + (devicesMax > 0 ? ": \(shown)\(more)" : ""))
        }
        list(spared, "devices failed and would not have")
        list(lost, "devices succeeded and would not have")
        list(gained, "devices did not succeed and would have")
        return (lines + caveats.map { "note: " + $0 }).joined(separator: "\n")
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
