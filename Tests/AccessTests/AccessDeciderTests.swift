import Deciding
import Decisions
import EventLog
import EventModel
import Foundation
import Synchronization
import Testing
@testable import Access

/// Tokens on the log's own files.
@Suite final class AccessDeciderTests {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("refold-access-\(UUID().uuidString)")
    let log: FileLog
    let time = Clock()

    final class Clock: Sendable {
        private let time = Mutex(Timestamp(microseconds: 1_700_000_000_000_000))
        var now: Timestamp { time.withLock { $0 } }
        func pass(seconds: Int64) { time.withLock { $0.microseconds += seconds * 1_000_000 } }
    }

    init() throws { log = try FileLog.open(directory: folder.path) }

    deinit {
        log.close()
        try? FileManager.default.removeItem(at: folder)
    }

    func decider() -> AccessDecider {
        AccessDecider(writer: DecisionWriter(log), source: log, clock: { [time] in time.now })
    }

    func create(
        _ decider: AccessDecider, _ spec: TokenSpec, as principal: Principal = .folderAdmin, key: String? = nil
    ) async throws -> AccessAnswer {
        try await decider.execute(AccessRequest(principal: principal, idempotencyKey: key, command: .create(spec)))
    }

    func secret(_ answer: AccessAnswer) throws -> String {
        guard case .created(_, _, let secret?) = answer else { throw Unexpected(answer: answer) }
        return secret
    }
    struct Unexpected: Error { let answer: AccessAnswer }

    func code(_ answer: AccessAnswer) -> AccessRefusal.Code? {
        if case .rejected(_, let code, _) = answer { code } else { nil }
    }

    @Test func aTokenOpensUntilItIsRevokedAndAfterARestart() async throws {
        let decider = decider()
        #expect(decider.tokenIndex.hasTokens, "before anything is read back nobody knows, so nothing is open")
        #expect(decider.tokenIndex.find(secret: "x") == .notReady)
        try await decider.recover()
        #expect(!decider.tokenIndex.hasTokens)
        let secret = try secret(
            try await create(
                decider, TokenSpec(name: "night-shift", role: .operator, tenantID: "acme")))
        let principal = Principal(name: "night-shift", role: .operator, tenantID: "acme", tokenID: 1)
        #expect(decider.tokenIndex.find(secret: secret) == .found(principal))
        #expect(decider.tokenIndex.find(secret: secret + "0") == .unknown)

        let restarted = self.decider()
        try await restarted.recover()
        #expect(restarted.tokenIndex.find(secret: secret) == .found(principal) && restarted.tokenIndex.hasTokens)
        let revoke = AccessRequest(principal: .folderAdmin, command: .revoke(1))
        _ = try await restarted.execute(revoke)
        #expect(restarted.tokenIndex.find(secret: secret) == .unknown && restarted.tokenIndex.find(id: 1) == .unknown)
        #expect(restarted.tokenIndex.hasTokens, "reads stay closed")
        #expect(code(try await restarted.execute(revoke)) == .illegalTransition)
    }

    @Test func aTokenExpires() async throws {
        let decider = decider()
        let secret = try secret(
            try await create(
                decider, TokenSpec(name: "visitor", role: .viewer, lifetimeSeconds: 60)))
        time.pass(seconds: 59)
        #expect(decider.tokenIndex.find(secret: secret) != .unknown)
        time.pass(seconds: 1)
        #expect(decider.tokenIndex.find(secret: secret) == .unknown)
    }

    /// A token of 2 s: 401 while it lived, and everything open to everybody afterwards.
    @Test func readsStayClosedAfterTheLastToken_F7() async throws {
        let decider = decider()
        _ = try await create(decider, TokenSpec(name: "brief", role: .viewer, lifetimeSeconds: 2))
        time.pass(seconds: 3)
        #expect(decider.tokenIndex.hasTokens)
        _ = try await decider.execute(AccessRequest(principal: .folderAdmin, command: .revoke(1)))
        #expect(decider.tokenIndex.hasTokens)
        let restarted = self.decider()
        let state = try await restarted.recover()
        #expect(restarted.tokenIndex.hasTokens)
        #expect(try AccessState(stored: state.stored()).hasEverHadTokens, "and from a snapshot")
        let unknown = try #require(AccessState.beginningUnknown(before: Position(7)))
        #expect(unknown.hasEverHadTokens, "and when the log's beginning is gone")
        let sealed = try AccessState(stored: unknown.stored())
        #expect(sealed == unknown && sealed.hasEverHadTokens)
    }

