import EventLog
import EventModel
import Projections

/// What came of taking parked keys up again.
public struct ParkedRetryResult: Sendable, Equatable {
    /// Nothing waits for them any more.
    public var unparked: [FoldKey] = []
    /// They still wait, from that position on, for that reason.
    public var parked: [ParkedKey] = []
    /// Why it ended before its time; what was done by then stands.
    public var error: String?

    public init() {}
}

/// Folds what was left out for parked keys, up to the checkpoint, and unparks those whose rows are all taken.
/// In several transactions when there is much of it: each moves the keys' positions, the last unparks them.
struct ParkedRetry {
    let source: any LogSource
    let store: any ParkingStore
    let descriptor: ProjectionDescriptor
    let partition: Int
    let makeFold: (FoldScope) -> any ProjectionFold
    let options: ProjectorOptions

    /// - Parameters:
    ///   - keys: those to take up; nil: all.
    ///   - goesOn: asked between blocks.
    func run(_ keys: Set<FoldKey>?, while goesOn: () -> Bool) throws -> ParkedRetryResult {
        var result = ParkedRetryResult()
        guard let checkpoint = try store.checkpoint(of: descriptor, partition: partition) else { return result }
        let parked = try store.parked(of: descriptor, partition: partition)
        let chosen = parked.filter { keys?.contains($0.key) ?? true }
        guard let first = chosen.first?.position else { return result }
        var isolator = PoisonRowIsolator(
            store: store, descriptor: descriptor, partition: partition, makeFold: makeFold, checkpoint: checkpoint,
            waiting: parked.filter { !chosen.contains($0) }, takenUp: chosen, parkedKeysMax: options.parkedKeysMax)
        do {
            try fold(first..<checkpoint.next, &isolator, goesOn)
        } catch {
            guard Self.isLasting(error) else { throw error }
            result.error = "\(error)"
        }
        let left = Dictionary(uniqueKeysWithValues: isolator.parked.map { ($0.key, $0) })
        result.unparked = chosen.map(\.key).filter { left[$0] == nil }
        result.parked = chosen.compactMap { left[$0.key] }
        return result
    }

    private static func isLasting(_ error: any Error) -> Bool {
        switch error as? StoreError {
        case .refused, .refusedRows, nil: true
        case .unavailable, .checkpointMoved: false
        }
    }

    private func fold(
        _ range: Range<Position>, _ isolator: inout PoisonRowIsolator, _ goesOn: () -> Bool
    ) throws {
        var committed = range.lowerBound
        while committed < range.upperBound, isolator.takenUp?.isEmpty == false {
            let reached = try foldOn(committed..<range.upperBound, &committed, &isolator, goesOn)
            guard committed < range.upperBound else { return }
            // The rows up to there were refused together.
            try isolate(committed..<reached, &isolator, goesOn)
            committed = reached
        }
    }

    /// In large transactions, until all is done (`committed` says so) or rows are refused: returns up to where.
    private func foldOn(
        _ range: Range<Position>, _ committed: inout Position, _ isolator: inout PoisonRowIsolator, _ goesOn: () -> Bool
    ) throws -> Position {
        let reader = try source.reader(from: range.lowerBound), block = EventBlock()
        var next = range.lowerBound, bytes = 0
        isolator.forget()
        while next < range.upperBound {
            try check(goesOn)
            guard try reader.read(into: block, atLeast: options.readBytes) else { throw missing(next) }
            let part = max(next, block.base)..<min(block.end, range.upperBound)
            guard !part.isEmpty else { continue }
            next = part.upperBound
            do throws(StoreError) {
                try isolator.fold(block, in: part)
                bytes += isolator.dirtyRowCount == 0 ? 0 : block.byteCount
                if next == range.upperBound || isolator.dirtyRowCount >= options.dirtyRowsMax
                    || bytes >= options.foldedBytesMax
                {
                    try isolator.commit(until: next)
                    committed = next
                    bytes = 0
                }
            } catch {
                guard case .refusedRows = error else { throw error }
                return next
            }
        }
        return next
    }

    private func isolate(_ range: Range<Position>, _ isolator: inout PoisonRowIsolator, _ goesOn: () -> Bool) throws {
        let reader = try source.reader(from: range.lowerBound), block = EventBlock()
        var next = range.lowerBound
        while next < range.upperBound, isolator.takenUp?.isEmpty == false {
            try check(goesOn)
            guard try reader.read(into: block, atLeast: options.readBytes) else { throw missing(next) }
            let part = max(next, block.base)..<min(block.end, range.upperBound)
            guard !part.isEmpty else { continue }
            try isolator.isolate(block, in: part)
            next = part.upperBound
        }
    }

    private func check(_ goesOn: () -> Bool) throws {
        guard goesOn() else { throw StoreError.unavailable("stopped before all was taken up; ask again") }
    }

    private func missing(_ position: Position) -> LogError {
        LogError(.outOfRange, "the log ends at \(position), before the checkpoint of \(descriptor.name)")
    }
}
