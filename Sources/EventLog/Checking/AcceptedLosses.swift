import EventModel
import Synchronization

/// Damage that an operator signed for, as the log has it.
public struct AcceptedLoss: Sendable, Equatable {
    /// Where the acceptance itself is in the log.
    public let position: Position
    public let at: Timestamp
    public let event: LossAccepted

    /// The positions that are given up.
    public var positions: Range<Position> { Position(event.from)..<Position(event.to &+ 1) }

    /// Nil when the record is no well-formed acceptance, or accepts what comes after itself.
    init?(_ record: RecordView, at position: Position) {
        guard record.kind == .system, record.topic.elementsEqual(LogSchema.lossAccepted.rawValue.utf8),
            let event = try? record.decoded(LossAccepted.self),
            event.from <= event.to, event.to < position.rawValue
        else { return nil }
        self.position = position
        self.event = event
        at = record.receivedAt
    }
}

/// The accepted losses of a log. The truth is the events in the log; the file `losses` says at which positions to look
/// for them, so that nobody has to search when all is well. When damage is met that is not known to be accepted, the
/// log behind it is searched, once.
final class AcceptedLosses: Sendable {
    static let fileName = "losses"

    private struct State {
        var losses: [AcceptedLoss] = []
        /// Size of the file `losses` when it was read last.
        var hintBytes = -1
        /// What was searched for acceptances, damage passed over.
        var searched: Range<UInt64> = 0..<0
    }
    private let state = Mutex(State())

    /// What the file `losses` points at, in the order of the log.
    func known(_ catalog: SegmentCatalog, durableCount: UInt64) -> [AcceptedLoss] {
        readHints(catalog, durableCount)
        return state.withLock { $0.losses }
    }

    /// The acceptance that covers the beginning of `positions`; the last one wins.
    func covering(
        _ positions: Range<Position>, _ catalog: SegmentCatalog, durableCount: UInt64
    ) throws(LogError) -> AcceptedLoss? {
        func find() -> AcceptedLoss? {
            state.withLock { $0.losses.last { $0.positions.contains(positions.lowerBound) } }
        }
        if let found = find() { return found }
        readHints(catalog, durableCount)
        if let found = find() { return found }
        try search(from: positions.lowerBound.rawValue, catalog, durableCount)
        return find()
    }

    func add(_ loss: AcceptedLoss) {
        state.withLock { state in
            guard !state.losses.contains(where: { $0.position == loss.position }) else { return }
            state.losses.append(loss)
            state.losses.sort { $0.position < $1.position }
        }
    }

    /// One line a loss; replaced as a whole, so that it is never half written. Only a hint: an error is no loss.
    func writeHints(_ catalog: SegmentCatalog) throws(FileError) {
        let text = state.withLock { $0.losses.map { "{\"position\":\($0.position)}\n" }.joined() }
        let path = catalog.directory + "/" + Self.fileName, temporary = path + ".tmp"
        let file = try catalog.fileSystem.open(temporary, create: true, writable: true)
        let bytes = GrowingBuffer()
        Array(text.utf8).withUnsafeBytes { bytes.append($0) }
        try file.write(bytes.bytes, at: 0)
        try file.synchronize()
        try catalog.fileSystem.rename(temporary, to: path)
        try catalog.fileSystem.synchronizeDirectory(catalog.directory)
    }

    private func readHints(_ catalog: SegmentCatalog, _ durableCount: UInt64) {
        let path = catalog.directory + "/" + Self.fileName
        guard let size = try? catalog.fileSystem.byteCount(path), size > 0, size < 1 << 20,
            size != state.withLock({ $0.hintBytes }),
            let file = try? catalog.fileSystem.open(path, create: false, writable: false)
        else { return }
        let room = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 8)
        defer { room.deallocate() }
        guard let count = try? file.read(into: room, at: 0), count == size else { return }
        for line in room.split(separator: UInt8(ascii: "\n")) {
            let digits = line.drop { $0 < 0x30 || $0 > 0x39 }.prefix { $0 >= 0x30 && $0 <= 0x39 }
            guard let position = UInt64(String(decoding: digits, as: UTF8.self)), position < durableCount
            else { continue }
            // What cannot be read there is met again, and said, by whoever searches the log for it.
            try? search(position..<(position + 1), catalog)
        }
        state.withLock { $0.hintBytes = size }
    }

    /// Searches what was not searched yet between `start` and the durable end.
    private func search(from start: UInt64, _ catalog: SegmentCatalog, _ durableCount: UInt64) throws(LogError) {
        let searched = state.withLock { $0.searched }
        if searched.isEmpty {
            try search(start..<durableCount, catalog)
        } else {
            if start < searched.lowerBound { try search(start..<searched.lowerBound, catalog) }
            if durableCount > searched.upperBound { try search(searched.upperBound..<durableCount, catalog) }
        }
        state.withLock { state in
            let known = state.searched.isEmpty ? start..<start : state.searched
            state.searched = min(start, known.lowerBound)..<max(durableCount, known.upperBound)
        }
    }

    private func search(_ positions: Range<UInt64>, _ catalog: SegmentCatalog) throws(LogError) {
        let block = EventBlock()
        let walk = LogWalker(catalog: catalog, from: Position(positions.lowerBound), to: Position(positions.upperBound))
        try walk.run { (step) throws(LogError) in
            guard case .block(let header, _, let stored) = step else { return }
            block.removeAll(at: header.base)
            guard FileLogReader.decode(header, stored, into: block) else { return }
            block.forEach { record, position in
                guard record.kind == .system, let loss = AcceptedLoss(record, at: position) else { return }
                add(loss)
            }
        }
    }
}
