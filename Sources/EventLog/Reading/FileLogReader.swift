import CLZ4
import EventModel

/// Reads a log on disk forward, across segments, up to what is durable. One consumer's own.
final class FileLogReader: LogReader {
    private let catalog: SegmentCatalog
    private let durable: () throws(LogError) -> UInt64
    private(set) var position: Position
    private var segment: Segment?
    private var scanner: BlockScanner?
    /// Base of the next block; nil until the block that holds `position` is found.
    private var nextBase: Position?
    /// What was durable when the scanner read ahead: what lies beyond is read again.
    private var durableWhenRead: UInt64 = 0
    /// How often it was looked for where the log goes on, since the last block.
    private var attempts = 0
    private static let attemptsMax = 3
    /// Removed segments without decisions are passed over, not fetched.
    private let wantsDecisionsOnly: Bool

    init(
        catalog: SegmentCatalog, position: Position, wantsDecisionsOnly: Bool = false,
        durable: @escaping () throws(LogError) -> UInt64
    ) {
        self.wantsDecisionsOnly = wantsDecisionsOnly
        self.catalog = catalog
        self.durable = durable
        self.position = position
    }

    func read(into block: EventBlock, atLeast byteCount: Int) throws(LogError) -> Bool {
        block.removeAll(at: position)
        var durableCount = durableWhenRead
        while block.byteCount < byteCount || block.isEmpty {
            if position.rawValue >= durableCount {
                if !block.isEmpty { break }
                durableCount = try durable()
                guard position.rawValue < durableCount else { break }
                durableWhenRead = durableCount
                scanner?.invalidate()
            }
            // Bytes that came before damage are handed out first; the next call reports it.
            switch try readBlock(into: block, durableCount: durableCount) {
            case .added: continue
            case .bad: return !block.isEmpty
            case .passed:
                block.removeAll(at: position)
                durableCount = durableWhenRead
            }
        }
        return !block.isEmpty
    }

    private enum BlockStep {
        case added
        /// A block is bad, but there are good ones before it to hand out first.
        case bad
        /// Nothing was added: damage that was accepted lay here, and `position` is behind it.
        case passed
    }

    /// Appends one block, or throws.
    private func readBlock(into block: EventBlock, durableCount: UInt64) throws(LogError) -> BlockStep {
        while true {
            let scanner: BlockScanner
            if let known = self.scanner {
                scanner = known
            } else {
                if try passRemoved(block) { return block.isEmpty ? .passed : .bad }
                do throws(LogError) {
                    scanner = try openSegment(durableCount: durableCount)
                } catch {
                    guard let range = damagedHeader(error) else { throw error }
                    return block.isEmpty ? try pass(range) : .bad
                }
            }
            let offset = scanner.offset
            let step = try system { () throws(FileError) in try scanner.next() }
            switch step {
            case .end:
                if try findContinuation() { continue }
                // Durable, and yet not there.
                if !block.isEmpty { return .bad }
                return try passDamage(at: offset, "the log ends here, but was durable up to position \(durableCount)")
            case .damaged(let what):
                scanner.seek(to: offset)
                if try findContinuation() { continue }
                if !block.isEmpty { return .bad }
                return try passDamage(at: offset, what)
            case .block(let header, let stored):
                guard header.base == nextBase ?? header.base, header.base <= position else {
                    scanner.seek(to: offset)
                    if !block.isEmpty { return .bad }
                    return try passDamage(at: offset, "expected position \(nextBase ?? position), found \(header.base)")
                }
                nextBase = header.end
                if header.end <= position { continue }
                guard Self.decode(header, stored, into: block) else {
                    scanner.seek(to: offset)
                    nextBase = header.base
                    if !block.isEmpty { return .bad }
                    return try passDamage(at: offset, "the records cannot be decoded")
                }
                position = header.end
                attempts = 0
                return .added
            }
        }
    }

    /// Goes on behind damage that an operator has accepted (`log.loss_accepted/1`); throws any other.
    private func passDamage(at offset: Int, _ what: String) throws(LogError) -> BlockStep {
        try pass(try damage(at: offset, what))
    }

    private func pass(_ range: CorruptRange) throws(LogError) -> BlockStep {
        durableWhenRead = try durable()
        let loss = try catalog.losses.covering(range.positions, catalog, durableCount: durableWhenRead)
        guard let loss, loss.positions.upperBound > position || range.positions.upperBound > position else {
            throw LogError(.corrupt, range.description)
        }
        position = max(position, loss.positions.upperBound)
        (segment, scanner, nextBase) = (nil, nil, nil)
        return .passed
    }

    static func decode(_ header: BlockHeader, _ stored: UnsafeRawBufferPointer, into block: EventBlock) -> Bool {
        block.append(base: header.base, count: header.count, byteCount: header.rawBytes) { room in
            switch header.codec {
            case .raw:
                room.copyMemory(from: stored)
                return true
            case .lz4:
                let length = LZ4_decompress_safe(
                    stored.assumingMemoryBound(to: CChar.self).baseAddress,
                    room.assumingMemoryBound(to: CChar.self).baseAddress, Int32(stored.count), Int32(room.count))
                return Int(length) == room.count
            }
        }
    }

