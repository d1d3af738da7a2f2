import EventLog
import EventModel
import Glibc
import Postgres
import PostgresStore
import Projections

/// Back to the tables that a rebuild replaced, in one transaction; the replaced ones go to refold_next until the next
/// rebuild. Within a version the projection goes on from there and catches up; rows of another version stay as they are
/// until the program that folded them runs, or somebody rebuilds.
public enum Rollback {
    public struct Result: Sendable, Equatable {
        public var projection: String
        public var version: Int
        public var position: UInt64
        /// The running program cannot go on with these rows.
        public var isHeld: Bool
    }

    public struct Report: Sendable {
        public var results: [Result]
        public var blockedMilliseconds: Double
        public var remarks: [String]
    }

    /// Blocks until it is done, or nobody left the way free for `patience`.
    /// - Throws: `RebuildError`, before anything was changed.
    public static func run(
        _ entries: [Catalog.Entry], source: any LogSource, target: DatabaseTarget, patience: Duration = .seconds(30)
    ) throws(RebuildError) -> Report {
        do {
            return try attempt(entries, source, target, patience)
        } catch {
            throw RebuildError(error)
        }
    }

    private static func attempt(
        _ entries: [Catalog.Entry], _ source: any LogSource, _ target: DatabaseTarget, _ patience: Duration
    ) throws -> Report {
        let exchange = try TableExchange(target)
        guard try exchange.lock() else { throw RebuildError.busy }
        let kept = try exchange.previous()
        let results = try entries.map { entry in
            guard let found = kept.first(where: { $0.projection == entry.name }), let position = found.position else {
                throw RebuildError.nothingKept("no former tables of \(entry.name) are kept: there is no way back")
            }
            let isHeld = found.version != entry.descriptor.version
            // It would catch up from there: what it needs must be had.
            if !isHeld { _ = try source.reader(from: position.next) }
            return Result(
                projection: entry.name, version: found.version, position: position.rawValue, isHeld: isHeld)
        }
        let names = entries.map(\.name).joined(separator: " ")
        let reason = """
            paused: these rows of another version were rolled back to; they go on when the program that folded them \
            runs again, or are replaced by refold replay rebuild \(names)
            """
        try exchange.discard(entries.map(\.descriptor), in: .next)
        let deadline = ContinuousClock.now + patience
        var wait = Duration.milliseconds(20), budget = RebuildOptions().budget, attempts = 0
        while true {
            let outcome = try exchange.exchange(
                entries.map(\.descriptor), incoming: .previous, outgoing: .next, patience: wait,
                budget: budget, heldBecause: reason)
            switch outcome {
            case .done(let blocked, let remarks):
                return Report(
                    results: results, blockedMilliseconds: blocked / .milliseconds(1), remarks: remarks)
            case .inTheWay(let who):
                guard ContinuousClock.now < deadline else {
                    throw RebuildError.failed("nothing was changed, because somebody reads the tables: \(who)")
                }
                usleep(UInt32.random(in: 25_000...100_000))
                wait = min(wait * 2, .milliseconds(500))
                // As a rebuild does: rather late than never.
                attempts += 1
                if attempts > 10 { budget = min(budget * 1.25, .seconds(2)) }
            }
        }
    }

    /// Drops the tables that a rebuild replaced, or those of rebuilds that were not finished.
    public static func drop(
        _ entries: [Catalog.Entry], in place: TablePlace, target: DatabaseTarget
    ) throws(RebuildError) {
        do {
            let exchange = try TableExchange(target)
            guard try exchange.lock() else { throw RebuildError.busy }
            try exchange.discard(entries.map(\.descriptor), in: place)
        } catch {
            throw RebuildError(error)
        }
    }
}
