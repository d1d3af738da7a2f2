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
    private var steps: EnforcementSteps
    /// CRL numbers of the present round, by authority.
    private var seen: [String: UInt64] = [:]
    private let stopping = Stopping()

    public nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    /// Time for a broker to read a CRL that it was told to reload.
    private static let proofMicroseconds: Int64 = 5_000_000
    private static let betweenProbesMilliseconds = 20
    private static let betweenProbesMillisecondsMax = 500
    private static let retryMilliseconds = 5_000
    private static let restMilliseconds = 60_000

    public init(
        _ broker: EnforcedBroker, registry: DeciderService<CertificateRegistry>, crls: CRLService,
        clock: @escaping @Sendable () -> Timestamp
    ) {
        (self.broker, self.registry, self.crls, self.clock) = (broker, registry, crls, clock)
        executor = ThreadExecutor(name: "crl-\(broker.name)")
        steps = EnforcementSteps(
            broker: broker.name, reloads: broker.reload != nil, proves: broker.probe != nil)
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
                authority.lastCRL.map { (authority.added.id, authority.added.notAfter, $0.number) }
            }
        }
        seen = Dictionary(uniqueKeysWithValues: authorities.map { ($0.0, $0.2) })
        for (id, notAfter, _) in authorities {
            guard var crl = try await crls.current(id) else { continue }
            // An authority that cannot sign does not hold up the others: its last CRL is written.
            if steps.lacksCanary(crl, authorityEnd: notAfter, at: now) {
                do throws(CRLFailure) { crl = try await crls.issue(id) } catch { problems.append("\(error)") }
            }
            current.append(crl)
            seen[id] = crl.event.number
        }
        guard !current.isEmpty else { return problems.first }
        let live = Set(authorities.filter { now <= $0.1 }.map(\.0))
        steps.begin(current, live: live, now: SystemTime.monotonicMicroseconds())
        while let step = steps.next {
            let problem = try await perform(step)
            if let problem { problems.append(problem) }
            let isOutdated = problem == nil ? false : await isBehind()
            let events = steps.finish(
                problem: problem, isOutdated: isOutdated, now: SystemTime.monotonicMicroseconds(), at: clock())
            do {
                for event in events { try await record(event) }
            } catch {
                steps.startAgain()
                throw error
            }
        }
        return problems.isEmpty ? nil : problems.joined(separator: "; ")
    }

    /// Nil: it succeeded.
    private func perform(_ step: EnforcementSteps.Step) async throws -> String? {
        switch step {
        case .write:
            do throws(CRLFileError) {
                _ = try broker.file.write(steps.crls.map(\.list.der))
            } catch {
                return error.description
            }
        case .reload:
            do throws(ReloadError) {
                try broker.reload?.run(crlPath: broker.file.path, broker: broker.name) { [stopping] in
                    stopping.hasBegun
                }
            } catch {
                return error.description
            }
        case .prove(let crl): return try await problem(with: crl)
        }
        return nil
    }

    /// A CRL was issued since the round began.
    private func isBehind() async -> Bool {
        let numbers = try? await registry.query { registry in
            registry.authorities.compactMap { authority in authority.lastCRL.map { (authority.added.id, $0.number) } }
        }
        return numbers?.contains { seen[$0.0] != $0.1 } ?? false
    }

    /// Nil: it is in force. A broker takes a while to read a CRL that it was told to reload.
    private func problem(with crl: PublishedCRL) async throws -> String? {
        guard let probe = broker.probe else { return nil }
        guard let canary = crl.canary else { return "the canary of the CRL \(crl.event.number) is gone" }
        let live = try await crls.liveCanary(crl.event.authority)
        let end = SystemTime.monotonicMicroseconds() + Self.proofMicroseconds
        var problem: String?, pause = Self.betweenProbesMilliseconds
        repeat {
            if stopping.hasBegun { return "stopped before it was proved" }
            problem = try EnforcementSteps.problem(with: crl.event) { which in
                switch which {
                case .revoked: probe.perform(try canary.identity(), clientID: "refold-canary-revoked")
                case .live: probe.perform(try live.identity(), clientID: "refold-canary-live")
                }
            }
            if problem == nil { return nil }
            if await isBehind() { return problem }
            executor.rest(milliseconds: pause)
            pause = min(pause * 2, Self.betweenProbesMillisecondsMax)
        } while SystemTime.monotonicMicroseconds() < end
        return problem
    }

    private func record(_ event: CRLEnforced) async throws {
        let key = EnforcementKey(broker: event.broker, authority: event.authority)
        guard steps.isNews(event, after: try await registry.query { $0.enforcements[key] }) else { return }
        _ = try await registry.execute(
            RegistryRequest(tenantID: event.tenantID, actor: EngineActor.name, command: .enforce(event)))
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
