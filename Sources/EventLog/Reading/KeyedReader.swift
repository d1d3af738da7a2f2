import EventModel
import Glibc
import Threading

/// Which events a `KeyedReader` reads.
public enum EventSelection: Sendable {
    /// Of one device: what it sent, and what was refused of it.
    case device(tenant: String, device: String)
    /// Of the devices with this id, whatever their tenant.
    case anyTenant(device: String)
    /// Events of our own, by schema and version (`campaign.created/1`).
    case schema(String)

    var key: [UInt8]? {
        switch self {
        case .device(let tenant, let device): Array("tenant/\(tenant)/device/\(device)".utf8)
        case .anyTenant: nil
        case .schema(let name): Array(name.utf8)
        }
    }

    /// What such a key ends with.
    var suffix: [UInt8] {
        switch self {
        case .anyTenant(let device): Array("/device/\(device)".utf8)
        case .device, .schema: key ?? []
        }
    }
}

/// Reads the events of one device, or of one schema, in order. In sealed segments it reads only the blocks that can
/// hold them, by the footer's posting lists; in others, and where a footer is damaged, all. Blocks are decoded on as
/// many threads as the machine has processors, at most four. One consumer's own.
public final class KeyedReader {
    private let catalog: SegmentCatalog
    private let selection: EventSelection
    private let matcher: EventMatcher
    private let end: Position
    private let durable: () throws(LogError) -> UInt64
    /// Everything before it has been looked at.
    public private(set) var position: Position
    /// Blocks that were read; for those who want to know what posting lists save.
    public private(set) var blocksRead = 0
    /// The segment that is being read: its blocks that can hold events, the last first, and where they lead to.
    private var plan: (segment: Segment, blocks: [BlockIndex.Entry], end: Position)?
    /// What was found in some of them, the last first.
    private var found: [FoundEvents] = []
    /// Where blocks are not as expected: reads as all others do, who know how to speak of damage, and how to pass it.
    private var reader: (FileLogReader, until: Position)?
    private let block = EventBlock()
    private var scanners: [BlockSearch] = []
    private static let windowBlocks = 64

    init(
        catalog: SegmentCatalog, selection: EventSelection, range: Range<Position>,
        durable: @escaping () throws(LogError) -> UInt64
    ) {
        self.catalog = catalog
        self.selection = selection
        self.durable = durable
        matcher = EventMatcher(selection)
        position = range.lowerBound
        end = range.upperBound
    }

    /// Hands out the events of the next block that has any; they are valid during the call. False when there are no
    /// more below the end that was asked for, of what is durable now.
    /// - Throws: `LogError`, as any reader.
    public func read(_ body: (RecordView, Position) -> Void) throws(LogError) -> Bool {
        while true {
            if let next = found.popLast() {
                next.forEach(body)
                position = max(position, next.end)
                return true
            }
            guard position < end else { return false }
            if plan != nil {
                search()
            } else if reader != nil {
                if try readAll(body) { return true }
            } else {
                guard try open() else { return false }
            }
        }
    }

    /// Decides how to read on at `position`. False when nothing durable is there.
    private func open() throws(LogError) -> Bool {
        let durableCount = try durable()
        guard position.rawValue < durableCount else { return false }
        if let segment = try catalog.segment(holding: position) {
            let next = catalog.bases(around: segment.base).next
            let limit = min(next ?? end, end, Position(durableCount))
            plan = try system { () throws(FileError) in
                try segment.trailer != nil ? sealedPlan(segment) : openPlan(segment, limit: limit)
            }
            if plan == nil { readAll(until: max(limit, position.next)) }
        } else {
            readAll(until: end)
        }
        return true
    }

    private func readAll(until: Position) {
        reader = (FileLogReader(catalog: catalog, position: position, durable: durable), until)
    }

    /// The blocks that a sealed segment's footer names; nil when it is damaged.
    private func sealedPlan(_ segment: Segment) throws(FileError)
        -> (segment: Segment, blocks: [BlockIndex.Entry], end: Position)?
    {
        guard let trailer = segment.trailer, trailer.end > position, let index = try segment.blockIndex(),
            let numbers = try segment.blocks(of: selection, matcher),
            numbers.last.map({ $0 < index.entries.count }) ?? true
        else { return nil }
        let blocks = numbers.reversed().map { index.entries[Int($0)] }
        return (segment, blocks.filter { $0.end > position && $0.base < end }, trailer.end)
    }

