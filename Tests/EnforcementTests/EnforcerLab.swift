import Certificates
import Deciding
import Decisions
import EventLog
import EventModel
import Foundation
import Issuing
import MQTT
import PKI
import Primitives
import Synchronization
import TestSupport
import Testing
import Threading
@testable import Enforcement

/// A real Mosquitto that devices reach over TLS, a real log with the registry and its services, and enforcers. The
/// authority of the broker's CA file is `fleet`.
final class EnforcerLab: Sendable {
    let server: MosquittoServer
    let internalPort: Int
    private let parts: Mutex<Parts>
    private let clock = Clock()
    private let crlURL: String?

    /// What is made again at a restart.
    private struct Parts {
        let log: FileLog
        let registry: DeciderService<CertificateRegistry>
        let certificates: CertificateService
        let crls: CRLService

        init(_ folder: String, _ clock: Clock, _ crlURL: String?) throws {
            let log = try FileLog.open(directory: folder + "/log")
            let now: @Sendable () -> Timestamp = { log.now().adding(microseconds: clock.shift.withLock { $0 }) }
            var options = IssuingOptions()
            (options.crlBaseURL, options.crlPointIsPEM) = (crlURL, true)
            let command =
                "date +%s%N >> \(folder)/signed; while test -e \(folder)/hang; do sleep 0.05; done; "
                + "openssl dgst -sha256 -sign \(folder)/hsm.key"
            let keys = AuthorityKeys(
                folder: folder + "/authorities", passphrase: nil, signCommand: command, commandTimeoutSeconds: 20)
            self.log = log
            registry = DeciderService(writer: DecisionWriter(log), source: log, clock: now, snapshot: { nil })
            certificates = CertificateService(
                registry: registry, source: log, keys: keys, options: options, clock: now)
            crls = CRLService(
                registry: registry, keys: keys, policy: options.crl, distributionPoint: options.crlDistributionPoint,
                executor: ThreadExecutor(name: "crl"), clock: now)
        }
    }

    /// The services' clock, set back or forward.
    private final class Clock: Sendable { let shift = Mutex<Int64>(0) }

    static let by = Operator(actor: "op", tenantID: "acme")

    /// - Parameters:
    ///   - more: authorities besides `fleet`.
    ///   - isTrusted: the broker trusts them too.
    ///   - hsm: with the authority `hsm`, whose sign command hangs while the file `hang` exists.
    ///   - crlURL: the address in certificates under which CRLs are fetched.
    init(
        more: [String] = [], isTrusted: Bool = true, hsm: Bool = false, dynsec: Bool = false, crlURL: String? = nil
    ) async throws {
        self.crlURL = crlURL
        internalPort = freeLoopbackPort()
        let plugin = try dynsec ? DynsecFiles() : nil
        server = try MosquittoServer(
            tls: true, clientCertificates: true, allowAnonymous: !dynsec,
            lines: ["crlfile $folder/fleet.crl", "pid_file $folder/pid", "use_identity_as_username true"]
                + (plugin?.lines ?? []) + ["listener \(internalPort) 127.0.0.1"],
            files: plugin.map { ["dynsec.json": $0.configuration] } ?? [:], started: false)
        parts = Mutex(try Parts(server.folder, clock, crlURL))
        var foreign = ForeignAuthority(
            id: "fleet", tenantID: "acme", certificates: try Self.bytes(server.folder + "/ca.pem"))
        foreign.key = try Self.bytes(server.folder + "/ca.key")
        _ = try await certificates.take(foreign, by: Self.by)
        for id in more {
            _ = try await certificates.create(NewAuthority(id: id, tenantID: "acme"), by: Self.by)
            let authorities = try await certificates.authorities()
            let added = try #require(authorities.first { $0.added.id == id }).added
            guard isTrusted else { continue }
            try trust(Array(added.pem.utf8))
        }
        if hsm { try await addHSM() }
        // The broker does not start without its CRL file.
        var lists: [[UInt8]] = []
        for id in ["fleet"] + more + (hsm ? ["hsm"] : []) { lists.append(try await crls.issue(id).list.der) }
        _ = try CRLFile(crlPath).write(lists)
        try server.start()
        // Earlier, SIGHUP ends it.
        try #require(await eventually(within: 20) { self.server.logText.contains(" running\n") })
    }

    deinit { log.close() }

