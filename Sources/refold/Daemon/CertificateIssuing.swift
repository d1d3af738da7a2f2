import Certificates
import Deciding
import Decisions
import Enforcement
import EventLog
import EventModel
import Ingest
import Issuing
import Logging
import MQTT
import Primitives
import Queries
import ServiceLifecycle
import Settings
import Synchronization
import Threading

/// The decider of certificates, with those who sign for it.
struct CertificateIssuing: Sendable {
    /// Of sign and reload commands.
    private static let commandSecondsMax = 30

    let registry: DeciderService<CertificateRegistry>
    let service: CertificateService
    let crls: CRLService
    /// For the gate; nil: certificates do not matter there.
    let check: CertificateCheck?
    let renewals: RenewalService
    private let keys: AuthorityKeys
    private let clock: @Sendable () -> Timestamp
    /// One for each broker where CRLs are put in force.
    let enforcers: [(broker: String, enforcer: CRLEnforcer)]

    init(
        _ settings: Settings, log: FileLog, writer: DecisionWriter, outbox: any Outbox,
        snapshot: @escaping @Sendable () -> DeciderSnapshot<CertificateRegistry>?
    ) {
        let clock: @Sendable () -> Timestamp = { log.now() }
        self.clock = clock
        let wall: @Sendable () -> Timestamp = { Timestamp(microseconds: SystemTime.wallMicroseconds()) }
        let executor = ThreadExecutor(name: "crl"), known = Mutex<[Position]>([])
        check =
            settings.certificates.enforce == .off
            ? nil : CertificateCheck(refuses: settings.certificates.enforce == .enforce)
        let renewing = ThreadExecutor(name: "renewals"), answered = Mutex<Position?>(nil)
        let wakers = Mutex<[CRLEnforcer]>([])
        registry = DeciderService(
            writer: writer, source: log, clock: clock, outbox: outbox, follower: check.map { GateFeed($0) },
            snapshot: snapshot,
            onChange: { registry in
                // Once for each change: what cannot be signed is tried again after a pause, not at every round.
                let needs = registry?.authorities.filter(\.needsCRL).map(\.entriesEnd) ?? []
                let isNew = known.withLock { known in
                    defer { known = needs }
                    return known != needs
                }
                let last = registry?.lastAnswer
                let hasAnswer = answered.withLock { answered in
                    defer { answered = last }
                    return answered != last
                }
                if hasAnswer { renewing.wake() }
                guard isNew, !needs.isEmpty else { return }
                executor.wake()
                for enforcer in wakers.withLock({ $0 }) { enforcer.wake() }
            })
        // A revocation waits for them.
        let seconds = min(settings.commandTimeoutSeconds, Self.commandSecondsMax)
        keys = AuthorityKeys(
            folder: settings.data + "/authorities",
            passphrase: settings.certificates.keyPassphrase.map { Array($0.utf8) },
            signCommand: settings.certificates.signCommand, commandTimeoutSeconds: seconds)
        var options = IssuingOptions(settings.certificates)
        options.crlPointIsPEM = settings.brokers.contains(where: \.bansClients)
        service = CertificateService(
            registry: registry, source: log, keys: keys, options: options, clock: clock, wall: wall)
        crls = CRLService(
            registry: registry, keys: keys, policy: options.crl, distributionPoint: options.crlDistributionPoint,
            executor: executor, clock: clock, wall: wall)
        renewals = RenewalService(service, policy: RenewalPolicy(settings.certificates), executor: renewing)
        enforcers = settings.brokers.compactMap { [registry, crls, service] broker in
            EnforcedBroker(
                broker, timeoutSeconds: seconds, commonName: settings.certificates.commonName, service
            ).map {
                (broker.name, CRLEnforcer($0, registry: registry, crls: crls, clock: clock))
            }
        }
        // A ban does not wait for the next CRL.
        let banning = Set(settings.brokers.filter(\.bansClients).map(\.name))
        let woken = enforcers.filter { banning.contains($0.broker) }.map(\.enforcer)
        wakers.withLock { $0 = woken }
    }

    /// Maximum number of devices per broker whose refused messages the audit checks: the last ones that sent.
    private static let refusedMax = 10_000

    /// - Parameter ingest: its gates know when they refused a message of a device.
    func makeAudit(_ queries: QueryPool, _ ingest: IngestService) -> CertificateAudit {
        let refuses = check?.refuses ?? false
        return CertificateAudit(
            registry: registry, keys: keys, clock: clock,
            refusedMessages: { device in
                guard refuses else { return [] }
                let found =
                    device.map { ingest.withoutCertificate(tenant: $0.tenantID, device: $0.deviceID) }
                    ?? ingest.lastWithoutCertificate(Self.refusedMax)
                return found.map {
                    LastMessage(tenantID: $0.tenant, deviceID: $0.device, at: $0.lastAt, position: nil)
                }
            },
            lastMessages: { tenants, device, after, limit in
                do {
                    return try await queries.use { tables in
                        try await tables.senders(
                            of: tenants, device: device, after: after.map { ($0.tenantID, $0.deviceID) }, limit: limit)
                    }.map(LastMessage.init)
                } catch {
                    // The API must not expose database errors; `refold status` has them.
                    throw SendersUnknown()
                }
            })
    }

