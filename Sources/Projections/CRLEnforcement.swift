import Decisions
import Decoding
import EventModel

/// `crl_enforcement`: how far each CRL has come at each broker, and how many clients were disconnected under it. The
/// first step of a CRL at a broker makes the row; a cut or a lifted ban under a CRL without one changes none.
final class CRLEnforcementFold: ProjectionFold {
    static let descriptor = ProjectionDescriptor(
        name: "crl_enforcement", version: 2, tables: [EnforcementState.table])

    private let scope: FoldScope
    private let decoder: FactDecoder
    private var rows = KeyedTable<EnforcementState>()
    private var keyBytes: [UInt8] = []

    init(_ scope: FoldScope, _ decoder: FactDecoder) {
        self.scope = scope
        self.decoder = decoder
    }

    var descriptor: ProjectionDescriptor { Self.descriptor }
    var dirtyRowCount: Int { rows.dirty.count }
    var pendingByteCount: Int { rows.dirtyByteCount }
    var stateByteCount: Int { rows.byteCount }

    private struct Step {
        let decision: any Decision
        let broker: String
        let authority: String
        let number: Int64

        /// Nil for decisions about anything else.
        init?(_ decision: any Decision) {
            self.decision = decision
            switch decision {
            case let event as CRLEnforced:
                (broker, authority, number) = (event.broker, event.authority, Int64(clamping: event.number))
            case let event as ClientCut:
                (broker, authority, number) = (event.broker, event.authority, Int64(clamping: event.number))
            case let event as ClientBanLifted:
                guard let of = event.number else { return nil }
                (broker, authority, number) = (event.broker, event.authority, Int64(clamping: of))
            default: return nil
            }
        }

        /// The text of its `FoldKey`.
        var key: String { "enforcement/\(broker)/\(authority)/\(number)" }
    }

    private func step(_ record: RecordView) -> Step? {
        // By the first letters of the schema: the decisions of other deciders need not be decoded.
        guard record.kind == .decision,
            record.topic.starts(with: "crl.".utf8) || record.topic.starts(with: "client.".utf8)
        else { return nil }
        return decoder.decodeInternal(record).decision.flatMap(Step.init)
    }

    func keys(of record: RecordView) -> [FoldKey] { step(record).map { [FoldKey($0.key)] } ?? [] }

    private func forEachStep(
        _ block: EventBlock, in range: Range<Position>, _ body: (Step, Position, Timestamp) -> Void
    ) {
        let scan = decoder.scan(block)
        for index in 0..<scan.marks.count where scan.marks[index].kind == .decision {
            let position = block.base.advanced(by: index)
            guard range.contains(position) else { continue }
            let record = block.record(atOffset: Int(scan.offsets[index]))
            if let step = step(record), scope.includes(step.key, at: position) {
                body(step, position, record.receivedAt)
            }
        }
    }

    private func touch(_ step: Step) -> UInt32 {
        keyBytes.removeAll(keepingCapacity: true)
        BrokerCRLKey.append(step.broker.utf8, step.authority.utf8, step.number, to: &keyBytes)
        return keyBytes.withUnsafeBytes { rows.touch($0) }
    }

    func prepare(_ block: EventBlock, in range: Range<Position>) -> [LoadRequest] {
        rows.beginRound(isStart: scope.startsEmpty(at: range.lowerBound))
        forEachStep(block, in: range) { step, _, _ in _ = touch(step) }
        return rows.takeUnknown(table: 0).map { [$0] } ?? []
    }

    func load(table: Int, row: RowReader) { rows.load(row) }

    func fold(_ block: EventBlock, in range: Range<Position>) {
        forEachStep(block, in: range) { step, position, at in
            let row = touch(step)
            let isChanged = rows.update(row) { state, arena in
                switch step.decision {
                case let event as CRLEnforced: state.apply(event, OptionalTime(at), in: &arena)
                case let event as ClientCut: return state.apply(event, in: &arena)
                case let event as ClientBanLifted: return state.setRemaining(event.remaining, in: &arena)
                default: return false
                }
                return true
            }
            guard isChanged else { return }
            rows.states[Int(row)].lastPosition = position
            rows.markDirty(row)
        }
        precondition(!rows.hasUnknown, "a block is prepared before it is folded")
    }