    private func trust(_ pem: [UInt8]) throws {
        try Data(try Self.bytes(server.folder + "/ca.pem") + pem)
            .write(to: URL(fileURLWithPath: server.folder + "/ca.pem"))
    }

    private func addHSM() async throws {
        let pem = try Self.bytes(TestAuthority("hsm", in: server.folder).certFile)
        var foreign = ForeignAuthority(id: "hsm", tenantID: Envelope.everyTenant, certificates: pem)
        foreign.usesSignCommand = true
        _ = try await certificates.take(foreign, by: Operator(actor: "op", tenantID: Envelope.everyTenant))
        try trust(pem)
    }

    private static func bytes(_ path: String) throws -> [UInt8] {
        Array(try Data(contentsOf: URL(fileURLWithPath: path)))
    }

    var crlPath: String { server.folder + "/fleet.crl" }
    var keyFolder: String { server.folder + "/authorities" }
    var log: FileLog { parts.withLock { $0.log } }
    var registry: DeciderService<CertificateRegistry> { parts.withLock { $0.registry } }
    var certificates: CertificateService { parts.withLock { $0.certificates } }
    var crls: CRLService { parts.withLock { $0.crls } }

    func shiftClock(seconds: Int64) { clock.shift.withLock { $0 += seconds * 1_000_000 } }

    /// The daemon ends, and starts again: canaries and everything else in memory is gone.
    func restart() throws {
        log.close()
        let new = try Parts(server.folder, clock, crlURL)
        parts.withLock { $0 = new }
    }

    // MARK: Enforcers

    var takeover: ClientCutting.Method {
        .afterProof(
            TakeoverCutter(
                BrokerSettings(name: "north", host: "127.0.0.1", port: internalPort, clientID: "refold-cutter")))
    }

    var dynsec: ClientCutting.Method {
        var settings = BrokerSettings(name: "north", host: "127.0.0.1", port: internalPort, clientID: "refold-cutter")
        (settings.username, settings.password) = ("admin", "secret")
        return .afterProof(DynsecCutter(settings))
    }

    /// When the sign command ran, in nanoseconds since 1970.
    var signTimes: [Int] {
        ((try? String(contentsOfFile: server.folder + "/signed", encoding: .utf8)) ?? "").split(separator: "\n")
            .compactMap { Int($0) }
    }

    /// Each run of it appends a line to `reloads`.
    var reload: String { "echo >> \(server.folder)/reloads; kill -HUP $(cat \(server.folder)/pid)" }
    var reloadCount: Int {
        (try? String(contentsOfFile: server.folder + "/reloads", encoding: .utf8).count) ?? 0
    }

    func enforcer(
        _ method: ClientCutting.Method? = nil, reload: String? = nil, proofSeconds: Int64 = 2,
        writesFile: Bool = true, port: Int? = nil
    ) -> CRLEnforcer {
        let log = log, clock = clock, certificates = certificates
        let broker = EnforcedBroker(
            name: "north", file: writesFile ? CRLFile(crlPath) : nil,
            reload: writesFile ? ReloadCommand(reload ?? self.reload) : nil, probe: CanaryProbe(settings(port)),
            cutting: method.map {
                ClientCutting(
                    $0,
                    names: ClientNames(
                        clientID: "{device}", username: "{common_name}", commonName: "{tenant}/{device}"),
                    commonNames: certificates.commonNames)
            })
        return CRLEnforcer(broker, registry: registry, crls: crls, proofSeconds: proofSeconds) {
            log.now().adding(microseconds: clock.shift.withLock { $0 })
        }
    }

    /// Rounds until nothing is left to do.
    func enforce(_ enforcer: CRLEnforcer) async throws {
        var problems: EnforcementProblems?
        let isDone = try await eventually(within: 30) {
            problems = try await enforcer.round()
            let proved = await enforcer.provedNumbers
            let newest = try await registry.query { $0.authorities.compactMap(\.lastCRL?.number).sorted() }
            return problems == EnforcementProblems() && proved == newest
        }
        #expect(isDone, "\(String(describing: problems))")
    }

    /// The newest CRL of each authority is proved.
    var isInForce: Bool {
        get async {
            let found = try? await registry.query { registry in
                registry.authorities.allSatisfy { authority in
                    let key = EnforcementKey(broker: "north", authority: authority.added.id)
                    return authority.lastCRL.map { $0.number == registry.enforcements[key]?.proved } ?? false
                }
            }
            return found ?? false
        }
    }

