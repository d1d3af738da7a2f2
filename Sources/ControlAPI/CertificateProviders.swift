import Certificates
import EventModel
import Issuing

/// Passes operators' commands to the issuing service. A rejected command is an answer, not an error.
public protocol CertificateKeeping: Sendable {
    func authorities() async throws -> [CertificateAuthority]
    func enforcements() async throws -> [EnforcementKey: Enforcement]
    /// - Throws: `PKIError` when a key cannot be stored or a certificate not be made or read: nothing was decided.
    func create(_ new: NewAuthority, by: Operator) async throws -> RegistryAnswer
    func take(_ foreign: ForeignAuthority, by: Operator) async throws -> RegistryAnswer
    func retire(_ id: String, by: Operator) async throws -> RegistryAnswer
    func issue(_ new: [NewCertificate], by: Operator) async throws -> IssuingResult
    func importCertificates(
        _ foreign: [(pem: [UInt8], deviceID: String?)], tenantID: String, by: Operator
    ) async throws -> RegistryAnswer
    func change(
        _ reference: CertificateReference, _ change: CertificateChange, by: Operator
    ) async throws -> RegistryAnswer
    func change(device: String, _ change: CertificateChange, by: Operator) async throws -> RegistryAnswer
    func certificate(_ reference: CertificateReference, tenantID: String) async throws -> DeviceCertificate?
    func list(
        tenantID: String, _ filter: CertificateFilter, expiringWithinSeconds: Int64?, after: UInt32?, limit: Int
    ) async throws -> (certificates: [DeviceCertificate], next: UInt32?)
    func pem(of certificate: DeviceCertificate) async throws -> String?
}

extension CertificateService: CertificateKeeping {}

/// CRLs as they are on the record.
public protocol CRLKeeping: Sendable {
    func current(_ authority: String) async throws -> PublishedCRL?
    /// Issues the next one now.
    /// - Throws: `CRLFailure`.
    func issue(_ authority: String) async throws(CRLFailure) -> PublishedCRL
}

extension CRLService: CRLKeeping {}
