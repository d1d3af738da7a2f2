import Certificates
import Decisions
import EventModel
import PKI
import Primitives
import Threading

import Glibc

/// A device's new certificate, as an operator describes it.
public struct NewCertificate: Sendable {
    public enum Key: Sendable {
        /// A certificate request, PEM or DER: the device keeps its key.
        case request([UInt8])
        /// A key is made here and handed out once, for benches and labs.
        case generated(KeyAlgorithm)
    }

    public var tenantID: String
    public var deviceID: String
    public var key: Key
    /// Nil: the tenant's newest.
    public var authority: String?
    public var validitySeconds: Int64?
    public var alternativeNames: [AlternativeName] = []
    /// The certificate that it is to replace.
    public var renews: CertificateReference?
    /// The open renewal that it answers, and the position of the device's request.
    var answers: (renewal: Position, request: Position)?

    public init(tenantID: String, deviceID: String, key: Key) {
        (self.tenantID, self.deviceID, self.key) = (tenantID, deviceID, key)
    }
}

/// A certificate that was issued.
public struct NewlyIssued: Sendable {
    public let reference: CertificateReference
    public let tenantID: String
    public let deviceID: String
    public let certificate: Certificate
    public let authority: AuthorityAdded
    public let renews: CertificateReference?
    /// PEM of the key that was generated for it.
    public let privateKey: [UInt8]?

    /// PEM, with the authorities above it.
    public var pem: String { PEMText.certificate(base64: Base64.encode(certificate.der)) + authority.pem }
}

/// What came of `issue` and `enrol`.
public enum IssuingResult: Sendable {
    case issued(position: Position, [NewlyIssued])
    /// Issued before, under the same idempotency key. Generated keys are handed out once.
    case repeated(position: Position, [CertificateReference])
    case refused(position: Position, code: RegistryRefusal.Code, reason: String)
}

extension CertificateService {
    /// Issues certificates, all of them or none, in one commit.
    /// - Throws: `PKIError` (a request is malformed or weak, an authority's key is missing, …: nothing was issued);
    ///   else as `DeciderRuntime.execute`.
    public func issue(_ new: [NewCertificate], by: Operator) async throws -> IssuingResult {
        if let tenant = new.first?.tenantID,
            case .accepted(let position, _, let certificates, _)? = try await repeatedAnswer(
                to: "certificate.issue", ofTenant: tenant, by)
        {
            return .repeated(position: position, certificates)
        }
        guard new.count <= certificatesPerCommandMax else {
            throw PKIError(
                .invalid, "a command adds 1 to \(certificatesPerCommandMax) certificates, not \(new.count)")
        }
        let time = clock()
        let authorities = try await registry.query { registry in
            new.map { item in
                guard let named = item.authority else { return registry.issuer(forTenant: item.tenantID, at: time) }
                return registry.authority(named, for: item.tenantID)
            }
        }
        let now = time.wholeSeconds
        let issued = try await sign(new, authorities, now)
        let events = zip(new, issued).map { item, made in
            var event = CertificateAdded(
                .issued, made.reference.authority, item.tenantID, item.deviceID, made.certificate)
            event.renews = item.renews?.description
            event.renewal = item.answers.map { answers in
                CertificateAdded.Renewal(
                    id: answers.renewal.rawValue, request: answers.request.rawValue,
                    chain: [made.authority.certificate] + (made.authority.chain ?? []))
            }
            return event
        }
        switch try await execute(.add(events), by) {
        case .accepted(let position, _, let certificates, isRepeated: true):
            return .repeated(position: position, certificates)
        case .accepted(let position, _, _, _): return .issued(position: position, issued)
        case .rejected(let position, let code, let reason):
            return .refused(position: position, code: code, reason: reason)
        }
    }

    func canIssue(forTenant tenantID: String) async throws -> Bool {
        let now = clock()
        return try await registry.query { $0.issuer(forTenant: tenantID, at: now) != nil }
    }

