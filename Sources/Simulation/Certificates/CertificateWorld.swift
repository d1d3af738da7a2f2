// Certificates, CRLs and their enforcement at brokers. A seed decides what happens next and what fails.
//
// Real here: the registry through `DeciderRuntime` (rules, events, fold, snapshots), the drafting, signing and checking
// of CRLs with OpenSSL, `CRLFile`, and the order of the enforcement (`EnforcementSteps`). Models stand for the log's
// medium, the disk (`SimulatedDisk`), the brokers (`CertificateBroker`) and the loops around the deciders.
//
// A broker reads a CRL file (Mosquitto), or fetches CRLs and bans clients meanwhile (EMQX).
//
// What fails: the process (kill -9 in any file operation, before and after any append), the machine's power, the log
// and the disk (full, EIO), the authority's key, the reload command, the broker (down, deaf to a reload), its API, the
// probe (timeout), and the wall clock (set forward and back, for seconds or for hours).
//
// Invariants:
// - A broker whose last proof is of a CRL issued after a revocation or a hold accepts that certificate no more.
// - A client that is on record as banned is banned, or refused by the CRL, until it is on record that the ban is
//   lifted.
// - Each CRL lists exactly the revoked and held certificates. An entry leaves after one CRL that was issued behind its
//   certificate's expiry (RFC 5280, section 3.3), or with its release.
// - Number and thisUpdate of an authority's CRLs strictly rise.
// - No CRL is handed out before its event is durable, and each is rebuilt from the log to the bit.
// - The CRL file is whole at every moment, also after a power cut, and before every reload.
// - The state from any snapshot is the state from position 0.
// - At rest every CRL is proved at every broker, live certificates are accepted, revoked and held ones refused, no
//   device is banned, and no error is left on the record.
import Certificates
import Deciding
import Decisions
import Enforcement
import EventLog
import EventModel
import Issuing
import PKI
import Primitives

public final class CertificateWorld {
    struct Violation: Error, CustomStringConvertible {
        let description: String
    }

    /// Of a history, where nothing else is asked for.
    public static let stepsStandard = 150

    let options: CertificateWorldOptions
    var random: SeededRandom
    let clock: SettableClock
    let log: DecisionLog
    let disk: SimulatedDisk
    var brokers: [CertificateBroker]
    var process: CertificateProcess?
    var recount = CertificateRecount()
    var summary = CertificateSummary()
    let policy: CRLPolicy

    /// No faults any more.
    var isCalm = false
    /// Authorities whose key cannot be used now.
    var keysAway: Set<String> = []
    private var isLogFull = false
    /// The process dies in this append, and whether it is durable.
    private var death: Bool?
    /// By authority.
    var issuers: [String: CertificateIssuer] = [:]
    private let canaryKey: PrivateKey
    /// What was signed, by SHA-256, and which of that was handed out.
    var signed: [String: RevocationList] = [:]
    var handedOut: [(event: CRLIssued, list: RevocationList)] = []
    /// The contents of CRL files that were to be written.
    var files: Set<[UInt8]> = [[]]
    var parsed: [[UInt8]: [RevocationList]] = [:]
    private var snapshots: [(state: [UInt8], end: Position)] = []
    private var violation: String?
    private var trace = TraceHash()
    private var lines: [String] = []
    let faultRate: Double
    private let setsClock: Bool
    var lastRequest: RegistryRequest?
    var serials = 0

    public init(_ options: CertificateWorldOptions) throws {
        self.options = options
        // The generator's states lie on one orbit: seeds must not be steps of it.
        var seeds = SeededRandom(seed: options.seed)
        random = seeds.fork()
        faultRate = random.pick([0, 0.1, 0.3, 0.6])
        setsClock = random.chance(0.4) || options.plant == .numbersByClock
        policy = CRLPolicy(lifetimeSeconds: random.pick([3_600, 86_400, 7 * 86_400]))
        clock = SettableClock(Timestamp(seconds: 1_790_000_000))
        var rules = GuardedClock.Rules()
        rules.holdMicros = random.pick([30, 600]) * 1_000_000
        log = DecisionLog(clock: GuardedClock(clock, rules: rules))
        disk = SimulatedDisk(seed: random.next())
        brokers = []
        for index in 0..<(1 + random.below(2)) {
            brokers.append(
                CertificateBroker(
                    name: "b\(index)", exitsOnBadFile: random.chance(0.5), isProbed: random.chance(0.8),
                    fetches: random.chance(0.3)))
        }
        canaryKey = try Self.key(&random)
        let setUp = disk.process(isExposed: false)
        try setUp.makeDirectory("/crl")
        try setUp.synchronizeDirectory("/")
    }

