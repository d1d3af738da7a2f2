import Certificates
import Decisions
import EventModel
import Issuing
import PKI
import Primitives

extension CertificateWorld {
    private static let tenants = ["t1", "t2"]
    private static let authoritiesMax = 4

    /// One command of an operator, also one that is refused.
    func operate() throws {
        if random.chance(0.1), let request = lastRequest.take() {
            // The answer was lost: the client asks again.
            _ = try execute(request)
            return
        }
        let names = recount.authorities.keys.sorted(), tenant = random.pick(Self.tenants)
        guard !names.isEmpty else { return try addAuthority(replacing: nil) }
        let known = recount.certificates.isEmpty ? nil : random.pick(recount.certificates).reference
        var request = RegistryRequest(
            tenantID: random.chance(0.3) ? Envelope.everyTenant : tenant, actor: "ann",
            command: .retireAuthority(random.pick(names)))
        switch random.below(100) {
        case ..<35:
            request.tenantID = tenant
            request.command = .add(certificates(names, tenant))
            if random.chance(0.3) {
                serials += 1
                request.idempotencyKey = "k\(serials)"
                request.digest = RegistryRequest.digest(request.command.name, [UInt8(serials & 0xFF)])
                lastRequest = request
            }
        case ..<42:
            if names.count < Self.authoritiesMax { try addAuthority(replacing: random.chance(0.5) ? names.last : nil) }
            return
        case ..<44: break
        case ..<50:
            request.tenantID = tenant
            request.command = .changeDevice("d\(random.below(5))", .init(random.pick([.hold, .release, revocation])))
        default:
            guard let known else { return }
            // Those of the tenant's only; others are not found.
            request.command = .change(
                known,
                .init(random.pick([revocation, revocation, .hold, .hold, .release, .release, .supersede(by: known)])))
        }
        _ = try execute(request)
    }

    private var revocation: CertificateChange.Kind {
        .revoke(random.pick([.keyCompromise, .unspecified, .cessationOfOperation]))
    }

    private func addAuthority(replacing replaced: String?) throws {
        let id = "ca\(recount.authorities.count)", now = log.now().wholeSeconds
        let key = try Self.key(&random)
        let profile = CertificateProfile(
            .authority(pathLength: nil), subject: try DistinguishedName(commonName: id), notBefore: now - 300,
            notAfter: now + random.pick([86_400, 400 * 86_400, 4_000 * 86_400]))
        let certificate = try CertificateIssuer.selfSigned(profile, signer: key, serial: serial())
        var event = AuthorityAdded(
            id: id, tenantID: random.pick(["t1", "t2", Envelope.everyTenant, Envelope.everyTenant]),
            subject: certificate.subjectText, certificate: Base64.encode(certificate.der),
            spkiSHA256: certificate.spkiSHA256.description, key: random.chance(0.9) ? .file : .none,
            notBefore: Timestamp(seconds: certificate.notBefore), notAfter: Timestamp(seconds: certificate.notAfter),
            actor: "")
        event.replaces = replaced
        issuers[id] = try CertificateIssuer(certificate: certificate, signer: key)
        _ = try execute(
            RegistryRequest(tenantID: Envelope.everyTenant, actor: "ann", command: .addAuthority(event)))
    }

    /// Certificates that are signed already. The registry reads no DER.
    private func certificates(_ authorities: [String], _ tenant: String) -> [CertificateAdded] {
        let origin: CertificateAdded.Origin = random.chance(0.8) ? .issued : .imported
        let authority = random.pick(authorities), now = log.now().wholeSeconds
        return (0..<(random.chance(0.8) ? 1 : 1 + random.below(4))).map { _ in
            let device = "d\(random.below(5))", serial = serial()
            let validity = random.pick([600, 3_600, 10_000, 86_400, 30 * 86_400] as [Int64])
            let key = SHA256.digest(Array("\(tenant) \(device) \(random.below(3))".utf8)).description
            var event = CertificateAdded(
                origin, authority: authority, serial: serial.description, tenantID: tenant, deviceID: device,
                commonName: "\(tenant)/\(device)", certificate: "", sha256: key, spkiSHA256: key, keyAlgorithm: "P-256",
                notBefore: Timestamp(seconds: now - 300),
                notAfter: min(
                    Timestamp(seconds: now + validity),
                    Timestamp(seconds: recount.authorities[authority]?.notAfter ?? .max)), actor: "")
            if random.chance(0.2) {
                event.renews = recount.certificates.last { $0.isLive }.map(\.reference.description)
            }
            return event
        }
    }
}