    /// Two tenants may each have a token `ops`: the second got the first one's row for its key.
    @Test func keysAreOfOneTenantsActor_F6() async throws {
        let decider = decider()
        for (name, role) in [("ops", Role.admin), ("v", .viewer)] {
            for tenant in ["a", "b"] {
                _ = try await create(decider, TokenSpec(name: name, role: role, tenantID: tenant))
            }
        }
        let a = Principal(name: "ops", role: .admin, tenantID: "a", tokenID: 1)
        let b = Principal(name: "ops", role: .admin, tenantID: "b", tokenID: 2)
        func revoke(_ principal: Principal, _ id: Int64) -> AccessRequest {
            AccessRequest(principal: principal, idempotencyKey: "k1", command: .revoke(id))
        }
        guard case .revoked(let position, let token, []) = try await decider.execute(revoke(a, 3)) else {
            return #expect(Bool(false), "not revoked")
        }
        #expect(code(try await decider.execute(revoke(b, 3))) == .notFound, "another tenant's token")
        #expect(try await decider.execute(revoke(a, 3)) == .revoked(position: position, token: token, also: []))
        guard case .revoked = try await decider.execute(revoke(b, 4)) else {
            return #expect(Bool(false), "the key is b's own")
        }
        let restarted = self.decider()
        #expect(code(try await restarted.execute(revoke(b, 3))) == .keyReused)
        #expect(try await restarted.execute(revoke(a, 3)) == .revoked(position: position, token: token, also: []))
    }

    /// Events of before did not record the actor's tenant: it is the tenant's token of that name, or all tenants'.
    @Test func keysOfOldEventsAreOfOneTenantToo_F6() throws {
        var state = AccessState()
        func apply(_ event: AccessEvent, _ position: UInt64) {
            state.apply(event, at: Position(position), time: Timestamp(microseconds: Int64(position)))
        }
        for (id, tenant) in [(Int64(1), "a"), (2, "b")] {
            apply(
                .created(
                    TokenCreated(
                        id: id, name: "ops", role: "admin", tenantID: tenant, secretSHA256: "\(id)",
                        actor: "admin")),
                UInt64(id))
        }
        var revoked = TokenRevoked(id: 9, name: "v", tenantID: "a", actor: "ops")
        revoked.idempotencyKey = "k1"
        apply(.revoked(revoked), 3)
        let now = Timestamp(microseconds: 4)
        let ops = ["a", "b"].map { Principal(name: "ops", role: .admin, tenantID: $0) }
        func kept(_ principal: Principal) -> Int64? {
            let key = AccessState.Ledger.Key(tenantID: principal.tenantID ?? "*", actor: principal.name, key: "k1")
            return state.answers.entry(for: key, now: now)?.answer.id
        }
        #expect(kept(ops[0]) == 9 && kept(ops[1]) == nil)
    }

