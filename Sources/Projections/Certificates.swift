import Decisions
import Decoding
import EventModel

/// `certificates`: authorities, device certificates, CRLs, and the life of each.
///
/// The first decision with an authority's id, or with a certificate's authority and serial number, makes its row. What
/// is decided about an unknown one, or is no step from where it is, changes no row: it is in `certificate_events`, like
/// every decision. Nothing changes a revoked certificate.
///
/// Each row depends on the events of one key alone, so that any part of the keys can be folded by itself. A certificate
/// therefore has a row whether or not its authority has one.
final class CertificateFold: ProjectionFold {
    private let scope: FoldScope
    private let decoder: FactDecoder
    private var authorities = KeyedTable<AuthorityState>()
    private var certificates = KeyedTable<CertificateState>()
    private var crls = RowBuffer()
    private var events = RowBuffer()
    private var keyBytes: [UInt8] = []
    /// The decisions of the block that was prepared. They hold whole certificates: decoding them twice would take
    /// most of the time.
    private var prepared: (base: Position, count: Int, range: Range<Position>, decisions: [Decided])?

    init(_ scope: FoldScope, _ decoder: FactDecoder) {
        self.scope = scope
        self.decoder = decoder
    }

    var descriptor: ProjectionDescriptor { CertificateTables.descriptor }
    var dirtyRowCount: Int { authorities.dirty.count + certificates.dirty.count + crls.rowCount + events.rowCount }
    var pendingByteCount: Int {
        authorities.dirtyByteCount + certificates.dirtyByteCount + crls.bytes.count + events.bytes.count
    }
    var stateByteCount: Int { authorities.byteCount + certificates.byteCount }

    // MARK: Decisions and their keys

    private enum Subject: Equatable {
        case authority(String)
        case certificate(authority: String, serial: String)

        /// The text of its `FoldKey`.
        var key: String {
            switch self {
            case .authority(let id): "authority/\(id)"
            case .certificate(let authority, let serial): "certificate/\(authority)/\(serial)"
            }
        }
    }

    private struct Decided {
        let decision: any Decision
        let position: Position
        let at: Timestamp
        let schema: String
        /// Those that are this fold's.
        let subjects: [Subject]
        /// Its row of `certificate_events` is this fold's.
        let isLogged: Bool
    }

    /// What a decision concerns; with the first comes its row of `certificate_events`. None when it is none of this
    /// projection's.
    private static func subjects(of decision: any Decision) -> [Subject] {
        switch decision {
        case let event as AuthorityAdded:
            let replaced = event.replaces.flatMap { $0 == event.id ? nil : Subject.authority($0) }
            return [.authority(event.id)] + (replaced.map { [$0] } ?? [])
        case let event as AuthorityRetired: return [.authority(event.id)]
        case let event as CertificateAdded: return [.certificate(authority: event.authority, serial: event.serial)]
        case let event as CertificateChanged: return [.certificate(authority: event.authority, serial: event.serial)]
        case let event as CRLIssued: return [.authority(event.authority)]
        case let event as CRLRefused: return [.authority(event.authority)]
        case let event as CRLEnforced: return [.authority(event.authority)]
        case let event as ClientCut: return [.certificate(authority: event.authority, serial: event.serial)]
        case let event as ClientBanLifted: return [.certificate(authority: event.authority, serial: event.serial)]
        case let event as AuthorityRenewal: return [.authority(event.authority)]
        case let event as CertificateRenewal: return [.certificate(authority: event.authority, serial: event.serial)]
        default: return []
        }
    }

    /// By the first letters of the schema: the decisions of other deciders need not be decoded.
    private static func mayBeOurs(_ record: RecordView) -> Bool {
        record.topic.starts(with: "certificate.".utf8) || record.topic.starts(with: "crl.".utf8)
            || record.topic.starts(with: "authority.".utf8) || record.topic.starts(with: "client.".utf8)
    }

    func keys(of record: RecordView) -> [FoldKey] {
        guard record.kind == .decision, Self.mayBeOurs(record) else { return [] }
        return decoder.decodeInternal(record).decision.map { Self.subjects(of: $0).map { FoldKey($0.key) } } ?? []
    }

