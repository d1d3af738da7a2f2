// Certificates: decides which device certificates and authorities exist and which entries each CRL has, and records
// these decisions in the log.
//
//     CertificateRegistry   the `Decider`: decisions → authorities, certificates, entries of the next CRL
//     RegistryCommand       commands of operators, of the issuing services and of the enforcers
//     Decide                the rules by which a command is accepted or rejected
//     PendingCuts           clients that are to be disconnected at each broker
//     CertificateStore      a million certificates in memory
//
// Invariants. The module has no private keys: Sources/Issuing signs certificates and CRLs before they are decided
// about, and hands them out once the decision is durable. A revoked certificate is in every later CRL of its authority
// until one CRL was issued after its expiry (RFC 5280, section 3.3); only the release of a hold removes an entry
// earlier. Number and `thisUpdate` of an authority's CRLs strictly rise.
import Deciding
import Decisions
import EventModel
import PKI
import Primitives

/// Status of a certificate by its events. Expiry is no status: it depends on the current time.
public enum CertificateStatus: UInt8, Sendable, CaseIterable {
    case active, superseded, held, revoked

    /// In tables and answers.
    public var name: String {
        switch self {
        case .active: "ACTIVE"
        case .superseded: "SUPERSEDED"
        case .held: "HELD"
        case .revoked: "REVOKED"
        }
    }

    /// Its device may use it.
    public var isLive: Bool { self == .active || self == .superseded }
}

/// Names one certificate: `authority/serial`.
public struct CertificateReference: Sendable, Hashable, CustomStringConvertible {
    public let authority: String
    public let serial: SerialNumber

    public init(authority: String, serial: SerialNumber) { (self.authority, self.serial) = (authority, serial) }

    /// Nil unless `text` is `authority/serial`.
    public init?(_ text: some StringProtocol) {
        guard let slash = text.firstIndex(of: "/"), let serial = SerialNumber(String(text[text.index(after: slash)...]))
        else { return nil }
        self.init(authority: String(text[..<slash]), serial: serial)
    }

    public var description: String { "\(authority)/\(serial)" }
}

/// The fold of the decisions about certificates, in log order. Pure: time is the events'.
public struct CertificateRegistry: Decider {
    /// The answer to repeat when an idempotency key is used again.
    struct KeyedAnswer: Sendable, Equatable {
        let position: Position
        /// The authority that was added or retired.
        var authority: String?
        var certificates: [CertificateReference] = []
    }
    typealias Ledger = IdempotencyLedger<KeyedAnswer>

    /// In the order in which they were added.
    public internal(set) var authorities: [CertificateAuthority] = []
    var authorityIndexes: [String: UInt16] = [:]
    var store = CertificateStore()
    /// How far the CRLs have come at the brokers.
    public internal(set) var enforcements: [EnforcementKey: Enforcement] = [:]
    var pendingCuts: [EnforcementKey: [CertificateStore.Index: PendingCut]] = [:]
    var renewals = Renewals()
    var answers = Ledger(tenantCountMax: 10_000)
    /// Number of certificates in the store after the last eviction.
    var countAfterEviction = 0

    public init() {}

    public func authority(_ id: String) -> CertificateAuthority? { authorityIndexes[id].map { authorities[Int($0)] } }

    /// Nil: there is none, or it is another tenant's.
    public func authority(_ id: String, for tenantID: String) -> CertificateAuthority? {
        authority(id).flatMap { [tenantID, Envelope.everyTenant].contains($0.added.tenantID) ? $0 : nil }
    }

    /// The authority that issues a tenant's certificates by default: the tenant's newest one, else the newest one of
    /// all tenants.
    public func issuer(forTenant tenantID: String, at now: Timestamp) -> CertificateAuthority? {
        func newest(_ tenantID: String) -> CertificateAuthority? {
            authorities.last { $0.issues && $0.added.tenantID == tenantID && now < $0.added.notAfter }
        }
        return newest(tenantID) ?? newest(Envelope.everyTenant)
    }

    /// Whether an authority has no certificate in use: it is retired or replaced, and each of its certificates is
    /// replaced, revoked or expired. False for an unknown authority. O(number of certificates).
    public func isAbandoned(_ id: String, at now: Timestamp) -> Bool {
        guard let index = authorityIndexes[id] else { return false }
        let authority = authorities[Int(index)], seconds = now.wholeSeconds
        guard authority.retiredAt != nil || authority.replacedBy != nil else { return false }
        return store.indexes.allSatisfy {
            let record = store[$0]
            guard record.authority == index, seconds <= record.notAfter else { return true }
            return switch record.status {
            case .revoked: true
            case .superseded: record.replacedBy != CertificateStore.none
            case .active, .held: false
            }
        }
    }

