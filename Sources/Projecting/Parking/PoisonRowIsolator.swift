import EventModel
import Projections

/// Folds stretches whose rows the store may refuse, commits all that it takes, and parks the keys of the rest.
/// Follows the log (`takenUp` nil), or folds what was left out for parked keys (`takenUp`) while the checkpoint stands.
struct PoisonRowIsolator {
    private let store: any ParkingStore
    private let descriptor: ProjectionDescriptor
    private let partition: Int
    private let makeFold: (FoldScope) -> any ProjectionFold
    private let parkedKeysMax: Int
    private var fold: any ProjectionFold
    private var rows: [RowBuffer]

    /// The last position whose rows are committed, but for those of parked keys.
    private(set) var checkpoint: Position?
    /// Keys that are left out.
    private(set) var waiting: [FoldKey: ParkedKey]
    /// Keys that are folded, and no others.
    private(set) var takenUp: [FoldKey: ParkedKey]?

    init(
        store: any ParkingStore, descriptor: ProjectionDescriptor, partition: Int,
        makeFold: @escaping (FoldScope) -> any ProjectionFold, checkpoint: Position?, waiting: [ParkedKey],
        takenUp: [ParkedKey]? = nil, parkedKeysMax: Int
    ) {
        self.store = store
        self.descriptor = descriptor
        self.partition = partition
        self.makeFold = makeFold
        self.parkedKeysMax = parkedKeysMax
        self.checkpoint = checkpoint
        self.waiting = Dictionary(uniqueKeysWithValues: waiting.map { ($0.key, $0) })
        self.takenUp = takenUp.map { keys in Dictionary(uniqueKeysWithValues: keys.map { ($0.key, $0) }) }
        rows = descriptor.tables.map { _ in RowBuffer() }
        fold = makeFold(.all)
        forget()
    }

    /// Of all that is parked, taken up or not.
    var parked: [ParkedKey] { (Array(waiting.values) + (takenUp.map { Array($0.values) } ?? [])).inOrder() }

    /// Rows that are folded and not committed, about.
    var dirtyRowCount: Int { fold.dirtyRowCount }

    // MARK: folding and committing

    /// Folds without committing.
    mutating func fold(_ block: EventBlock, in range: Range<Position>) throws(StoreError) {
        try store.load(into: fold, for: block, in: range)
        fold.fold(block, in: range)
    }

    /// Commits what is folded; the next event is at `end`.
    mutating func commit(until end: Position, parking culprits: [ParkedKey] = []) throws(StoreError) {
        for index in rows.indices { rows[index].removeAll() }
        fold.drain(into: &rows)
        var change = ParkingChange()
        change.park = culprits
        guard takenUp != nil, let standing = checkpoint else {
            let new = Position(end.rawValue - 1)
            if change.isEmpty {
                try store.commit(rows, of: descriptor, partition: partition, from: checkpoint, to: new)
            } else {
                try store.commit(
                    rows, of: descriptor, partition: partition, from: checkpoint, to: new, parking: change)
            }
            checkpoint = new
            return
        }
        var moved = takenUp ?? [:]
        for (key, parked) in moved.sorted(by: { $0.key < $1.key }) {
            if end > standing {
                change.unpark.append(key)
            } else if parked.position < end {
                moved[key] = ParkedKey(key: key, position: end, reason: parked.reason)
                change.park.append(moved[key]!)
            }
        }
        try store.commit(
            rows, of: descriptor, partition: partition, from: standing, to: standing, parking: change)
        takenUp = end > standing ? [:] : moved
    }

    /// Throws away what is folded and not committed. What the fold remembers is only a cache of the tables.
    mutating func forget() { fold = makeFold(scope(without: [], at: Position(0))) }

    /// The scope of today, with some keys more that wait from `position` on.
    private func scope(without culprits: some Sequence<FoldKey>, at position: Position) -> FoldScope {
        var out = waiting.positions
        for key in culprits { out[key] = position }
        guard var taken = takenUp?.positions else { return .deferring(out) }
        for key in culprits { taken[key] = nil }
        return .takingUp(taken, deferring: out)
    }

    // MARK: sifting