    private func decisions(_ block: EventBlock, in range: Range<Position>) -> [Decided] {
        let scan = decoder.scan(block)
        var found: [Decided] = []
        for index in 0..<scan.marks.count where scan.marks[index].kind == .decision {
            let position = block.base.advanced(by: index)
            guard range.contains(position) else { continue }
            let record = block.record(atOffset: Int(scan.offsets[index]))
            guard Self.mayBeOurs(record), let decision = decoder.decodeInternal(record).decision else { continue }
            let all = Self.subjects(of: decision)
            let own = scope.isAll ? all : all.filter { scope.includes($0.key, at: position) }
            guard let first = own.first else { continue }
            found.append(
                Decided(
                    decision: decision, position: position, at: record.receivedAt, schema: record.topicString,
                    subjects: own, isLogged: first == all[0]))
        }
        return found
    }

    // MARK: Rows that must be known

    func prepare(_ block: EventBlock, in range: Range<Position>) -> [LoadRequest] {
        authorities.beginRound(isStart: scope.startsEmpty(at: range.lowerBound))
        certificates.beginRound(isStart: scope.startsEmpty(at: range.lowerBound))
        let decisions = decisions(block, in: range)
        for subject in decisions.lazy.flatMap(\.subjects) {
            switch subject {
            case .authority(let id): _ = touch(id)
            case .certificate(let authority, let serial): _ = touch(authority, serial)
            }
        }
        prepared = (block.base, block.count, range, decisions)
        let requests = [
            authorities.takeUnknown(table: CertificateTables.authorities),
            certificates.takeUnknown(table: CertificateTables.certificates),
        ]
        return requests.compactMap { $0 }
    }

    private func touch(_ authority: String) -> UInt32 {
        var id = authority
        return id.withUTF8 { authorities.touch(UnsafeRawBufferPointer($0)) }
    }

    private func touch(_ authority: String, _ serial: String) -> UInt32 {
        keyBytes.removeAll(keepingCapacity: true)
        CertificateKey.append(authority.utf8, serial.utf8, to: &keyBytes)
        return keyBytes.withUnsafeBytes { certificates.touch($0) }
    }

    func load(table: Int, row: RowReader) {
        if table == CertificateTables.authorities { authorities.load(row) } else { certificates.load(row) }
    }

    // MARK: Fold

    func fold(_ block: EventBlock, in range: Range<Position>) {
        defer {
            prepared = nil
            precondition(
                !authorities.hasUnknown && !certificates.hasUnknown, "a block is prepared before it is folded")
        }
        let isPrepared = prepared.map { $0.base == block.base && $0.count == block.count && $0.range == range } ?? false
        for decided in isPrepared ? prepared?.decisions ?? [] : decisions(block, in: range) {
            if decided.isLogged, var row = CertificateEventRow(decided.decision) {
                (row.position, row.at) = (decided.position, OptionalTime(decided.at))
                // `certificate.revoked/1` is `certificate.revoked`.
                row.type = String(decided.schema.prefix { $0 != "/" })
                events.append(row)
            }
            for subject in decided.subjects { apply(decided, to: subject) }
        }
    }

    private func apply(_ decided: Decided, to subject: Subject) {
        switch subject {
        case .authority(let id):
            let row = touch(id), position = decided.position
            guard authorities.update(row, { state, _ in apply(decided, toAuthority: id, &state) }) else { return }
            authorities.states[Int(row)].lastPosition = position
            authorities.markDirty(row)
        case .certificate(let authority, let serial):
            let row = touch(authority, serial), position = decided.position
            let changed = certificates.update(row) { state, arena in
                switch decided.decision {
                case let event as CertificateAdded: state.add(event, decided.at, position, in: &arena)
                case let event as CertificateChanged: state.apply(event, decided.at, in: &arena)
                default: false
                }
            }
            guard changed else { return }
            certificates.states[Int(row)].lastPosition = position
            certificates.markDirty(row)
        }
    }

