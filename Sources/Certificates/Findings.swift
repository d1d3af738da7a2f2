import Decisions
import EventModel
import PKI
import Primitives

// Rules of the standing audit: a pure function of the registry and the devices' last messages. It examines the
// certificates in steps, so that no step blocks the decider's thread for long.

/// A weakness of a certificate that was imported.
public enum CertificateWeakness: UInt8, Sendable, CaseIterable {
    case none, key, signature

    init(_ event: CertificateAdded) {
        // What is issued here was checked before it was signed.
        guard event.origin == .imported else {
            self = .none
            return
        }
        if PublicKey.isWeak(name: event.keyAlgorithm) {
            self = .key
        } else {
            let isWeak = Base64.decode(event.certificate.utf8).map(Certificate.isWeaklySigned(der:)) ?? true
            self = isWeak ? .signature : .none
        }
    }
}

/// The last message of a device.
public struct LastMessage: Sendable, Equatable {
    public let tenantID: String
    public let deviceID: String
    public let at: Timestamp
    /// Of the device's newest event; nil: not known.
    public let position: Position?

    public init(tenantID: String, deviceID: String, at: Timestamp, position: Position?) {
        (self.tenantID, self.deviceID, self.at, self.position) = (tenantID, deviceID, at, position)
    }
}

/// One result of the standing audit.
public struct CertificateFinding: Sendable, Equatable {
    /// Label of the metric `refold_certificate_findings`.
    public enum Code: String, Sendable, CaseIterable {
        case revokedSending = "revoked_sending"
        case certificateExpiring = "certificate_expiring"
        case noCertificate = "no_certificate"
        case keyShared = "key_shared"
        case keyWeak = "key_weak"
        case crlExpiring = "crl_expiring"
        case authorityExpiring = "authority_expiring"
        case authorityKeyMissing = "authority_key_missing"

        /// It needs the devices' last messages.
        public var isAboutSenders: Bool { self == .revokedSending || self == .noCertificate }

        /// What an operator does about it.
        public var remedy: String {
            switch self {
            case .revokedSending:
                "Check with `refold crl list --tenant TENANT` and `refold status` that the broker enforces the CRL; "
                    + "set `broker.crl_cut`."
            case .certificateExpiring:
                "Renew it: `refold cert renew --tenant TENANT --device DEVICE`; without MQTT: "
                    + "`refold cert issue --renews AUTHORITY/SERIAL`."
            case .noCertificate: "Issue a certificate to the device, or find out who sends in its name."
            case .keyShared: "Give each device a key of its own, then revoke the certificates with the shared one."
            case .keyWeak: "Issue a certificate for a new key (P-256), then revoke this one."
            case .crlExpiring: "Restore the authority's key; `refold status` has the reason."
            case .authorityExpiring: "Rotate it: `refold ca rotate OLD --to NEW`."
            case .authorityKeyMissing:
                "Restore the key file from its copy (docs/certificates.md), or repair the sign command."
            }
        }
    }

    public enum Severity: String, Sendable, CaseIterable {
        case critical, high, medium, low
    }

    public enum Subject: Sendable, Hashable {
        case certificate(CertificateReference, deviceID: String)
        case device(String)
        case authority(String)
    }

    /// An event in the log.
    public struct Evidence: Sendable, Equatable {
        public let what: String
        public let position: Position
    }

    public let code: Code
    public let severity: Severity
    /// `Envelope.everyTenant`: an authority of all tenants.
    public let tenantID: String
    public let subject: Subject
    /// When the condition began.
    public let since: Timestamp
    public let text: String
    public internal(set) var evidence: [Evidence]
}

/// Live certificates by the week in which they expire.
public struct CertificateExpiries: Sendable, Equatable {
    public static let weekCount = 13
    /// The first: within the next 7 days.
    public private(set) var weeks = [Int](repeating: 0, count: weekCount)
    public private(set) var later = 0

    public init() {}

