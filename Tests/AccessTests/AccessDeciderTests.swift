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
        AccessDecider(writer: log, source: log, clock: { [time] in time.now })
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
        #expect(decider.book.hasTokens, "before anything is read back nobody knows, so nothing is open")
        #expect(decider.book.find(secret: "x") == .notReady)
        try await decider.recover()
        #expect(!decider.book.hasTokens)
        let secret = try secret(try await create(
            decider, TokenSpec(name: "night-shift", role: .operator, tenantID: "acme")))
        let principal = Principal(name: "night-shift", role: .operator, tenantID: "acme", tokenID: 1)
        #expect(decider.book.find(secret: secret) == .found(principal))
        #expect(decider.book.find(secret: secret + "0") == .unknown)

        let restarted = self.decider()
        try await restarted.recover()
        #expect(restarted.book.find(secret: secret) == .found(principal) && restarted.book.hasTokens)
        let revoke = AccessRequest(principal: .folderAdmin, command: .revoke(1))
        _ = try await restarted.execute(revoke)
        #expect(restarted.book.find(secret: secret) == .unknown && restarted.book.find(id: 1) == .unknown)
        #expect(!restarted.book.hasTokens)
        #expect(code(try await restarted.execute(revoke)) == .illegalTransition)
    }

    @Test func aTokenExpires() async throws {
        let decider = decider()
        let secret = try secret(try await create(
            decider, TokenSpec(name: "visitor", role: .viewer, lifetimeSeconds: 60)))
        time.pass(seconds: 59)
        #expect(decider.book.find(secret: secret) != .unknown)
        time.pass(seconds: 1)
        #expect(decider.book.find(secret: secret) == .unknown && !decider.book.hasTokens)
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

    @Test func aTenantsAdminStaysWithinTheTenant() async throws {
        let decider = decider()
        _ = try await create(decider, TokenSpec(name: "other", role: .viewer, tenantID: "other"))
        _ = try await create(decider, TokenSpec(name: "root", role: .admin))
        let admin = Principal(name: "acme-admin", role: .admin, tenantID: "acme", tokenID: 9)
        for spec in [TokenSpec(name: "x", role: .viewer), TokenSpec(name: "x", role: .viewer, tenantID: "other")] {
            #expect(code(try await create(decider, spec, as: admin)) == .invalidValue)
        }
        for id: Int64 in [1, 2, 77] {
            let answer = try await decider.execute(AccessRequest(principal: admin, command: .revoke(id)))
            guard case .rejected(_, .notFound, let reason) = answer else { throw Unexpected(answer: answer) }
            #expect(reason == "there is no token \(id)", "what exists elsewhere is told in no way")
        }
        // Nor whether a name is taken elsewhere; but nobody can act under a name that also acts here.
        _ = try secret(try await create(
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
        #expect(log.durableCount == 1 && decider.book.tokens == [])
    }

    @Test func theStateComesBackFromASnapshot() async throws {
        let decider = decider()
        _ = try await create(decider, TokenSpec(name: "a", role: .viewer, tenantID: "t", lifetimeSeconds: 9), key: "k")
        _ = try await create(decider, TokenSpec(name: "b", role: .admin))
        _ = try await decider.execute(AccessRequest(principal: .folderAdmin, command: .revoke(2)))
        let state = try await decider.recover()
        let bytes = try state.stored()
        let restored = try AccessState(stored: bytes)
        #expect(restored == state)
        #expect(try restored.stored() == bytes, "one state, one spelling")
        let later = AccessDecider(writer: log, source: log, clock: { [time] in time.now }) {
            AccessBeginning(state: restored, end: Position(3))
        }
        #expect(try await later.recover() == state)
        #expect(throws: AccessLogError.self) { try AccessState(stored: Array("{}".utf8)) }
    }
}