    /// Says whether the row changed.
    private func apply(_ decided: Decided, toAuthority id: String, _ state: inout AuthorityState) -> Bool {
        switch decided.decision {
        case let event as AuthorityAdded where event.id == id:
            guard !state.isKnown else { return false }
            state = AuthorityState(event, decided.at, decided.position)
        case let event as AuthorityAdded:
            guard state.isKnown, state.replacedBy == nil else { return false }
            state.replacedBy = event.id
        case is AuthorityRetired:
            guard state.isKnown, state.retiredAt.value == nil else { return false }
            state.retiredAt = OptionalTime(decided.at)
        case let event as CRLIssued:
            let number = Int64(clamping: event.number)
            guard state.isKnown, state.crlNumber.map({ $0 < number }) ?? true else { return false }
            state.crlNumber = number
            (state.crlThisUpdate, state.crlNextUpdate) = (
                OptionalTime(event.thisUpdate), OptionalTime(event.nextUpdate)
            )
            crls.append(
                CRLRow(
                    authority: id, number: number, tenant: event.tenantID, thisUpdate: event.thisUpdate,
                    nextUpdate: event.nextUpdate, entries: event.entries, canary: event.canary?.serial,
                    sha256: event.sha256, at: OptionalTime(decided.at), actor: event.actor,
                    position: decided.position))
        default: return false
        }
        return true
    }

    // MARK: Rows out

    func drain(into rows: inout [RowBuffer]) {
        authorities.drain(into: &rows[CertificateTables.authorities])
        certificates.drain(into: &rows[CertificateTables.certificates])
        rows[CertificateTables.crls].append(crls)
        crls.removeAll()
        rows[CertificateTables.events].append(events)
        events.removeAll()
    }

    func shrink(toBytes byteCount: Int) {
        prepared = nil
        authorities.shrink(toBytes: byteCount / 4)
        certificates.shrink(toBytes: byteCount - byteCount / 4)
    }
}

extension AuthorityState {
    fileprivate init(_ event: AuthorityAdded, _ at: Timestamp, _ position: Position) {
        self.init()
        isKnown = true
        (tenant, subject, spkiSHA256, key) = (event.tenantID, event.subject, event.spkiSHA256, event.key)
        (notBefore, notAfter, replaces) = (event.notBefore, event.notAfter, event.replaces)
        (addedAt, addedBy, addedPosition) = (OptionalTime(at), event.actor, position)
    }
}

extension CertificateState {
    /// Says whether the row changed: the first one with a serial number stands.
    fileprivate mutating func add(
        _ event: CertificateAdded, _ at: Timestamp, _ position: Position, in arena: inout ByteArena
    ) -> Bool {
        guard !isKnown else { return false }
        isKnown = true
        isImported = event.origin == .imported
        arena.put(event.tenantID, in: &tenant)
        arena.put(event.deviceID, in: &device)
        arena.put(event.commonName, in: &commonName)
        arena.put(event.keyAlgorithm, in: &keyAlgorithm)
        arena.put(event.spkiSHA256, in: &spkiSHA256)
        arena.put(event.sha256, in: &sha256)
        if let renewed = event.renews { arena.put(renewed, in: &renews) }
        arena.put(event.actor, in: &addedBy)
        (notBefore, notAfter) = (event.notBefore, event.notAfter)
        (addedAt, addedPosition) = (OptionalTime(at), position)
        return true
    }

    /// Says whether the row changed.
    fileprivate mutating func apply(_ event: CertificateChanged, _ at: Timestamp, in arena: inout ByteArena) -> Bool {
        guard isKnown, status != .revoked else { return false }
        switch event.change {
        case .superseded:
            guard supersededAt.value == nil else { return false }
            supersededAt = OptionalTime(at)
            if let newer = event.replacedBy { arena.put(newer, in: &replacedBy) }
            if status == .active { status = .superseded }
        case .held:
            guard status != .held else { return false }
            status = .held
            revokedAt = OptionalTime(at)
            // RFC 5280, section 5.3.1.
            arena.put(event.reason ?? "certificateHold", in: &reason)
        case .released:
            guard status == .held else { return false }
            status = supersededAt.value == nil ? .active : .superseded
            revokedAt = OptionalTime()
            arena.free(&reason)
        case .revoked:
            status = .revoked
            revokedAt = OptionalTime(at)
            arena.put(event.reason ?? "unspecified", in: &reason)
        }
        return true
    }
}
