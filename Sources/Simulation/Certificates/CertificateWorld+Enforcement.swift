import Certificates
import Deciding
import Decisions
import Enforcement
import EventLog
import EventModel
import Issuing
import PKI

extension CertificateWorld {
    /// Performs one step of the enforcement at a broker, as `CRLEnforcer` does.
    func enforce(_ index: Int) throws {
        guard let process else { return }
        guard let step = process.enforcers[index].steps.next else { return try beginRound(index) }
        let outcome = try perform(step, index)
        if case .failed(let problem) = outcome { note("\(brokers[index].name): \(problem)") }
        // What the process would do after its death never happens.
        guard disk.isAlive(process.disk) else { return stopProcess() }
        let crls = process.enforcers[index].steps.crls
        let isOutdated = try process.runtime.recover().authorities.contains { authority in
            crls.contains { $0.event.authority == authority.added.id && $0.event.number != authority.lastCRL?.number }
        }
        let events = process.enforcers[index].steps.finish(
            outcome, isOutdated: isOutdated, now: clock.steadyMicroseconds(), at: log.now())
        for event in events where try !record(event, index) { return process.enforcers[index].steps.startAgain() }
    }

    /// False: it could not be recorded.
    private func record(_ event: CRLEnforced, _ index: Int) throws -> Bool {
        guard let process else { return false }
        let known = try process.runtime.recover().enforcements[
            EnforcementKey(broker: event.broker, authority: event.authority)]
        guard process.enforcers[index].steps.isNews(event, after: known) else { return true }
        let answer = try execute(
            RegistryRequest(tenantID: event.tenantID, actor: EngineActor.name, command: .enforce(event)))
        switch answer {
        case .accepted: return true
        case .rejected(_, _, let reason): throw Violation(description: "an enforcement was rejected: \(reason)")
        case nil: return false
        }
    }

    private func beginRound(_ index: Int) throws {
        guard let process else { return }
        try process.runtime.catchUp()
        if brokers[index].fetches { try ban(index) }
        guard self.process === process else { return }
        let now = log.now()
        var crls: [PublishedCRL] = [], live: Set<String> = []
        for authority in try process.runtime.recover().authorities {
            let id = authority.added.id, isLive = now <= authority.added.notAfter
            guard var crl = try process.current(id) else { continue }
            let lacksCanary = process.enforcers[index].steps.lacksCanary(
                crl, authorityEnd: authority.added.notAfter, at: now)
            if lacksCanary, let next = try issue(id) { crl = next }
            guard self.process === process else { return }
            if isLive { live.insert(id) }
            crls.append(crl)
        }
        if !crls.isEmpty {
            process.enforcers[index].steps.begin(
                crls, live: live, now: clock.steadyMicroseconds(), isCanaryValid: isCanaryValid)
        }
    }

    private func perform(_ step: EnforcementSteps.Step, _ index: Int) throws -> EnforcementSteps.Outcome {
        guard let process else { return .waiting }
        switch step {
        case .write where brokers[index].fetches: break
        case .write:
            let lists = process.enforcers[index].steps.crls.map(\.list)
            files.insert(lists.reduce(into: []) { $0 += (try? $1.pem()) ?? [] })
            var problem: String?
            do throws(CRLFileError) {
                _ = try process.enforcers[index].file.write(lists.map(\.der))
            } catch {
                summary.failedWrites += 1
                problem = error.description
            }
            // A broker may start now.
            if !disk.isDown { try checkFile(index, "after a write") }
            if let problem { return .failed(problem) }
        case .reload: if let problem = try reload(index) { return .failed(problem) }
        case .prove(let crl): return proof(of: crl, index)
        case .cut(let authority):
            if let proof = process.enforcers[index].steps.proof(authority), brokers[index].fetches {
                try lift(authority, number: proof.number, index)
            } else {
                try cut(authority, index)
            }
        }
        return .done
    }

    private func isCanaryValid(_ crl: PublishedCRL) -> Bool {
        crl.canary.map { log.now().wholeSeconds < $0.certificate.notAfter } ?? false
    }

