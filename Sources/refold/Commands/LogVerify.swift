import ArgumentParser
import EventLog
import EventModel
import Evidence
import Foundation

/// A stretch of the log, by positions or by times.
struct LogRangeOptions: ParsableArguments {
    @Option(help: "The first position, or the time from which on (RFC 3339).") var from: String?
    @Option(help: "The last position, or the time before which (RFC 3339).") var to: String?

    func validate() throws { _ = try (Self.bound("--from", from), Self.bound("--to", to)) }

    private enum Bound { case position(UInt64), time(Timestamp) }

    private static func bound(_ name: String, _ text: String?) throws -> Bound? {
        guard let text else { return nil }
        if let position = UInt64(text) { return .position(position) }
        if let time = Timestamp(rfc3339: text) { return .time(time) }
        throw ValidationError("\(name) \(text): must be a position, or RFC 3339 such as 2026-11-21T08:00:00Z")
    }

    /// The positions meant, within what the log has.
    func positions(in log: ReadOnlyLog) throws -> Range<Position> {
        var range = log.firstPosition..<max(log.firstPosition, Position(log.durableCount))
        switch try Self.bound("--from", from) {
        case .position(let position):
            range = min(max(range.lowerBound, Position(position)), range.upperBound)..<range.upperBound
        case .time(let time): range = min(try log.position(atOrAfter: time), range.upperBound)..<range.upperBound
        case nil: break
        }
        switch try Self.bound("--to", to) {
        case .position(let last):
            let end = last == .max ? range.upperBound : min(range.upperBound, Position(last + 1))
            range = range.lowerBound..<max(range.lowerBound, end)
        case .time(let time):
            range = range.lowerBound..<max(range.lowerBound, min(range.upperBound, try log.position(atOrAfter: time)))
        case nil: break
        }
        return range
    }
}

struct LogVerify: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify", abstract: "Read the log and check every byte of it.",
        discussion: """
            Checks file and block headers, checksums, padding, that positions follow each other and that times never \
            decrease; with --deep also decodes every record, derives the Merkle tree again and compares it with all \
            that was kept and signed of it. Works beside a running daemon and changes nothing. \
            Exit code 0: sound, but for losses that an operator has accepted; 1: damaged.
            """)
    @OptionGroup var data: DataOption
    @OptionGroup var range: LogRangeOptions
    @Flag(help: "Also decode every record and derive the Merkle tree.") var deep = false
    @Flag(help: "Print JSON, one object.") var json = false

    func run() throws {
        let log = try data.openLog()
        do {
            let began = ContinuousClock.now
            let report = try Self.verify(
                log, try range.positions(in: log), deep: deep, quiet: json,
                key: deep ? try LogKey.publicKey(dataFolder: data.folder) : nil)
            let seconds = (ContinuousClock.now - began) / .seconds(1)
            if json {
                print(jsonLine(report.json(logID: log.logID, deep: deep, seconds: seconds)))
            } else {
                print(report.text(logID: log.logID, seconds: seconds))
            }
            if !report.isSound { throw ExitCode(1) }
        } catch let error as LogError {
            throw error.exit
        }
    }

    /// With a progress bar on a terminal.
    static func verify(
        _ log: ReadOnlyLog, _ positions: Range<Position>, deep: Bool, quiet: Bool, key: VerifierKey? = nil
    ) throws -> VerifyReport {
        var options = LogVerifier.Options()
        options.deep = deep
        options.key = key
        let bar = quiet ? nil : ProgressBar("verifying")
        defer { bar?.clear() }
        if let bar { options.progress = { done, total in bar.show(done, of: total) } }
        return try log.verify(positions, options: options)
    }
}

