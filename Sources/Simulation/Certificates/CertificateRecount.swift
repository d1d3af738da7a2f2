import Certificates
import Decisions
import EventModel
import PKI

/// The rules about CRLs, folded from the record in the simplest way: what the registry must agree with.
struct CertificateRecount {
    struct Known {
        let reference: CertificateReference
        /// `tenant/device`.
        let device: String
        let notBefore: Int64
        let notAfter: Int64
        var isLive = true
        /// Of the last change of `isLive`.
        var changed: Position
        /// It was on a CRL that was issued after its expiry, and is on none any more.
        var isDropped = false
    }

    struct Authority {
        let addedAt: Int64
        let notAfter: Int64
        let issuesCRLs: Bool
        /// What the next CRL lists.
        var entries: [SerialNumber: RevokedEntry] = [:]
        var notAfters: [SerialNumber: Int64] = [:]
        /// Number and end of each CRL.
        var ends: [UInt64: UInt64] = [:]
        var last: (number: UInt64, thisUpdate: Int64, sha256: String)?
    }

    struct Key: Hashable {
        let broker: String
        let authority: String
    }

    private(set) var certificates: [Known] = []
    private var indexes: [CertificateReference: Int] = [:]
    private(set) var authorities: [String: Authority] = [:]
    /// The CRL that was last proved, where nothing failed since.
    private(set) var proved: [Key: UInt64] = [:]
    /// Certificates whose clients are on record as banned, by broker.
    private(set) var banned: [String: Set<Int>] = [:]
    /// Revoked or held certificates whose bans are on record as lifted, by broker.
    private(set) var lifted: [String: Set<Int>] = [:]
    /// Position of the last certificate that was issued under each idempotency key.
    private var keys: [String: UInt64] = [:]
    private(set) var dropped = 0

    /// - Parameter signed: a CRL that was signed, by its SHA-256.
    /// - Returns: what is wrong with the event; nil: nothing.
    mutating func apply(
        _ event: RegistryEvent, at position: Position, time: Timestamp, signed: (String) -> RevocationList?
    ) -> String? {
        switch event {
        case .authorityAdded(let event):
            authorities[event.id] = Authority(
                addedAt: time.wholeSeconds, notAfter: event.notAfter.wholeSeconds, issuesCRLs: event.key != .none)
        case .added(let event):
            if let key = event.idempotencyKey,
                let before = keys.updateValue(position.rawValue, forKey: "\(event.tenantID) \(key)"),
                before + 1 != position.rawValue
            {
                return "certificates were issued twice under the idempotency key \(key)"
            }
            guard let serial = SerialNumber(event.serial) else { return "serial number \(event.serial)" }
            let reference = CertificateReference(authority: event.authority, serial: serial)
            indexes[reference] = certificates.count
            certificates.append(
                Known(
                    reference: reference, device: "\(event.tenantID)/\(event.deviceID)",
                    notBefore: event.notBefore.wholeSeconds,
                    notAfter: event.notAfter.wholeSeconds, changed: position))
        case .changed(let event):
            guard event.change != .superseded else { return nil }
            guard let serial = SerialNumber(event.serial), let index = index(event.authority, event.serial) else {
                return "the certificate \(event.authority)/\(event.serial) was changed and never added"
            }
            certificates[index].isLive = event.change == .released
            if event.change == .released { for broker in banned.keys { banned[broker]?.remove(index) } }
            for broker in lifted.keys { lifted[broker]?.remove(index) }
            certificates[index].changed = position
            certificates[index].isDropped = false
            let reason: RevocationReason =
                event.change == .held ? .certificateHold : event.reason.flatMap { .init(rawValue: $0) } ?? .unspecified
            let entry = RevokedEntry(serial: serial, time: time.wholeSeconds, reason: reason)
            authorities[event.authority]?.entries[serial] = event.change == .released ? nil : entry
            authorities[event.authority]?.notAfters[serial] = certificates[index].notAfter
        case .crlIssued(let event): return issued(event, signed(event.sha256))
        case .crlRefused(let event): return "a CRL was refused: \(event.reason)"
        case .crlEnforced(let event):
            let key = Key(broker: event.broker, authority: event.authority)
            switch event.step {
            case .proved: proved[key] = event.number
            case .unproved: proved[key] = nil
            case .written, .reloaded, .uncut: break
            }
        case .clientCut(let event):
            if event.isBanned == true, event.outcome != .stillConnected,
                let index = index(event.authority, event.serial)
            {
                banned[event.broker, default: []].insert(index)
            }
        case .clientBanLifted(let event):
            guard let index = index(event.authority, event.serial) else { return nil }
            banned[event.broker]?.remove(index)
            if !certificates[index].isLive { lifted[event.broker, default: []].insert(index) }
        // Nothing else changes a CRL, or what is accepted.
        default: break
        }
        return nil
    }

    private func index(_ authority: String, _ serial: String) -> Int? {
        SerialNumber(serial).flatMap { indexes[CertificateReference(authority: authority, serial: $0)] }
    }

    private mutating func issued(_ event: CRLIssued, _ list: RevocationList?) -> String? {
        guard var authority = authorities[event.authority] else { return "a CRL of no authority" }
        if let last = authority.last {
            guard event.number > last.number else {
                return "CRL \(event.number) of \(event.authority) follows CRL \(last.number)"
            }
            guard event.thisUpdate.wholeSeconds > last.thisUpdate else {
                return "CRL \(event.number) of \(event.authority) has the time of CRL \(last.number), or an earlier"
            }
            for (serial, notAfter) in authority.notAfters where notAfter < last.thisUpdate {
                guard authority.entries.removeValue(forKey: serial) != nil else { continue }
                dropped += 1
                if let index = indexes[.init(authority: event.authority, serial: serial)] {
                    certificates[index].isDropped = true
                }
            }
        }
        if let canary = event.canary, let serial = SerialNumber(canary.serial) {
            authority.entries[serial] = RevokedEntry(
                serial: serial, time: event.thisUpdate.wholeSeconds, reason: .superseded)
            authority.notAfters[serial] = canary.notAfter.wholeSeconds
        }
        guard let list else { return "CRL \(event.number) was never signed" }
        authority.ends[event.number] = event.end
        authority.last = (event.number, event.thisUpdate.wholeSeconds, event.sha256)
        authorities[event.authority] = authority
        return Self.difference(list, authority.entries)
    }

    private static func difference(_ list: RevocationList, _ entries: [SerialNumber: RevokedEntry]) -> String? {
        let number = list.number.map(String.init) ?? "?"
        var listed = 0
        for entry in list.entries {
            listed += 1
            guard let known = entries[entry.serial] else {
                return "CRL \(number) lists \(entry.serial), which no event revokes or which is long expired"
            }
            guard known == entry else { return "CRL \(number) lists \(entry), but recorded was \(known)" }
        }
        guard listed == entries.count else {
            let lost = entries.keys.sorted().first { list.entries[$0] == nil }
            return "CRL \(number) lost the entry of \(lost?.description ?? "?")"
        }
        return nil
    }
}
