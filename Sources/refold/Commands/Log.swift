import ArgumentParser
import EventLog
import EventModel
import Evidence
import Foundation

/// `refold log`: works on the files alone, with the daemon up or down; shows nothing that is not durable.
struct LogCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "log", abstract: "Read, verify, repair and prove the event log.",
        subcommands: [
            LogTail.self, LogCat.self, LogInfo.self, LogVerify.self, LogRepair.self, LogProve.self, LogCheckProof.self,
            LogExportTiles.self,
        ])
}

struct LogCat: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "cat", abstract: "Events of the log, in order.")
    @OptionGroup var data: DataOption
    @OptionGroup var filters: LogFilterOptions
    @Option(help: "The first position.") var from: UInt64?
    @Option(help: "The last position.") var to: UInt64?
    @Option(help: "Only what was received at or after this time (RFC 3339).") var since: String?
    @Option(help: "Only what was received before this time (RFC 3339).") var until: String?
    @Option(help: "At most so many events.") var limit: Int?
    @Flag(help: "Print JSON, one object a line.") var json = false
    @Flag(help: "JSON with every payload in base64: its exact bytes.") var base64 = false

    func validate() throws {
        if let limit, limit < 1 { throw ValidationError("--limit must be 1 or more") }
        if let from, let to, from > to { throw ValidationError("--from \(from) lies behind --to \(to)") }
        _ = try (time("--since", since), time("--until", until))
    }

    func run() throws {
        let log = try data.openLog()
        do {
            // Without --from it begins with the first event on this disk; --from a removed event fetches its segment.
            var start = from.map { Position($0) } ?? log.firstPosition
            if let since = try time("--since", since) { start = max(start, try log.position(atOrAfter: since)) }
            var end = log.durableCount
            if let to { end = min(end, to == .max ? .max : to + 1) }
            if let until = try time("--until", until) { end = min(end, try log.position(atOrAfter: until).rawValue) }
            guard start.rawValue < end else { return }
            var printer = LogPrinter(json: json, base64: base64)
            defer { printer.flush() }
            let filter = try filters.filter()
            if let selection = filters.selection {
                let reader = log.events(selection, in: start..<Position(end))
                var left = limit ?? .max
                func show(_ record: RecordView, _ position: Position) {
                    guard left > 0, filter.matches(record) else { return }
                    left -= 1
                    printer.print(record, position)
                }
                while left > 0, try reader.read(show) {}
            } else {
                _ = try LogWalk(log: log, filter: filter, from: start)
                    .run(until: Position(end), limit: limit) { printer.print($0, $1) }
            }
            // The output lacks events that no retention rule removed.
            if from == nil, since == nil, let missing = try log.missingBeginning() {
                printer.flush()
                throw ReadOnlyLog.describe(missing: missing, in: log.directory)
            }
        } catch let error as LogError {
            throw error.exit
        }
    }

    private func time(_ name: String, _ text: String?) throws -> Timestamp? {
        guard let text else { return nil }
        guard let time = Timestamp(rfc3339: text) else {
            throw ValidationError("\(name) \(text): must be RFC 3339, such as 2026-11-21T08:00:00Z")
        }
        return time
    }
}

struct LogTail: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tail", abstract: "The last events, and then each new one as it becomes durable.")
    @OptionGroup var data: DataOption
    @OptionGroup var filters: LogFilterOptions
    @Option(name: [.customShort("n"), .long], help: "How many of the last events to begin with.") var lines = 10
    @Flag(inversion: .prefixedNo, help: "Follow new events.") var follow = true
    @Option(help: "End after so many events.") var limit: Int?
    @Flag(help: "Print JSON, one object a line.") var json = false
    @Flag(help: "JSON with every payload in base64: its exact bytes.") var base64 = false

    func validate() throws {
        guard lines >= 0 else { throw ValidationError("--lines must be 0 or more") }
        if let limit, limit < 1 { throw ValidationError("--limit must be 1 or more") }
    }

    func run() throws {
        let log = try data.openLog()
        let filter = try filters.filter()
        var printer = LogPrinter(json: json, base64: base64)
        do {
            let end = Position(log.durableCount)
            var left = limit
            let start = try LogWalk.start(ofLast: lines, in: log, filter: filter, before: end)
            let walk = try LogWalk(log: log, filter: filter, from: start)
            func printNew(until: Position) throws {
                let count = try walk.run(until: until, limit: left) { printer.print($0, $1) }
                printer.flush()
                left = left.map { $0 - count }
            }
            try printNew(until: end)
            while follow, left ?? 1 > 0 {
                let durable = log.waitForDurable(beyond: walk.next.rawValue, timeoutMilliseconds: 60_000)
                if durable > walk.next.rawValue { try printNew(until: Position(durable)) }
            }
        } catch let error as LogError {
            printer.flush()
            throw error.exit
        }
    }
}

/// Goes through the log and hands out what a filter lets pass.
final class LogWalk {
    private let reader: any LogReader
    private let filter: LogFilter
    private let block = EventBlock()
    /// The position to go on at.
    private(set) var next: Position
    private static let readBytes = 256 << 10

