import EventModel
import Testing
@testable import Deciding

struct IdempotencyLedgerTests {
    private typealias Ledger = IdempotencyLedger<Int>
    private static let day: Int64 = 86_400_000_000

    private func key(_ tenant: String, _ name: String) -> Ledger.Key { .init(tenantID: tenant, key: name) }
    private func entry(_ answer: Int, at: Int64) -> Ledger.Entry {
        .init(digest: nil, at: Timestamp(microseconds: at), answer: answer)
    }
    private func answer(_ ledger: Ledger, _ key: Ledger.Key, at: Int64 = 1) -> Int? {
        ledger.entry(for: key, now: Timestamp(microseconds: at))?.answer
    }

    @Test func anAnswerLastsADay() {
        var ledger = Ledger()
        ledger.remember(key("t", "k"), entry(1, at: 0))
        #expect(answer(ledger, key("t", "k"), at: Self.day - 1) == 1)
        #expect(answer(ledger, key("t", "k"), at: Self.day) == nil)
        #expect(answer(ledger, key("u", "k")) == nil)
        #expect(answer(ledger, .init(tenantID: "t", actor: "ann", key: "k")) == nil)
        ledger.expire(before: Timestamp(microseconds: Self.day))
        #expect(ledger.entries.isEmpty && ledger.uses.isEmpty)
    }

    @Test func aKeyThatIsUsedAgainKeepsItsLaterAnswer() {
        var ledger = Ledger()
        ledger.remember(key("t", "k"), entry(1, at: 0))
        ledger.remember(key("t", "k"), entry(2, at: 5))
        ledger.expire(before: Timestamp(microseconds: Self.day))
        #expect(answer(ledger, key("t", "k"), at: Self.day) == 2)
        ledger.expire(before: Timestamp(microseconds: Self.day + 5))
        #expect(ledger == Ledger())
    }

    @Test func beyondTheBoundTheOldestIsForgotten() {
        var ledger = Ledger(countMax: 3)
        for number in 1...5 { ledger.remember(key("t\(number)", "k"), entry(number, at: Int64(number))) }
        #expect(ledger.entries.count == 3 && answer(ledger, key("t2", "k")) == nil)
        #expect(answer(ledger, key("t3", "k")) == 3)
    }

    /// A tenant that uses many keys costs no other tenant its answers.
    @Test func aTenantsBoundIsItsOwn() {
        var ledger = Ledger(tenantCountMax: 2)
        ledger.remember(key("a", "k"), entry(0, at: 0))
        for number in 1...9 { ledger.remember(key("b", "\(number)"), entry(number, at: Int64(number))) }
        #expect(answer(ledger, key("a", "k")) == 0 && ledger.entries.count == 3)
        #expect(answer(ledger, key("b", "8")) == 8 && answer(ledger, key("b", "7")) == nil)
    }

    @Test func aStepOfTheClockMovesAnswersAndTheirEnd() {
        var ledger = Ledger()
        ledger.remember(key("t", "k"), entry(1, at: 0))
        ledger.move(by: 7)
        #expect(answer(ledger, key("t", "k"), at: Self.day + 6) == 1)
        ledger.expire(before: Timestamp(microseconds: Self.day + 6))
        #expect(ledger.uses.count == 1)
        ledger.expire(before: Timestamp(microseconds: Self.day + 7))
        #expect(ledger.entries.isEmpty)
    }

    @Test func whatIsRestoredGoesOnTheSame() {
        var ledger = Ledger(tenantCountMax: 2)
        for number in 1...2 { ledger.remember(key("b", "\(number)"), entry(number, at: Int64(number))) }
        var restored = Ledger(tenantCountMax: 2)
        restored.restore(ledger.entries, uses: ledger.uses)
        #expect(restored == ledger)
        for number in 3...4 {
            ledger.remember(key("b", "\(number)"), entry(number, at: Int64(number)))
            restored.remember(key("b", "\(number)"), entry(number, at: Int64(number)))
        }
        #expect(restored == ledger && ledger.entries.count == 2)
    }
}