    public var certificateCount: Int { store.count }

    public func certificate(_ reference: CertificateReference) -> DeviceCertificate? {
        find(reference).map(certificate(at:))
    }

    /// The certificates of a device that are in memory, the newest first.
    public func certificates(tenantID: String, deviceID: String) -> [DeviceCertificate] {
        store.certificates(tenantID: tenantID, deviceID: deviceID).map(certificate(at:))
    }

    /// Whether a device may send.
    public func hasLiveCertificate(tenantID: String, deviceID: String, at now: Timestamp) -> Bool {
        let seconds = now.wholeSeconds
        return store.certificates(tenantID: tenantID, deviceID: deviceID).contains { index in
            let record = store[index]
            return record.status.isLive && record.notBefore <= seconds && seconds <= record.notAfter
        }
    }

    /// When the device has a live certificate, in seconds since 1970, ascending and apart.
    /// - Parameter excluded: certificates that are taken for revoked.
    public func validity(
        tenantID: String, deviceID: String, without excluded: Set<CertificateReference> = []
    ) -> [ClosedRange<Int64>] {
        validity(
            store.certificates(tenantID: tenantID, deviceID: deviceID).filter { index in
                excluded.isEmpty || !excluded.contains(reference(index))
            })
    }

    /// Calls `body` once for each device that has a live certificate, past or present.
    public func forEachValidity(_ body: (_ tenantID: String, _ deviceID: String, [ClosedRange<Int64>]) -> Void) {
        for index in store.newestOfEachDevice {
            let validity = validity(store.certificates(from: index))
            if !validity.isEmpty { body(store.tenantID(of: index), store.deviceID(of: index), validity) }
        }
    }

    private func validity(_ indexes: [CertificateStore.Index]) -> [ClosedRange<Int64>] {
        var ranges: [ClosedRange<Int64>] = []
        for index in indexes {
            let record = store[index]
            guard record.status.isLive, record.notBefore <= record.notAfter else { continue }
            ranges.append(record.notBefore...record.notAfter)
        }
        guard ranges.count > 1 else { return ranges }
        ranges.sort { $0.lowerBound < $1.lowerBound }
        var joined = [ranges[0]]
        for range in ranges.dropFirst() {
            let last = joined[joined.count - 1]
            if range.lowerBound <= last.upperBound.saturatingAdding(1) {
                joined[joined.count - 1] = last.lowerBound...max(last.upperBound, range.upperBound)
            } else {
                joined.append(range)
            }
        }
        return joined
    }

    func find(_ reference: CertificateReference) -> CertificateStore.Index? {
        authorityIndexes[reference.authority].flatMap { store.find(authority: $0, serial: reference.serial) }
    }

    func reference(_ index: CertificateStore.Index) -> CertificateReference {
        let record = store[index]
        return CertificateReference(
            authority: authorities[Int(record.authority)].added.id, serial: record.serial)
    }

    func certificate(at index: CertificateStore.Index) -> DeviceCertificate {
        let record = store[index]
        return DeviceCertificate(
            reference: reference(index), tenantID: store.tenantID(of: index), deviceID: store.deviceID(of: index),
            status: record.status, reason: record.status == .revoked ? record.reason : nil,
            isImported: record.isImported,
            notBefore: Timestamp(seconds: record.notBefore), notAfter: Timestamp(seconds: record.notAfter),
            spkiSHA256: record.key, position: record.position, changedAt: record.changedAt,
            renews: record.renews == CertificateStore.none ? nil : reference(record.renews),
            replacedBy: record.replacedBy == CertificateStore.none ? nil : reference(record.replacedBy),
            renewal: renewal(of: index))
    }

    private func renewal(of index: CertificateStore.Index) -> Renewal? {
        guard !renewals.open.isEmpty, let open = renewals.open[address(index)] else { return nil }
        let reference = reference(index)
        return open.certificate == reference || open.issued == reference ? open : nil
    }

    // MARK: Fold