    /// Folds and commits the block's events within `range`, piece by piece: a piece that is refused is halved, until
    /// it is one event, whose keys are parked as far as needed. Afterwards all of the range is committed.
    /// - Throws: `.refused` when that is not to be done by leaving keys out.
    mutating func isolate(_ block: EventBlock, in range: Range<Position>) throws(StoreError) {
        forget()
        var next = range.lowerBound, size = max(1, Int(range.upperBound.rawValue - next.rawValue))
        while next < range.upperBound {
            let end = min(next.advanced(by: size), range.upperBound)
            if let why = try refusal(of: block, next..<end) {
                forget()
                guard size > 1, end > next.next else {
                    try park(block, at: next, why)
                    next = end
                    continue
                }
                size = max(1, Int(end.rawValue - next.rawValue) / 2)
            } else {
                next = end
                size *= 2
            }
        }
    }

    /// Folds and commits; what the store has against the rows, or nil.
    private mutating func refusal(
        of block: EventBlock, _ range: Range<Position>, parking culprits: [ParkedKey] = []
    ) throws(StoreError) -> String? {
        do throws(StoreError) {
            try fold(block, in: range)
            try commit(until: range.upperBound, parking: culprits)
            return nil
        } catch {
            guard case .refusedRows(let why) = error else { throw error }
            return why
        }
    }

    /// The event's rows are refused: parks as few of its keys as are needed for the rest of it to be taken.
    private mutating func park(_ block: EventBlock, at position: Position, _ why: String) throws(StoreError) {
        let candidates = keys(of: block, at: position)
        var culprits: [ParkedKey] = [], why = why
        if candidates.count == 1 {
            culprits = [ParkedKey(key: candidates[0], position: position, reason: why)]
        } else {
            // Sorted, so that a campaign comes before its devices: a device's row may need its campaign's, not the
            // other way round.
            while let last = try culprit(block, position, candidates, culprits.map(\.key), &why) {
                culprits.append(ParkedKey(key: last, position: position, reason: why))
            }
        }
        guard !culprits.isEmpty else { throw .refused(why) }
        guard waiting.count + culprits.count <= parkedKeysMax else {
            throw .refused("\(parkedKeysMax) keys are parked already, and no more will be: \(why)")
        }
        for culprit in culprits {
            waiting[culprit.key] = culprit
            takenUp?[culprit.key] = nil
        }
        forget()
        if let still = try refusal(of: block, position..<position.next, parking: culprits) { throw .refused(still) }
        forget()
    }

    /// What the event concerns that is neither left out already nor, when keys are taken up, another's.
    private func keys(of block: EventBlock, at position: Position) -> [FoldKey] {
        var keys: [FoldKey] = []
        block.forEach { record, place in if place == position { keys = fold.keys(of: record) } }
        return keys.filter { key in
            waiting[key].map { $0.position > position } ?? true
                && (takenUp.map { taken in taken[key].map { $0.position <= position } ?? false } ?? true)
        }
    }

    /// The first key with which the event's rows are refused when it is folded for all keys before it too; nil when
    /// they are taken without `known`.
    private func culprit(
        _ block: EventBlock, _ position: Position, _ candidates: [FoldKey], _ known: [FoldKey], _ why: inout String
    ) throws(StoreError) -> FoldKey? {
        let rest = candidates.filter { !known.contains($0) }
        guard let all = try rehearse(block, position, without: known) else { return nil }
        why = all
        // With the first `good` keys it is taken, with the first `bad` it is refused.
        var good = 0, bad = rest.count
        guard bad > 0 else { throw .refused(why) }
        while bad - good > 1 {
            let middle = (good + bad) / 2
            if let refusal = try rehearse(block, position, without: known + rest[middle...]) {
                (bad, why) = (middle, refusal)
            } else {
                good = middle
            }
        }
        return rest[bad - 1]
    }

    /// What the store would have against the event's rows if these keys waited; nil when nothing.
    private func rehearse(
        _ block: EventBlock, _ position: Position, without keys: [FoldKey]
    ) throws(StoreError) -> String? {
        let fold = makeFold(scope(without: keys, at: position)), range = position..<position.next
        var rows = descriptor.tables.map { _ in RowBuffer() }
        do throws(StoreError) {
            try store.load(into: fold, for: block, in: range)
            fold.fold(block, in: range)
            fold.drain(into: &rows)
            try store.rehearse(
                rows, of: descriptor, partition: partition, from: checkpoint,
                to: takenUp == nil ? position : checkpoint ?? position)
            return nil
        } catch {
            guard case .refusedRows(let why) = error else { throw error }
            return why
        }
    }
}