    var status: EnforcementStatus? {
        get async {
            try? await certificates.enforcements().first {
                $0.key == EnforcementKey(broker: "north", authority: "fleet")
            }
        }
    }

    /// The schemas on the record from a position on.
    func schemas(from position: UInt64 = 0) throws -> [String] {
        let reader = try log.reader(from: Position(position)), block = EventBlock()
        var found: [String] = []
        while try reader.read(into: block, atLeast: 1) {
            block.forEach { record, at in if at.rawValue >= position { found.append(record.topicString) } }
            if block.end.rawValue >= log.durableCount { break }
        }
        return found
    }

    // MARK: Devices

    struct Device: Sendable {
        let id: String
        let reference: CertificateReference
        let identity: ClientIdentity
    }

    func device(_ id: String, authority: String = "fleet") async throws -> Device {
        var new = NewCertificate(tenantID: "acme", deviceID: id, key: .generated(.p256))
        new.authority = authority
        guard case .issued(_, let issued) = try await certificates.issue([new], by: Self.by), let made = issued.first
        else { throw SystemError("no certificate of \(id)") }
        return Device(
            id: id, reference: made.reference,
            identity: try ClientIdentity(certificatesPEM: Array(made.pem.utf8), keyPEM: made.privateKey ?? []))
    }

    /// The next CRL is issued.
    func change(_ devices: Device..., as kind: CertificateChange.Kind = .revoke(.keyCompromise)) async throws {
        for device in devices {
            _ = try await certificates.change(device.reference, CertificateChange(kind), by: Self.by)
        }
        for authority in Set(devices.map(\.reference.authority)) { _ = try await crls.issue(authority) }
    }

    func settings(_ port: Int? = nil) -> BrokerSettings {
        BrokerSettings(
            name: "north", host: "127.0.0.1", port: port ?? server.port, clientID: "unused",
            tls: BrokerSettings.TLS(caFile: server.folder + "/ca.pem"))
    }

    func connect(_ device: Device) throws -> MQTTExchange {
        let exchange = try MQTTExchange(settings(), identity: device.identity, deadline: Deadline(in: .seconds(5)))
        #expect(try exchange.connect(clientID: device.id, username: nil, password: nil) == 0)
        return exchange
    }

    /// Whether the broker accepts a new connection of the device.
    func isAccepted(_ device: Device, port: Int? = nil) -> Bool {
        CanaryProbe(settings(port)).perform(device.identity, clientID: "test-\(device.id)") == .accepted
    }

    /// Whether the broker still answers a client.
    func isAlive(_ client: MQTTExchange) -> Bool {
        client.deadline = Deadline(in: .seconds(3))
        // PINGREQ
        return (try? client.socket.send([0xC0, 0])) != nil && (try? client.receive().header) == 0xD0
    }
}

/// Mosquitto's dynamic security plugin, with the administrator `admin`.
struct DynsecFiles {
    let lines: [String]
    let configuration: String

    init() throws {
        let folder = try makeTemporaryFolder("dynsec")
        let child = try ChildProcess(
            ["/usr/bin/mosquitto_ctrl", "dynsec", "init", folder + "/dynsec.json", "admin", "secret"],
            log: folder + "/log")
        child.wait()
        configuration = try String(contentsOfFile: folder + "/dynsec.json", encoding: .utf8)
        let libraries = try FileManager.default.contentsOfDirectory(atPath: "/usr/lib")
            .map { "/usr/lib/\($0)/mosquitto_dynamic_security.so" }
        let plugin = try #require(libraries.first { access($0, R_OK) == 0 })
        lines = ["plugin \(plugin)", "plugin_opt_config_file $folder/dynsec.json"]
    }
}

extension CRLEnforcer {
    /// As a minute later: the standing proof is due.
    func expireProofs() { for authority in steps.states.keys { steps.states[authority]?.provedAt = nil } }
    /// As if newer CRLs had interrupted the proofs of `fleet` since then.
    func setInterruptions(since time: Int64) {
        steps.states["fleet", default: EnforcementSteps.State()].interruptedAt = time
    }
    /// Since its start.
    var provedNumbers: [UInt64] { steps.states.values.compactMap(\.proof?.number).sorted() }
    /// As a minute later: a cut that failed is due.
    func expireRetries() { for authority in retries.keys { retries[authority]?.at = 0 } }
}