    /// All durable blocks of one that is not sealed, up to `limit`; nil when there is no whole one at `position`.
    private func openPlan(_ segment: Segment, limit: Position) throws(FileError)
        -> (segment: Segment, blocks: [BlockIndex.Entry], end: Position)?
    {
        var blocks: [BlockIndex.Entry] = [], reached = position
        let start = try segment.offset(before: position, durableCount: limit.rawValue)
        let scanner = BlockScanner(file: segment.file, salt: segment.header.salt, offset: start)
        while reached < limit {
            let offset = scanner.offset
            guard let header = try scanner.findHeader(), header.base <= reached, header.base < limit,
                blocks.isEmpty || (header.base == reached && scanner.offset == offset)
            else { break }
            if header.end > position {
                blocks.append(
                    BlockIndex.Entry(
                        base: header.base, firstTime: header.firstTime, offset: scanner.offset, count: header.count))
                reached = header.end
            }
            scanner.seek(to: scanner.offset + header.bytesOnDisk)
        }
        return blocks.isEmpty ? nil : (segment, blocks.reversed(), min(reached, limit))
    }

    /// Searches the next blocks of the plan.
    private func search() {
        guard let (segment, blocks, planEnd) = plan else { return }
        guard !blocks.isEmpty else {
            (plan, position) = (nil, max(position, min(planEnd, end)))
            return
        }
        let window = Array(blocks.suffix(Self.windowBlocks).reversed())
        plan?.blocks.removeLast(window.count)
        let task = SearchTask(segment: segment, blocks: window, matcher: matcher, range: position..<end)
        let helpers = min(Self.processors, window.count / 8) - 1
        while scanners.count <= max(0, helpers) { scanners.append(BlockSearch()) }
        let done = Latch()
        for index in 0..<max(0, helpers) {
            startThread(name: "log-search") { [scanner = scanners[index + 1]] in
                scanner.work(on: task)
                done.open()
            }
        }
        scanners[0].work(on: task)
        for _ in 0..<max(0, helpers) { done.wait() }
        for (entry, result) in zip(window, task.results) {
            guard let result else {
                position = max(position, entry.base)
                plan = nil
                readAll(until: max(min(planEnd, end), position.next))
                break
            }
            blocksRead += 1
            if result.count > 0 { found.append(result) }
        }
        // What lies between blocks that can hold events needs no look.
        if plan != nil, found.isEmpty, let last = window.last { position = max(position, min(last.end, end)) }
        found.reverse()
    }

    private static let processors = min(4, max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN))))

    private func readAll(_ body: (RecordView, Position) -> Void) throws(LogError) -> Bool {
        guard let (reader, until) = reader else { return false }
        guard try reader.read(into: block, atLeast: 1) else {
            (self.reader, position) = (nil, end)
            return false
        }
        blocksRead += 1
        let count = matcher.forEach(block.bytes, from: block.base, within: position..<end, body)
        position = max(position, min(reader.position, end))
        if reader.position >= until { self.reader = nil }
        return count > 0
    }
}

extension FileLog {
    /// Reads the selected events among those at `range`, which is clamped to what is there.
    public func events(_ selection: EventSelection, in range: Range<Position>) -> KeyedReader {
        catalog.events(selection, in: range) { [self] () throws(LogError) in durableCount }
    }

    /// By posting lists: see `KeyedReader`.
    public func forEachEvent(
        of schema: LogSchema, in range: Range<Position>, _ body: (RecordView, Position) throws -> Void
    ) throws {
        let reader = events(.schema(schema.rawValue), in: range)
        var failure: (any Error)?
        while failure == nil {
            let isMore = try reader.read { record, position in
                guard failure == nil, record.kind == .system else { return }
                do { try body(record, position) } catch { failure = error }
            }
            guard isMore else { break }
        }
        if let failure { throw failure }
    }
}

extension ReadOnlyLog {
    /// See `FileLog.events`.
    public func events(_ selection: EventSelection, in range: Range<Position>) -> KeyedReader {
        catalog.events(selection, in: range) { [self] () throws(LogError) in try currentCount() }
    }
}

extension SegmentCatalog {
    fileprivate func events(
        _ selection: EventSelection, in range: Range<Position>, durable: @escaping () throws(LogError) -> UInt64
    ) -> KeyedReader {
        let begin = max(range.lowerBound, first ?? Position(0))
        return KeyedReader(
            catalog: self, selection: selection, range: begin..<max(begin, range.upperBound), durable: durable)
    }
}
