import Foundation
import Primitives
import Testing

@testable import CampaignRules

struct SequentialFailureTestTests {
    /// Sent for one after the other, each with its result at once: after how many it is too many.
    static func firstExceeding(_ test: SequentialFailureTest, _ results: some Sequence<Bool>) -> Int? {
        var test = test
        for (index, failed) in results.enumerated() {
            test.append()
            test.set(index, failed: failed)
            if test.exceeds { return index + 1 }
        }
        return nil
    }

    @Test(arguments: [
        (0.01, 2), (0.05, 3), (0.1, 3), (0.3, 5), (0.5, 9),
    ])
    func aBuildThatBreaksEveryDeviceStopsAfterAFew(threshold: Double, devices: Int) {
        #expect(
            Self.firstExceeding(SequentialFailureTest(threshold: threshold), repeatElement(true, count: 1_000))
                == devices)
    }

    @Test func oneFailureOutOfOneIsNoReason() {
        for threshold in [0.001, 0.01, 0.1, 0.5, 0.9, 0.99] {
            #expect(Self.firstExceeding(SequentialFailureTest(threshold: threshold), [true]) == nil, "\(threshold)")
        }
    }

    @Test func noneMayFailOrAllMay() {
        #expect(Self.firstExceeding(SequentialFailureTest(threshold: 0), [false, false, true]) == 3)
        #expect(Self.firstExceeding(SequentialFailureTest(threshold: 1), repeatElement(true, count: 100_000)) == nil)
        #expect(Self.firstExceeding(SequentialFailureTest(threshold: 0), repeatElement(false, count: 1_000)) == nil)
        var test = SequentialFailureTest(threshold: 0)
        for _ in 0..<100 { test.append() }
        test.set(70, failed: true)
        #expect(test.explanation.description == "1 of the first 71 devices failed, where none may")
        test.set(70, failed: false)
        #expect(!test.exceeds)
        #expect(test.explanation.description == "0 of 100 devices failed")
    }

    /// At the threshold exactly, evenly spread, it never speaks.
    @Test func theThresholdItselfIsAllowed() {
        let results = (0..<200_000).lazy.map { $0 % 20 == 19 }
        #expect(Self.firstExceeding(SequentialFailureTest(threshold: 0.05), results) == nil)
    }

    @Test func twiceTheThresholdIsNoticed() {
        let results = (0..<2_000).lazy.map { $0 % 10 == 9 }
        let after = Self.firstExceeding(SequentialFailureTest(threshold: 0.05), results)
        #expect(after == 260, "\(after ?? 0)")
    }

    @Test func failuresThatComeBeforeSuccessesAreNotTakenForAll() {
        // Five of a hundred fail, at a threshold of 10 %, and all failures are known before any success.
        var test = SequentialFailureTest(threshold: 0.1)
        for _ in 0..<100 { test.append() }
        for index in [10, 30, 50, 70, 90] {
            test.set(index, failed: true)
            #expect(!test.exceeds)
        }
    }

    @Test func devicesInFlightDoNotHideWhatIsKnownOfTheOlder() {
        var test = SequentialFailureTest(threshold: 0.05)
        for index in 0..<40 {
            test.append()
            test.set(index, failed: index % 3 == 0)
        }
        for _ in 0..<100_000 { test.append() }
        #expect(test.exceeds)
        #expect(test.explanation.first <= 40)
        #expect(test.explanation.samples == 100_040)
        #expect(test.explanation.failures == 14)
    }

    @Test func aLateSuccessTakesItBack() {
        var test = SequentialFailureTest(threshold: 0.05)
        for _ in 0..<3 { test.append() }
        for index in 0..<3 { test.set(index, failed: true) }
        #expect(test.exceeds)
        #expect(
            test.explanation.description
                == "3 of the first 3 devices failed: evidence of 8.83 against at most 5 %, and 6.68 is enough")
        test.set(1, failed: false)
        #expect(!test.exceeds)
        #expect(test.failureCount == 2)
    }

    /// Against a recount of every prefix, with results set and taken back in any order.
    @Test func theTreeSaysWhatARecountSays() {
        var random = SeededRandom(seed: 7)
        for threshold in [0.001, 0.02, 0.3, 0.6, 0.96] {
            var test = SequentialFailureTest(threshold: threshold), failed: [Bool] = []
            for step in 0..<1_500 {
                if failed.isEmpty || random.next() % 2 == 0 {
                    test.append()
                    failed.append(false)
                } else {
                    let index = Int(random.next() % UInt64(failed.count))
                    failed[index] = random.next() % 4 != 0
                    test.set(index, failed: failed[index])
                }
                guard step % 50 == 0 || step < 140 else { continue }
                let explanation = test.explanation
                #expect(explanation.samples == failed.count)
                #expect(explanation.failures == failed.count { $0 })
                guard explanation.failures > 0 else { continue }
                let (rate, p0) = (explanation.rate, threshold)
                var walk = 0.0, highest = -Double.infinity, failures = 0, at = 0, failuresAt = 0
                for (index, isFailure) in failed.enumerated() {
                    walk += isFailure ? log(rate / p0) : log((1 - rate) / (1 - p0))
                    failures += isFailure ? 1 : 0
                    if isFailure, walk > highest + 1e-6 { (highest, at, failuresAt) = (walk, index + 1, failures) }
                }
                #expect(abs(highest - explanation.statistic) < 1e-5)
                #expect(explanation.first == at)
                #expect(explanation.firstFailures == failuresAt)
                #expect(test.exceeds == (explanation.statistic >= explanation.limit))
            }
        }
    }

    /// The order in which results become known does not matter for what is known in the end.
    @Test func theOrderOfResultsDoesNotMatter() {
        var random = SeededRandom(seed: 3)
        let failing = (0..<5_000).map { _ in random.next() % 100 < 6 }
        func test(_ order: [Int]) -> SequentialFailureTest {
            var test = SequentialFailureTest(threshold: 0.05)
            for _ in failing { test.append() }
            for index in order { test.set(index, failed: failing[index]) }
            return test
        }
        let inOrder = test(Array(failing.indices)), backwards = test(failing.indices.reversed())
        #expect(inOrder == backwards)
        #expect(inOrder.explanation == backwards.explanation)
    }

    @Test func logarithmsAreThoseOfTheLibrary() {
        for value in [1e-12, 0.001, 0.3, 0.7071, 0.99999, 1, 1.4142, 1.5, 2, 19, 95, 1e9] {
            #expect(abs(naturalLogarithm(value) - log(value)) <= 1e-14 * max(1, abs(log(value))), "\(value)")
        }
    }
}
