import Deciding
import Decisions
import EventModel
import PKI
import Primitives

/// Live certificates of one device: the present one, its renewal, and a few that were forgotten.
public let liveCertificatesPerDeviceMax = 16
/// Authorities of one tenant, and of every tenant.
public let authoritiesPerTenantMax = 64
/// Certificates in one commit.
public let certificatesPerCommandMax = 1_000

extension CertificateRegistry {
    public func decide(_ request: RegistryRequest, now: Timestamp) -> Outcome<RegistryEvent, RegistryAnswer> {
        if let key = request.idempotencyKey,
            let entry = answers.entry(for: .init(tenantID: tenantID(of: request), key: key), now: now)
        {
            return entry.digest == request.digest
                ? .repeated(Self.answer(repeating: entry))
                : .append([reject(request, RegistryRefusal(.keyReused, idempotencyKeyReused))])
        }
        do throws(RegistryRefusal) {
            return .append(try accept(request, now))
        } catch {
            return .append([reject(request, error)])
        }
    }

    /// The answer that was given before to the same request under its idempotency key: then nothing need be signed.
    public func repeatedAnswer(key: String, tenantID: String, digest: String, now: Timestamp) -> RegistryAnswer? {
        answers.entry(for: .init(tenantID: tenantID, key: key), now: now)
            .flatMap { $0.digest == digest ? Self.answer(repeating: $0) : nil }
    }

    /// The tenant that the events of the command will have. Idempotency keys are a tenant's.
    private func tenantID(of request: RegistryRequest) -> String {
        switch request.command {
        case .addAuthority(let event): event.tenantID
        case .retireAuthority(let id): (try? authority(id, of: request.tenantID))?.added.tenantID ?? request.tenantID
        case .add(let events): events.first?.tenantID ?? request.tenantID
        case .change(let reference, _):
            find(reference).flatMap { mayAct(request, on: $0) ? store.tenantID(of: $0) : nil } ?? request.tenantID
        case .changeDevice, .issueCRL, .refuseCRL, .enforce, .cut, .liftBans, .setRenewalPolicy, .renewDevice,
            .renewAuthority, .renewal:
            request.tenantID
        }
    }

    private static func answer(repeating entry: Ledger.Entry) -> RegistryAnswer {
        .accepted(
            position: entry.answer.position, authority: entry.answer.authority,
            certificates: entry.answer.certificates, isRepeated: true)
    }

    public func answer(
        to request: RegistryRequest, _ events: [RegistryEvent], at positions: Range<Position>
    ) throws(UnreadableDecision) -> RegistryAnswer {
        var authority: String?, certificates: [CertificateReference] = []
        for event in events {
            switch event {
            case .rejected(let event):
                return .rejected(
                    position: positions.lowerBound,
                    code: event.code.flatMap(RegistryRefusal.Code.init) ?? .invalidValue,
                    reason: event.reason)
            case .authorityAdded(let event): authority = event.id
            case .authorityRetired(let event): authority = event.id
            case .added(let event): certificates += Self.reference(event.authority, event.serial)
            case .changed(let event): certificates += Self.reference(event.authority, event.serial)
            case .crlIssued(let event): authority = event.authority
            case .crlRefused(let event): authority = event.authority
            case .crlEnforced(let event): authority = event.authority
            case .clientCut(let event): certificates += Self.reference(event.authority, event.serial)
            case .clientBanLifted(let event): certificates += Self.reference(event.authority, event.serial)
            case .renewalPolicy: break
            case .authorityRenewal(let event): authority = event.authority
            case .renewal(let event): certificates += Self.reference(event.authority, event.serial)
            }
        }
        guard certificates.allSatisfy({ find($0) != nil }), authority.map({ self.authority($0) != nil }) ?? true else {
            throw UnreadableDecision("the decision at position \(positions.lowerBound) was not folded")
        }
        return .accepted(
            position: positions.lowerBound, authority: authority, certificates: certificates, isRepeated: false)
    }

    private static func reference(_ authority: String, _ serial: String) -> [CertificateReference] {
        SerialNumber(serial).map { [CertificateReference(authority: authority, serial: $0)] } ?? []
    }