    /// Moves behind a removed segment that holds nothing of what is wanted, unless `block` must be handed out first.
    private func passRemoved(_ block: EventBlock) throws(LogError) -> Bool {
        guard wantsDecisionsOnly, let first = catalog.first, position < first,
            let removed = try catalog.removed.holding(position, catalog), removed.decisions == 0
        else { return false }
        if block.isEmpty { (position, nextBase) = (Position(removed.end), nil) }
        return true
    }

    private func openSegment(durableCount: UInt64) throws(LogError) -> BlockScanner {
        let segment: Segment
        if let onDisk = try catalog.segment(holding: position) {
            segment = onDisk
        } else {
            segment = try catalog.removed.segment(holding: position, catalog)
        }
        let base = segment.base
        let offset = try system { () throws(FileError) in
            try segment.offset(before: position, durableCount: durableCount)
        }
        let scanner = BlockScanner(file: segment.file, salt: segment.header.salt, offset: offset)
        nextBase = try system { () throws(FileError) in
            try Self.seek(scanner, to: position, from: offset == SegmentHeader.byteCount ? base : nil)
        }
        self.segment = segment
        self.scanner = scanner
        return scanner
    }

    /// Hops from header to header to the block that holds `position`, or to the damage where it should be. What is
    /// damaged before it is not this reader's concern. Returns the position to expect there.
    private static func seek(_ scanner: BlockScanner, to position: Position, from base: Position?) throws(FileError)
        -> Position?
    {
        var expected = base, begin = scanner.offset
        while let header = try scanner.findHeader(), header.base <= position {
            begin = scanner.offset
            expected = header.base
            if header.end > position { break }
            expected = header.end
            begin += header.bytesOnDisk
            scanner.seek(to: begin)
        }
        scanner.seek(to: begin)
        return expected
    }

    /// There is no (whole) block where one is expected. Nothing is wrong when the log goes on elsewhere exactly there:
    /// in the next file; or, since files are packed and replaced under their readers, in one that holds it now. False
    /// when that was looked for, and it is missing.
    private func findContinuation() throws(LogError) -> Bool {
        guard let current = segment else { return false }
        let expected = nextBase ?? position
        for isListedAgain in [false, true] {
            if isListedAgain { try catalog.refresh() }
            guard expected > current.base, catalog.bases(around: expected).containing == expected else { continue }
            do throws(LogError) {
                guard let next = try catalog.segmentIfPresent(base: expected) else { continue }
                segment = next
                scanner = BlockScanner(file: next.file, salt: next.header.salt)
            } catch  where error.code == .corrupt {
                // Opened from the position instead, which says what is wrong.
                (segment, scanner, nextBase) = (nil, nil, nil)
            } catch {
                throw error
            }
            return true
        }
        guard attempts < Self.attemptsMax else { return false }
        attempts += 1
        catalog.forget(current.base)
        (segment, scanner, nextBase) = (nil, nil, nil)
        return true
    }

    /// The whole file at `position`, when `error` says that its header is damaged.
    private func damagedHeader(_ error: LogError) -> CorruptRange? {
        guard error.code == .corrupt else { return nil }
        let around = catalog.bases(around: position)
        guard let base = around.containing else { return nil }
        return CorruptRange(
            segment: catalog.directory + "/" + LogFormat.segmentName(base), bytes: 0..<SegmentHeader.byteCount,
            positions: base..<max(base, around.next ?? Position(durableWhenRead)), reason: "the header is damaged")
    }

    /// Finds where the log goes on behind damage, and says so.
    private func damage(at offset: Int, _ what: String) throws(LogError) -> CorruptRange {
        guard let segment else { preconditionFailure("no segment is open") }
        let first = nextBase ?? position
        let search = BlockScanner(file: segment.file, salt: segment.header.salt, offset: offset)
        var goesOn: (position: Position, offset: Int)?
        try system { () throws(FileError) in
            while let header = try search.findHeader() {
                let found = search.offset
                if header.base >= first, case .block = try search.next(), header.base > first || found > offset {
                    goesOn = (header.base, found)
                    return
                }
                search.seek(to: found + LogFormat.alignment)
            }
        }
        let size = try system { () throws(FileError) in try segment.file.byteCount() }
        let behind = goesOn?.position ?? catalog.bases(around: segment.base).next
        return CorruptRange(
            segment: segment.path, bytes: offset..<max(offset, goesOn?.offset ?? size),
            positions: first..<max(first, behind ?? Position(durableWhenRead)), reason: what)
    }
}

/// Bytes that were durable and are damaged, and the events that are lost with them.
public struct CorruptRange: Sendable, Equatable, CustomStringConvertible {
    public let segment: String
    public let bytes: Range<Int>
    public let positions: Range<Position>
    public let reason: String

    public var description: String {
        "\(segment) is damaged at bytes \(bytes.lowerBound)..<\(bytes.upperBound), which held positions "
            + "\(positions.lowerBound)..<\(positions.upperBound): \(reason). Nothing was changed. Restore the file "
            + "from a backup, or read on from position \(positions.upperBound), or give them up for good: refold log "
            + "repair --accept-loss"
    }
}