    /// Ed25519: its signatures are the same again, so that a seed is a history to the bit.
    static func key(_ random: inout SeededRandom) throws -> PrivateKey {
        // PKCS #8 before the 32 octets of the key (RFC 8410, section 7)
        var der: [UInt8] = [48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32]
        for _ in 0..<32 { der.append(UInt8(random.below(256))) }
        let pem = "-----BEGIN PRIVATE KEY-----\n\(Base64.encode(der))\n-----END PRIVATE KEY-----\n"
        return try PrivateKey(pem: Array(pem.utf8))
    }

    public func run() -> CertificateVerdict {
        log.refuses = { [unowned self] in
            if isLogFull { summary.failedAppends += 1 }
            return isLogFull
        }
        log.dies = { [unowned self] in death.take() }
        log.watch = { [unowned self] in watch($0, $1) }
        do {
            func live() throws {
                for _ in 0..<options.steps { try step() }
                try comeToRest()
            }
            if let plant = options.activePlant { try plant.planted(live) } else { try live() }
        } catch {
            if violation == nil { violation = "\(error)" }
        }
        summary.histories = 1
        summary.dropped = recount.dropped
        return CertificateVerdict(
            seed: options.seed, violation: violation, traceHash: trace.value, summary: summary, lines: lines)
    }

    func note(_ text: @autoclosure () -> String) {
        if options.isRecording { lines.append("\(clock.time) \(text())") }
    }

    func require(_ condition: Bool, _ text: @autoclosure () -> String) throws {
        if let violation { throw Violation(description: violation) }
        if !condition { throw Violation(description: text()) }
    }

    func isPlanted(_ plant: CertificatePlant) -> Bool { options.activePlant == plant }

    /// Every record as it becomes durable.
    private func watch(_ record: RecordView, _ position: Position) {
        trace.mix(record.topicString)
        trace.mix(UInt64(bitPattern: record.receivedAt.microseconds))
        guard record.kind == .decision else { return }
        do {
            guard let event = try RegistryEvent(record, at: position) else { return }
            note("\(position) \(record.topicString) \(String(decoding: record.payload.prefix(300), as: UTF8.self))")
            switch event {
            case .added: summary.certificates += 1
            case .changed(let event) where event.change == .released: summary.released += 1
            case .changed(let event) where event.change != .superseded: summary.revoked += 1
            case .crlIssued: summary.crls += 1
            case .crlEnforced(let event) where event.step == .proved: summary.proved += 1
            case .crlEnforced(let event) where event.step == .unproved: summary.unproved += 1
            case .crlEnforced(let event) where event.step == .uncut: summary.uncut += 1
            case .clientCut(let event) where event.isBanned == true: summary.bans += 1
            case .clientBanLifted: summary.lifts += 1
            default: break
            }
            let problem = recount.apply(event, at: position, time: record.receivedAt) { signed[$0] }
            if violation == nil { violation = problem }
        } catch {
            violation = violation ?? "\(error)"
        }
    }

    // MARK: Scheduler

    func pass(seconds: Double) { clock.time = clock.time.adding(microseconds: Int64(seconds * 1e6)) }

