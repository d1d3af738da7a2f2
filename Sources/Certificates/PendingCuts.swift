import Decisions
import EventModel
import FoundationEssentials
import PKI
import Primitives

/// A revoked or held certificate whose client may still be connected at a broker, or is banned there.
struct PendingCut: Sendable, Equatable {
    /// A CRL with this `end`, or a higher one, lists the certificate.
    var end: UInt64
    /// Disconnected, and kept out by a ban until the CRL is proved.
    var isBanned = false
    var isStillConnected = false
    /// Released from hold: only a ban remains to be lifted.
    var isReleased = false

    /// Its client may be connected.
    var isUncut: Bool { !isBanned && !isReleased }
}

/// A certificate whose client is to be disconnected, or whose ban is to be lifted.
public struct ClientToCut: Sendable, Equatable {
    public let certificate: DeviceCertificate
    /// A CRL with this `end`, or a higher one, lists the certificate.
    public let end: UInt64
    /// `client.cut` with the outcome `still_connected` is already in the log.
    public let isStillConnected: Bool
}

// The cuts of each broker follow from the log: a revocation or a hold adds one at every broker that has CRLs of the
// authority, and only its outcome, or a release, removes it. So none is lost by a restart.

/// How far an authority's CRLs have come at a broker, and what is left to do there.
public struct EnforcementStatus: Sendable, Equatable {
    public let key: EnforcementKey
    public let state: EnforcementState
    public let enforcement: Enforcement
    /// Revoked certificates whose clients may be connected.
    public let uncut: Int
    /// Clients that are banned until the CRL is proved.
    public let banned: Int

    /// Why the newest CRL is not proved, else why clients are not disconnected or bans not lifted; nil: nothing is
    /// wrong.
    public var error: String? { enforcement.error ?? enforcement.uncutError }
}

extension CertificateRegistry {
    /// By broker and authority.
    public func enforcementStatuses(at now: Timestamp) -> [EnforcementStatus] {
        // The same at each broker, and a scan of all certificates.
        var abandoned: [String: Bool] = [:]
        return enforcements.sorted { $0.key < $1.key }.map { key, enforcement in
            let state = state(of: enforcement, key) {
                let known = abandoned[key.authority] ?? isAbandoned(key.authority, at: now)
                abandoned[key.authority] = known
                return known
            }
            return EnforcementStatus(
                key: key, state: state, enforcement: enforcement, uncut: uncutCount(key),
                banned: pendingCuts[key]?.values.count(where: \.isBanned) ?? 0)
        }
    }

    private func state(
        of enforcement: Enforcement, _ key: EnforcementKey, isAbandoned: () -> Bool
    ) -> EnforcementState {
        guard enforcement.error == nil else { return .unproved }
        switch authority(key.authority)?.lastCRL?.number {
        case nil: return .pending
        case enforcement.proved: return .proved
        case _ where isAbandoned(): return .unused
        case enforcement.reloaded: return .reloaded
        case enforcement.written: return .written
        default: return .pending
        }
    }

    /// Number of revoked certificates whose clients may be connected at the broker.
    func uncutCount(_ key: EnforcementKey) -> Int { pendingCuts[key]?.values.count(where: \.isUncut) ?? 0 }

    /// Revoked certificates that a CRL with this `end` lists and whose clients may be connected, the oldest first.
    public func clientsToCut(_ key: EnforcementKey, end: UInt64) -> [ClientToCut] {
        clients(key) { $1.isUncut && $1.end <= end }
    }

    /// Certificates whose bans are to be lifted: a CRL with this `end` is in force, the authority has expired, or they
    /// were released from hold. A ban is by the device's names: it stays while it is needed for another certificate of
    /// the device, of any authority.
    /// - Parameter ends: `end` of the CRLs that are in force at the broker, by authority.
    public func bansToLift(_ key: EnforcementKey, ends: [String: UInt64], at now: Timestamp) -> [ClientToCut] {
        func mayBeLifted(_ cut: PendingCut, _ authority: CertificateAuthority) -> Bool {
            cut.isReleased
                || cut.isBanned && (cut.end <= ends[authority.added.id] ?? 0 || authority.added.notAfter < now)
        }
        guard let authority = authority(key.authority) else { return [] }
        let liftable = clients(key) { mayBeLifted($1, authority) }
        guard !liftable.isEmpty else { return [] }
        // Refold bans no client before the first proof, and brokers accept no client of an expired authority.
        let others = pendingCuts.compactMap {
            other, cuts -> (authority: CertificateAuthority, cuts: [CertificateStore.Index: PendingCut])? in
            guard other.broker == key.broker, enforcements[other]?.proved ?? 0 > 0,
                let authority = self.authority(other.authority), now <= authority.added.notAfter
            else { return nil }
            return (authority, cuts)
        }
        return liftable.filter { client in
            let certificate = client.certificate
            return !store.certificates(tenantID: certificate.tenantID, deviceID: certificate.deviceID).contains {
                index in
                others.contains { other in other.cuts[index].map { !mayBeLifted($0, other.authority) } ?? false }
            }
        }
    }