    /// Threads that sign for one command: a thousand certificates take a fifth of a second of one core.
    private static let signersMax = min(4, max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN))))
    /// Fewer are not worth a thread.
    private static let signaturesPerThreadMin = 32

    /// On threads of their own: a sign command blocks, and a thousand RSA keys take minutes.
    /// - Throws: the error of the first certificate that cannot be made.
    private func sign(
        _ new: [NewCertificate], _ authorities: [CertificateAuthority?], _ now: Int64
    ) async throws -> [NewlyIssued] {
        // What is behind a sign command may take one at a time.
        let isParallel = authorities.allSatisfy { $0?.added.key == .file }
        let share = max(Self.signaturesPerThreadMin, isParallel ? new.count / Self.signersMax + 1 : new.count)
        return try await withThrowingTaskGroup(of: (Int, Result<[NewlyIssued], any Error>).self) { group in
            for first in stride(from: 0, to: new.count, by: share) {
                let items = Array(new[first..<min(first + share, new.count)])
                let theirs = Array(authorities[first..<min(first + share, new.count)])
                group.addTask {
                    (first, try await onOwnThread("issuing") { Result { try signNow(items, theirs, now) } })
                }
            }
            let parts = try await group.reduce(into: []) { $0.append($1) }.sorted { $0.0 < $1.0 }
            return try parts.flatMap { try $0.1.get() }
        }
    }

    private func signNow(
        _ new: [NewCertificate], _ authorities: [CertificateAuthority?], _ now: Int64
    ) throws(PKIError) -> [NewlyIssued] {
        var issuers: [String: CertificateIssuer] = [:], issued: [NewlyIssued] = []
        for (item, authority) in zip(new, authorities) {
            guard let authority else {
                throw PKIError(
                    .invalid,
                    item.authority.map { "there is no authority \($0)" }
                        ?? "no authority issues certificates of the tenant \(item.tenantID); create one with "
                        + "`refold ca init`"
                )
            }
            let issuer: CertificateIssuer
            if let known = issuers[authority.added.id] {
                issuer = known
            } else {
                issuer = try CertificateIssuer(
                    certificate: Certificate(authority.added), signer: keys.signer(for: authority.added))
                issuers[authority.added.id] = issuer
            }
            issued.append(try make(item, authority, issuer, now))
        }
        return issued
    }

    private func make(
        _ item: NewCertificate, _ authority: CertificateAuthority, _ issuer: CertificateIssuer, _ now: Int64
    ) throws(PKIError) -> NewlyIssued {
        let what = "device \(item.deviceID)"
        let publicKey: PublicKey, privateKey: PrivateKey?
        switch item.key {
        case .request(let bytes):
            let isPEM = bytes.starts(with: Array("-----".utf8))
            let request =
                try isPEM
                ? CertificateRequest(pem: bytes, what: "\(what): certificate request")
                : CertificateRequest(der: bytes, what: "\(what): certificate request")
            (publicKey, privateKey) = (request.publicKey, nil)
        case .generated(let algorithm):
            let key = try PrivateKey.generate(algorithm)
            (publicKey, privateKey) = (key.publicKey, key)
        }
        let commonName = options.commonName.name(tenantID: item.tenantID, deviceID: item.deviceID)
        var subject: [(DistinguishedName.Attribute, String)] = [(.commonName, commonName)]
        if let organization = options.organization { subject.insert((.organization, organization), at: 0) }
        // A certificate that outlives its authority could not be verified, and would be refused.
        let end = min(
            now.saturatingAdding(item.validitySeconds ?? options.validitySeconds), authority.added.notAfter.wholeSeconds
        )
        let profile = CertificateProfile(
            .tlsClient, subject: try DistinguishedName(subject),
            notBefore: max(validFrom, authority.added.notBefore.wholeSeconds),
            notAfter: end, alternativeNames: item.alternativeNames,
            crlDistributionPoint: options.crlDistributionPoint(authority.added.id))
        let certificate = try issuer.issue(profile, publicKey: publicKey, serial: .random())
        return NewlyIssued(
            reference: CertificateReference(authority: authority.added.id, serial: certificate.serial),
            tenantID: item.tenantID, deviceID: item.deviceID, certificate: certificate, authority: authority.added,
            renews: item.renews, privateKey: try privateKey?.pem())
    }

    /// Puts certificates on the record that were issued elsewhere, by authorities that are on the record.
    /// - Parameter pem: certificates with their devices; nil: the device that the common name says.
    /// - Throws: `PKIError`: a certificate is malformed, or its authority is not known; else as
    ///   `DeciderRuntime.execute`.
    public func importCertificates(
        _ foreign: [(pem: [UInt8], deviceID: String?)], tenantID: String, by: Operator
    ) async throws -> RegistryAnswer {
        if let answer = try await repeatedAnswer(to: "certificate.import", ofTenant: tenantID, by) { return answer }
        let authorities = try await registry.query { $0.authorities.map(\.added) }
            .filter { [tenantID, Envelope.everyTenant].contains($0.tenantID) }
        let known = try authorities.map { authority throws(PKIError) in (authority, try Certificate(authority)) }
        var events: [CertificateAdded] = []
        for item in foreign {
            for certificate in try Certificate.chain(pem: item.pem, what: "certificates to import") {
                guard let (authority, _) = known.first(where: { (try? certificate.verify(signedBy: $0.1)) != nil })
                else {
                    throw PKIError(
                        .untrusted,
                        "the certificate \(certificate.serial) of \(certificate.subjectText) was issued by "
                            + "\(certificate.issuerText), which is on record as no authority; import that one first")
                }
                guard !certificate.isCA else {
                    throw PKIError(
                        .invalid,
                        "the certificate \(certificate.serial) of \(certificate.subjectText) is an authority's, no "
                            + "device's")
                }
                let named = self.device(of: certificate, tenantID)
                // Of an authority of all tenants, a tenant may claim what is named for it, and nothing else.
                guard authority.tenantID == tenantID || named != nil && item.deviceID ?? named == named else {
                    throw PKIError(
                        .invalid,
                        "the authority \(authority.id) is every tenant's, and the subject \(certificate.subjectText) "
                            + "does not name this tenant's device by the pattern \(options.commonName.text)")
                }
                guard let device = item.deviceID ?? named else {
                    throw PKIError(
                        .invalid,
                        "the subject \(certificate.subjectText) of the certificate \(certificate.serial) does not "
                            + "follow the pattern \(options.commonName.text); say which device it is of")
                }
                events.append(CertificateAdded(.imported, authority.id, tenantID, device, certificate))
            }
        }
        return try await execute(.add(events), by)
    }

    /// The device that a common name says, by the pattern.
    private func device(of certificate: Certificate, _ tenantID: String) -> String? {
        guard let name = certificate.commonName else { return nil }
        return options.commonName.device(named: name, ofTenant: tenantID)
    }
}

extension CertificateAdded {
    init(_ origin: Origin, _ authority: String, _ tenantID: String, _ deviceID: String, _ certificate: Certificate) {
        self.init(
            origin, authority: authority, serial: certificate.serial.description, tenantID: tenantID,
            deviceID: deviceID, commonName: certificate.commonName ?? "", certificate: Base64.encode(certificate.der),
            sha256: certificate.sha256.description, spkiSHA256: certificate.spkiSHA256.description,
            keyAlgorithm: certificate.publicKey.description, notBefore: Timestamp(seconds: certificate.notBefore),
            notAfter: Timestamp(seconds: certificate.notAfter), actor: "")
    }
}
