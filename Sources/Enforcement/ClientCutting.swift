import Certificates
import Deciding
import Decisions
import EventModel
import Primitives
import Threading

/// How clients of revoked certificates are disconnected at a broker.
public struct ClientCutting: Sendable {
    public enum Method: Sendable {
        /// After the CRL is proved.
        case afterProof(any ClientCutter)
        /// At once, with a ban until the CRL is proved. EMQX fetches CRLs by itself, every `refreshSeconds`.
        case ban(EMQXCutter, refreshSeconds: Int)
    }

    public let method: Method
    public let names: ClientNames
    /// Common names of certificates; nil where one is not known.
    public let commonNames: @Sendable ([DeviceCertificate]) async throws -> [Result<String?, any Error>]

    public init(
        _ method: Method, names: ClientNames,
        commonNames: @escaping @Sendable ([DeviceCertificate]) async throws -> [Result<String?, any Error>]
    ) {
        (self.method, self.names, self.commonNames) = (method, names, commonNames)
    }

    var isBan: Bool { if case .ban = method { true } else { false } }
    var refreshSeconds: Int { if case .ban(_, let seconds) = method { seconds } else { 0 } }

    /// The names by which the method knows a client.
    private var used: [(pattern: NamePattern, name: @Sendable (ClientTarget) -> String?)] {
        switch method {
        case .afterProof(is DynsecCutter): [(names.username, \.username)]
        case .afterProof: [(names.clientID, \.clientID)]
        case .ban: [(names.clientID, \.clientID), (names.username, \.username)]
        }
    }

    /// - Returns: the names of each certificate's client, or why they are not known.
    func targets(_ certificates: [DeviceCertificate]) async throws -> [Result<ClientTarget, UnusableNames>] {
        let commonNames: [Result<String?, any Error>] =
            used.contains(where: { $0.pattern.needsCommonName })
            ? try await commonNames(certificates) : certificates.map { _ in .success(nil) }
        return zip(certificates, commonNames).map { certificate, found in
            let commonName: String?
            do {
                commonName = try found.get()
            } catch {
                return .failure(
                    UnusableNames("the common name of \(certificate.reference) cannot be read: \(error)"))
            }
            let target = names.target(
                tenantID: certificate.tenantID, deviceID: certificate.deviceID, commonName: commonName)
            // EMQX bans by each name that is known.
            guard used.contains(where: { $0.name(target) != nil }) else {
                return .failure(
                    UnusableNames("the common name of \(certificate.reference) is not in the log any more"))
            }
            return .success(target)
        }
    }

    /// As `targets`. A failure also where another tenant's device may have the same name: that client is not
    /// disconnected.
    func ownTargets(
        _ certificates: [DeviceCertificate], _ registry: DeciderService<CertificateRegistry>, at now: Timestamp
    ) async throws -> [Result<ClientTarget, UnusableNames>] {
        var targets = try await targets(certificates)
        for (pattern, name) in used {
            let expanded = names.expanded(pattern)
            let named = zip(targets, certificates).map { target, certificate in
                (name: (try? target.get()).flatMap(name) ?? "", tenantID: certificate.tenantID)
            }
            let shared = try await registry.query { $0.areShared(named, by: expanded, at: now) }
            for (index, certificate) in certificates.enumerated() where named[index].name != "" {
                if shared[index] {
                    targets[index] = .failure(
                        UnusableNames(
                            "the device \(certificate.deviceID) of another tenant may have the same client id or "
                                + "user name: put {tenant} into crl_client_id and crl_username"))
                }
            }
        }
        return targets
    }
}

/// Retry state of failed disconnections at one authority. New revocations do not wait for it.
struct CutRetry {
    /// Monotonic, in microseconds.
    var at: Int64
    var delay: Int64
    /// Of the newest one that failed.
    var end: UInt64
    var problem: String
}