    private func clients(
        _ key: EnforcementKey, where isMeant: (CertificateStore.Index, PendingCut) -> Bool
    ) -> [ClientToCut] {
        (pendingCuts[key] ?? [:]).filter { isMeant($0.key, $0.value) }.sorted {
            ($0.value.end, $0.key) < ($1.value.end, $1.key)
        }
        .map {
            ClientToCut(
                certificate: certificate(at: $0.key), end: $0.value.end,
                isStillConnected: $0.value.isStillConnected)
        }
    }

    // MARK: Fold

    /// A certificate was revoked, held or released.
    mutating func noteCut(
        _ index: CertificateStore.Index, _ event: CertificateChanged, wasLive: Bool, at position: Position
    ) {
        for (key, enforcement) in enforcements where key.authority == event.authority {
            switch event.change {
            case .superseded: break
            case .held, .revoked:
                if wasLive { pendingCuts[key, default: [:]][index] = PendingCut(end: position.rawValue + 1) }
            case .released:
                // The broker may have a ban that a crash kept out of the log.
                if enforcement.bans == true {
                    pendingCuts[key]?[index]?.isReleased = true
                } else {
                    pendingCuts[key]?[index] = nil
                }
                endUncutError(key)
            }
        }
    }

    /// Ends `uncutError` where no client is left that may be connected. A ban that still cannot be lifted is reported
    /// again.
    mutating func endUncutError(_ key: EnforcementKey) {
        guard enforcements[key]?.uncutError != nil else { return }
        if pendingCuts[key]?.values.contains(where: \.isUncut) != true { enforcements[key]?.endUncutError() }
    }

    /// The first CRL of an authority at a broker: every certificate that was revoked before may be in use there.
    mutating func beginCuts(_ key: EnforcementKey) {
        guard let authority = authority(key.authority) else { return }
        var cuts: [CertificateStore.Index: PendingCut] = [:]
        for entry in authority.entries {
            guard let index = find(CertificateReference(authority: key.authority, serial: entry.serial)) else {
                continue
            }
            cuts[index] = PendingCut(end: authority.entriesEnd.rawValue)
        }
        pendingCuts[key] = cuts
    }

    mutating func apply(_ event: ClientCut) {
        let key = EnforcementKey(broker: event.broker, authority: event.authority)
        guard let index = pendingIndex(key, event.serial) else { return }
        switch event.outcome {
        case .stillConnected: pendingCuts[key]?[index]?.isStillConnected = true
        case .cut, .wasNotConnected:
            if event.isBanned == true {
                pendingCuts[key]?[index]?.isBanned = true
                pendingCuts[key]?[index]?.isStillConnected = false
            } else {
                pendingCuts[key]?[index] = nil
            }
            endUncutError(key)
        }
    }

    mutating func apply(_ event: ClientBanLifted) {
        let key = EnforcementKey(broker: event.broker, authority: event.authority)
        guard let index = pendingIndex(key, event.serial) else { return }
        pendingCuts[key]?[index] = nil
        endUncutError(key)
    }

    private func pendingIndex(_ key: EnforcementKey, _ serial: String) -> CertificateStore.Index? {
        SerialNumber(serial).flatMap { find(CertificateReference(authority: key.authority, serial: $0)) }
            .flatMap { pendingCuts[key]?[$0] == nil ? nil : $0 }
    }

    // MARK: Rules