    /// - Parameter seconds: until it expires.
    mutating func add(_ seconds: Int64) {
        let week = Int(clamping: max(0, seconds) / (7 * 86_400))
        if week < Self.weekCount { weeks[week] += 1 } else { later += 1 }
    }

    public static func + (a: Self, b: Self) -> Self {
        var sum = a
        for week in b.weeks.indices { sum.weeks[week] += b.weeks[week] }
        sum.later += b.later
        return sum
    }
}

/// What one step of the audit found.
public struct CertificateAuditStep: Sendable {
    public let findings: [CertificateFinding]
    public let expiries: [(tenantID: String, CertificateExpiries)]
    /// The next step; nil: this was the last one.
    public let next: UInt32?
}

// MARK: Rules

extension CertificateRegistry {
    private static let day: Int64 = 86_400

    /// Tenants that have, or had, a certificate.
    public var tenantsWithCertificates: [String] { store.tenantIDs }

    /// Findings about certificates by themselves: one step.
    /// - Parameters:
    ///   - after: `next` of the step before; nil: the first step.
    ///   - count: number of certificates that this step examines.
    public func auditStep(after: UInt32?, count: Int, now: Timestamp) -> CertificateAuditStep {
        let seconds = now.wholeSeconds, tenants = store.tenantIDs
        var found: [CertificateFinding] = [], examined = 0, last: UInt32?
        var expiries = [CertificateExpiries?](repeating: nil, count: tenants.count)
        func step(next: UInt32?) -> CertificateAuditStep {
            CertificateAuditStep(
                findings: found, expiries: zip(tenants, expiries).compactMap { name, some in some.map { (name, $0) } },
                next: next)
        }
        for index in store.indexes(after: after) {
            if examined == count { return step(next: last) }
            (examined, last) = (examined + 1, index)
            let record = store[index]
            addFindings(about: index, record, seconds, to: &found)
            guard record.status.isLive, seconds <= record.notAfter else { continue }
            let tenant = store.tenantNumber(of: index)
            if expiries[tenant] == nil { expiries[tenant] = CertificateExpiries() }
            expiries[tenant]?.add(record.notAfter - seconds)
        }
        return step(next: nil)
    }

    /// Findings about one certificate by itself.
    public func findings(about reference: CertificateReference, now: Timestamp) -> [CertificateFinding] {
        var found: [CertificateFinding] = []
        if let index = find(reference) { addFindings(about: index, store[index], now.wholeSeconds, to: &found) }
        return found
    }

    private func addFindings(
        about index: CertificateStore.Index, _ record: CertificateStore.Record, _ now: Int64,
        to found: inout [CertificateFinding]
    ) {
        guard record.status.isLive else { return }
        if let finding = expiry(of: index, record, now) { found.append(finding) }
        guard now <= record.notAfter else { return }
        if record.weakness != .none { found.append(weakness(of: index, record)) }
        let other = store.otherDevice(sharingKeyOf: index) { store[$0].status.isLive && now <= store[$0].notAfter }
        if let other { found.append(sharing(of: index, record, with: other)) }
    }

    /// How long after its expiry a certificate remains a finding, in seconds.
    private static let expiredSecondsMax = 30 * day
    private static let expiringSeconds: [(severity: CertificateFinding.Severity, left: Int64)] = [
        (.critical, -1), (.high, 7 * day), (.medium, 14 * day), (.low, 30 * day),
    ]