extension CRLEnforcer {
    /// Clients in one call of the cutter, and in one commit.
    private static let batchCount = 256
    /// Longest time for one: the time limits of its requests together.
    private static let clientSecondsMax = 30
    private static let retryMicroseconds: Int64 = 5_000_000
    private static let retryMicrosecondsMax: Int64 = 60_000_000

    var bans: Bool { broker.cutting?.isBan ?? false }

    private func key(_ authority: String) -> EnforcementKey {
        EnforcementKey(broker: broker.name, authority: authority)
    }

    /// Bans and disconnects, at a broker that bans, every client of a revoked certificate.
    /// - Returns: why some are not.
    func ban() async throws -> [String] {
        guard let cutting = broker.cutting, case .ban(let cutter, _) = cutting.method else { return [] }
        let name = broker.name
        let crls = try await registry.query { registry in
            registry.authorities.compactMap { authority -> CRLIssued? in
                let key = EnforcementKey(broker: name, authority: authority.added.id)
                // Without a proof, the broker may not trust the authority: do not ban the devices of its certificates.
                guard var crl = authority.lastCRL, let known = registry.enforcements[key], known.proved > 0 else {
                    return nil
                }
                // The newest one may not have been served for the broker yet.
                crl.number = known.written
                return crl
            }
        }
        var problems: [String] = []
        for crl in crls {
            let cuts = try await cut(crl, end: .max, cutter, cutting, isBan: true)
            // Of certificates that were released from hold.
            problems += try await recorded(cuts + lift(crl, cutter, cutting), crl)
        }
        return problems
    }

    /// What follows the proof of an authority's CRL.
    func finish(_ authority: String) async throws -> [String] {
        let now = clock()
        // An authority that was abandoned may be in use again. Nothing proves its CRL then.
        if steps.isAbandoned(authority), try await !registry.query({ $0.isAbandoned(authority, at: now) }) { return [] }
        guard let cutting = broker.cutting, let proof = steps.proof(authority),
            var crl = try await registry.query({ $0.authority(authority)?.lastCRL })
        else { return [] }
        crl.number = proof.number
        let problems =
            switch cutting.method {
            case .afterProof(let cutter): try await cut(crl, end: proof.end, cutter, cutting, isBan: false)
            case .ban(let cutter, _):
                (retries[authority].map { [$0.problem] } ?? []) + (try await lift(crl, cutter, cutting))
            }
        return try await recorded(problems, crl)
    }

    private func cut(
        _ crl: CRLIssued, end: UInt64, _ cutter: any ClientCutter, _ cutting: ClientCutting, isBan: Bool
    ) async throws -> [String] {
        let key = key(crl.authority), retry = retries[crl.authority]
        let isDue = retry.map { SystemTime.monotonicMicroseconds() >= $0.at } ?? true
        var clients = try await registry.query { $0.clientsToCut(key, end: end) }[...]
        if clients.isEmpty { retries[crl.authority] = nil }
        if let retry, !isDue { clients = clients.filter { $0.end > retry.end }[...] }
        guard !clients.isEmpty else { return retries[crl.authority].map { [$0.problem] } ?? [] }
        let newest = clients.last?.end ?? 0
        var problem: String?
        while !clients.isEmpty {
            let batch = Array(clients.prefix(Self.batchCount))
            beat(clients: batch.count)
            clients = clients.dropFirst(batch.count)
            let outcomes = try await outcomes(of: batch, cutter, cutting)
            let events = zip(batch, outcomes).compactMap { event($0, $1, crl, isBan, &problem) }
            if !events.isEmpty {
                try await execute(.cut(events))
            }
            // A CRL that was issued meanwhile comes first.
            if stopping.hasBegun { break }
            if await isBehind() { break }
        }
        guard let problem else {
            if isDue, clients.isEmpty { retries[crl.authority] = nil }
            return retries[crl.authority].map { [$0.problem] } ?? []
        }
        let text = "clients of revoked certificates are not disconnected: \(problem)"
        var next = retry ?? CutRetry(at: 0, delay: Self.retryMicroseconds / 2, end: 0, problem: text)
        if isDue {
            next.delay = min(next.delay * 2, Self.retryMicrosecondsMax)
            next.at = SystemTime.monotonicMicroseconds() + next.delay
        }
        (next.end, next.problem) = (newest, text)
        retries[crl.authority] = next
        return [text]
    }

