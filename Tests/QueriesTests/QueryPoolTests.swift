import Foundation
import Postgres
import TestSupport
import Testing

@testable import Queries

struct QueryPoolTests {
    let url: String

    init() throws { url = try PostgresServer.shared.get().url() }

    private static func sleep(_ seconds: Double) -> @Sendable (TableQueries) async throws -> Int {
        { tables in
            try await tables.all("select pg_sleep(\(seconds))::text", Parameters(), tenant: nil).count
        }
    }

    @Test func aReadThatIsCancelledGivesItsPlaceBackAtOnce() async throws {
        let pool = QueryPool(databaseURL: url, size: 1)
        let slow = Task { try await pool.use(Self.sleep(4)) }
        try await Task.sleep(for: .milliseconds(300))
        let waiting = Task { try await pool.use(Self.sleep(4)) }
        try await Task.sleep(for: .milliseconds(100))
        waiting.cancel()
        slow.cancel()
        let began = ContinuousClock.now
        await #expect(throws: QueryPool.Refusal.self) { try await waiting.value }
        await #expect(throws: QueryPool.Refusal.self) { try await slow.value }
        #expect(try await pool.use(Self.sleep(0)) == 1)
        #expect(ContinuousClock.now - began < .seconds(2))
    }

    @Test func theQueueIsBoundedInLengthAndTime() async throws {
        let pool = QueryPool(databaseURL: url, size: 1, waitersMax: 2, patience: .milliseconds(500))
        let slow = Task { try await pool.use(Self.sleep(2)) }
        try await Task.sleep(for: .milliseconds(300))
        let outcomes = await withTaskGroup(of: Duration?.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    let began = ContinuousClock.now
                    let isBusy = await (try? pool.use(Self.sleep(0))) == nil
                    return isBusy ? ContinuousClock.now - began : nil
                }
            }
            return await group.reduce(into: [Duration?]()) { $0.append($1) }
        }
        // Two found the queue full; two waited as long as may be.
        #expect(outcomes.compactMap { $0 }.count == 4)
        #expect(outcomes.compactMap { $0 }.count { $0 < .milliseconds(400) } == 2, "\(outcomes)")
        #expect(try await slow.value == 1)
        #expect(try await pool.use(Self.sleep(0)) == 1)
    }
}