    /// Nil: it lasts, or the device has one that lasts longer. Certificates that live for less than 90 days count from
    /// two thirds of their life on, when they are renewed.
    private func expiry(
        of index: CertificateStore.Index, _ record: CertificateStore.Record, _ now: Int64
    ) -> CertificateFinding? {
        let left = record.notAfter.saturatingSubtracting(now)
        let limit = min(30 * Self.day, record.notAfter.saturatingSubtracting(record.notBefore) / 3)
        guard left <= limit, left >= -Self.expiredSecondsMax,
            let severity = Self.expiringSeconds.first(where: { left <= $0.left })?.severity
        else { return nil }
        let tenant = store.tenantID(of: index), device = store.deviceID(of: index)
        let hasLonger = store.certificates(tenantID: tenant, deviceID: device).contains { other in
            let candidate = store[other]
            guard other != index, candidate.status.isLive else { return false }
            // Of several that end together, one is reported.
            return (candidate.notAfter, other) > (record.notAfter, index)
        }
        if hasLonger { return nil }
        let end = Timestamp(seconds: record.notAfter)
        return finding(
            .certificateExpiring, severity, index, record,
            since: Timestamp(seconds: record.notAfter.saturatingSubtracting(limit)),
            left < 0
                ? "it expired \(end), and the device has no other live certificate"
                : "it expires \(end), and the device has no certificate that lasts longer")
    }

    private func weakness(
        of index: CertificateStore.Index, _ record: CertificateStore.Record
    ) -> CertificateFinding {
        finding(
            .keyWeak, .medium, index, record, since: Timestamp(seconds: record.notBefore),
            record.weakness == .key
                ? "its key is too short, or of a type that is not supported"
                : "its signature does not resist collisions (SHA-1 or older)")
    }

    private func sharing(
        of index: CertificateStore.Index, _ record: CertificateStore.Record, with other: CertificateStore.Index
    ) -> CertificateFinding {
        // Nothing of another tenant is disclosed.
        let isOwn = store.tenantID(of: other) == store.tenantID(of: index)
        let whose = isOwn ? "\(reference(other)) of device \(store.deviceID(of: other))" : "a device of another tenant"
        var finding = finding(
            .keyShared, .high, index, record, since: Timestamp(seconds: max(record.notBefore, store[other].notBefore)),
            "its key is also that of the certificate \(isOwn ? "" : "of ")\(whose)")
        if isOwn { finding.evidence.append(.init(what: "the other certificate", position: store[other].position)) }
        return finding
    }

    private func finding(
        _ code: CertificateFinding.Code, _ severity: CertificateFinding.Severity, _ index: CertificateStore.Index,
        _ record: CertificateStore.Record, since: Timestamp, _ text: String
    ) -> CertificateFinding {
        CertificateFinding(
            code: code, severity: severity, tenantID: store.tenantID(of: index),
            subject: .certificate(reference(index), deviceID: store.deviceID(of: index)), since: since, text: text,
            evidence: [.init(what: record.isImported ? "imported" : "issued", position: record.position)])
    }

    /// A message that arrives within this time after a revocation may have been on its way.
    private static let transitMicroseconds: Int64 = 60_000_000

    /// Findings about devices that send, in tenants with certificates.
    public func findings(about messages: [LastMessage], now: Timestamp) -> [CertificateFinding] {
        let seconds = now.wholeSeconds
        return messages.compactMap { message in
            let indexes = store.certificates(tenantID: message.tenantID, deviceID: message.deviceID)
            let isLive = indexes.contains { store[$0].status.isLive && seconds <= store[$0].notAfter }
            if isLive { return nil }
            let last = message.position.map {
                CertificateFinding.Evidence(what: "the device's newest event", position: $0)
            }
            let ended = indexes.filter { !store[$0].status.isLive }.max { store[$0].changedAt < store[$1].changedAt }
            // Where a certificate was active after the last revocation, the device has none because that one expired. A
            // superseded one says nothing about who sends.
            let hasExpired = indexes.contains { index in
                store[index].status == .active
                    && store[index].notAfter > ended.map { store[$0].changedAt.wholeSeconds } ?? 0
            }
            guard let ended, !hasExpired else {
                return CertificateFinding(
                    code: .noCertificate, severity: .medium, tenantID: message.tenantID,
                    subject: .device(message.deviceID), since: message.at,
                    text: "it sent a message at \(message.at) and has no \(indexes.isEmpty ? "" : "valid ")certificate",
                    evidence: last.map { [$0] } ?? [])
            }
            let record = store[ended]
            guard message.at > record.changedAt.adding(microseconds: Self.transitMicroseconds) else { return nil }
            let what = record.status == .held ? "put on hold" : "revoked"
            var finding = finding(
                .revokedSending, .critical, ended, record, since: record.changedAt,
                "it was \(what) at \(record.changedAt), and the device sent a message at \(message.at)")
            if let position = record.changedPosition {
                finding.evidence.append(.init(what: record.status == .held ? "held" : "revoked", position: position))
            }
            if let last { finding.evidence.append(last) }
            return finding
        }
    }

