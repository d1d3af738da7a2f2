import Certificates
import Decisions
import Decoding
import EventModel
import PKI

/// What is on record of one certificate that was issued here, and of its renewal.
struct RenewalHistory {
    let tenantID: String
    let deviceID: String
    let serial: SerialNumber
    let notBefore: Timestamp
    let notAfter: Timestamp
    let addedAt: Timestamp
    /// The device was asked for the first time, and by whom.
    var asked: (at: Timestamp, actor: String)?
    /// The new certificate.
    var issued: (at: Timestamp, notBefore: Timestamp, notAfter: Timestamp)?
    /// The device's report.
    var installedAt: Timestamp?
    /// The renewal ended without one.
    var failedAt: Timestamp?
    /// It was revoked or held, or replaced outside of a renewal: it was not to be renewed any more.
    var withdrawnAt: Timestamp?
}

/// Of all certificates, folded from the log. Imported ones are renewed at an operator's command only: they are left
/// out.
struct RenewalHistories {
    private let decoder = FactDecoder()
    private(set) var certificates: [String: RenewalHistory] = [:]
    /// The settings in force at the end of the history; nil: none are on record.
    private(set) var policy: RenewalPolicy?
    /// Of each device.
    private var newest: [String: String] = [:]
    /// Authorities whose certificates an operator had renewed.
    private var renewedAuthorities: Set<String> = []

    mutating func apply(_ record: RecordView) {
        guard record.kind == .decision else { return }
        let at = record.receivedAt
        switch decoder.decodeInternal(record).decision {
        case let event as RenewalPolicySet: policy = event.policy
        case let event as AuthorityRenewal: renewedAuthorities.insert(event.authority)
        case let event as CertificateAdded: add(event, at)
        case let event as CertificateChanged:
            let reference = "\(event.authority)/\(event.serial)"
            switch event.change {
            case .revoked, .held:
                update(reference) { $0.withdrawnAt = $0.withdrawnAt ?? at }
            case .superseded where certificates[reference]?.asked == nil:
                update(reference) { $0.withdrawnAt = $0.withdrawnAt ?? at }
            case .superseded: break
            case .released: certificates[reference]?.withdrawnAt = nil
            }
        case let event as CertificateRenewal: apply(event, at)
        default: break
        }
    }

    private mutating func update(_ reference: String, _ body: (inout RenewalHistory) -> Void) {
        guard var history = certificates[reference] else { return }
        body(&history)
        certificates[reference] = history
    }

    private mutating func add(_ event: CertificateAdded, _ at: Timestamp) {
        if let renewed = event.renews, event.renewal != nil {
            certificates[renewed]?.issued = (at, event.notBefore, event.notAfter)
        }
        let reference = "\(event.authority)/\(event.serial)"
        let before = newest.updateValue(reference, forKey: "\(event.tenantID)/\(event.deviceID)")
        if let before, certificates[before]?.asked == nil { update(before) { $0.withdrawnAt = $0.withdrawnAt ?? at } }
        guard event.origin == .issued, let serial = SerialNumber(event.serial) else { return }
        certificates[reference] = RenewalHistory(
            tenantID: event.tenantID, deviceID: event.deviceID, serial: serial, notBefore: event.notBefore,
            notAfter: event.notAfter, addedAt: at)
    }

    private mutating func apply(_ event: CertificateRenewal, _ at: Timestamp) {
        let reference = "\(event.authority)/\(event.serial)"
        switch event.step {
        case .requested where event.renewal == nil:
            // The engine opens those of an authority one after the other: an operator asked for them.
            let actor = renewedAuthorities.contains(event.authority) ? "operator" : event.actor
            update(reference) { $0.asked = $0.asked ?? (at, actor) }
        case .installed: certificates[reference]?.installedAt = at
        case .failed: certificates[reference]?.failedAt = at
        case .requested, .delivered, .refused, .resent: break
        }
    }
}
