import EventModel
import Foundation
import Testing
import Yams

@testable import Health

/// One table: every fault, and everything that must be seen of it.
struct HealthTests {
    @Test(arguments: Fault.table) func everyFaultIsSeen(_ fault: Fault) {
        let health = Health(fault.facts)
        #expect(health.problems.map(\.code) == fault.codes)
        #expect(health.state == fault.state)
        #expect(health.notReady.isEmpty == fault.isReady)
        #expect(health.stuck.isEmpty == fault.isLive)
        #expect(health.problems.allSatisfy { !$0.text.isEmpty })
    }

    @Test func theTableIsCompleteAndNamesEachFaultOnce() {
        #expect(Fault.table.count >= 30)
        #expect(Set(Fault.table.map(\.name)).count == Fault.table.count)
        let covered = Set(Fault.table.flatMap(\.codes))
        #expect(ReasonCode.allCases.filter { !covered.contains($0) }.isEmpty)
    }

    /// A restart cures what stands still in this process, and nothing else.
    @Test func onlyAThreadOfOursIsAReasonToBeRestarted() {
        let dead = ReasonCode.allCases.filter { $0.effect.contains(.dead) }
        #expect(dead == [.ingestStuck, .logStuck, .projectionStuck])
    }

    @Test func textsFromOutsideAndWildNumbersDoNoHarm() {
        var facts = Fault.sound
        facts.projections[0].lagSeconds = .infinity
        facts.projections[1].lagSeconds = 1e300
        facts.log.diskFullSeconds = -1
        #expect(Health(facts).problems.map(\.code) == [.projectionLagging, .projectionLagging, .diskFilling])
    }

    @Test func aProblemKeepsTheTimeAtWhichItBegan() {
        var memory = ProblemMemory(), facts = Fault.sound
        facts.brokers[0].isConnected = false
        func look(_ second: Int64) -> [Timestamp?] {
            memory.complete(Health(facts), now: Timestamp(microseconds: second * 1_000_000)).problems.map(\.since)
        }
        #expect(look(10) == [Timestamp(microseconds: 10_000_000)])
        facts.brokers[1].isConnected = false
        #expect(look(20) == [Timestamp(microseconds: 10_000_000), Timestamp(microseconds: 20_000_000)])
        facts.brokers[0].isConnected = true
        #expect(look(30) == [Timestamp(microseconds: 20_000_000)])
        facts.brokers[0].isConnected = false
        #expect(look(40).first == Timestamp(microseconds: 40_000_000), "it began again")
        facts.brokers[0].alarms = [.init(.brokerTakenOver, since: Timestamp(microseconds: 5), text: "taken")]
        #expect(look(50).contains(Timestamp(microseconds: 5)), "an alarm knows its own time")
    }

    // MARK: What is written about it

    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    static func text(_ path: String) throws -> String {
        try String(contentsOf: root.appending(path: path), encoding: .utf8)
    }

    @Test func thePageIsMadeOfTheCode() throws {
        let expected = HealthDocument.markdown(Fault.table.map(\.row))
        if ProcessInfo.processInfo.environment["REFOLD_REWRITE_DOCS"] != nil {
            try expected.write(to: Self.root.appending(path: "docs/health.md"), atomically: true, encoding: .utf8)
        }
        #expect(
            try Self.text("docs/health.md") == expected, "REFOLD_REWRITE_DOCS=1 swift test --filter HealthTests")
    }

    static func rules() throws -> [[String: Any]] {
        let file = try #require(
            try Yams.load(yaml: text("packaging/prometheus/refold.rules.yml")) as? [String: Any])
        return (file["groups"] as? [[String: Any]] ?? []).flatMap { $0["rules"] as? [[String: Any]] ?? [] }
    }

    /// Alert rules by name: the expressions that raise each.
    static func alerts() throws -> [String: [String]] {
        var alerts: [String: [String]] = [:]
        for rule in try rules() {
            guard let name = rule["alert"] as? String, let expression = rule["expr"] as? String else { continue }
            alerts[name, default: []].append(expression)
        }
        return alerts
    }

    @Test(arguments: ReasonCode.allCases) func theAlertWaitsAsLongAsThePageSays(_ code: ReasonCode) throws {
        let rule = try #require(try Self.rules().first(where: { $0["alert"] as? String == code.alert }))
        let delay = (rule["for"] as? String)?.replacing("m", with: " min").replacing("h", with: " h")
        #expect(delay == code.alertDelay, "\(code.alert)")
    }

    /// An increase has no sample to start from after an outage that is longer than its range.
    @Test func alarmsThatStayAreAlertedByTheirStateAndNotByAnIncrease() throws {
        let alerts = try Self.alerts()
        for code in ReasonCode.allCases where code.isAcknowledged {
            let expressions = try #require(alerts[code.alert])
            #expect(expressions.allSatisfy { !$0.contains("increase(") && !$0.contains("rate(") }, "\(code.alert)")
            #expect(code.metric?.contains("increase(") != true, "\(code.rawValue)")
        }
    }

    @Test(arguments: ReasonCode.allCases) func everyReasonHasAnAlertThatItRaises(_ code: ReasonCode) throws {
        let expressions = try Self.alerts()[code.alert] ?? []
        let own = code.metric?.firstMatch(of: /refold_[a-z_]+/).map { String($0.0) }
        let isRaised = expressions.contains { expression in
            own.map { expression.contains($0) } == true
                || expression.contains("refold_problems")
                    && expression.matches(of: /[a-z_]+/).contains { $0.0 == code.rawValue }
        }
        #expect(isRaised, "\(code.alert) does not fire for \(code.rawValue)")
    }

    /// The alerts that list codes are tried with every code by promtool.
    @Test func theRulesAreTriedWithEveryCodeTheyList() throws {
        let tests = try Self.text("packaging/prometheus/refold.rules.test.yml")
        for code in ReasonCode.allCases where code.alert.hasPrefix("RefoldProblem") {
            #expect(tests.contains("refold_problems{code=\"\(code.rawValue)\""), "\(code.rawValue)")
        }
    }

    @Test func everyMetricThatIsNamedIsExported() throws {
        let exported = Set(
            try Self.text("Sources/ControlAPI/Metrics.swift").matches(of: /"(refold_[a-z_]+)"/).map { String($0.1) })
        #expect(exported.contains("refold_problems"))
        for metric in ReasonCode.allCases.compactMap(\.metric) {
            for name in metric.matches(of: /refold_[a-z_]+/) { #expect(exported.contains(String(name.0)), "\(metric)") }
        }
    }
}