    /// Findings about authorities.
    /// - Parameter unusable: why the key of an authority cannot be used, and since when, by authority.
    public func findings(
        unusable: [String: (reason: String, since: Timestamp)], now: Timestamp
    ) -> [CertificateFinding] {
        authorities.flatMap { authority -> [CertificateFinding] in
            guard now.wholeSeconds <= authority.added.notAfter.wholeSeconds else { return [] }
            return [expiry(of: authority, now), lockOut(of: authority, now)].compactMap { $0 }
                + (unusable[authority.added.id].map { why in
                    [
                        finding(
                            .authorityKeyMissing, .high, authority, since: why.since,
                            "its key cannot be used; without it no certificate and no CRL is issued: \(why.reason)")
                    ]
                } ?? [])
        }
    }

    /// When authorities without a successor expire, of those that do within 30 days: not before, because that is late
    /// for new certificates on every device, and a daemon that is degraded for longer is overlooked.
    public func authoritiesExpiring(_ now: Timestamp) -> [String: Timestamp] {
        authorities.reduce(into: [:]) { found, authority in
            guard let finding = expiry(of: authority, now), [.critical, .high].contains(finding.severity) else {
                return
            }
            found[authority.added.id] = authority.added.notAfter
        }
    }

    /// An authority without a successor. Its certificates end with it at the latest.
    private func expiry(of authority: CertificateAuthority, _ now: Timestamp) -> CertificateFinding? {
        let end = authority.added.notAfter, left = end.wholeSeconds.saturatingSubtracting(now.wholeSeconds)
        // An authority that has expired has no clients left.
        guard authority.retiredAt == nil, authority.replacedBy == nil, left >= 0 else { return nil }
        let limits: [(CertificateFinding.Severity, Int64)] = [(.critical, 14), (.high, 30), (.medium, 90)]
        guard let (severity, _) = limits.first(where: { left <= $0.1 * Self.day }) else { return nil }
        return finding(
            .authorityExpiring, severity, authority,
            since: Timestamp(seconds: end.wholeSeconds.saturatingSubtracting(90 * Self.day)),
            "it expires \(end) and has no successor; from then on brokers refuse all its clients")
    }

    private func lockOut(of authority: CertificateAuthority, _ now: Timestamp) -> CertificateFinding? {
        guard authority.issuesCRLs, let crl = authority.lastCRL else { return nil }
        let end = crl.nextUpdate.wholeSeconds, left = end.saturatingSubtracting(now.wholeSeconds)
        let quarter = end.saturatingSubtracting(crl.thisUpdate.wholeSeconds) / 4
        guard left <= quarter else { return nil }
        var finding = finding(
            .crlExpiring, left <= quarter / 2 ? .critical : .high, authority,
            since: Timestamp(seconds: end.saturatingSubtracting(quarter)),
            left < 0
                ? "its newest CRL ended \(crl.nextUpdate): brokers refuse all its clients"
                : "its newest CRL ends \(crl.nextUpdate); from then on brokers refuse all its clients")
        if let position = authority.lastCRLPosition {
            finding.evidence.append(.init(what: "CRL \(crl.number)", position: position))
        }
        return finding
    }

    private func finding(
        _ code: CertificateFinding.Code, _ severity: CertificateFinding.Severity, _ authority: CertificateAuthority,
        since: Timestamp, _ text: String
    ) -> CertificateFinding {
        CertificateFinding(
            code: code, severity: severity, tenantID: authority.added.tenantID,
            subject: .authority(authority.added.id), since: since, text: text,
            evidence: [.init(what: "added", position: authority.position)])
    }
}
