import Certificates
import Deciding
import Decisions
import EventModel
import Issuing
import PKI
import Primitives
import Synchronization
import Threading

/// A broker whose CRL file is kept.
public struct EnforcedBroker: Sendable {
    public var name: String
    public var file: CRLFile
    /// Nil: the broker reads the file by itself, or fetches CRLs over HTTP.
    public var reload: ReloadCommand?
    /// Nil: nothing is proved.
    public var probe: CanaryProbe?

    public init(name: String, file: CRLFile, reload: ReloadCommand?, probe: CanaryProbe?) {
        (self.name, self.file, self.reload, self.probe) = (name, file, reload, probe)
    }
}

/// Puts every CRL in force at one broker, and proves it: WRITTEN → RELOADED → PROVED, each step on the record. Between
/// CRLs it proves the last one again every minute. Nothing is reloaded before the whole file is on disk.
public actor CRLEnforcer {
    private let broker: EnforcedBroker
    private let registry: DeciderService<CertificateRegistry>
    private let crls: CRLService
    private let clock: @Sendable () -> Timestamp
    private let executor: ThreadExecutor
    /// CRL number that the file has, by authority. Empty after a start: the file is written again.
    private var written: [String: UInt64] = [:]
    private var lastProof: [String: Int64] = [:]
    /// CRL numbers of the present round, by authority.
    private var seen: [String: UInt64] = [:]
    private let stopping = Stopping()

    public nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    /// Time for a broker to read a CRL that it was told to reload.
    private static let proofMicroseconds: Int64 = 5_000_000
    private static let betweenProbesMilliseconds = 20
    private static let betweenProbesMillisecondsMax = 500
    private static let standingProofMicroseconds: Int64 = 60_000_000
    private static let retryMilliseconds = 5_000
    private static let restMilliseconds = 60_000

    public init(
        _ broker: EnforcedBroker, registry: DeciderService<CertificateRegistry>, crls: CRLService,
        clock: @escaping @Sendable () -> Timestamp
    ) {
        (self.broker, self.registry, self.crls, self.clock) = (broker, registry, crls, clock)
        executor = ThreadExecutor(name: "crl-\(broker.name)")
    }

    /// Another CRL was issued.
    public nonisolated func wake() { executor.wake() }

    /// Until the task is cancelled.
    /// - Parameter report: called after each round with what went wrong; nil when nothing did.
    public func run(report: @escaping @Sendable (String?) -> Void) async {
        await withTaskCancellationHandler {
            while !Task.isCancelled {
                var problem: String?
                do {
                    problem = try await round()
                } catch {
                    problem = "\(error)"
                }
                if Task.isCancelled { return }
                report(problem)
                // What was issued while this one waited for a proof comes first.
                if await !isBehind() {
                    executor.rest(milliseconds: problem == nil ? Self.restMilliseconds : Self.retryMilliseconds)
                }
                await Task.yield()
            }
        } onCancel: { [executor, stopping] in
            stopping.begin()
            executor.wake()
        }
    }

    /// Writes, reloads and proves what is not in force yet.
    /// - Returns: what went wrong; the round is repeated then.
    func round() async throws -> String? {
        var current: [PublishedCRL] = [], problems: [String] = []
        let now = clock()
        let authorities = try await registry.query { registry in
            registry.authorities.compactMap { authority in
                authority.lastCRL.map { (authority.added.id, now <= authority.added.notAfter, $0.number) }
            }
        }
        seen = Dictionary(uniqueKeysWithValues: authorities.map { ($0.0, $0.2) })
        for (id, isLive, _) in authorities {
            guard var crl = try await crls.current(id) else { continue }
            // The canary of a CRL from before the start is gone, and only its refusal proves the CRL. An authority that
            // cannot sign does not hold up the others: its last CRL is written.
            if broker.probe != nil, crl.canary == nil, isLive {
                do throws(CRLFailure) { crl = try await crls.issue(id) } catch { problems.append("\(error)") }
            }
            current.append(crl)
            seen[id] = crl.event.number
        }
        guard !current.isEmpty else { return problems.first }
        if current.contains(where: { written[$0.event.authority] != $0.event.number }) {
            if let problem = try await write(current) { return problem }
        }
        // Brokers accept no client of an expired authority.
        let live = Set(authorities.filter(\.1).map(\.0))
        if let problem = try await prove(current.filter { live.contains($0.event.authority) }) {
            problems.append(problem)
        }
        return problems.isEmpty ? nil : problems.joined(separator: "; ")
    }

    /// A CRL was issued since the round began.
    private func isBehind() async -> Bool {
        let numbers = try? await registry.query { registry in
            registry.authorities.compactMap { authority in authority.lastCRL.map { (authority.added.id, $0.number) } }
        }
        return numbers?.contains { seen[$0.0] != $0.1 } ?? false
    }

    private func write(_ crls: [PublishedCRL]) async throws -> String? {
        do throws(CRLFileError) {
            _ = try broker.file.write(crls.map(\.list.der))
        } catch {
            // Without a reload: a broker that reads a damaged file accepts everyone (Mosquitto 2.0), or ends (2.1).
            return try await unproved(crls, "\(error)")
        }
        for crl in crls { try await record(.written, crl) }
        if let reload = broker.reload {
            do throws(ReloadError) {
                try reload.run(crlPath: broker.file.path, broker: broker.name) { [stopping] in
                    stopping.hasBegun
                }
            } catch {
                return try await unproved(crls, "\(error)")
            }
            for crl in crls { try await record(.reloaded, crl) }
        }
        for crl in crls { (written[crl.event.authority], lastProof[crl.event.authority]) = (crl.event.number, nil) }
        return nil
    }

    private func prove(_ crls: [PublishedCRL]) async throws -> String? {
        guard let probe = broker.probe else { return nil }
        var problems: [String] = []
        for crl in crls {
            let authority = crl.event.authority, now = SystemTime.monotonicMicroseconds()
            if let last = lastProof[authority], now - last < Self.standingProofMicroseconds { continue }
            if let problem = try await self.problem(with: crl, probe) {
                // The broker may have another file, or have missed the reload: both are done again.
                (lastProof[authority], written[authority]) = (nil, nil)
                problems.append(try await unproved([crl], problem))
                if await isBehind() { break }
            } else {
                lastProof[authority] = SystemTime.monotonicMicroseconds()
                try await record(.proved, crl)
            }
        }
        return problems.isEmpty ? nil : problems.joined(separator: "; ")
    }

    /// Nil: the broker refuses the CRL's canary as revoked, and accepts a live one.
    private func problem(with crl: PublishedCRL, _ probe: CanaryProbe) async throws -> String? {
        guard let canary = crl.canary else { return "the canary of the CRL \(crl.event.number) is gone" }
        let live = try await crls.liveCanary(crl.event.authority)
        let end = SystemTime.monotonicMicroseconds() + Self.proofMicroseconds
        var seen = "", pause = Self.betweenProbesMilliseconds
        repeat {
            if stopping.hasBegun { return "stopped before it was proved" }
            let refusal = probe.perform(try canary.identity(), clientID: "refold-canary-revoked")
            switch refusal {
            case .refused(.certificateRevoked):
                switch probe.perform(try live.identity(), clientID: "refold-canary-live") {
                case .accepted: return nil
                case let outcome:
                    seen =
                        "the broker refuses a live certificate of \(crl.event.authority) (\(outcome)): devices are "
                        + "locked out"
                }
            case .accepted: seen = "the broker still accepts a certificate that the CRL \(crl.event.number) revokes"
            case let outcome: seen = "the canary of the CRL \(crl.event.number) was not refused as revoked: \(outcome)"
            }
            if await isBehind() { return seen }
            executor.rest(milliseconds: pause)
            pause = min(pause * 2, Self.betweenProbesMillisecondsMax)
        } while SystemTime.monotonicMicroseconds() < end
        return seen
    }

    private func unproved(_ crls: [PublishedCRL], _ problem: String) async throws -> String {
        for crl in crls { try await record(.unproved, crl, error: problem) }
        return problem
    }

    private func record(_ step: CRLEnforced.Step, _ crl: PublishedCRL, error: String? = nil) async throws {
        let key = EnforcementKey(broker: broker.name, authority: crl.event.authority)
        let known = try await registry.query { $0.enforcements[key] }
        switch step {
        // A file that is written again, after a start or a failure, is no news.
        case .written: if let known, known.written >= crl.event.number { return }
        case .reloaded: if let known, known.reloaded >= crl.event.number { return }
        case .proved: if let known, known.proved >= crl.event.number, known.error == nil { return }
        case .unproved: if let known, known.error == error { return }
        }
        var event = CRLEnforced(
            step, broker: broker.name, authority: crl.event.authority, tenantID: crl.event.tenantID,
            number: crl.event.number, actor: "")
        event.error = error
        if step == .proved {
            event.milliseconds = max(0, clock().microseconds.saturatingSubtracting(crl.issuedAt.microseconds) / 1_000)
        }
        _ = try await registry.execute(
            RegistryRequest(tenantID: crl.event.tenantID, actor: EngineActor.name, command: .enforce(event)))
    }
}

/// Set once, from any thread.
private final class Stopping: Sendable {
    private let flag = Mutex(false)

    var hasBegun: Bool { flag.withLock { $0 } }
    func begin() { flag.withLock { $0 = true } }
}

extension Canary {
    func identity() throws -> ClientIdentity {
        try ClientIdentity(certificatesPEM: try certificate.pem(), keyPEM: try key.pem())
    }
}