    /// - Parameter receiving: returns true once the clock is trusted; events of a wrong clock would stay in the log.
    func part(
        _ audit: CertificateAudit, after receiving: Task<Bool, Never>, _ troubles: Troubles, _ logger: Logger
    ) -> DaemonPart {
        DaemonPart(
            "certificates", logger: logger,
            cancellable: {
                await withDiscardingTaskGroup { group in
                    group.addTask {
                        let report: @Sendable ((any Error)?) -> Void = { error in
                            guard troubles.report(error, by: CertificateRegistry.storedName), let error else { return }
                            logger.error(
                                "cannot read the certificates in the log; none are issued or revoked",
                                metadata: ["error": "\(error)"])
                        }
                        do { try await registry.recover() } catch { report(error) }
                        guard await receiving.value else { return }
                        await registry.run(report: report)
                    }
                    group.addTask {
                        guard await receiving.value else { return }
                        await crls.run { crl in
                            for (_, enforcer) in enforcers { enforcer.wake() }
                            logger.info(
                                "CRL issued",
                                metadata: [
                                    "authority": "\(crl.event.authority)", "number": "\(crl.event.number)",
                                    "entries": "\(crl.event.entries)", "next_update": "\(crl.event.nextUpdate)",
                                ])
                        } report: { errors in
                            // `registry.run` reports errors that are not about one authority.
                            let failures = errors.compactMap { $0 as? CRLFailure }
                            guard failures.count == errors.count, troubles.report(crls: failures) else { return }
                            for failure in failures {
                                logger.error("no CRL issued; retrying in 10 s", metadata: ["error": "\(failure)"])
                            }
                        }
                    }
                    group.addTask {
                        guard await receiving.value else { return }
                        await renewals.run { error in
                            guard troubles.report(error, by: "renewals"), let error else { return }
                            logger.error(
                                "cannot renew certificates; retrying in 10 s", metadata: ["error": "\(error)"])
                        }
                    }
                    group.addTask {
                        await audit.run { error in
                            guard troubles.report(error, by: "audit"), let error else { return }
                            logger.error(
                                "cannot audit certificates; retrying in 5 s", metadata: ["error": "\(error)"])
                        }
                    }
                    for (broker, enforcer) in enforcers {
                        group.addTask {
                            guard await receiving.value else { return }
                            await enforcer.run { Self.report($0, at: broker, troubles, logger) }
                        }
                    }
                }
            })
    }

    private static func report(
        _ problems: EnforcementProblems, at broker: String, _ troubles: Troubles, _ logger: Logger
    ) {
        if troubles.report(crlsAt: broker, problems.unproved), let error = problems.unproved {
            logger.error(
                "cannot prove that CRLs are in force; retrying in 5 s",
                metadata: ["broker": "\(broker)", "error": "\(error)"])
        }
        if troubles.report(cutsAt: broker, problems.uncut), let error = problems.uncut {
            logger.error(
                "cannot disconnect clients of revoked certificates; retrying within 60 s",
                metadata: ["broker": "\(broker)", "error": "\(error)"])
        }
    }
}

extension RenewalPolicy {
    init(_ settings: Settings.Certificates) {
        self.init()
        isEnabled = settings.renews
        afterPercent = Int64(settings.renewAfterPercent)
        graceSeconds = Int64(settings.renewGraceDays) * 86_400
    }
}

private struct SendersUnknown: Error, CustomStringConvertible {
    var description: String { "cannot read the table device_status; `refold status` has the reason" }
}

extension LastMessage {
    fileprivate init(_ sender: TableQueries.Sender) {
        self.init(
            tenantID: sender.tenantID, deviceID: sender.deviceID, at: Timestamp(microseconds: sender.lastSeenAt),
            position: Position(UInt64(clamping: sender.lastPosition)))
    }
}

extension IssuingOptions {
    init(_ settings: Settings.Certificates) {
        self.init()
        commonName = NamePattern(settings.commonName)
        organization = settings.organization
        validitySeconds = Int64(settings.validDays) * 86_400
        crlBaseURL = settings.crlURL
        crl = CRLPolicy(lifetimeSeconds: Int64(settings.crlDays) * 86_400)
    }
}
