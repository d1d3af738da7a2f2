import EventModel
import Foundation
import Output
import Primitives
import Projections

// The report for people. What came from devices is shown, never obeyed: control characters, and those that turn the
// direction of the text (Unicode TR 9), become U+FFFD, and HTML escapes the rest.

enum SafeText {
    static func safe(_ text: String) -> String { terminalSafe(text) }

    static func html(_ text: String) -> String {
        var output = ""
        for scalar in safe(text).unicodeScalars {
            switch scalar {
            case "&": output += "&amp;"
            case "<": output += "&lt;"
            case ">": output += "&gt;"
            case "\"": output += "&quot;"
            case "'": output += "&#39;"
            default: output.unicodeScalars.append(scalar)
            }
        }
        return output
    }

    static func htmlLines(_ text: String) -> String {
        text.split(separator: "\n", omittingEmptySubsequences: false).map { html(String($0)) }.joined(separator: "\n")
    }

    /// A payload as text, or how long it is.
    static func payload(_ record: [UInt8]) -> String {
        record.withUnsafeBytes { bytes in
            let payload = RecordView(unchecked: bytes.baseAddress!).payload
            if payload.isEmpty { return "" }
            guard CompactJSON.isUTF8(payload) else { return "(\(payload.count) bytes)" }
            let text = String(decoding: payload, as: UTF8.self)
            return text.count > 4_000 ? String(text.prefix(4_000)) + " … (\(payload.count) bytes)" : text
        }
    }
}

extension RowChange {
    /// The columns that differ, as JSON; of a new row those that are not null.
    var differences: [(column: String, before: String?, after: String)] {
        let after = after.fields(table)
        guard let before = before?.fields(table) else {
            return after.filter { $0.json != "null" }.map { ($0.name, nil, $0.json) }
        }
        return zip(before, after).filter { $0.json != $1.json }.map { ($0.name, $0.json, $1.json) }
    }

    /// The table's name without its version.
    static func name(_ table: StoredTable) -> String {
        table.name.replacingOccurrences(of: "_v[0-9]+$", with: "", options: .regularExpression)
    }
}

extension AuditReport {
    var summary: [(String, String)] {
        let own = events.filter { !$0.isContext }
        var lines: [(String, String)] = [("subject", subject.description), ("log", origin)]
        lines.append(("positions", range.isEmpty ? "none" : "\(range.lowerBound) to \(range.upperBound.rawValue - 1)"))
        lines.append(
            (
                "events",
                "\(own.count)"
                    + (own.count < events.count
                        ? ", and \(events.count - own.count) that say something about the record" : "")
            ))
        if let first = own.first, let last = own.last {
            lines.append(("received", "\(first.receivedAt) to \(last.receivedAt)"))
        }
        lines.append(("missing", missing))
        lines.append(
            (
                "checkpoint",
                "\(size) events, signed by the log's key"
                    + (isCutToCheckpoint ? "; later events were not signed yet and are left out" : "")
            ))
        if let proofProblem { lines.append(("proof", "none: \(proofProblem)")) }
        lines.append(("made at", madeAt.description))
        return lines
    }

    private var missing: String {
        let count = brokerLosses.count
        let losses = "\(count) broker \(count == 1 ? "loss is" : "losses are") reported"
        guard gaps.isEmpty else {
            return "\(gaps.count) stretches, see below" + (count == 0 ? "" : "; besides, \(losses)")
        }
        return count == 0 ? "nothing that is known" : "the log is complete; \(losses) in it, see below"
    }

    /// For people, in plain text.
    public var text: String {
        var lines = ["Audit of \(subject)", ""]
        lines += summary.dropFirst().map { "\($0.0.padding(toLength: 11, withPad: " ", startingAt: 0)) \($0.1)" }
        if !gaps.isEmpty {
            lines += ["", "Missing"]
            lines += gaps.map { "  positions \($0.from) to \($0.to) (\($0.kind.rawValue)): \(SafeText.safe($0.text))" }
        }
        if !brokerLosses.isEmpty {
            lines += ["", "Broker losses: messages that never reached the log"]
            lines += brokerLosses.map { loss in
                "  \(loss.position)  \(loss.receivedAt)  \(SafeText.safe(loss.who)): \(SafeText.safe(loss.what))"
            }
        }
        lines += ["", "Events"]
        for event in events {
            lines.append(
                "  \(event.position)  \(event.receivedAt)  \(SafeText.safe(event.who)): "
                    + SafeText.safe(event.what))
            for change in event.changes {
                let differences = change.differences.map { column, before, after in
                    before.map { "\(column) \($0) → \(after)" } ?? "\(column) \(after)"
                }
                lines.append(
                    "      \(change.before == nil ? "new row of" : "row of") "
                        + "\(RowChange.name(change.table)): \(SafeText.safe(differences.joined(separator: ", ")))")
            }
        }
        lines += ["", "At the end"]
        for (table, row) in end {
            let fields = row.fields(table).filter { $0.json != "null" }.map { "\($0.name) \($0.json)" }
            lines.append("  \(RowChange.name(table)): \(SafeText.safe(fields.joined(separator: ", ")))")
        }
        if end.isEmpty { lines.append("  no row") }
        return lines.joined(separator: "\n") + "\n"
    }
}