    private func reject(_ request: RegistryRequest, _ refusal: RegistryRefusal) -> RegistryEvent {
        // Without the idempotency key: answers are stored for accepted commands only.
        var event = CommandRejected(
            command: request.command.name, subject: request.command.subject, tenantID: request.tenantID,
            actor: request.actor, reason: refusal.reason)
        event.code = refusal.code.rawValue
        return .rejected(event)
    }

    private func accept(_ request: RegistryRequest, _ now: Timestamp) throws(RegistryRefusal) -> [RegistryEvent] {
        switch request.command {
        case .addAuthority(var event):
            try check(event, request)
            event.actor = request.actor
            (event.idempotencyKey, event.requestDigest) = (request.idempotencyKey, request.digest)
            return [.authorityAdded(event)]
        case .retireAuthority(let id):
            let authority = try authority(id, of: request.tenantID)
            guard authority.retiredAt == nil else {
                throw RegistryRefusal(.illegalTransition, "the authority \(id) has been retired already")
            }
            var event = AuthorityRetired(id: id, tenantID: authority.added.tenantID, actor: request.actor)
            (event.idempotencyKey, event.requestDigest) = (request.idempotencyKey, request.digest)
            return [.authorityRetired(event)]
        case .add(let events): return try add(events, request, now)
        case .change(let reference, let change):
            guard let index = find(reference), mayAct(request, on: index) else {
                throw RegistryRefusal(.notFound, "there is no certificate \(reference)")
            }
            return [.changed(try changed(index, change, request))]
        case .changeDevice(let device, let change):
            let all = store.certificates(tenantID: request.tenantID, deviceID: device)
            guard !all.isEmpty else { throw RegistryRefusal(.notFound, "the device \(device) has no certificate") }
            let those = all.filter { applies(change.kind, to: store[$0], now) }
            guard !those.isEmpty else {
                throw RegistryRefusal(
                    .illegalTransition, "the device \(device) has no certificate that \(change.verb) applies to")
            }
            return try those.map { index throws(RegistryRefusal) in .changed(try changed(index, change, request)) }
        case .issueCRL(let event): return [.crlIssued(try crl(event, request))]
        case .refuseCRL(var event):
            _ = try authority(event.authority, of: request.tenantID)
            event.actor = request.actor
            return [.crlRefused(event)]
        case .enforce(let event): return [.crlEnforced(try enforced(event, request))]
        case .cut(let events): return try cut(events, request, now).map { .clientCut($0) }
        case .liftBans(let events): return try lifted(events, request).map { .clientBanLifted($0) }
        case .setRenewalPolicy(let policy): return [.renewalPolicy(RenewalPolicySet(policy, actor: request.actor))]
        case .renewDevice(let device): return try renewDevice(device, request, now)
        case .renewAuthority(let id): return try renewAuthority(id, request)
        case .renewal(let event): return try step(event, request)
        }
    }

    /// An authority that the tenant's operators govern.
    private func authority(_ id: String, of tenantID: String) throws(RegistryRefusal) -> CertificateAuthority {
        guard let authority = authority(id),
            tenantID == Envelope.everyTenant || authority.added.tenantID == tenantID
        else { throw RegistryRefusal(.notFound, "there is no authority \(id)") }
        return authority
    }

    private func mayAct(_ request: RegistryRequest, on index: CertificateStore.Index) -> Bool {
        request.tenantID == Envelope.everyTenant || store.tenantID(of: index) == request.tenantID
    }

    // MARK: Authorities