    private func proof(of crl: PublishedCRL, _ index: Int) -> EnforcementSteps.Outcome {
        guard let steps = process?.enforcers[index].steps, let canary = crl.canary else {
            return .unprepared("the canary is gone")
        }
        func probe(_ which: EnforcementSteps.ProbedCanary) -> CanaryProbe.Outcome {
            if !isCalm, random.chance(faultRate * 0.2) { return .timedOut }
            let now = clock.now().wholeSeconds
            return brokers[index].outcome(
                issuer: crl.list.issuer, serial: which == .revoked ? canary.certificate.serial : serial(),
                notBefore: now - 3_600, notAfter: which == .revoked ? canary.certificate.notAfter : now + 3_600,
                now: now)
        }
        if brokers[index].fetches, !isCanaryValid(crl) {
            guard steps.proof(crl.event.authority)?.number == crl.event.number else {
                return .unprepared("the canary has expired")
            }
            let problem = EnforcementSteps.liveProblem(crl.event.authority, probe(.live))
            return problem.map { .failed($0.text) } ?? .done
        }
        guard let problem = EnforcementSteps.problem(with: crl.event, probe: probe) else { return .done }
        guard brokers[index].fetches else { return .failed(problem.text) }
        return steps.fetchOutcome(
            problem, of: crl, refreshSeconds: CertificateBroker.refreshSeconds, now: clock.steadyMicroseconds())
    }

    /// Disconnects the clients of revoked certificates, as `CRLEnforcer` does: each tries to connect again at once.
    private func cut(_ authority: String, _ index: Int) throws {
        guard let process, let proof = process.enforcers[index].steps.proof(authority) else { return }
        let name = brokers[index].name, key = EnforcementKey(broker: name, authority: authority)
        let clients = try process.runtime.recover().clientsToCut(key, end: proof.end)
        guard !clients.isEmpty else { return }
        for client in clients {
            let reference = client.certificate.reference
            guard let known = recount.certificates.first(where: { $0.reference == reference }) else { continue }
            try require(
                outcome(known, at: brokers[index]) != .accepted,
                "\(name) disconnects the client of \(reference), and accepts it again")
        }
        let events = clients.map { client in
            ClientCut(
                broker: name, authority: authority, serial: client.certificate.reference.serial.description,
                tenantID: client.certificate.tenantID, deviceID: client.certificate.deviceID, number: proof.number,
                outcome: random.chance(0.5) ? .cut : .wasNotConnected, evidence: nil, isBanned: nil, actor: "")
        }
        let request = RegistryRequest(
            tenantID: Envelope.everyTenant, actor: EngineActor.name, command: .cut(events))
        if case .accepted? = try execute(request) { summary.cuts += events.count }
    }

    private func reload(_ index: Int) throws -> String? {
        guard let process else { return nil }
        try checkFile(index, "before a reload")
        let expected = process.enforcers[index].steps.crls.map(\.list.der)
        try require(
            file(index)?.map(\.der) == expected,
            "the broker \(brokers[index].name) reloads another file than was written")
        guard brokers[index].isUp else { return "reload_command: no such process" }
        if !isCalm, random.chance(faultRate * 0.2) { return "reload_command: exit code 1" }
        if !brokers[index].reload(file(index)) { summary.ignoredReloads += 1 }
        return nil
    }

    // MARK: A broker that fetches CRLs

    /// It fetches what the daemon serves, when that is due.
    func fetchDue(_ index: Int) throws {
        let now = clock.steadyMicroseconds()
        guard brokers[index].fetches, brokers[index].isUp, now >= brokers[index].nextFetch else { return }
        let served = try process.map { process in
            try process.runtime.recover().authorities.compactMap { try process.current($0.added.id)?.list }
        }
        brokers[index].fetch(served, now: now)
    }

    /// Bans every client of a revoked certificate, as `CRLEnforcer` does.
    private func ban(_ index: Int) throws {
        let name = brokers[index].name
        guard let registry = try process?.runtime.recover() else { return }
        for authority in registry.authorities where authority.lastCRL != nil {
            let key = EnforcementKey(broker: name, authority: authority.added.id)
            guard let known = registry.enforcements[key], known.proved > 0 else { continue }
            try ban(key, number: known.written, index)
            try lift(key.authority, number: known.written, index)
        }
    }