    func drain(into buffers: inout [RowBuffer]) { rows.drain(into: &buffers[0]) }

    func shrink(toBytes byteCount: Int) { rows.shrink(toBytes: byteCount) }
}

/// In memory a byte 0 stands behind each text, and the number follows in eight bytes.
struct BrokerCRLKey: RowKey {
    var broker = Bytes.none, authority = Bytes.none, number: Int64 = 0

    init() {}
    init(_ key: Bytes) {
        let texts = key.dropLast(8)
        guard let end = texts.firstIndex(of: 0), texts.last == 0, end < texts.endIndex - 1 else {
            preconditionFailure("malformed row key of crl_enforcement")
        }
        broker = Bytes(rebasing: key[..<end])
        authority = Bytes(rebasing: key[(end + 1)..<(texts.endIndex - 1)])
        number = Int64(bigEndian: key.loadUnaligned(fromByteOffset: texts.endIndex, as: Int64.self))
    }

    func append(to key: inout [UInt8]) { Self.append(broker, authority, number, to: &key) }

    static func append(
        _ broker: some Sequence<UInt8>, _ authority: some Sequence<UInt8>, _ number: Int64, to key: inout [UInt8]
    ) {
        key.append(contentsOf: broker)
        key.append(0)
        key.append(contentsOf: authority)
        key.append(0)
        withUnsafeBytes(of: number.bigEndian) { key.append(contentsOf: $0) }
    }
}

struct EnforcementState: RowState {
    static let table = Table("crl_enforcement_v2", write: .upsert, Self.self)

    /// A step was seen.
    var isKnown = false
    var tenant = ByteRef(), error = ByteRef(), uncutError = ByteRef()
    var writtenAt = OptionalTime(), reloadedAt = OptionalTime(), provedAt = OptionalTime()
    var cut: Int64 = 0
    var remaining: Int64?
    var lastPosition = Position(0)

    mutating func columns(_ row: inout some RowVisitor, _ key: inout BrokerCRLKey, _ arena: inout ByteArena) {
        row.key("broker", &key.broker)
        row.key("authority_id", &key.authority)
        row.key("number", &key.number)
        row.text("tenant_id", &tenant, &arena)
        row.value("written_at", &writtenAt)
        row.value("reloaded_at", &reloadedAt)
        row.value("proved_at", &provedAt)
        row.value("cut", &cut)
        row.value("remaining", &remaining)
        row.text("error", &error, &arena)
        row.text("uncut_error", &uncutError, &arena)
        row.value("last_position", &lastPosition)
    }

    mutating func didLoad(_ key: BrokerCRLKey) { isKnown = true }

    mutating func apply(_ event: CRLEnforced, _ at: OptionalTime, in arena: inout ByteArena) {
        if !isKnown { arena.put(event.tenantID, in: &tenant) }
        isKnown = true
        // The first time counts: a file is written, and a CRL proved, again after a failure.
        switch event.step {
        case .written: if writtenAt.value == nil { writtenAt = at }
        case .reloaded: if reloadedAt.value == nil { reloadedAt = at }
        case .proved:
            if provedAt.value == nil { provedAt = at }
            setRemaining(event.remaining, in: &arena)
        case .unproved: return arena.put(event.error ?? "unknown", in: &error)
        case .uncut: return arena.put(event.error ?? "unknown", in: &uncutError)
        }
        arena.free(&error)
    }

    /// Says whether the row changed.
    mutating func apply(_ event: ClientCut, in arena: inout ByteArena) -> Bool {
        if isKnown, event.outcome != .stillConnected { cut += 1 }
        return setRemaining(event.remaining, in: &arena)
    }

    /// Says whether the row changed.
    @discardableResult
    mutating func setRemaining(_ count: Int64?, in arena: inout ByteArena) -> Bool {
        guard isKnown else { return false }
        remaining = count
        if count == 0 { arena.free(&uncutError) }
        return true
    }
}