    private func check(_ event: AuthorityAdded, _ request: RegistryRequest) throws(RegistryRefusal) {
        guard request.tenantID == Envelope.everyTenant || event.tenantID == request.tenantID else {
            throw RegistryRefusal(.invalidValue, "only operators of all tenants add authorities for all tenants")
        }
        guard authority(event.id) == nil else {
            throw RegistryRefusal(.alreadyExists, "there is an authority \(event.id) already; take another name")
        }
        // Two authorities of one key would sign for each other, and brokers would see only one of their CRLs.
        guard !authorities.contains(where: { $0.added.spkiSHA256 == event.spkiSHA256 }) else {
            throw RegistryRefusal(.alreadyExists, "an authority with the same key is on the record already")
        }
        // A broker takes the CRL of an authority's name, and compares names as OpenSSL does: without case and spaces.
        guard
            !authorities.contains(where: {
                $0.added.tenantID != event.tenantID && Self.canonical($0.added.subject) == Self.canonical(event.subject)
            })
        else {
            throw RegistryRefusal(
                .alreadyExists, "an authority of another tenant has the subject \(event.subject); take another subject")
        }
        let own = authorities.filter { $0.added.tenantID == event.tenantID }.count
        guard own < authoritiesPerTenantMax else {
            throw RegistryRefusal(
                .limitReached, "there are \(own) authorities of this tenant already, the most that are possible")
        }
        if let replaced = event.replaces {
            let authority = try authority(replaced, of: request.tenantID)
            guard authority.replacedBy == nil else {
                throw RegistryRefusal(
                    .illegalTransition,
                    "the authority \(replaced) has been replaced by \(authority.replacedBy!) already")
            }
            guard authority.added.tenantID == event.tenantID else {
                throw RegistryRefusal(.invalidValue, "the authority \(replaced) is of another tenant")
            }
        }
    }

    private static func canonical(_ subject: String) -> String {
        subject.lowercased().filter { !$0.isWhitespace }
    }

    // MARK: Certificates

    private func add(
        _ events: [CertificateAdded], _ request: RegistryRequest, _ now: Timestamp
    ) throws(RegistryRefusal) -> [RegistryEvent] {
        guard (1...certificatesPerCommandMax).contains(events.count) else {
            throw RegistryRefusal(
                .invalidValue, "a command adds 1 to \(certificatesPerCommandMax) certificates, not \(events.count)")
        }
        guard request.idempotencyKey == nil || events.allSatisfy({ $0.tenantID == events[0].tenantID }) else {
            throw RegistryRefusal(.invalidValue, "a command with an idempotency key is about one tenant")
        }
        var added: [String: Int] = [:], serials: Set<String> = [], keys: [String: String] = [:]
        return try events.map { event throws(RegistryRefusal) in
            let device = "\(event.tenantID)/\(event.deviceID)"
            try check(event, request, now, alsoOfDevice: added[device, default: 0])
            guard serials.insert("\(event.authority)/\(event.serial)").inserted else {
                throw RegistryRefusal(.alreadyExists, "the serial number \(event.serial) occurs twice in the command")
            }
            guard keys.updateValue(device, forKey: event.spkiSHA256) ?? device == device else {
                throw RegistryRefusal(.invalidValue, "two devices of the command have the same key; each needs its own")
            }
            added[device, default: 0] += 1
            var event = event
            event.actor = request.actor
            (event.idempotencyKey, event.requestDigest) = (request.idempotencyKey, request.digest)
            return .added(event)
        }
    }

    private func check(
        _ event: CertificateAdded, _ request: RegistryRequest, _ now: Timestamp, alsoOfDevice: Int
    ) throws(RegistryRefusal) {
        guard request.tenantID == Envelope.everyTenant || event.tenantID == request.tenantID,
            DeviceTopic.isID(event.tenantID), DeviceTopic.isID(event.deviceID)
        else {
            throw RegistryRefusal(
                .invalidValue, "tenant and device ids must be 1 to \(DeviceTopic.idBytesMax) of A-Z a-z 0-9 . _ : -")
        }
        guard let serial = SerialNumber(event.serial), let key = Digest(hex: event.spkiSHA256) else {
            throw RegistryRefusal(.invalidValue, "the serial number or the digest of the key is not hexadecimal")
        }
        guard let authority = authority(event.authority, for: event.tenantID) else {
            throw RegistryRefusal(.notFound, "there is no authority \(event.authority) for \(event.tenantID)")
        }
        let reference = CertificateReference(authority: event.authority, serial: serial)
        guard find(reference) == nil else {
            throw RegistryRefusal(.alreadyExists, "there is a certificate \(reference) already")
        }
        let live = certificates(tenantID: event.tenantID, deviceID: event.deviceID)
            .filter { $0.status.isLive && now <= $0.notAfter }
        guard live.count + alsoOfDevice < liveCertificatesPerDeviceMax else {
            throw RegistryRefusal(
                .limitReached,
                "the device \(event.deviceID) has \(liveCertificatesPerDeviceMax) live certificates already; "
                    + "revoke some")
        }
        if event.origin == .issued { try checkIssued(event, authority, key, now) }
        try checkRenewal(event, key)
        if let renews = event.renews {
            guard let renewed = CertificateReference(renews).flatMap(certificate), renewed.deviceID == event.deviceID,
                renewed.tenantID == event.tenantID
            else { throw RegistryRefusal(.notFound, "the device \(event.deviceID) has no certificate \(renews)") }
            guard renewed.status.isLive else {
                throw RegistryRefusal(
                    .illegalTransition, "the certificate \(renews) is \(renewed.status.name) and cannot be renewed")
            }
        }
    }

