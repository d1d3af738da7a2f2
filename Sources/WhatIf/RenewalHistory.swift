import Certificates
import Decisions
import Decoding
import EventModel
import PKI

/// The recorded history of one certificate issued here.
struct RenewalHistory {
    let authority: String
    let tenantID: String
    let deviceID: String
    let serial: SerialNumber
    let notBefore: Timestamp
    let notAfter: Timestamp
    let addedAt: Timestamp
    /// `authority/serial` of the certificate that it renews.
    let renews: String?
    /// An operator ordered the renewal of all certificates of the authority.
    var isOrdered = false
    /// First renewal request: time and actor.
    var requested: (at: Timestamp, actor: String)?
    /// The new certificate.
    var issued: (at: Timestamp, notBefore: Timestamp, notAfter: Timestamp)?
    /// The device's report.
    var installedAt: Timestamp?
    /// The renewal ended because the report did not come in time.
    var endedWithoutReport = false
    /// After the new certificate was issued, one of the two was revoked or held: this ends a renewal.
    var revokedAt: Timestamp?
    /// Revoked, held, or replaced outside a renewal: the schedule no longer applies.
    var withdrawnAt: Timestamp?
}

/// Histories of all certificates, folded from the log. Imported ones are only counted: they are renewed at an
/// operator's command.
struct RenewalHistories {
    private let decoder = FactDecoder()
    private(set) var certificates: [String: RenewalHistory] = [:]
    private(set) var imported = 0
    /// The settings in force at the end of the history; nil: none are on record.
    private(set) var policy: RenewalPolicy?
    /// Changes of the settings since the first certificate.
    private(set) var policyChanges = 0
    private(set) var wasEnabled = false
    /// Newest certificate by `tenant/device`.
    private var newest: [String: String] = [:]

    mutating func apply(_ record: RecordView) {
        guard record.kind == .decision else { return }
        let at = record.receivedAt
        switch decoder.decodeInternal(record).decision {
        case let event as RenewalPolicySet: set(event.policy.withinLimits)
        case let event as AuthorityRenewal: order(event)
        case let event as CertificateAdded: add(event, at)
        case let event as CertificateChanged:
            let reference = "\(event.authority)/\(event.serial)"
            switch event.change {
            case .revoked, .held:
                update(reference) { $0.withdrawnAt = $0.withdrawnAt ?? at }
                for renewed in [reference, certificates[reference]?.renews].compactMap({ $0 })
                where certificates[renewed]?.issued != nil {
                    update(renewed) { $0.revokedAt = $0.revokedAt ?? at }
                }
            case .superseded where certificates[reference]?.requested == nil:
                update(reference) { $0.withdrawnAt = $0.withdrawnAt ?? at }
            case .superseded: break
            case .released where newest["\(event.tenantID)/\(event.deviceID)"] == reference:
                certificates[reference]?.withdrawnAt = nil
            case .released: break
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

    private mutating func set(_ policy: RenewalPolicy) {
        if policy != self.policy, !certificates.isEmpty { policyChanges += 1 }
        self.policy = policy
        wasEnabled = wasEnabled || policy.isEnabled
    }

    private mutating func order(_ event: AuthorityRenewal) {
        for (reference, history) in certificates
        where history.authority == event.authority && history.requested == nil && history.withdrawnAt == nil
            && [history.tenantID, Envelope.everyTenant].contains(event.tenantID)
        {
            certificates[reference]?.isOrdered = true
        }
    }

    private mutating func add(_ event: CertificateAdded, _ at: Timestamp) {
        let renews = event.renewal == nil ? nil : event.renews
        if let renews { certificates[renews]?.issued = (at, event.notBefore, event.notAfter) }
        let reference = "\(event.authority)/\(event.serial)"
        let before = newest.updateValue(reference, forKey: "\(event.tenantID)/\(event.deviceID)")
        if let before, certificates[before]?.requested == nil {
            update(before) { $0.withdrawnAt = $0.withdrawnAt ?? at }
        }
        guard event.origin == .issued else { return imported += 1 }
        guard let serial = SerialNumber(event.serial) else { return }
        certificates[reference] = RenewalHistory(
            authority: event.authority, tenantID: event.tenantID, deviceID: event.deviceID, serial: serial,
            notBefore: event.notBefore, notAfter: event.notAfter, addedAt: at, renews: renews)
    }

    private mutating func apply(_ event: CertificateRenewal, _ at: Timestamp) {
        let reference = "\(event.authority)/\(event.serial)"
        switch event.step {
        case .requested where event.renewal == nil:
            update(reference) { history in
                // The engine requests the renewals that an operator ordered, one after the other.
                let actor = history.isOrdered ? "operator" : event.actor
                history.requested = history.requested ?? (at, actor)
            }
        case .installed: certificates[reference]?.installedAt = at
        case .failed:
            update(reference) { $0.endedWithoutReport = $0.issued != nil && $0.revokedAt == nil }
        case .requested, .delivered, .refused, .resent: break
        }
    }
}