    /// The rule for `client.cut`: the certificate waits for it, and a CRL that lists it is proved, or it is banned.
    /// Those that do not wait any more, e.g. after a release, are left out.
    func cut(_ events: [ClientCut], _ request: RegistryRequest, _ now: Timestamp) throws(RegistryRefusal) -> [ClientCut]
    {
        var remaining: [EnforcementKey: Int] = [:], accepted: [ClientCut] = [], abandoned: [String: Bool] = [:]
        // No client of such an authority connects again where the broker does not trust it.
        func isAbandoned(_ authority: String) -> Bool {
            let known = abandoned[authority] ?? self.isAbandoned(authority, at: now)
            abandoned[authority] = known
            return known
        }
        for var event in events {
            let key = EnforcementKey(broker: event.broker, authority: event.authority)
            guard let index = pendingIndex(key, event.serial), let cut = pendingCuts[key]?[index], cut.isUncut,
                event.outcome != .stillConnected || !cut.isStillConnected
            else { continue }
            if event.isBanned != true {
                let last = authority(event.authority)?.lastCRL
                guard event.number <= enforcements[key]?.proved ?? 0 || isAbandoned(event.authority),
                    last.map({ $0.number != event.number || cut.end <= $0.end }) ?? false
                else {
                    throw RegistryRefusal(
                        .illegalTransition,
                        "no CRL that lists \(event.authority)/\(event.serial) is proved at \(event.broker)"
                    )
                }
            }
            var left = remaining[key] ?? uncutCount(key)
            if event.outcome != .stillConnected { left -= 1 }
            remaining[key] = left
            event.remaining = Int64(left)
            event.milliseconds = max(
                0, now.microseconds.saturatingSubtracting(store[index].changedAt.microseconds) / 1_000)
            event.actor = request.actor
            accepted.append(event)
        }
        guard !accepted.isEmpty else {
            throw RegistryRefusal(.outdated, "no client of these certificates is left to disconnect")
        }
        return accepted
    }

    /// The rule for `client.ban_lifted`: a ban may be in force, and is needed no more.
    func lifted(_ events: [ClientBanLifted], _ request: RegistryRequest) throws(RegistryRefusal) -> [ClientBanLifted] {
        let accepted = events.filter { event in
            let key = EnforcementKey(broker: event.broker, authority: event.authority)
            return pendingIndex(key, event.serial).flatMap { pendingCuts[key]?[$0] }.map { !$0.isUncut } ?? false
        }
        guard !accepted.isEmpty else { throw RegistryRefusal(.outdated, "no client of these certificates is banned") }
        // A lifted ban does not change the number, so each key is counted once.
        var remaining: [EnforcementKey: Int] = [:]
        return accepted.map {
            var event = $0
            let key = EnforcementKey(broker: event.broker, authority: event.authority)
            let left = remaining[key] ?? uncutCount(key)
            remaining[key] = left
            event.remaining = Int64(left)
            event.actor = request.actor
            return event
        }
    }

    // MARK: In snapshots

    /// 13 bytes for each: number of the certificate in the snapshot, `end`, flags.
    func storedCuts(_ key: EnforcementKey, _ numbers: [CertificateStore.Index: UInt32]) -> Data {
        var out = ByteWriter()
        let cuts = (pendingCuts[key] ?? [:]).compactMap { index, cut in numbers[index].map { ($0, cut) } }
        for (number, cut) in cuts.sorted(by: { $0.0 < $1.0 }) {
            out.integer(number)
            out.integer(cut.end)
            out.integer(cut.flags)
        }
        return Data(out.out)
    }

    /// - Parameter indexes: of the certificates, by their number in the snapshot.
    mutating func restoreCuts(
        _ form: StoredHeader.StoredEnforcement, _ indexes: [CertificateStore.Index]
    ) throws(ByteReader.Truncated) {
        // A snapshot of before there were cuts.
        guard let stored = form.cuts else { return beginCuts(form.key) }
        var input = ByteReader(Array(stored))
        for _ in 0..<stored.count / 13 {
            let number = try input.integer(UInt32.self), end = try input.integer(UInt64.self)
            guard number < indexes.count else { throw .init() }
            pendingCuts[form.key, default: [:]][indexes[Int(number)]] = PendingCut(
                end: end, flags: try input.integer())
        }
        // Snapshots of older versions keep the error after the last cut.
        if enforcements[form.key]?.uncutNumber == nil { endUncutError(form.key) }
    }
}

extension PendingCut {
    /// In snapshots.
    fileprivate var flags: UInt8 { (isBanned ? 1 : 0) | (isStillConnected ? 2 : 0) | (isReleased ? 4 : 0) }

    fileprivate init(end: UInt64, flags: UInt8) {
        self.init(end: end, isBanned: flags & 1 != 0, isStillConnected: flags & 2 != 0, isReleased: flags & 4 != 0)
    }
}