extension VerifyReport {
    func text(logID: LogID, seconds: Double) -> String {
        let rate = seconds > 0 ? Double(bytes) / seconds / 1e6 : 0
        var lines = [
            "log \(logID), \(Self.shown(positions)): \(segments) segments, \(blocks) blocks, \(events) events, "
                + "\(byteCountText(bytes)) in \(String(format: "%.2f s, %.0f MB/s", seconds, rate))"
        ]
        if treeEvents > 0 {
            lines.append(
                "tree derived again from \(treeEvents) events"
                    + (hasComparedCheckpoint ? ", and compared with the signed checkpoint" : ""))
        }
        let open = damages.filter { $0.accepted == nil }
        let accepted = damages.count - open.count
        if open.isEmpty {
            lines.append(accepted == 0 ? "sound" : "sound but for \(accepted) accepted losses")
        } else {
            let lost = open.reduce(0) { $0 + $1.lostEvents }
            lines.append("DAMAGED in \(open.count) places, \(lost) events cannot be read")
        }
        lines += damages.map(\.text)
        if !unaccepted.isEmpty {
            lines.append(
                "Restore the files from a backup or the archive. Where there is none: refold log repair "
                    + "--accept-loss --operator NAME --reason TEXT gives these events up for good.")
        }
        return lines.joined(separator: "\n")
    }

    static func shown(_ positions: Range<Position>) -> String {
        positions.isEmpty
            ? "no positions" : "positions \(positions.lowerBound) to \(positions.upperBound.rawValue - 1)"
    }

    func json(logID: LogID, deep: Bool, seconds: Double) -> [String: Any] {
        var object: [String: Any] = [
            "log_id": logID.description, "sound": isSound, "deep": deep, "segments": segments, "blocks": blocks,
            "events": events, "bytes": bytes, "seconds": seconds, "first_position": positions.lowerBound.rawValue,
            "damage": damages.map(\.json), "tree_events": treeEvents, "checkpoint_compared": hasComparedCheckpoint,
            "lost_events": damages.reduce(0) { $0 + $1.lostEvents },
        ]
        object["last_position"] = positions.isEmpty ? NSNull() : positions.upperBound.rawValue - 1
        return object
    }
}

extension LogDamage {
    var text: String {
        let bytes = "\(range.bytes.lowerBound)..<\(range.bytes.upperBound)"
        var lines = ["", "\(range.segment), bytes \(bytes): \(range.reason)"]
        if lostEvents > 0 {
            lines.append(
                "  \(VerifyReport.shown(range.positions)) (\(lostEvents) events) are lost, received between "
                    + "\(before?.description ?? "the beginning") and \(after?.description ?? "now")")
        } else {
            lines.append("  no event is lost by it")
        }
        if !devices.isEmpty {
            let shown = devices.prefix(10).joined(separator: ", ")
            let more = devices.count > 10 ? " and at least \(devices.count - 10) more" : ""
            let others = devicesAreComplete ? "" : " (there may be others)"
            lines.append("  of the devices\(others): \(shown)\(more)")
        }
        if let accepted {
            lines.append(
                "  accepted at position \(accepted.position), \(accepted.at), by "
                    + "\(TextTable.cell(accepted.event.operatorName)): \(TextTable.cell(accepted.event.reason))")
        }
        return lines.joined(separator: "\n")
    }

    var json: [String: Any] {
        var object: [String: Any] = [
            "segment": range.segment, "first_byte": range.bytes.lowerBound, "end_byte": range.bytes.upperBound,
            "lost_events": lostEvents, "reason": range.reason, "devices": devices,
            "devices_complete": devicesAreComplete,
            "before": before?.description ?? NSNull(), "after": after?.description ?? NSNull(),
            "accepted": accepted?.json ?? NSNull(),
        ]
        object["from"] = lostEvents > 0 ? range.positions.lowerBound.rawValue : NSNull()
        object["to"] = lostEvents > 0 ? range.positions.upperBound.rawValue - 1 : NSNull()
        return object
    }
}

extension AcceptedLoss {
    var json: [String: Any] {
        [
            "position": position.rawValue, "at": at.description, "from": event.from, "to": event.to,
            "segment": event.segment, "first_byte": event.firstByte, "last_byte": event.lastByte,
            "damage": event.damage, "reason": event.reason, "operator": event.operatorName,
        ]
    }
}

/// `38.1 MiB`.
func byteCountText(_ count: UInt64) -> String {
    var value = Double(count), unit = 0
    let units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024, unit < units.count - 1 {
        value /= 1024
        unit += 1
    }
    return unit == 0 ? "\(count) B" : String(format: "%.1f %@", value, units[unit])
}