    private func ban(_ key: EnforcementKey, number: UInt64, _ index: Int) throws {
        guard let clients = try process?.runtime.recover().clientsToCut(key, end: .max), !clients.isEmpty else {
            return
        }
        var events: [ClientCut] = []
        for client in clients.map(\.certificate) {
            if !isAPIAway(index) {
                brokers[index].bans.insert("\(client.tenantID)/\(client.deviceID)")
                events.append(
                    ClientCut(
                        broker: key.broker, authority: key.authority, serial: client.reference.serial.description,
                        tenantID: client.tenantID, deviceID: client.deviceID, number: number,
                        outcome: random.chance(0.5) ? .cut : .wasNotConnected, evidence: nil, isBanned: true, actor: "")
                )
            }
        }
        if !events.isEmpty {
            _ = try execute(
                RegistryRequest(tenantID: Envelope.everyTenant, actor: EngineActor.name, command: .cut(events)))
        }
        if events.count < clients.count { try recordUncut(key, number, "status 503", index) }
    }

    private func lift(_ authority: String, number: UInt64, _ index: Int) throws {
        guard let process else { return }
        let key = EnforcementKey(broker: brokers[index].name, authority: authority)
        let ends = process.enforcers[index].steps.ends
        let clients = try process.runtime.recover().bansToLift(key, ends: ends, at: log.now())
        var events: [ClientBanLifted] = []
        for client in clients.map(\.certificate) {
            if isAPIAway(index) { break }
            brokers[index].bans.remove("\(client.tenantID)/\(client.deviceID)")
            events.append(
                ClientBanLifted(
                    broker: key.broker, authority: authority, serial: client.reference.serial.description,
                    tenantID: client.tenantID, deviceID: client.deviceID, number: number, actor: ""))
        }
        if !events.isEmpty {
            _ = try execute(
                RegistryRequest(tenantID: Envelope.everyTenant, actor: EngineActor.name, command: .liftBans(events)))
        }
        if events.count < clients.count { try recordUncut(key, number, "a ban is not lifted: status 503", index) }
    }

    private func isAPIAway(_ index: Int) -> Bool {
        !brokers[index].isUp || !isCalm && random.chance(faultRate * 0.2)
    }

    private func recordUncut(_ key: EnforcementKey, _ number: UInt64, _ problem: String, _ index: Int) throws {
        guard let tenant = try process?.runtime.recover().authority(key.authority)?.added.tenantID else { return }
        var event = CRLEnforced(
            .uncut, broker: key.broker, authority: key.authority, tenantID: tenant, number: number, actor: "")
        event.error = problem
        _ = try record(event, index)
    }

    // MARK: Checks

    /// The file is one that was written as a whole, or there is none yet.
    func checkFile(_ index: Int, _ moment: String) throws {
        guard let bytes = disk.contents(brokers[index].path) else { return }
        try require(
            files.contains(bytes) && !bytes.isEmpty, "\(moment), the CRL file of \(brokers[index].name) is not whole")
    }

    func outcome(_ known: CertificateRecount.Known, at broker: CertificateBroker) -> CanaryProbe.Outcome? {
        guard let issuer = issuers[known.reference.authority]?.certificate.subject else { return nil }
        return broker.outcome(
            issuer: issuer, serial: known.reference.serial, notBefore: known.notBefore, notAfter: known.notAfter,
            now: clock.now().wholeSeconds)
    }

    /// After each step.
    func check() throws {
        try require(true, "")
        for broker in brokers {
            for known in (recount.banned[broker.name] ?? []).map({ recount.certificates[$0] }) where !known.isDropped {
                try require(
                    broker.bans.contains(known.device) || outcome(known, at: broker) != .accepted,
                    "\(broker.name) accepts \(known.reference), whose client is banned, according to the record")
            }
            for known in (recount.lifted[broker.name] ?? []).map({ recount.certificates[$0] }) where !known.isDropped {
                // Brokers accept no client of an expired authority.
                let end = recount.authorities[known.reference.authority]?.notAfter ?? 0
                try require(
                    clock.now().wholeSeconds > end || outcome(known, at: broker) != .accepted,
                    "\(broker.name) accepts \(known.reference), whose ban was lifted")
            }
        }
        for broker in brokers {
            for known in recount.certificates where !known.isLive && !known.isDropped {
                let authority = known.reference.authority
                guard let proved = recount.proved[.init(broker: broker.name, authority: authority)],
                    let end = recount.authorities[authority]?.ends[proved], known.changed.rawValue < end
                else { continue }
                try require(
                    outcome(known, at: broker) != .accepted,
                    "\(broker.name) accepts \(known.reference), revoked at \(known.changed), although CRL \(proved), "
                        + "which has the events before \(end), is proved")
            }
        }
    }

