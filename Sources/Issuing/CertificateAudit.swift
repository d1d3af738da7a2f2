import Certificates
import Deciding
import Decisions
import EventModel
import PKI
import Synchronization
import Threading

/// The standing audit of certificates, every few minutes: the rules are the registry's (`CertificateFinding`).
public actor CertificateAudit {
    /// Devices' last messages in the last 24 hours, in pages by tenant and device; nil as `device`: of all devices.
    public typealias LastMessages =
        @Sendable (_ tenants: [String], _ device: String?, _ after: LastMessage?, _ limit: Int)
        async throws -> [LastMessage]
    /// Last messages that the gates refused because of `certificates.enforce`, of one device, or of all: `LastMessages`
    /// does not have them.
    public typealias RefusedMessages = @Sendable (_ device: (tenantID: String, deviceID: String)?) -> [LastMessage]

    public struct Report: Sendable {
        public let at: Timestamp
        /// How long the audit took.
        public internal(set) var duration = Duration.zero
        fileprivate var end = ContinuousClock.now
        /// Why the devices' last messages are unknown, so that findings about senders are missing; nil: they are known.
        public internal(set) var sendersUnknown: String?
        /// See `CertificateRegistry.authoritiesExpiring`.
        public internal(set) var authoritiesExpiring: [String: Timestamp] = [:]
        /// The number of findings, by tenant.
        public private(set) var counts: [String: [CertificateFinding.Code: Int]] = [:]
        /// The first of each code, by tenant.
        public private(set) var findings: [String: [CertificateFinding]] = [:]

        /// By tenant.
        public internal(set) var expiries: [String: CertificateExpiries] = [:]

        /// Findings that a tenant's list has of one code.
        public static let listedMax = 1_000
        /// Findings in all lists: they are in memory.
        private static let listedTotalMax = 100_000
        private var listed = 0

        init(at: Timestamp) { self.at = at }

        mutating func add(_ all: [CertificateFinding]) {
            for finding in all {
                let count = counts[finding.tenantID, default: [:]][finding.code, default: 0] + 1
                counts[finding.tenantID, default: [:]][finding.code] = count
                guard count <= Self.listedMax, listed < Self.listedTotalMax else { continue }
                findings[finding.tenantID, default: []].append(finding)
                listed += 1
            }
        }

        /// The number of findings about senders in the last report that has them; empty: no report had them yet.
        fileprivate var lastSenders: [CertificateFinding.Code: Int] = [:]

        /// Of all tenants; while findings about senders are missing, the last known numbers of those. Without a number:
        /// not known yet.
        public var totals: [CertificateFinding.Code: Int] {
            var all = counts.values.reduce(into: [:]) { $0.merge($1, uniquingKeysWith: +) }
            for code in CertificateFinding.Code.allCases {
                let isMissing = code.isAboutSenders && sendersUnknown != nil
                // Those that the gates refuse are known without the database.
                all[code] = isMissing ? [lastSenders[code], all[code]].compactMap { $0 }.max() : all[code] ?? 0
            }
            return all
        }

        /// The tenant's, and those of authorities of all tenants; the most severe first, then the oldest.
        public func findings(of tenantID: String) -> [CertificateFinding] {
            let order = CertificateFinding.Severity.allCases
            func rank(_ finding: CertificateFinding) -> Int { order.firstIndex(of: finding.severity) ?? 0 }
            return [tenantID, Envelope.everyTenant].flatMap { findings[$0] ?? [] }
                .sorted { (rank($0), $0.since) < (rank($1), $1.since) }
        }

        public func counts(of tenantID: String) -> [CertificateFinding.Code: Int] {
            [tenantID, Envelope.everyTenant].reduce(into: [:]) { $0.merge(counts[$1] ?? [:], uniquingKeysWith: +) }
        }
    }

    private let registry: DeciderService<CertificateRegistry>
    private let keys: AuthorityKeys
    private let lastMessages: LastMessages
    private let refusedMessages: RefusedMessages
    private let clock: @Sendable () -> Timestamp
    private nonisolated let last = Mutex<Report?>(nil)
    /// Authorities whose key cannot be used, and since when.
    private var unusable: [String: (reason: String, since: Timestamp)] = [:]
    private var running: Task<Report, any Error>?

    public init(
        registry: DeciderService<CertificateRegistry>, keys: AuthorityKeys,
        clock: @escaping @Sendable () -> Timestamp, refusedMessages: @escaping RefusedMessages = { _ in [] },
        lastMessages: @escaping LastMessages
    ) {
        (self.registry, self.keys, self.clock, self.lastMessages) = (registry, keys, clock, lastMessages)
        self.refusedMessages = refusedMessages
    }

    /// Of the last audit; nil before the first.
    public nonisolated var latest: Report? { last.withLock { $0 } }

    private static let pause = Duration.seconds(300)
    /// While the table of devices cannot be read.
    private static let pauseWithoutSenders = Duration.seconds(30)
    /// While the certificates cannot be read from the log.
    private static let pauseAfterFailure = Duration.seconds(5)

    /// Audits every five minutes, until the task is cancelled.
    /// - Parameter report: called after each audit with why it failed; nil when it did not.
    public func run(report: @Sendable ((any Error)?) -> Void) async {
        while !Task.isCancelled {
            var isComplete = false, failure: (any Error)?
            do { isComplete = try await audit().value.sendersUnknown == nil } catch { failure = error }
            if Task.isCancelled { return }
            report(failure)
            let pause =
                failure != nil ? Self.pauseAfterFailure : isComplete ? Self.pause : Self.pauseWithoutSenders
            try? await Task.sleep(for: pause)
        }
    }

    /// A cached report is reused for this multiple of its duration: repeated calls use at most 1/20 of the time.
    private static let busyShare = 20
    private static let ageMin = Duration.seconds(5)

    /// A report of now, or of a few seconds ago.
    /// - Throws: as `DeciderService.query`.
    public func report() async throws -> Report {
        if let latest, ContinuousClock.now - latest.end < max(Self.ageMin, latest.duration * Self.busyShare) {
            return latest
        }
        return try await audit().value
    }

    /// Findings about one certificate, as of the request, also those beyond the limits of a report; nil: the
    /// certificate is not on the record, or its tenant is another.
    /// - Throws: as `DeciderService.query`.
    public func report(about reference: CertificateReference, tenantID: String) async throws -> Report? {
        var report = Report(at: clock())
        guard let certificate = try await registry.query({ $0.certificate(reference) }),
            certificate.tenantID == tenantID
        else { return nil }
        report.add(try await registry.query { [now = report.at] in $0.findings(about: reference, now: now) })
        try await addSenders(to: &report, [tenantID], device: certificate.deviceID) {
            $0.subject == .certificate(reference, deviceID: certificate.deviceID)
        }
        return report
    }

    /// The audit that is under way, or a new one.
    private func audit() -> Task<Report, any Error> {
        if let running { return running }
        let task = Task {
            defer { running = nil }
            let report = try await make()
            last.withLock { $0 = report }
            return report
        }
        running = task
        return task
    }

    /// Certificates in one call on the decider's thread, where commands wait meanwhile: about a millisecond.
    private static let step = 1_024
    private static let pageLimit = 5_000

    private func make() async throws -> Report {
        let begin = ContinuousClock.now, now = clock()
        var report = Report(at: now), next: UInt32?
        repeat {
            let step = try await registry.query { [next] in $0.auditStep(after: next, count: Self.step, now: now) }
            report.add(step.findings)
            for (tenant, some) in step.expiries {
                report.expiries[tenant] = (report.expiries[tenant] ?? CertificateExpiries()) + some
            }
            next = step.next
        } while next != nil
        try await checkKeys(now)
        report.add(try await registry.query { [unusable] in $0.findings(unusable: unusable, now: now) })
        report.authoritiesExpiring = try await registry.query { $0.authoritiesExpiring(now) }
        report.lastSenders = latest?.totals.filter(\.key.isAboutSenders) ?? [:]
        let tenants = try await registry.query { $0.tenantsWithCertificates }
        if !tenants.isEmpty { try await addSenders(to: &report, tenants) }
        report.end = .now
        report.duration = report.end - begin
        return report
    }

    private func checkKeys(_ now: Timestamp) async throws {
        let authorities = try await registry.query { $0.authorities.filter(\.issuesCRLs).map(\.added) }
        let problems = try await onOwnThread("certificate") { [keys] in
            authorities.compactMap { added in keys.problem(with: added).map { (added.id, $0) } }
        }
        unusable = problems.reduce(into: [:]) { found, problem in
            found[problem.0] = (problem.1, unusable[problem.0]?.since ?? now)
        }
    }

    private func addSenders(
        to report: inout Report, _ tenants: [String], device: String? = nil,
        where matches: (CertificateFinding) -> Bool = { _ in true }
    ) async throws {
        var after: LastMessage?
        let refused = newestRefused(
            tenants, device: device, since: report.at.adding(microseconds: -Self.dayMicroseconds))
        // Such a device may also have a message that was accepted before.
        var known: Set<CertificateFinding.Identity> = []
        for first in stride(from: 0, to: refused.count, by: Self.pageLimit) {
            let page = Array(refused[first..<min(first + Self.pageLimit, refused.count)])
            let found = try await registry.query { [now = report.at] in $0.findings(about: page, now: now) }
            report.add(found.filter(matches))
            known.formUnion(found.map(\.identity))
        }
        repeat {
            let messages: [LastMessage]
            do {
                messages = try await lastMessages(tenants, device, after, Self.pageLimit)
            } catch {
                report.sendersUnknown = "\(error)"
                return
            }
            let found = try await registry.query { [now = report.at] in $0.findings(about: messages, now: now) }
            report.add(found.filter { matches($0) && !known.contains($0.identity) })
            after = messages.count == Self.pageLimit ? messages.last : nil
        } while after != nil
    }

    private static let dayMicroseconds: Int64 = 86_400_000_000

    /// Of each device the newest, over all brokers.
    private func newestRefused(_ tenants: [String], device: String?, since: Timestamp) -> [LastMessage] {
        let tenants = Set(tenants)
        var newest: [Sender: LastMessage] = [:]
        let refused =
            if let device { tenants.flatMap { refusedMessages(($0, device)) } } else { refusedMessages(nil) }
        for message in refused where message.at >= since && tenants.contains(message.tenantID) {
            let sender = Sender(tenantID: message.tenantID, deviceID: message.deviceID)
            if newest[sender].map({ $0.at < message.at }) ?? true { newest[sender] = message }
        }
        return Array(newest.values)
    }
}

private struct Sender: Hashable {
    let tenantID: String
    let deviceID: String
}

extension CertificateFinding {
    fileprivate struct Identity: Hashable {
        let code: Code
        let tenantID: String
        let subject: Subject
    }

    fileprivate var identity: Identity { Identity(code: code, tenantID: tenantID, subject: subject) }
}