    private func step() throws {
        pass(
            seconds: random.pick([0.01, 0.01, 0.01, 1, 1, 3, 5, 60, 60, 600, 3_600, random.chance(0.2) ? 90_000 : 20]))
        let action = random.below(100)
        trace.mix(action)
        if disk.isDown { try powerUp() }
        for index in brokers.indices where !brokers[index].isUp && random.chance(0.3) { startBroker(index) }
        for index in brokers.indices { try fetchDue(index) }
        if process == nil {
            if random.chance(0.3) { try startProcess() }
        } else {
            switch action {
            case ..<25: try operate()
            // `refold crl issue`
            case ..<28: if !recount.authorities.isEmpty { try issue(random.pick(recount.authorities.keys.sorted())) }
            case ..<45: try issueDue()
            case ..<85: try enforce(random.below(brokers.count))
            case ..<90: if random.chance(0.3) { takeSnapshot() }
            default: if random.chance(faultRate) { try fail() } else { mend() }
            }
        }
        if let process, !disk.isAlive(process.disk) { stopProcess() }
        try check()
    }

    private func fail() throws {
        switch random.below(12) {
        case 0:
            note("kill -9")
            summary.kills += 1
            stopProcess()
        case 1:
            disk.cutPower()
            stopProcess()
        case 2: death = random.chance(0.5)
        case 3: isLogFull = true
        case 4: disk.capacityBytes = disk.usedBytes
        case 5:
            var rates = SimulatedDisk.Rates()
            (rates.write, rates.sync, rates.folder, rates.open) = (0.1, 0.1, 0.1, 0.05)
            disk.setFaults(rates: rates)
        case 6: if let process { disk.plan(.killed, of: process.disk, after: 1 + random.below(12)) }
        case 7: if let process { disk.plan(.powerCut, of: process.disk, after: 1 + random.below(12)) }
        case 8:
            let index = random.below(brokers.count)
            note("the broker \(brokers[index].name) stops")
            brokers[index].stop()
        case 9:
            // Without a probe nobody would notice.
            let index = random.below(brokers.count)
            if brokers[index].isProbed { brokers[index].ignoredReloads = 1 + random.below(3) }
        case 10: if !recount.authorities.isEmpty { keysAway.insert(random.pick(recount.authorities.keys.sorted())) }
        default:
            guard setsClock else { return }
            summary.clockSteps += 1
            let size = random.pick([2, 30, 200, 7_300, 86_400] as [Int64]) * (random.chance(0.5) ? 1 : -1)
            clock.ahead += size * 1_000_000
            note("the clock is set by \(size) s")
            _ = log.now()
        }
    }

    /// What is full or away does not stay so.
    private func mend() {
        (isLogFull, keysAway, disk.capacityBytes) = (false, [], .max)
        disk.setFaults()
        if random.chance(0.5) { clock.ahead = 0 }
    }

    private func comeToRest() throws {
        mend()
        (isCalm, clock.ahead, death) = (true, 0, nil)
        disk.cancelPlannedDeath()
        if disk.isDown { try powerUp() }
        if process == nil { try startProcess() }
        for index in brokers.indices { brokers[index].ignoredReloads = 0 }
        // The log's clock comes back with the first append after the hold.
        _ = log.now()
        pass(seconds: 1_200)
        try operate()
        pass(seconds: 120)
        // Brokers refuse every client while thisUpdate is in their future, and the next CRL is later still. The first
        // one of an authority is due when that was added.
        let latest = recount.authorities.values.map { $0.last?.thisUpdate ?? $0.addedAt }.max() ?? 0
        pass(seconds: Double(max(0, latest - clock.now().wholeSeconds)))
        // A round in which a CRL is issued, because a canary is about to expire, is followed by another.
        var crls = -1
        for round in 0..<10 where round < 4 || summary.crls != crls {
            crls = summary.crls
            for index in brokers.indices where !brokers[index].isUp { startBroker(index) }
            pass(seconds: 61)
            try issueDue()
            for index in brokers.indices {
                brokers[index].nextFetch = 0
                try fetchDue(index)
                repeat { try enforce(index) } while process?.enforcers[index].steps.next != nil
            }
            try check()
        }
        try checkRest()
    }

    // MARK: Processes

    private func startProcess() throws {
        note("the daemon starts")
        let recent = snapshots.suffix(2).map { Optional($0) }
        let snapshot =
            !recent.isEmpty && random.chance(0.6)
            ? try random.pick(recent).map { DeciderSnapshot(state: try CertificateRegistry(stored: $0), end: $1) } : nil
        let process = CertificateProcess(log, disk: disk.process(), brokers: brokers, snapshot: snapshot)
        let state = try process.runtime.recover()
        if snapshot != nil || random.chance(0.2) { try compareWithRefold(state, process.runtime.end) }
        self.process = process
        try process.runtime.resume()
    }