    /// Before clients are disconnected, or their bans lifted.
    private func beat(clients: Int) { heartbeat.beat(within: Self.stepSecondsMax + clients * Self.clientSecondsMax) }

    private func outcomes(
        of batch: [ClientToCut], _ cutter: any ClientCutter, _ cutting: ClientCutting
    ) async throws -> [CutOutcome] {
        let targets = try await cutting.ownTargets(batch.map(\.certificate), registry, at: clock())
        var outcomes = cutter.cut(targets.compactMap { try? $0.get() })[...]
        return targets.map { target in
            switch target {
            case .success: outcomes.removeFirst()
            case .failure(let problem): .failed(error: problem.description)
            }
        }
    }

    /// One event for all problems: alternating texts would each be recorded as new.
    private func recorded(_ problems: [String], _ crl: CRLIssued) async throws -> [String] {
        guard !problems.isEmpty else { return [] }
        var event = CRLEnforced(
            .uncut, broker: broker.name, authority: crl.authority, tenantID: crl.tenantID, number: crl.number, actor: ""
        )
        event.error = problems.joined(separator: "; ")
        try await record(event)
        return problems
    }

    /// - Returns: the event to record; nil: the attempt failed, or the log has this outcome already.
    private func event(
        _ client: ClientToCut, _ outcome: CutOutcome, _ crl: CRLIssued, _ isBan: Bool, _ problem: inout String?
    ) -> ClientCut? {
        let certificate = client.certificate
        func event(_ outcome: ClientCut.Outcome, _ evidence: String?) -> ClientCut {
            ClientCut(
                broker: broker.name, authority: crl.authority, serial: certificate.reference.serial.description,
                tenantID: certificate.tenantID, deviceID: certificate.deviceID, number: crl.number, outcome: outcome,
                evidence: evidence, isBanned: isBan ? true : nil, actor: "")
        }
        switch outcome {
        case .cut(let evidence): return event(.cut, evidence)
        case .wasNotConnected: return event(.wasNotConnected, nil)
        case .stillConnected(let reason):
            problem = problem ?? "\(certificate.reference) is still connected: \(reason)"
            return client.isStillConnected ? nil : event(.stillConnected, reason)
        case .failed(let error):
            problem = problem ?? error
            return nil
        }
    }

    private func lift(
        _ crl: CRLIssued, _ cutter: EMQXCutter, _ cutting: ClientCutting
    ) async throws -> [String] {
        let key = key(crl.authority), ends = steps.ends, now = clock()
        let clients = try await registry.query { $0.bansToLift(key, ends: ends, at: now) }
        guard !clients.isEmpty else { return [] }
        beat(clients: clients.count)
        var lifted: [ClientBanLifted] = [], problem: String?
        for (client, target) in zip(clients, try await cutting.targets(clients.map(\.certificate))) {
            if stopping.hasBegun { break }
            let what = "the ban of \(client.certificate.deviceID) is not lifted"
            guard case .success(let target) = target else {
                if case .failure(let error) = target { problem = problem ?? "\(what): \(error)" }
                continue
            }
            do throws(EMQXError) {
                try cutter.lift(target)
            } catch {
                problem = "\(what): \(error)"
                break
            }
            lifted.append(
                ClientBanLifted(
                    broker: broker.name, authority: crl.authority,
                    serial: client.certificate.reference.serial.description, tenantID: client.certificate.tenantID,
                    deviceID: client.certificate.deviceID, number: crl.number, actor: ""))
        }
        for start in stride(from: 0, to: lifted.count, by: Self.batchCount) {
            let part = Array(lifted[start..<min(start + Self.batchCount, lifted.count)])
            try await execute(.liftBans(part))
        }
        return problem.map { [$0] } ?? []
    }
}