    private func checkIssued(
        _ event: CertificateAdded, _ authority: CertificateAuthority, _ key: Digest, _ now: Timestamp
    ) throws(RegistryRefusal) {
        guard authority.issues else {
            let why =
                authority.retiredAt != nil
                ? "has been retired" : authority.replacedBy.map { "was replaced by \($0)" } ?? "has no key here"
            throw RegistryRefusal(
                .illegalTransition, "the authority \(event.authority) \(why); it issues no certificates")
        }
        guard now < event.notAfter else {
            throw RegistryRefusal(.invalidValue, "the certificate would have expired already, at \(event.notAfter)")
        }
        guard event.notAfter <= authority.added.notAfter else {
            throw RegistryRefusal(
                .invalidValue,
                "the certificate would be valid until \(event.notAfter), longer than the authority "
                    + "\(event.authority), which is valid until \(authority.added.notAfter)")
        }
        if let index = store.first(withKey: key, where: { store[$0].status == .revoked }) {
            let name =
                store.tenantID(of: index) == event.tenantID ? "of \(reference(index))" : "of a certificate"
            throw RegistryRefusal(.invalidValue, "the key is that \(name), which is revoked; make a new key")
        }
        if let other = store.otherDevice(withKey: key, tenantID: event.tenantID, deviceID: event.deviceID) {
            // The other device may be another tenant's.
            let whose =
                store.tenantID(of: other) == event.tenantID ? "the device \(store.deviceID(of: other))" : "a device"
            throw RegistryRefusal(.invalidValue, "\(whose) has a certificate with the same key; each needs its own")
        }
    }

    private func applies(_ kind: CertificateChange.Kind, to record: CertificateStore.Record, _ now: Timestamp) -> Bool {
        let mayBeUsed = now.wholeSeconds <= record.notAfter
        return switch kind {
        case .revoke: record.status != .revoked && mayBeUsed
        case .hold: record.status.isLive && mayBeUsed
        case .release: record.status == .held
        case .supersede: record.status == .active
        }
    }

    private func changed(
        _ index: CertificateStore.Index, _ change: CertificateChange, _ request: RegistryRequest
    ) throws(RegistryRefusal) -> CertificateChanged {
        let record = store[index], reference = reference(index)
        let kind: CertificateChanged.Change, isPossible: Bool
        switch change.kind {
        case .revoke: (kind, isPossible) = (.revoked, record.status != .revoked)
        case .hold: (kind, isPossible) = (.held, record.status.isLive)
        case .release: (kind, isPossible) = (.released, record.status == .held)
        case .supersede: (kind, isPossible) = (.superseded, record.status == .active)
        }
        guard isPossible else {
            throw RegistryRefusal(
                .illegalTransition,
                "the certificate \(reference) is \(record.status.name) since \(record.changedAt); \(change.verb) does "
                    + "not apply to it")
        }
        var event = CertificateChanged(
            kind, authority: reference.authority, serial: reference.serial.description,
            tenantID: store.tenantID(of: index), deviceID: store.deviceID(of: index), actor: request.actor)
        switch change.kind {
        case .revoke(let reason):
            guard reason != .certificateHold else {
                throw RegistryRefusal(.invalidValue, "a revocation is final; hold the certificate instead")
            }
            event.reason = reason.rawValue
        case .supersede(let newer):
            guard let other = find(newer), store.deviceID(of: other) == event.deviceID,
                store.tenantID(of: other) == event.tenantID
            else { throw RegistryRefusal(.notFound, "the device \(event.deviceID) has no certificate \(newer)") }
            event.replacedBy = newer.description
        case .hold, .release: break
        }
        event.note = change.note
        (event.idempotencyKey, event.requestDigest) = (request.idempotencyKey, request.digest)
        return event
    }
}
