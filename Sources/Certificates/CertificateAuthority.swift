import Decisions
import EventModel
import HeapModule
import PKI
import Primitives

/// A certificate authority, and what its next CRL lists.
public struct CertificateAuthority: Sendable {
    public let added: AuthorityAdded
    public let position: Position
    public let addedAt: Timestamp
    public internal(set) var retiredAt: Timestamp?
    public internal(set) var replacedBy: String?

    /// Entries of the next CRL: those of the last CRL, plus later revocations and holds, minus later releases.
    var entries = RevokedEntries()
    /// Entries by the expiry of their certificates. One whose entry was removed is passed over.
    private var expiries = Heap<EntryExpiry>()
    /// Number of the log's events that `entries` follow from.
    public private(set) var entriesEnd = Position(0)
    public private(set) var lastCRL: CRLIssued?
    /// Position and time of `lastCRL`.
    public private(set) var lastCRLPosition: Position?
    public private(set) var lastCRLAt = Timestamp(microseconds: 0)
    /// Entries of `lastCRL` that were changed since, by serial number: nil where there was none. With them `lastCRL`
    /// can be made again while the next one waits for its key.
    private(set) var changes: [SerialNumber: RevokedEntry?] = [:]
    /// The last CRL lists other certificates than the next one would.
    public private(set) var isChanged = false
    /// The last CRL that was not published, if no other was issued since.
    public internal(set) var refused: CRLRefused?

    init(_ event: AuthorityAdded, at position: Position, time: Timestamp) {
        (added, self.position, addedAt) = (event, position, time)
        entriesEnd = Position(position.rawValue + 1)
    }

    /// It issues certificates.
    public var issues: Bool { added.key != .none && retiredAt == nil && replacedBy == nil }
    /// It issues CRLs, also when it issues certificates no more.
    public var issuesCRLs: Bool { added.key != .none }
    public var revokedCount: Int { entries.count }
    /// The last CRL is not what the next one would be, or there is none.
    public var needsCRL: Bool { issuesCRLs && (isChanged || lastCRL == nil) }

    mutating func list(_ entry: RevokedEntry, _ notAfter: Int64, at position: Position) {
        changed(entry.serial, entries.insert(entry), at: position)
        expiries.insert(EntryExpiry(notAfter: notAfter, serial: entry.serial))
    }

    mutating func unlist(_ serial: SerialNumber, at position: Position) {
        changed(serial, entries.remove(serial), at: position)
    }

    private mutating func changed(_ serial: SerialNumber, _ before: RevokedEntry?, at position: Position) {
        if changes.index(forKey: serial) == nil { changes.updateValue(before, forKey: serial) }
        isChanged = true
        entriesEnd = Position(position.rawValue + 1)
    }

    mutating func issued(_ event: CRLIssued, at position: Position, time: Timestamp) {
        // The rule allows none that is not newer; a list from elsewhere must not take its place.
        if let lastCRL, event.number <= lastCRL.number { return }
        prepare(thisUpdate: event.thisUpdate, canary: event.canary)
        lastCRL = event
        (lastCRLPosition, lastCRLAt) = (position, time)
        changes = [:]
        isChanged = event.end < entriesEnd.rawValue
        refused = nil
    }

    /// Makes `entries` those of the next CRL. An entry leaves once the CRL before was issued after the expiry of its
    /// certificate (RFC 5280, section 3.3).
    mutating func prepare(thisUpdate: Timestamp, canary: CRLIssued.Canary?) {
        if let last = lastCRL {
            let before = CertificatesFault.isPlanted(.dropsEntriesAtExpiry) ? thisUpdate : last.thisUpdate
            let limit = before.wholeSeconds
            while let first = expiries.min, first.notAfter < limit {
                expiries.removeMin()
                entries.remove(first.serial)
            }
        }
        if let canary, let serial = SerialNumber(canary.serial) {
            entries.insert(
                RevokedEntry(serial: serial, time: thisUpdate.wholeSeconds, reason: .superseded))
            expiries.insert(EntryExpiry(notAfter: canary.notAfter.wholeSeconds, serial: serial))
        }
    }
}

/// When the entry of a certificate may leave the CRL.
private struct EntryExpiry: Comparable, Sendable {
    let notAfter: Int64
    let serial: SerialNumber

    static func < (a: Self, b: Self) -> Bool { (a.notAfter, a.serial) < (b.notAfter, b.serial) }
}

// MARK: In snapshots

extension CertificateAuthority {
    init(_ form: StoredHeader.StoredAuthority, entries input: inout ByteReader) throws(ByteReader.Truncated) {
        self.init(form.added, at: Position(form.position), time: form.addedAt)
        (retiredAt, replacedBy) = (form.retiredAt, form.replacedBy)
        (lastCRL, lastCRLPosition) = (form.lastCRL, form.lastCRLPosition.map { Position($0) })
        lastCRLAt = form.lastCRLAt
        (isChanged, refused, entriesEnd) = (form.isChanged, form.refused, Position(form.entriesEnd))
        for change in form.changes { changes.updateValue(change.before, forKey: change.serial) }
        guard let read = RevokedEntries(der: Array(try input.bytes())) else { throw .init() }
        entries = read
        var times: [EntryExpiry] = []
        for entry in entries { times.append(EntryExpiry(notAfter: try input.integer(), serial: entry.serial)) }
        expiries = Heap(times)
    }

    func writeEntries(to out: inout ByteWriter) {
        var entries = entries
        if CertificatesFault.isPlanted(.forgetsEntryInSnapshots), let first = entries.first(where: { _ in true }) {
            entries.remove(first.serial)
        }
        out.bytes(entries.der)
        var times: [SerialNumber: Int64] = [:]
        for expiry in expiries.unordered { times[expiry.serial] = expiry.notAfter }
        for entry in entries { out.integer(times[entry.serial] ?? .max) }
    }
}

extension StoredHeader.StoredAuthority {
    init(_ authority: CertificateAuthority) {
        self.init(
            added: authority.added, position: authority.position.rawValue, addedAt: authority.addedAt,
            retiredAt: authority.retiredAt, replacedBy: authority.replacedBy,
            entriesEnd: authority.entriesEnd.rawValue, lastCRL: authority.lastCRL,
            lastCRLPosition: authority.lastCRLPosition?.rawValue, lastCRLAt: authority.lastCRLAt,
            changes: authority.changes.sorted { $0.key < $1.key }.map { serial, before in
                .init(serial: serial, time: before?.time, reason: before?.reason)
            }, isChanged: authority.isChanged, refused: authority.refused)
    }
}
