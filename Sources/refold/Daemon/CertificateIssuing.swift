import Certificates
import Deciding
import Decisions
import Enforcement
import EventLog
import EventModel
import Issuing
import Logging
import MQTT
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
    let renewals: RenewalService
    /// One for each broker with a CRL file.
    let enforcers: [(broker: String, enforcer: CRLEnforcer)]

    init(
        _ settings: Settings, log: FileLog, writer: DecisionWriter, outbox: any Outbox,
        snapshot: @escaping @Sendable () -> DeciderSnapshot<CertificateRegistry>?
    ) {
        let clock: @Sendable () -> Timestamp = { log.now() }
        let executor = ThreadExecutor(name: "crl"), known = Mutex<[Position]>([])
        let renewing = ThreadExecutor(name: "renewals"), answered = Mutex<Position?>(nil)
        registry = DeciderService(
            writer: writer, source: log, clock: clock, outbox: outbox, snapshot: snapshot,
            onChange: { registry in
                // Once for each change: what cannot be signed is tried again after a pause, not at every round.
                let needs = registry?.authorities.filter(\.needsCRL).map(\.entriesEnd) ?? []
                let isNew = known.withLock { known in
                    defer { known = needs }
                    return known != needs
                }
                if isNew, !needs.isEmpty { executor.wake() }
                let last = registry?.lastAnswer
                let hasAnswer = answered.withLock { answered in
                    defer { answered = last }
                    return answered != last
                }
                if hasAnswer { renewing.wake() }
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
        renewals = RenewalService(service, policy: RenewalPolicy(settings.certificates), executor: renewing)
        enforcers = settings.brokers.compactMap { [registry, crls] broker in
            EnforcedBroker(broker, timeoutSeconds: seconds).map {
                (broker.name, CRLEnforcer($0, registry: registry, crls: crls, clock: clock))
            }
        }
    }

    /// - Parameter receiving: the clock is right: a renewal that is opened by a wrong one stays on the record.
    func part(after receiving: Task<Bool, Never>, _ troubles: Troubles, _ logger: Logger) -> DaemonPart {
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
                    group.addTask {
                        await renewals.run { error in
                            guard troubles.report(error, by: "renewals"), let error else { return }
                            logger.error(
                                "cannot renew certificates; retrying in 10 s", metadata: ["error": "\(error)"])
                        }
                    }
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

extension RenewalPolicy {
    init(_ settings: Settings.Certificates) {
        self.init()
        isEnabled = settings.renews
        afterPercent = Int64(settings.renewAfterPercent)
        graceSeconds = Int64(settings.renewGraceDays) * 86_400
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