    public mutating func apply(_ event: RegistryEvent, at position: Position, time: Timestamp) {
        answers.expire(before: time)
        renewals.expire(before: time)
        switch event {
        case .authorityAdded(let event):
            add(event, at: position, time: time)
            remember(event.envelope, KeyedAnswer(position: position, authority: event.id), time)
        case .authorityRetired(let event):
            if let index = authorityIndexes[event.id], authorities[Int(index)].retiredAt == nil {
                authorities[Int(index)].retiredAt = time
            }
            remember(event.envelope, KeyedAnswer(position: position, authority: event.id), time)
        case .added(let event): add(event, at: position, time: time)
        case .changed(let event): change(event, at: position, time: time)
        case .crlIssued(let event):
            if let index = authorityIndexes[event.authority] {
                authorities[Int(index)].issued(event, at: position, time: time)
            }
        case .crlRefused(let event):
            if let index = authorityIndexes[event.authority] { authorities[Int(index)].refused = event }
        case .crlEnforced(let event):
            let key = EnforcementKey(broker: event.broker, authority: event.authority)
            if enforcements[key] == nil { beginCuts(key) }
            enforcements[key, default: Enforcement()].apply(event, at: time)
            // In older logs `crl.uncut` may follow a release, when nothing is left to do.
            if event.step == .proved || pendingCuts[key]?.isEmpty != false { endUncutError(key) }
        case .clientCut(let event): apply(event)
        case .clientBanLifted(let event): apply(event)
        case .renewalPolicy(let event): setPolicy(event.policy)
        case .authorityRenewal(let event):
            order(event)
            remember(event.envelope, KeyedAnswer(position: position, authority: event.authority), time)
        case .renewal(let event):
            apply(event, at: position, time: time)
            remember(
                event.envelope,
                KeyedAnswer(
                    position: position,
                    certificates: CertificateReference("\(event.authority)/\(event.serial)").map { [$0] } ?? []), time)
        case .rejected: break
        }
    }

    /// The log's clock stepped (`ClockStepped`): an idempotency key keeps its answer for as long as before. Validity
    /// and CRL times are dates that outsiders were given: they follow the clock.
    public mutating func moveTimers(by microseconds: Int64) {
        answers.move(by: microseconds)
        moveRenewals(by: microseconds)
    }

    private mutating func add(_ event: AuthorityAdded, at position: Position, time: Timestamp) {
        guard authorityIndexes[event.id] == nil, authorities.count < Int(UInt16.max) else { return }
        authorityIndexes[event.id] = UInt16(authorities.count)
        authorities.append(CertificateAuthority(event, at: position, time: time))
        if let replaced = event.replaces.flatMap({ authorityIndexes[$0] }) {
            authorities[Int(replaced)].replacedBy = event.id
        }
    }

    private mutating func add(_ event: CertificateAdded, at position: Position, time: Timestamp) {
        guard let authority = authorityIndexes[event.authority], let serial = SerialNumber(event.serial),
            let key = Digest(hex: event.spkiSHA256), event.deviceID.utf8.count <= DeviceTopic.idBytesMax,
            store.find(authority: authority, serial: serial) == nil
        else { return }
        let index = store.add(
            authority: authority, serial: serial, tenantID: event.tenantID, deviceID: event.deviceID, key: key,
            notBefore: event.notBefore.wholeSeconds, notAfter: event.notAfter.wholeSeconds,
            isImported: event.origin == .imported, position: position, at: time)
        let weakness = CertificateWeakness(event)
        if weakness != .none { store.update(index) { $0.weakness = weakness } }
        if let renewed = event.renews.flatMap({ CertificateReference($0) }).flatMap(find) {
            store.update(index) { $0.renews = renewed }
        }
        added(event, index, at: position, time: time)
        remember(event.envelope, KeyedAnswer(position: position, certificates: [reference(index)]), time)
        evictEnded(time)
    }

    private mutating func change(_ event: CertificateChanged, at position: Position, time: Timestamp) {
        guard let serial = SerialNumber(event.serial),
            let index = find(CertificateReference(authority: event.authority, serial: serial))
        else { return }
        let before = store[index]
        guard before.status != .revoked else { return }
        // A reason that this version does not know revokes too.
        let reason = event.reason.flatMap { RevocationReason(rawValue: $0) } ?? .unspecified
        let newer = event.replacedBy.flatMap { CertificateReference($0) }.flatMap(find)
        store.update(index) { record in
            switch event.change {
            case .superseded: if record.status == .active { record.status = .superseded }
            case .held: record.status = .held
            case .released: record.status = record.replacedBy == CertificateStore.none ? .active : .superseded
            case .revoked:
                record.status = .revoked
                record.reason = reason
            }
            if let newer { record.replacedBy = newer }
            (record.changedAt, record.changedPosition) = (time, position)
        }
        let authority = Int(before.authority)
        func entry(_ reason: RevocationReason) -> RevokedEntry {
            RevokedEntry(serial: serial, time: time.wholeSeconds, reason: reason)
        }
        switch event.change {
        case .superseded: break
        case .held: authorities[authority].list(entry(.certificateHold), before.notAfter, at: position)
        case .revoked: authorities[authority].list(entry(reason), before.notAfter, at: position)
        case .released: authorities[authority].unlist(serial, at: position)
        }
        noteCut(index, event, wasLive: before.status.isLive, at: position)
        changed(index)
        remember(event.envelope, KeyedAnswer(position: position, certificates: [reference(index)]), time)
    }

