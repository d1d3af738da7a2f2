import Certificates
import EventModel
import Synchronization
@testable import ControlAPI
@testable import Issuing

/// Certificates and CRLs without a log and without keys: answers as a test sets them.
final class CertificateStandIn: CertificateKeeping, CRLKeeping, CertificateAuditing {
    struct Facts {
        var registry = CertificateRegistry()
        var answer = RegistryAnswer.accepted(
            position: Position(41), authority: "ca", certificates: [], isRepeated: false)
        var error: (any Error)?
        /// Those who asked for a change.
        var operators: [Operator] = []
    }
    let facts = Mutex(Facts())

    func set(_ change: (inout Facts) -> Void) { facts.withLock { change(&$0) } }

    private func answer(_ by: Operator) throws -> RegistryAnswer {
        let (answer, error) = facts.withLock { facts in
            facts.operators.append(by)
            return (facts.answer, facts.error)
        }
        if let error { throw error }
        return answer
    }

    func authorities() async throws -> [CertificateAuthority] { facts.withLock { $0.registry.authorities } }
    func enforcements() async throws -> [EnforcementStatus] {
        facts.withLock { $0.registry.enforcementStatuses(at: CertificateSite.now) }
    }
    func report() async throws -> CertificateAudit.Report { CertificateAudit.Report(at: Timestamp(seconds: 0)) }
    func report(about reference: CertificateReference, tenantID: String) async throws -> CertificateAudit.Report? {
        nil
    }
    func create(_ new: NewAuthority, by: Operator) async throws -> RegistryAnswer { try answer(by) }
    func take(_ foreign: ForeignAuthority, by: Operator) async throws -> RegistryAnswer { try answer(by) }
    func retire(_ id: String, by: Operator) async throws -> RegistryAnswer { try answer(by) }
    func issue(_ new: [NewCertificate], by: Operator) async throws -> IssuingResult {
        switch try answer(by) {
        case .accepted(let position, _, let certificates, _): .repeated(position: position, certificates)
        case .rejected(let position, let code, let reason): .refused(position: position, code: code, reason: reason)
        }
    }
    func importCertificates(
        _ foreign: [(pem: [UInt8], deviceID: String?)], tenantID: String, by: Operator
    ) async throws -> RegistryAnswer { try answer(by) }
    func change(
        _ reference: CertificateReference, _ change: CertificateChange, by: Operator
    ) async throws -> RegistryAnswer { try answer(by) }
    func change(device: String, _ change: CertificateChange, by: Operator) async throws -> RegistryAnswer {
        try answer(by)
    }
    func renew(device: String, by: Operator) async throws -> RegistryAnswer { try answer(by) }
    func renew(authority: String, by: Operator) async throws -> RegistryAnswer { try answer(by) }
    func renewalWindow(
        _ reference: CertificateReference, tenantID: String
    ) async throws -> (start: Timestamp, end: Timestamp)? {
        facts.withLock { $0.registry.renewalWindow(reference, now: Timestamp(seconds: 0)) }
    }
    func certificate(_ reference: CertificateReference, tenantID: String) async throws -> DeviceCertificate? {
        facts.withLock { $0.registry.certificate(reference) }
    }
    func list(
        tenantID: String, _ filter: CertificateFilter, expiringWithinSeconds: Int64?, after: UInt32?, limit: Int
    ) async throws -> (certificates: [DeviceCertificate], next: UInt32?) { ([], nil) }
    func pem(of certificate: DeviceCertificate) async throws -> String? { nil }

    func current(_ authority: String) async throws -> PublishedCRL? { nil }
    func issue(_ authority: String) async throws(CRLFailure) -> PublishedCRL {
        throw CRLFailure(
            authority: authority, thisUpdate: nil, nextUpdate: Timestamp(seconds: 0), reason: "there is no key")
    }
}