    init(log: ReadOnlyLog, filter: LogFilter, from: Position) throws {
        reader = try log.reader(from: from)
        self.filter = filter
        next = from
    }

    /// Hands out events below `end`, at most `limit`; returns how many.
    func run(until end: Position, limit: Int?, _ body: (RecordView, Position) -> Void) throws -> Int {
        var count = 0
        while next < end, count < limit ?? .max {
            if block.isEmpty || block.end <= next {
                guard try reader.read(into: block, atLeast: Self.readBytes) else { return count }
            }
            var seen = next
            block.forEach { record, position in
                guard position >= next, position < end, count < limit ?? .max else { return }
                seen = position.next
                guard filter.matches(record) else { return }
                count += 1
                body(record, position)
            }
            next = seen
        }
        return count
    }

    /// Where the last `count` events that pass begin: looks back twice as far each time.
    static func start(
        ofLast count: Int, in log: ReadOnlyLog, filter: LogFilter, before end: Position
    ) throws -> Position {
        guard count > 0 else { return end }
        let first = log.firstPosition.rawValue
        var distance = UInt64(max(count, 1024))
        while true {
            let from = end.rawValue - first > distance ? end.rawValue - distance : first
            // The last `count` that passed, oldest at `oldest`.
            var ring: [Position] = [], oldest = 0
            _ = try LogWalk(log: log, filter: filter, from: Position(from)).run(until: end, limit: nil) { _, position in
                if ring.count < count {
                    ring.append(position)
                } else {
                    ring[oldest] = position
                    oldest = (oldest + 1) % count
                }
            }
            if ring.count == count || from == first { return ring.isEmpty ? end : ring[oldest] }
            distance *= 4
        }
    }
}

struct LogInfo: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "info", abstract: "Show the log's contents and disk usage.")
    @OptionGroup var data: DataOption
    @Flag(help: "Print JSON.") var json = false

    func run() throws {
        let log = try data.openLog()
        do {
            let durable = log.durableCount
            let segments = try log.segments()
            var summary: [String: Any] = [
                "log_id": log.logID.description, "writer_up": log.isWriterUp, "head": durable, "durable": durable,
                "first_position": log.firstPosition.rawValue, "segments": segments.count,
                "bytes": segments.reduce(0) { $0 + $1.usedBytes },
                "allocated": segments.reduce(0) { $0 + $1.allocatedBytes },
            ]
            // Auditors need it; so do we, when this folder is gone.
            summary["public_key"] = try LogKey.publicKey(dataFolder: data.folder)?.description
            if let note = try log.storedCheckpoint().flatMap({ try? SignedNote(parsing: $0).checkpoint() }) {
                summary["checkpoint_size"] = note.size
                summary["checkpoint_root"] = note.root.base64
            }
            summary["horizon"] = log.horizon.rawValue
            let removed = try log.removedSegments().filter { $0.base < log.firstPosition.rawValue }
            summary["removed"] = removed.count
            let losses = log.acceptedLosses
            summary["lost_events"] = losses.reduce(0) { $0 + $1.event.to - $1.event.from + 1 }
            if durable > log.firstPosition.rawValue {
                summary["last_position"] = durable - 1
                summary["first_time"] = segments.first?.firstTime?.description
                let block = EventBlock()
                if try log.reader(from: Position(durable - 1)).read(into: block, atLeast: 1) {
                    summary["last_time"] = block.lastTime.description
                }
            }
            let rows = segments.map(Self.row)
            if json {
                summary["files"] = rows
                summary["losses"] = losses.map(\.json)
                print(jsonLine(summary))
            } else {
                Self.show(summary, losses, rows)
            }
        } catch let error as LogError {
            throw error.exit
        }
    }

    private static func row(_ segment: SegmentSummary) -> [String: Any] {
        var row: [String: Any] = [
            "name": segment.name, "state": segment.state.rawValue, "first_position": segment.base.rawValue,
            "events": segment.end.rawValue - segment.base.rawValue, "created": segment.created.description,
            "bytes": segment.usedBytes, "allocated": segment.allocatedBytes,
        ]
        row["first_time"] = segment.firstTime?.description
        row["last_time"] = segment.lastTime?.description
        return row
    }

    private static func show(_ summary: [String: Any], _ losses: [AcceptedLoss], _ rows: [[String: Any]]) {
        let order = [
            "log_id", "writer_up", "head", "durable", "first_position", "last_position", "first_time", "last_time",
            "segments", "bytes", "allocated", "horizon", "removed", "lost_events", "public_key", "checkpoint_size",
            "checkpoint_root",
        ]
        print(TextTable.record(summary, order: order))
        for loss in losses {
            let who = "\(TextTable.cell(loss.event.operatorName)), \(loss.at)"
            print(
                "lost and accepted: positions \(loss.event.from) to \(loss.event.to), "
                    + "\(TextTable.cell(loss.event.reason)) (\(who))")
        }
        print("")
        let table = TextTable(columns: [
            .init("segment", "name"), .init("state", "state"), .init("first", "first_position"),
            .init("events", "events"), .init("first time", "first_time"), .init("bytes", "bytes"),
            .init("allocated", "allocated"),
        ])
        print(table.text(rows))
    }
}
