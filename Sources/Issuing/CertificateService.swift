// Issuing: certificates, authorities and CRLs are signed here, and put on the record by the registry.
//
//     AuthorityKeys        private keys: files, or a command
//     CertificateService   what operators ask for: authorities created and imported, certificates issued, imported,
//                          renewed and revoked
//     SignedCRL            a CRL between its draft and its record: signed, checked
//     CRLService           CRLs: drafted by the registry, signed, checked, put on the record
//
// Invariants. A key is on disk before its authority is on the record, and a certificate or CRL is on the record before
// anyone receives it. No private key is in the log. A generated device key is in one answer and nowhere else.
import Certificates
import Deciding
import Decisions
import EventLog
import EventModel
import PKI
import Primitives
import Threading

/// The settings of issued certificates.
public struct IssuingOptions: Sendable {
    /// Pattern of common names; `{tenant}` and `{device}` are replaced.
    public var commonName = NamePattern("{tenant}/{device}")
    public var organization: String?
    /// Validity of a device's certificate.
    public var validitySeconds: Int64 = 90 * 24 * 3600
    /// So far `notBefore` lies in the past, for devices and brokers whose clocks are behind.
    public var backdateSeconds: Int64 = 300
    /// Where outsiders reach the API: the CRL's address in certificates is `{base}/crl/{authority}.crl`. Nil: none.
    public var crlBaseURL: String?
    /// The address ends with `.pem`, for EMQX: before 6.0.3, 6.1.2 and 6.2.1 it takes DER for an empty list, and
    /// refuses everyone. RFC 5280 (4.2.1.13) demands DER.
    public var crlPointIsPEM = false
    public var crl = CRLPolicy()

    public init() {}

    public func crlDistributionPoint(_ authority: String) -> String? {
        crlBaseURL.map { "\($0)/crl/\(authority).\(crlPointIsPEM ? "pem" : "crl")" }
    }
}

/// Who asks, and for which tenant.
public struct Operator: Sendable {
    public var actor: String
    /// Whose certificates and authorities; `Envelope.everyTenant`: any tenant's.
    public var tenantID: String
    public var idempotencyKey: String?
    /// The request as it was sent, where there is a key.
    public var sent: [UInt8]

    public init(actor: String, tenantID: String, idempotencyKey: String? = nil, sent: [UInt8] = []) {
        (self.actor, self.tenantID, self.idempotencyKey, self.sent) = (actor, tenantID, idempotencyKey, sent)
    }
}

/// What operators ask for. Keys are made and used on threads of their own: a sign command blocks.
public struct CertificateService: Sendable {
    let registry: DeciderService<CertificateRegistry>
    let source: any LogSource
    let keys: AuthorityKeys
    let options: IssuingOptions
    let clock: @Sendable () -> Timestamp
    private let wall: @Sendable () -> Timestamp

    /// - Parameters:
    ///   - clock: the log's.
    ///   - wall: the wall clock; nil: it is the log's.
    public init(
        registry: DeciderService<CertificateRegistry>, source: any LogSource, keys: AuthorityKeys,
        options: IssuingOptions, clock: @escaping @Sendable () -> Timestamp,
        wall: (@Sendable () -> Timestamp)? = nil
    ) {
        self.wall = wall ?? clock
        (self.registry, self.source, self.keys) = (registry, source, keys)
        (self.options, self.clock) = (options, clock)
    }

    /// `notBefore` of what is signed now: after a clock step the log's clock may be ahead, and verifiers refuse what
    /// begins in their future.
    var validFrom: Int64 {
        min(clock(), wall()).wholeSeconds.saturatingSubtracting(options.backdateSeconds)
    }

    func execute(_ command: RegistryCommand, _ by: Operator) async throws -> RegistryAnswer {
        try await registry.execute(request(command, by))
    }

    func request(_ command: RegistryCommand, _ by: Operator) -> RegistryRequest {
        RegistryRequest(
            tenantID: by.tenantID, actor: by.actor, idempotencyKey: by.idempotencyKey, sent: by.sent, command: command)
    }

    /// The answer that was given before under the idempotency key: nothing is signed a second time.
    func repeatedAnswer(to name: String, ofTenant tenantID: String, _ by: Operator) async throws -> RegistryAnswer? {
        guard let key = by.idempotencyKey else { return nil }
        let digest = RegistryRequest.digest(name, by.sent), now = clock()
        return try await registry.query { $0.repeatedAnswer(key: key, tenantID: tenantID, digest: digest, now: now) }
    }

