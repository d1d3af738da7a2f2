import EventModel
import Projections

/// One hot path in its steady state: caches are warm, buffers have their size, devices are known.
struct HotPath: Sendable {
    /// Prepares one run without counting, runs the path once over 1,000 events, and returns its allocations.
    typealias Round = (AllocationMeter) throws -> Int

    let name: String
    let prepare: @Sendable () throws -> Round

    static let all: [HotPath] =
        [
            HotPath(name: "append a block", prepare: LogPaths.append),
            HotPath(name: "read a block", prepare: LogPaths.read),
            HotPath(name: "ingest a batch", prepare: IngestPaths.ingest),
            HotPath(name: "suppress a redelivered batch", prepare: IngestPaths.suppress),
        ]
        + Catalog.entries.map { entry in
            HotPath(name: "fold \(entry.name)") { try FoldPaths.fold(entry) }
        }

    /// Allocations of each of `runs` runs. The fewest count: growth of a kept buffer falls into some runs only.
    func allocations(_ meter: AllocationMeter = AllocationMeter()) throws -> [Int] {
        let round = try prepare()
        for _ in 0..<Self.warmUps { _ = try round(AllocationMeter()) }
        return try (0..<Self.runs).map { _ in try round(meter) }
    }

    static let warmUps = 4
    static let runs = 6
}

/// A path did not do the work that its measurement is about.
struct PathError: Error {
    let text: String
    init(_ text: String) { self.text = text }
}
