import Certificates
import Deciding
import Decisions
import Enforcement
import EventLog
import EventModel
import Issuing
import PKI

/// One run of the daemon: the decider, the CRL signer, and one enforcer for each broker. A kill discards its state.
final class CertificateProcess {
    struct Enforcer {
        let broker: Int
        let file: CRLFile
        var steps: EnforcementSteps
    }

    let runtime: DeciderRuntime<CertificateRegistry>
    let disk: SimulatedFileSystem
    /// What this process hands out, by authority.
    var published: [String: PublishedCRL] = [:]
    var enforcers: [Enforcer]

    init(
        _ log: DecisionLog, disk: SimulatedFileSystem, brokers: [CertificateBroker],
        snapshot: DeciderSnapshot<CertificateRegistry>?
    ) {
        self.disk = disk
        runtime = DeciderRuntime(
            writer: DecisionWriter(log), source: log, clock: { log.now() }, snapshot: { snapshot })
        enforcers = brokers.indices.map { index in
            Enforcer(
                broker: index, file: CRLFile(brokers[index].path, fileSystem: disk),
                steps: EnforcementSteps(
                    broker: brokers[index].name, reloads: !brokers[index].fetches, proves: brokers[index].isProbed,
                    fetches: brokers[index].fetches))
        }
    }

    /// As `CRLService.current`.
    func current(_ id: String) throws -> PublishedCRL? {
        guard let authority = try runtime.recover().authority(id), let last = authority.lastCRL else { return nil }
        if let known = published[id], known.event == last { return known }
        guard let draft = authority.lastDraft else { return nil }
        let crl = PublishedCRL(
            event: last, list: try CRLService.rebuild(last, draft), issuedAt: authority.lastCRLAt, canary: nil)
        published[id] = crl
        return crl
    }
}