    /// A tenant's admin token of 3 s created one that never expires.
    @Test func aTokenNeverOutlivesItsCreator_F8() async throws {
        let decider = decider()
        _ = try await create(decider, TokenSpec(name: "brief", role: .admin, tenantID: "a", lifetimeSeconds: 3))
        let brief = Principal(name: "brief", role: .admin, tenantID: "a", tokenID: 1)
        let child = TokenSpec(name: "child", role: .admin, tenantID: "a")
        guard case .created(_, let token, let secret?) = try await create(decider, child, as: brief) else {
            return #expect(Bool(false), "not created")
        }
        #expect(token.expiresAt == decider.tokenIndex.tokens?[0].expiresAt && token.expiresAt != nil)
        var longer = TokenSpec(name: "longer", role: .viewer, tenantID: "a", lifetimeSeconds: 4)
        #expect(code(try await create(decider, longer, as: brief)) == .invalidValue)
        longer.lifetimeSeconds = 2
        _ = try self.secret(try await create(decider, longer, as: brief))
        time.pass(seconds: 3)
        #expect(decider.tokenIndex.find(secret: secret) == .unknown)
        // A request that was let in before, and is decided after.
        #expect(
            code(try await create(decider, TokenSpec(name: "late", role: .viewer, tenantID: "a"), as: brief))
                == .tokenInvalid)
    }

    @Test func whatATokenCreatedEndsWithIt_F8() async throws {
        let decider = decider()
        _ = try await create(decider, TokenSpec(name: "root", role: .admin))
        let root = Principal(name: "root", role: .admin, tokenID: 1)
        _ = try await create(decider, TokenSpec(name: "a-admin", role: .admin, tenantID: "a"), as: root)
        let admin = Principal(name: "a-admin", role: .admin, tenantID: "a", tokenID: 2)
        _ = try await create(decider, TokenSpec(name: "a-viewer", role: .viewer, tenantID: "a"), as: admin)
        _ = try await create(decider, TokenSpec(name: "grafana", role: .viewer))
        let revoke = AccessRequest(principal: .folderAdmin, idempotencyKey: "k", command: .revoke(1))
        let answer = try await decider.execute(revoke)
        guard case .revoked(_, _, let also) = answer else { throw Unexpected(answer: answer) }
        #expect(also.map(\.id) == [2, 3])
        let restarted = self.decider()
        #expect(try await restarted.execute(revoke) == answer, "the same key, the same answer")
        #expect(try await restarted.recover().tokens.values.filter { $0.revokedAt == nil }.map(\.name) == ["grafana"])
    }

    /// One tenant's admin took all 10,000 tokens; nobody got one any more, the folder's admin included.
    @Test func aTenantTakesNoOtherTenantsTokens_F15() {
        var state = AccessState()
        func add(_ id: Int64, _ tenant: String, revoked: Bool = false) {
            let position = Position(UInt64(id)), time = Timestamp(microseconds: id)
            state.apply(
                .created(
                    TokenCreated(
                        id: id, name: "n\(id)", role: "admin", tenantID: tenant, secretSHA256: "\(id)",
                        actor: "admin")),
                at: position, time: time)
            guard revoked else { return }
            state.apply(
                .revoked(TokenRevoked(id: id, name: "n\(id)", tenantID: tenant, actor: "admin")),
                at: position, time: time)
        }
        for id in 1...Int64(tokensPerTenantMax) { add(id, "a") }
        add(5_000, "b")
        func refusal(_ principal: Principal, _ tenant: String?) -> AccessRefusal.Code? {
            let spec = TokenSpec(name: "new", role: .viewer, tenantID: tenant)
            let request = AccessRequest(principal: principal, command: .create(spec))
            let outcome = state.decide(NewSecret(for: request), now: Timestamp(microseconds: 6_000))
            guard case .append(let events) = outcome, case .rejected(let event) = events[0] else { return nil }
            return event.code.flatMap(AccessRefusal.Code.init)
        }
        #expect(refusal(Principal(name: "n1", role: .admin, tenantID: "a", tokenID: 1), "a") == .invalidValue)
        #expect(refusal(Principal(name: "n5000", role: .admin, tenantID: "b", tokenID: 5_000), "b") == nil)
        for tenant in ["a", "b", "c", nil] { #expect(refusal(.folderAdmin, tenant) == nil) }
        // Nor does creating and revoking without end fill the memory.
        for id in 10_000..<Int64(10_200 + AccessState.tokensKeptMax) { add(id, "c", revoked: true) }
        #expect(state.tokens.values.filter { $0.tenantID == "c" }.count <= AccessState.tokensKeptMax)
        #expect(state.tokens.values.filter { $0.tenantID == "a" }.count == tokensPerTenantMax)
    }

    @Test func secretsAreNotInTheLog() async throws {
        let decider = decider()
        let secret = try secret(try await create(decider, TokenSpec(name: "a", role: .admin)))
        #expect(secret.hasPrefix("refold_") && secret.utf8.count == 7 + 64)
        log.close()
        for name in try FileManager.default.subpathsOfDirectory(atPath: folder.path) {
            let bytes = (try? Data(contentsOf: folder.appendingPathComponent(name))) ?? Data()
            #expect(bytes.range(of: Data(secret.utf8.dropFirst(7))) == nil, "\(name)")
        }
    }

    @Test func oneKeyOneTokenForADay() async throws {
        let decider = decider()
        let spec = TokenSpec(name: "ci", role: .operator)
        _ = try await create(decider, spec, key: "k")
        guard case .created(_, let token, nil) = try await create(decider, spec, key: "k") else {
            return #expect(Bool(false), "the second answer tells the secret again")
        }
        #expect(token.id == 1 && log.durableCount == 1)
        #expect(code(try await create(decider, TokenSpec(name: "cd", role: .operator), key: "k")) == .keyReused)
        let restarted = self.decider()
        guard case .created(_, _, nil) = try await create(restarted, spec, key: "k") else {
            return #expect(Bool(false), "the answer did not survive the restart")
        }
        time.pass(seconds: 24 * 3600)
        #expect(code(try await create(restarted, spec, key: "k")) == .nameTaken)
    }

    /// The log's clock stepped, as the writer records it; this decider's clock steps with it.
    private func step(_ json: (ClockStepped) -> [UInt8] = { $0.json }, seconds: Int64) throws {
        let before = time.now
        time.pass(seconds: seconds)
        var event = ClockStepped(before: before, after: time.now), batch = RecordBatch()
        event.adopted = true
        batch.append(
            kind: .system, schema: LogSchema.clockStepped.rawValue, receivedAt: time.now, json: json(event))
        _ = try log.append(&batch)
    }

    /// A step forward is no day that has passed, and a step back makes no day longer. Whether the first token has
    /// expired by then, which follows the clock, makes no difference.
    @Test(arguments: [604_800, -3_600] as [Int64], [nil, 3_600] as [Double?])
    func aStepOfTheClockMovesIdempotencyKeys(seconds: Int64, lifetime: Double?) async throws {
        let decider = decider(), spec = TokenSpec(name: "ci", role: .operator, lifetimeSeconds: lifetime)
        _ = try await create(decider, spec, key: "k")
        try step(seconds: seconds)
        let restarted = self.decider()
        let state = try await restarted.recover()
        #expect(try AccessState(stored: state.stored()) == state, "and from a snapshot")
        for decider in [decider, restarted] {
            guard case .created(_, let token, nil) = try await create(decider, spec, key: "k") else {
                return #expect(Bool(false), "a second token, or its secret told again")
            }
            #expect(token.id == 1)
        }
        #expect(try await decider.recover() == state)
        time.pass(seconds: 24 * 3600 - 1)
        guard case .created(_, _, nil) = try await create(decider, spec, key: "k") else {
            return #expect(Bool(false), "a day has not passed")
        }
        time.pass(seconds: 1)
        let late = try await create(decider, spec, key: "k")
        if lifetime == nil { #expect(code(late) == .nameTaken) } else { _ = try secret(late) }
        let live = try await decider.recover()
        #expect(try await self.decider().recover() == live, "what is folded live is what is refolded")
    }

    /// A key that is used after a step is not moved by it.
    @Test func aStepMovesOnlyTheKeysBeforeIt() async throws {
        let decider = decider()
        _ = try await create(decider, TokenSpec(name: "a", role: .viewer), key: "a")
        try step(seconds: 604_800)
        _ = try await create(decider, TokenSpec(name: "b", role: .viewer), key: "b")
        let state = try await decider.recover()
        #expect(state.answers.uses.map(\.at) == [time.now, time.now])
        #expect(try await self.decider().recover() == state)
    }

    @Test func aStepThatCannotBeUnderstoodIsNotPassedOver() async throws {
        let decider = decider(), restarted = self.decider()
        let request = AccessRequest(
            principal: .folderAdmin, idempotencyKey: "k", command: .create(TokenSpec(name: "ci", role: .operator)))
        _ = try await decider.execute(request)
        try step({ _ in Array("{}".utf8) }, seconds: 604_800)
        await #expect(throws: UnreadableDecision.self) { try await decider.execute(request) }
        await #expect(throws: UnreadableDecision.self) { try await restarted.recover() }
    }

    @Test func aTenantsAdminStaysWithinTheTenant() async throws {
        let decider = decider()
        _ = try await create(decider, TokenSpec(name: "other", role: .viewer, tenantID: "other"))
        _ = try await create(decider, TokenSpec(name: "root", role: .admin))
        _ = try await create(decider, TokenSpec(name: "acme-admin", role: .admin, tenantID: "acme"))
        let admin = Principal(name: "acme-admin", role: .admin, tenantID: "acme", tokenID: 3)
        for spec in [TokenSpec(name: "x", role: .viewer), TokenSpec(name: "x", role: .viewer, tenantID: "other")] {
            #expect(code(try await create(decider, spec, as: admin)) == .invalidValue)
        }
        for id: Int64 in [1, 2, 77] {
            let answer = try await decider.execute(AccessRequest(principal: admin, command: .revoke(id)))
            guard case .rejected(_, .notFound, let reason) = answer else { throw Unexpected(answer: answer) }
            #expect(reason == "there is no token \(id)", "what exists elsewhere is told in no way")
        }
        // Nor whether a name is taken elsewhere; but nobody can act under a name that also acts here.
        _ = try secret(
            try await create(
                decider, TokenSpec(name: "other", role: .viewer, tenantID: "acme"), as: admin))
        let taken = try await create(decider, TokenSpec(name: "root", role: .viewer, tenantID: "acme"), as: admin)
        #expect(code(taken) == .nameTaken)
    }

    @Test(arguments: [
        TokenSpec(name: "", role: .viewer), TokenSpec(name: "a b", role: .viewer),
        TokenSpec(name: "admin", role: .viewer), TokenSpec(name: "Engine", role: .viewer),
        TokenSpec(name: "x", role: .viewer, tenantID: "*"), TokenSpec(name: "x", role: .viewer, tenantID: ""),
        TokenSpec(name: "x", role: .viewer, tenantID: "a/b"), TokenSpec(name: "x", role: .viewer, lifetimeSeconds: 0),
        TokenSpec(name: "x", role: .viewer, lifetimeSeconds: .infinity),
        TokenSpec(name: "x", role: .viewer, lifetimeSeconds: .nan),
        TokenSpec(name: String(repeating: "x", count: 129), role: .viewer),
    ])
    func whatIsRefusedIsOnTheRecord(spec: TokenSpec) async throws {
        let decider = decider()
        #expect(code(try await create(decider, spec)) == .invalidValue)
        #expect(log.durableCount == 1 && decider.tokenIndex.tokens == [])
    }

    @Test func theStateComesBackFromASnapshot() async throws {
        let decider = decider()
        _ = try await create(decider, TokenSpec(name: "a", role: .viewer, tenantID: "t", lifetimeSeconds: 9), key: "k")
        _ = try await create(decider, TokenSpec(name: "b", role: .admin))
        _ = try await decider.execute(AccessRequest(principal: .folderAdmin, command: .revoke(2)))
        let state = try await decider.recover()
        let bytes = state.stored()
        let restored = try AccessState(stored: bytes)
        #expect(restored == state)
        #expect(restored.stored() == bytes, "one state, one spelling")
        let later = AccessDecider(writer: DecisionWriter(log), source: log, clock: { [time] in time.now }) {
            DeciderSnapshot(state: restored, end: Position(3))
        }
        #expect(try await later.recover() == state)
        #expect(throws: UnreadableDecision.self) { try AccessState(stored: Array("{}".utf8)) }
    }
}