    /// All events of one command share its key: the answer has what each of them is about.
    private mutating func remember(_ envelope: Envelope, _ answer: KeyedAnswer, _ time: Timestamp) {
        guard let key = envelope.idempotencyKey else { return }
        let ledgerKey = Ledger.Key(tenantID: envelope.tenantID, key: key)
        if var known = answers.entries[ledgerKey], known.at == time, known.digest == envelope.requestDigest {
            known.answer.certificates += answer.certificates
            answers.amend(ledgerKey, known.answer)
        } else {
            answers.remember(ledgerKey, .init(digest: envelope.requestDigest, at: time, answer: answer))
        }
    }

    /// Minimum retention of a certificate after its expiry. Until then its device can renew it.
    static let keptSecondsAfterExpiry: Int64 = 90 * 24 * 3600

    /// Searches once the store has grown by a quarter, so that the search is rare.
    private mutating func evictEnded(_ time: Timestamp) {
        guard store.count > max(10_000, countAfterEviction + countAfterEviction / 4) else { return }
        let now = time.wholeSeconds
        for index in Array(store.indexes) where now - store[index].notAfter > Self.keptSecondsAfterExpiry {
            store.remove(index)
            for key in pendingCuts.keys { pendingCuts[key]?[index] = nil }
        }
        for key in pendingCuts.keys { endUncutError(key) }
        countAfterEviction = store.count
    }
}

/// What is known about a certificate.
public struct DeviceCertificate: Sendable, Equatable {
    public let reference: CertificateReference
    public let tenantID: String
    public let deviceID: String
    public let status: CertificateStatus
    /// Of a revoked one.
    public let reason: RevocationReason?
    public let isImported: Bool
    public let notBefore: Timestamp
    public let notAfter: Timestamp
    public let spkiSHA256: Digest
    /// Of the event that added it, which has its DER.
    public let position: Position
    /// Of the last change of its status.
    public let changedAt: Timestamp
    public let renews: CertificateReference?
    public let replacedBy: CertificateReference?
    /// The open renewal in which this is the certificate to renew, or the one that was issued; nil: none.
    public let renewal: Renewal?
}

// MARK: Lists

/// Which certificates a list has.
public struct CertificateFilter: Sendable, Equatable {
    public var deviceID: String?
    /// The beginning of a device id.
    public var search: String?
    public var status: CertificateStatus?
    public var authority: String?
    /// Those that expire after `now` and until this time.
    public var expiringUntil: Timestamp?
    /// Those that have expired; nil: whether or not.
    public var isExpired: Bool?
    /// Those with an open renewal.
    public var isRenewing = false

    public init() {}
}

extension CertificateRegistry {
    /// Certificates of a tenant in a fixed order, which is not that of time.
    /// - Parameters:
    ///   - after: `next` of the page before; nil: the first page.
    ///   - limit: of the page.
    public func certificates(
        tenantID: String, _ filter: CertificateFilter, now: Timestamp, after: UInt32?, limit: Int
    ) -> (certificates: [DeviceCertificate], next: UInt32?) {
        let seconds = now.wholeSeconds, until = filter.expiringUntil?.wholeSeconds
        let prefix = Array((filter.search ?? "").utf8)
        let authority = filter.authority.map { authorityIndexes[$0] ?? .max }
        var found: [DeviceCertificate] = [], last: UInt32?
        func matches(_ index: CertificateStore.Index) -> Bool {
            let record = store[index]
            return filter.status.map { record.status == $0 } ?? true
                && authority.map { record.authority == $0 } ?? true
                && until.map { seconds <= record.notAfter && record.notAfter <= $0 } ?? true
                && filter.isExpired.map { (record.notAfter < seconds) == $0 } ?? true
                && store.isOfDevice(index, beginningWith: prefix)
                && store.tenantID(of: index) == tenantID && (!filter.isRenewing || renewal(of: index) != nil)
        }
        func add(_ index: CertificateStore.Index) -> Bool {
            if found.count == limit { return false }
            found.append(certificate(at: index))
            last = index
            return true
        }
        if let device = filter.deviceID {
            for index in store.certificates(tenantID: tenantID, deviceID: device).sorted() {
                guard after.map({ index > $0 }) ?? true, matches(index) else { continue }
                guard add(index) else { return (found, last) }
            }
            return (found, nil)
        }
        for index in store.indexes(after: after) where matches(index) {
            guard add(index) else { return (found, last) }
        }
        return (found, nil)
    }
}
