import Certificates
import Deciding
import Enforcement
import EventLog
import EventModel
import Issuing
import Logging
import MQTT
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
    let audit: CertificateAudit
    /// One for each broker with a CRL file.
    let enforcers: [(broker: String, enforcer: CRLEnforcer)]

    init(
        _ settings: Settings, log: FileLog, writer: DecisionWriter, queries: QueryPool,
        snapshot: @escaping @Sendable () -> DeciderSnapshot<CertificateRegistry>?
    ) {
        let clock: @Sendable () -> Timestamp = { log.now() }
        let executor = ThreadExecutor(name: "crl"), known = Mutex<[Position]>([])
        registry = DeciderService(
            writer: writer, source: log, clock: clock, snapshot: snapshot,
            onChange: { registry in
                // Once for each change: what cannot be signed is tried again after a pause, not at every round.
                let needs = registry?.authorities.filter(\.needsCRL).map(\.entriesEnd) ?? []
                let isNew = known.withLock { known in
                    defer { known = needs }
                    return known != needs
                }
                if isNew, !needs.isEmpty { executor.wake() }
            })
        // A revocation waits for them.
        let seconds = min(settings.commandTimeoutSeconds, Self.commandSecondsMax)
        let keys = AuthorityKeys(
            folder: settings.data + "/authorities",
            passphrase: settings.certificates.keyPassphrase.map { Array($0.utf8) },
            signCommand: settings.certificates.signCommand, commandTimeoutSeconds: seconds)
        let options = IssuingOptions(settings.certificates)
        service = CertificateService(registry: registry, source: log, keys: keys, options: options, clock: clock)
        crls = CRLService(registry: registry, keys: keys, policy: options.crl, executor: executor, clock: clock)
        audit = CertificateAudit(registry: registry, keys: keys, clock: clock) { tenants, after, limit in
            do {
                return try await queries.use { tables in
                    try await tables.senders(
                        tenants: tenants, after: after.map { ($0.tenantID, $0.deviceID) }, limit: limit)
                }.map(LastMessage.init)
            } catch {
                // Callers are told nothing of the inside; the status has it.
                throw SendersUnknown()
            }
        }
        enforcers = settings.brokers.compactMap { [registry, crls] broker in
            EnforcedBroker(broker, timeoutSeconds: seconds).map {
                (broker.name, CRLEnforcer($0, registry: registry, crls: crls, clock: clock))
            }
        }
    }

    func part(_ troubles: Troubles, _ logger: Logger) -> DaemonPart {
        DaemonPart(
            "certificates", logger: logger,
            cancellable: {
                await withDiscardingTaskGroup { group in
                    group.addTask {
                        await registry.run { error in
                            guard troubles.report(error, by: CertificateRegistry.storedName), let error else { return }
                            logger.error(
                                "cannot read the certificates in the log; none are issued or revoked",
                                metadata: ["error": "\(error)"])
                        }
                    }
                    group.addTask {
                        await crls.run { issued in
                            for (_, enforcer) in enforcers { enforcer.wake() }
                            for crl in issued {
                                logger.info(
                                    "CRL issued",
                                    metadata: [
                                        "authority": "\(crl.event.authority)", "number": "\(crl.event.number)",
                                        "entries": "\(crl.event.entries)", "next_update": "\(crl.event.nextUpdate)",
                                    ])
                            }
                        } report: { errors in
                            // `registry.run` reports errors that are not about one authority.
                            let failures = errors.compactMap { $0 as? CRLFailure }
                            guard failures.count == errors.count, troubles.report(crls: failures) else { return }
                            for failure in failures {
                                logger.error("no CRL issued; retrying in 10 s", metadata: ["error": "\(failure)"])
                            }
                        }
                    }
                    group.addTask { await audit.run() }
                    for (broker, enforcer) in enforcers {
                        group.addTask {
                            await enforcer.run { problem in
                                guard troubles.report(crlsAt: broker, problem), let problem else { return }
                                logger.error(
                                    "CRL not proved to be in force; retrying in 5 s",
                                    metadata: ["broker": "\(broker)", "error": "\(problem)"])
                            }
                        }
                    }
                }
            })
    }
}

private struct SendersUnknown: Error, CustomStringConvertible {
    var description: String { "the table device_status cannot be read now; refold status shows why" }
}

extension LastMessage {
    fileprivate init(_ sender: TableQueries.Sender) {
        self.init(
            tenantID: sender.tenantID, deviceID: sender.deviceID, at: Timestamp(microseconds: sender.lastSeenAt),
            position: Position(UInt64(clamping: sender.lastPosition)))
    }
}

extension EnforcedBroker {
    /// Nil: the broker has no CRL file.
    init?(_ broker: Settings.Broker, timeoutSeconds: Int) {
        guard let crl = broker.crl else { return nil }
        self.init(
            name: broker.name, file: CRLFile(crl.file),
            reload: crl.reloadCommand.map { ReloadCommand($0, timeoutSeconds: timeoutSeconds) },
            probe: crl.probe.map { address in
                var settings = BrokerSettings(
                    name: broker.name, host: address.host, port: address.port, clientID: "refold-canary")
                settings.tls = BrokerSettings.TLS(caFile: crl.probeCAFile, verify: broker.verify)
                return CanaryProbe(settings)
            })
    }
}

extension IssuingOptions {
    init(_ settings: Settings.Certificates) {
        self.init()
        commonNamePattern = settings.commonName
        organization = settings.organization
        validitySeconds = Int64(settings.validDays) * 86_400
        crlBaseURL = settings.crlURL
        crl = CRLPolicy(lifetimeSeconds: Int64(settings.crlDays) * 86_400)
    }
}