    /// Final checks, after the faults ended and every process had time to finish.
    func checkRest() throws {
        guard let process else { return }
        let registry = try process.runtime.recover(), now = clock.now()
        for authority in registry.authorities where authority.issuesCRLs && now <= authority.added.notAfter {
            let id = authority.added.id
            guard let last = authority.lastCRL else { throw Violation(description: "\(id) has no CRL") }
            try require(!authority.isChanged, "a revocation of \(id) waits for its CRL")
            for broker in brokers {
                let known = registry.enforcements[EnforcementKey(broker: broker.name, authority: id)] ?? Enforcement()
                let reached = broker.isProbed ? known.proved : known.reloaded
                try require(
                    reached == last.number && known.error == nil,
                    "CRL \(last.number) of \(id) is not in force at \(broker.name): \(known)")
                let left = registry.clientsToCut(EnforcementKey(broker: broker.name, authority: id), end: .max)
                try require(
                    left.isEmpty || !broker.isProbed,
                    "\(left.count) clients of revoked certificates of \(id) stay connected to \(broker.name)")
                try require(
                    known.uncutError == nil || !broker.isProbed,
                    "\(broker.name) has the error \(known.uncutError ?? ""), and nothing is left to do")
            }
        }
        for known in recount.certificates {
            let authority = recount.authorities[known.reference.authority]
            guard let authority, authority.issuesCRLs, now.wholeSeconds <= authority.notAfter, !known.isDropped,
                known.notBefore <= now.wholeSeconds, now.wholeSeconds <= known.notAfter
            else { continue }
            for broker in brokers {
                let outcome = outcome(known, at: broker)
                try require(!broker.bans.contains(known.device), "\(broker.name) still bans \(known.device)")
                try require(
                    outcome == (known.isLive ? .accepted : .refused(.certificateRevoked)),
                    "\(known.reference) is \(known.isLive ? "live" : "revoked") since \(known.changed), and "
                        + "\(broker.name) answers \(outcome.map { "\($0)" } ?? "nothing")")
            }
        }
        try compareWithRefold(registry, process.runtime.end)
        try rebuildAll()
    }

    /// The same log gives the same state, from its beginning and from a snapshot.
    func compareWithRefold(_ state: CertificateRegistry, _ end: Position) throws {
        summary.refolds += 1
        var fresh = CertificateRegistry()
        try fresh.fold(Position(0)..<end, of: log)
        let bytes = state.stored()
        try require(fresh.stored() == bytes, "another state by the whole log")
        try require(
            try CertificateRegistry(stored: bytes).stored() == bytes,
            "a snapshot gives another state than it was taken of")
    }

    /// Every CRL that was handed out is rebuilt from the log, in its order.
    private func rebuildAll() throws {
        var registry = CertificateRegistry(), rebuilt: [String: [UInt8]] = [:]
        let reader = try log.reader(from: Position(0)), block = EventBlock(capacity: 64 << 10)
        while try reader.read(into: block, atLeast: 1) {
            try block.forEach { record, position in
                guard let event = try RegistryEvent(record, at: position) else { return }
                if case .crlIssued(let crl) = event, let draft = registry.draft(of: crl) {
                    rebuilt[crl.sha256] = try CRLService.rebuild(crl, draft).der
                }
                registry.apply(event, at: position, time: record.receivedAt)
            }
        }
        for (event, list) in handedOut {
            summary.rebuilt += 1
            try require(
                rebuilt[event.sha256] == list.der, "CRL \(event.number) of \(event.authority) is not rebuilt to the bit"
            )
        }
    }
}