    /// Revokes, holds, releases one certificate.
    /// - Throws: as `DeciderRuntime.execute`.
    public func change(
        _ reference: CertificateReference, _ change: CertificateChange, by: Operator
    ) async throws -> RegistryAnswer {
        try await execute(.change(reference, change), by)
    }

    /// The same for all certificates of a device to which the change applies.
    public func change(device: String, _ change: CertificateChange, by: Operator) async throws -> RegistryAnswer {
        try await execute(.changeDevice(device, change), by)
    }

    /// Asks a device for a certificate request now.
    /// - Throws: as `DeciderRuntime.execute`; here and below.
    public func renew(device: String, by: Operator) async throws -> RegistryAnswer {
        try await execute(.renewDevice(device), by)
    }

    /// The same for all devices with an active certificate of the authority, over time.
    public func renew(authority: String, by: Operator) async throws -> RegistryAnswer {
        try await execute(.renewAuthority(authority), by)
    }

    /// When a certificate is to be renewed; nil: not on the record, or its tenant is another.
    public func renewalWindow(
        _ reference: CertificateReference, tenantID: String
    ) async throws -> (start: Timestamp, end: Timestamp)? {
        guard try await certificate(reference, tenantID: tenantID) != nil else { return nil }
        let now = clock()
        return try await registry.query { $0.renewalWindow(reference, now: now) }
    }

    /// Nil: not on the record, or its tenant is another.
    public func certificate(
        _ reference: CertificateReference, tenantID: String
    ) async throws -> DeviceCertificate? {
        let found = try await registry.query { $0.certificate(reference) }
        return found.flatMap { tenantID == Envelope.everyTenant || $0.tenantID == tenantID ? $0 : nil }
    }

    /// In the order in which they were added.
    public func authorities() async throws -> [CertificateAuthority] { try await registry.query { $0.authorities } }

    /// How far CRLs have come at the brokers.
    public func enforcements() async throws -> [EnforcementStatus] {
        let now = clock()
        return try await registry.query { $0.enforcementStatuses(at: now) }
    }

    /// A page of a tenant's certificates, in a fixed order.
    /// - Parameter expiringWithinSeconds: only those that expire so soon.
    public func list(
        tenantID: String, _ filter: CertificateFilter, expiringWithinSeconds: Int64?, after: UInt32?, limit: Int
    ) async throws -> (certificates: [DeviceCertificate], next: UInt32?) {
        let now = clock()
        var filter = filter
        filter.expiringUntil = expiringWithinSeconds.map { Timestamp(seconds: now.wholeSeconds.saturatingAdding($0)) }
        return try await registry.query { [filter] in
            $0.certificates(tenantID: tenantID, filter, now: now, after: after, limit: limit)
        }
    }

    /// PEM of a certificate and the authorities above it, from the log; nil: the event lies in a segment that is gone.
    public func pem(of certificate: DeviceCertificate) async throws -> String? {
        let authority = certificate.reference.authority
        guard let added = try await registry.query({ $0.authority(authority)?.added }) else { return nil }
        return try await onOwnThread("certificate") {
            try event(of: certificate).map { PEMText.certificate(base64: $0.certificate) + added.pem }
        }
    }

    /// Common names of certificates, from the log; nil: the event lies in a segment that is gone.
    public func commonNames(of certificates: [DeviceCertificate]) async throws -> [Result<String?, any Error>] {
        try await onOwnThread("certificate") { certificates.map { item in Result { try event(of: item)?.commonName } } }
    }

    /// The event that added a certificate.
    func event(of certificate: DeviceCertificate) throws -> CertificateAdded? {
        guard let reader = try source.readerUnlessRemoved(from: certificate.position) else { return nil }
        let block = EventBlock()
        guard try reader.read(into: block, atLeast: 1) else { return nil }
        var found: CertificateAdded?
        try block.forEach { record, position in
            guard position == certificate.position else { return }
            found = try record.decoded(CertificateAdded.self)
        }
        return found
    }
}

extension LogSource {
    /// - Returns: nil: the segment of the position was removed, and cannot be had back.
    func readerUnlessRemoved(from position: Position) throws -> (any LogReader)? {
        do {
            return try reader(from: position)
        } catch let error as LogError where error.code == .beforeHorizon {
            return nil
        }
    }
}

extension AuthorityAdded {
    /// PEM of its certificate and those above it.
    public var pem: String {
        ([certificate] + (chain ?? [])).map(PEMText.certificate).joined()
    }
}