    func stopProcess() {
        guard let process else { return }
        disk.kill(process.disk)
        self.process = nil
        death = nil
    }

    private func powerUp() throws {
        summary.powerCuts += 1
        note("power cut: \(disk.lastDeath ?? "")")
        disk.powerUp()
        for index in brokers.indices {
            try checkFile(index, "after a power cut")
            startBroker(index)
        }
    }

    private func startBroker(_ index: Int) { brokers[index].start(file(index)) }

    /// Nil: it cannot be read.
    func file(_ index: Int) -> [RevocationList]? {
        guard let bytes = disk.contents(brokers[index].path), !bytes.isEmpty else { return nil }
        if let known = parsed[bytes] { return known }
        let lists = try? RevocationList.all(pem: bytes)
        parsed[bytes] = lists
        return lists
    }

    private func takeSnapshot() {
        guard let process, let state = process.runtime.state else { return }
        snapshots.append((state.stored(), process.runtime.end))
    }

    /// Nil: it could not be recorded, or the process died of it.
    func execute(_ request: RegistryRequest) throws -> RegistryAnswer? {
        guard let process else { return nil }
        do {
            let answer = try process.runtime.execute(request)
            try require(true, "")
            return answer
        } catch AppendError.full {
            return nil
        } catch AppendError.failed {
            note("killed in an append")
            summary.kills += 1
            stopProcess()
            return nil
        }
    }

    // MARK: CRLs

    /// As `CRLService.issueDue`.
    func issueDue() throws {
        guard let process else { return }
        try process.runtime.catchUp()
        let now = log.now()
        for (authority, due) in try process.runtime.recover().crlsDue(policy, now: now) where due <= now {
            try issue(authority)
        }
    }

    /// As `CRLService.issue`. Nil: it could not be signed or recorded.
    @discardableResult
    func issue(_ id: String) throws -> PublishedCRL? {
        for _ in 0..<20 {
            guard let process, !keysAway.contains(id), let issuer = issuers[id] else { return nil }
            let now = log.now()
            guard now.wholeSeconds <= issuer.certificate.notAfter else { return nil }
            let canary = try Canary(
                by: issuer, policy, now: now, start: clock.now(), key: canaryKey, serial: serial())
            let registry = try process.runtime.recover()
            guard let draft = registry.draftCRL(id, canary: canary.named, policy, now: now, start: clock.now()) else {
                return nil
            }
            let crl = try SignedCRL(draft, by: issuer), event = crl.event
            signed[event.sha256] = crl.list
            // Operators do not wait for a signature.
            if !isCalm, random.chance(0.1) { try operate() }
            guard self.process === process else { return nil }
            try crl.list.verify(signedBy: issuer.certificate)
            let problem = crl.problem(after: try process.current(id)?.list, try process.runtime.recover())
            try require(problem == nil, "CRL \(draft.number) of \(id) is refused: \(problem ?? "")")
            let published = PublishedCRL(event: event, list: crl.list, issuedAt: now, canary: canary)
            if isPlanted(.publishesBeforeAppend) { try publish(published) }
            let command = RegistryCommand.issueCRL(event)
            switch try execute(.init(tenantID: event.tenantID, actor: EngineActor.name, command: command)) {
            case .accepted:
                try publish(published)
                return published
            case .rejected(_, .outdated, _): summary.races += 1
            case .rejected(_, _, let reason): throw Violation(description: "no CRL: \(reason)")
            case nil: return nil
            }
        }
        throw Violation(description: "20 CRLs of \(id) were outdated")
    }

    private func publish(_ crl: PublishedCRL) throws {
        guard let process else { return }
        process.published[crl.event.authority] = crl
        handedOut.append((crl.event, crl.list))
        try require(
            recount.authorities[crl.event.authority]?.ends[crl.event.number] != nil,
            "CRL \(crl.event.number) of \(crl.event.authority) is handed out before it is on the record")
    }

    func serial() -> SerialNumber { .random(using: &random) }
}
