import Deciding
import Decisions
import Decoding
import EventModel
import Foundation
import PKI
import Testing
@testable import Certificates

extension TestRegistry {
    /// Decides what is due, until nothing is. Returns the decisions, and what they send.
    @discardableResult
    mutating func advance() -> (events: [CertificateRenewal], sent: [Delivery]) {
        var all: [CertificateRenewal] = [], sent: [Delivery] = []
        while true {
            let events = state.advance(now)
            if events.isEmpty { return (all, sent) }
            sent += fold(events)
            all += events.compactMap { if case .renewal(let event) = $0 { event } else { nil } }
        }
    }

    mutating func fold(_ events: [RegistryEvent]) -> [Delivery] {
        let begin = Position(position)
        for event in events {
            state.apply(event, at: Position(position), time: now)
            position += 1
        }
        return state.effects(of: events, at: begin..<Position(position)).flatMap { effect -> [Delivery] in
            if case .send(let deliveries) = effect { deliveries } else { [] }
        }
    }

    /// A command's effects.
    mutating func sending(_ command: RegistryCommand, tenant: String = "t") -> [Delivery] {
        guard
            case .append(let events) = state.decide(
                RegistryRequest(tenantID: tenant, actor: "op", command: command), now: now)
        else { return [] }
        return fold(events)
    }

    /// The brokers acknowledge the device's last command.
    mutating func acknowledge(_ deliveries: [Delivery]) {
        state.acknowledged(deliveries, at: now)
        advance()
    }

    /// A message of a device; its position is that of the next event.
    @discardableResult
    mutating func say(
        _ device: String, _ topic: String = "request", verdict: Verdict = .accepted, flags: RecordFlags = []
    ) -> Position {
        var batch = RecordBatch(), name = "tenant/t/device/\(device)/certificate/\(topic)"
        let none = UnsafeRawBufferPointer(start: nil, count: 0), at = Position(position)
        name.withUTF8 {
            batch.append(
                kind: .message, verdict: verdict, flags: flags, receivedAt: now, packetID: 0, broker: none,
                topic: UnsafeRawBufferPointer($0), properties: none, payload: none)
        }
        batch.withUnsafeBytes {
            state.observe(RecordView(unchecked: $0.baseAddress!), at: at, FactDecoder())
        }
        position += 1
        return at
    }

    mutating func deadline() throws -> Timestamp {
        let next = state.nextDeadline(after: now)
        return try #require(next)
    }

    mutating func setPolicy(_ change: (inout RenewalPolicy) -> Void = { $0.isEnabled = true }) throws {
        var policy = RenewalPolicy()
        change(&policy)
        try run(.setRenewalPolicy(policy), tenant: "*")
    }

    func renewal(_ device: String) -> Renewal? { state.renewal(tenantID: "t", deviceID: device) }

    /// The new certificate of an open renewal.
    func answer(_ serial: UInt64, _ device: String, to request: Position, key: String? = nil, renews: UInt64 = 1)
        -> CertificateAdded
    {
        var event = certificate(serial, device, key: key, renews: renews)
        event.certificate = "MAA="
        event.renewal = .init(
            id: renewal(device)?.id.rawValue ?? 0, request: request.rawValue, chain: ["MAE="])
        return event
    }

    func step(_ step: CertificateRenewal.Step, _ device: String, cause: Position) -> CertificateRenewal {
        let renewal = renewal(device)
        var event = CertificateRenewal(
            step, authority: "ca", serial: renewal?.certificate.serial.description ?? "01", tenantID: "t",
            deviceID: device, renewal: renewal?.id.rawValue ?? 0, actor: "")
        event.cause = cause.rawValue
        return event
    }
}

@Suite struct RenewalTests {
    var registry: TestRegistry

    init() throws {
        registry = TestRegistry()
        try registry.run(registry.authority("ca"), tenant: "*")
    }

    /// Opens a renewal of certificate 1 of `d`, whose command the brokers have.
    private mutating func opened() throws -> Renewal {
        try registry.run(.add([registry.certificate(1, "d", days: 90)]))
        let sent = registry.sending(.renewDevice("d"))
        #expect(sent.count == 1)
        registry.acknowledge(sent)
        return try #require(registry.renewal("d"))
    }

    // MARK: When

    @Test func theWindowIsTwoThirdsOfLifePlusATwentieth() {
        var policy = RenewalPolicy()
        policy.afterPercent = 67
        let life: Int64 = 90 * 86_400
        var times: Set<Int64> = []
        for number in 1...1_000 as ClosedRange<UInt64> {
            let window = RenewalWindow(SerialNumber(number)!, notBefore: 0, notAfter: life, policy)
            #expect(window.start.wholeSeconds == life * 67 / 100)
            #expect(window.end.wholeSeconds == life * 67 / 100 + life / 20)
            #expect(window.start <= window.renewAt && window.renewAt < window.end)
            times.insert(window.renewAt.wholeSeconds)
        }
        #expect(times.count > 950, "spread by serial number")
        let span = times.max()! - times.min()!
        #expect(span > life / 20 * 9 / 10)
        let endless = RenewalWindow(SerialNumber(1)!, notBefore: .min, notAfter: .max, policy)
        #expect(endless.start <= endless.end, "no overflow")
    }

    @Test mutating func aCertificateIsRenewedAtItsTimeWhereThatIsSwitchedOn() throws {
        try registry.run(.add([registry.certificate(1, "d", days: 90)]))
        let window = try #require(registry.state.renewalWindow(registry.reference(1), now: registry.now))
        registry.pass(seconds: 80 * 86_400)
        #expect(registry.advance().events.isEmpty, "off by default")
        #expect(registry.state.nextDeadline(after: registry.now) == nil)
        registry.pass(seconds: -80 * 86_400)
        try registry.setPolicy()
        let due = try registry.deadline()
        #expect(window.start <= due && due < window.end)
        registry.now = due.adding(microseconds: -1)
        #expect(registry.advance().events.isEmpty)
        registry.now = due
        let (events, sent) = registry.advance()
        #expect(events.map(\.step) == [.requested] && events[0].attempt == 1)
        let command = try #require(sent.first)
        #expect(command.topic == "tenant/t/device/d/certificate" && command.isRetained)
        let text = String(decoding: command.payload, as: UTF8.self)
        #expect(
            text.hasPrefix(#"{"action":"certificate_renew","renewal_id":\#(command.id),"authority":"ca","serial":"01""#)
        )
        #expect(text.hasSuffix(#","command_id":\#(command.id)}"#))
        #expect(registry.advance().events.isEmpty, "one open renewal a device")
    }

    @Test mutating func importedCertificatesAreRenewedOnlyWhenAsked() throws {
        try registry.setPolicy()
        try registry.run(.add([registry.certificate(1, "d", origin: .imported)]))
        registry.pass(seconds: 29 * 86_400)
        #expect(registry.advance().events.isEmpty)
        #expect(registry.sending(.renewDevice("d")).count == 1)
    }

    @Test mutating func onlyTheNewestActiveCertificateIsRenewed() throws {
        try registry.setPolicy()
        try registry.run(.add([registry.certificate(1, "d")]))
        registry.pass(seconds: 15 * 86_400)
        try registry.run(.add([registry.certificate(2, "d", renews: 1)]))
        registry.pass(seconds: 8 * 86_400)
        #expect(registry.advance().events.isEmpty, "the newer one is not due")
        try registry.change(2, .revoke(.keyCompromise))
        #expect(registry.advance().events.map(\.serial) == ["01"])
    }

    @Test mutating func anAuthoritysCertificatesAreRenewedNowAndSpread() throws {
        for batch in 0..<3 {
            try registry.run(
                .add((1...100).map { registry.certificate(UInt64(batch * 100 + $0), "d\(batch * 100 + $0)") }))
        }
        try registry.run(.add([registry.certificate(999, "u1", tenant: "u")]), tenant: "u")
        try registry.change(7, .hold)
        try registry.run(.renewAuthority("ca"))
        let due = registry.state.renewals.certificates.count
        try registry.run(.renewAuthority("ca"))
        #expect(registry.state.renewals.certificates.count == due, "ordered again, none is due twice")
        let window = try #require(registry.state.renewalWindow(registry.reference(1), now: registry.now))
        #expect(window.start < window.end && window.end <= registry.now)
        #expect(registry.advance().events.count == Renewals.requestsPerSecondMax)
        #expect(registry.state.nextDeadline(after: registry.now) == registry.now.adding(microseconds: 1_000_000))
        registry.pass(seconds: 1)
        let rest = registry.advance().events
        #expect(rest.count == 99, "not the one on hold, and none of another tenant")
        #expect(registry.state.openRenewalCount == 299)
    }

    // MARK: Steps

    @Test mutating func aRenewalRunsToItsEnd() throws {
        let renewal = try opened()
        #expect(renewal.status == .requested && registry.state.wantsMessages)
        let request = registry.say("d")
        #expect(registry.renewal("d")?.status == .answered)
        #expect(registry.state.answers(limit: 9).map(\.position) == [request])
        let sent = registry.sending(.add([registry.answer(2, "d", to: request)]))
        let text = String(decoding: try #require(sent.first).payload, as: UTF8.self)
        #expect(
            text.hasPrefix(
                #"{"action":"certificate_install","renewal_id":\#(renewal.id),"authority":"ca","serial":"02""#))
        #expect(text.contains(#"MAA=\n-----END"#) && text.contains(#"MAE=\n-----END"#))
        #expect(registry.renewal("d")?.status == .issued && registry.state.answers(limit: 9).isEmpty)
        registry.acknowledge(sent)
        #expect(registry.renewal("d")?.status == .delivered)
        #expect(registry.status(1) == .active, "both are live until the new one is in use")

        let report = registry.say("d", "installed")
        var installed = registry.step(.installed, "d", cause: report)
        installed.issued = "ca/02"
        let removal = registry.sending(.renewal(installed))
        #expect(removal.count == 1 && removal[0].isRemoval && removal[0].isRetained)
        #expect(registry.status(1) == .superseded && registry.status(2) == .active && registry.renewal("d") == nil)
        #expect(registry.state.certificate(registry.reference(1))?.replacedBy == registry.reference(2))
    }

    /// It may sleep for longer than the grace: the renewal waits as long as the old certificate is valid and the new
    /// one need not be renewed itself.
    @Test(
        arguments: [
            // Days from the issue: life of the new certificate, grace, and the end. It is due after half of its life.
            (90, 7, 45), (300, 7, 90), (3, 7, 7), (30, 0, 15), (30, 60, 60),
        ] as [(days: Int64, grace: Int64, end: Int64)])
    mutating func aDeviceThatDoesNotReportIsSuperseded(_ row: (days: Int64, grace: Int64, end: Int64)) throws {
        try registry.setPolicy { ($0.graceSeconds, $0.afterPercent) = (row.grace * 86_400, 50) }
        try registry.run(.add([registry.certificate(1, "d", days: 90)]))
        registry.acknowledge(registry.sending(.renewDevice("d")))
        var answer = registry.answer(2, "d", to: registry.say("d"))
        answer.notAfter = registry.now.adding(microseconds: row.days * 86_400_000_000)
        registry.acknowledge(registry.sending(.add([answer])))
        registry.pass(seconds: row.end * 86_400 - 1)
        #expect(registry.advance().events.isEmpty)
        registry.pass(seconds: 1)
        let events = registry.advance().events
        #expect(events.first?.step == .failed && events.first?.reason?.contains("did not report ca/02") == true)
        #expect(registry.status(1) == .superseded)
    }

    @Test mutating func noAnswerIsRetriedWithBackoffUntilThirtyDaysAfterExpiry() throws {
        _ = try opened()
        var times: [Timestamp] = [registry.now], ended: CertificateRenewal?
        while ended == nil {
            registry.now = try registry.deadline()
            let (events, sent) = registry.advance()
            #expect(events.count == 1)
            if events[0].step == .failed {
                ended = events[0]
            } else {
                times.append(registry.now)
                #expect(events[0].attempt == Int64(times.count))
                registry.acknowledge(sent)
            }
        }
        let pauses = zip(times.dropFirst(), times).map { $0.microseconds - $1.microseconds }
        #expect(pauses[0] >= 3_600_000_000 && pauses[0] < 4_050_000_000, "an hour, and an eighth of it")
        #expect(pauses[3] >= 8 * 3_600_000_000)
        #expect(pauses.allSatisfy { $0 >= 60_000_000 && $0 <= 97_200_000_000 })
        let expiry = try #require(registry.state.certificate(registry.reference(1))).notAfter
        #expect(registry.now == expiry.adding(microseconds: 30 * 86_400_000_000))
        #expect(ended?.reason?.contains("30 days") == true && registry.renewal("d") == nil)
        #expect(registry.state.nextDeadline(after: registry.now) == nil, "it is not opened again")
    }

    @Test mutating func aBrokerThatIsDownCostsNoAttempt() throws {
        try registry.run(.add([registry.certificate(1, "d", days: 90)]))
        let sent = registry.sending(.renewDevice("d"))
        registry.pass(seconds: 20 * 86_400)
        #expect(registry.advance().events.isEmpty && registry.renewal("d")?.attempt == 1)
        guard case .send(let again)? = registry.state.pendingEffects().first else {
            Issue.record("nothing is sent after a restart")
            return
        }
        #expect(again == sent, "the same command, to the byte")
    }

    @Test mutating func anExpiredCertificateCanBeRenewedForThirtyDays() throws {
        try registry.run(.add([registry.certificate(1, "d", days: 1)]))
        registry.pass(seconds: 20 * 86_400)
        #expect(registry.sending(.renewDevice("d")).count == 1)
        #expect(code(try registry.run(.add([registry.answer(2, "d", to: registry.say("d"))]))) == nil)
        try registry.run(.add([registry.certificate(3, "e", days: 1)]))
        registry.pass(seconds: 32 * 86_400)
        #expect(code(try registry.run(.renewDevice("e"))) == .illegalTransition)
    }

    @Test mutating func aRevocationEndsTheRenewal() throws {
        _ = try opened()
        let request = registry.say("d")
        try registry.change(1, .revoke(.keyCompromise))
        #expect(code(try registry.run(.add([registry.answer(2, "d", to: request)]))) == .illegalTransition)
        let (events, sent) = registry.advance()
        #expect(events.map(\.step) == [.failed] && events[0].reason == "the certificate ca/01 is REVOKED")
        #expect(sent.map(\.isRemoval) == [true])
    }

    // MARK: Refusals

    @Test mutating func oneCertificateForEachRenewalWithANewKey() throws {
        _ = try opened()
        let request = registry.say("d")
        #expect(code(try registry.run(.add([registry.answer(2, "d", to: request, key: "1")]))) == .invalidValue)
        try registry.run(.add([registry.certificate(5, "e")]))
        #expect(code(try registry.run(.add([registry.answer(2, "d", to: request, key: "5")]))) == .invalidValue)
        var foreign = registry.answer(2, "d", to: request)
        foreign.renewal?.id += 1
        #expect(code(try registry.run(.add([foreign]))) == .outdated)
        #expect(code(try registry.run(.add([registry.answer(2, "d", to: request)]))) == nil)
        #expect(code(try registry.run(.add([registry.answer(3, "d", to: request)]))) == .outdated)
        #expect(code(try registry.run(.renewDevice("d"))) == .illegalTransition)
        #expect(code(try registry.run(.renewDevice("nobody"))) == .notFound)
        #expect(code(try registry.run(.renewDevice("d"), tenant: "u")) == .notFound)
    }

    @Test mutating func aFloodIsBounded() throws {
        _ = try opened()
        for _ in 0..<100 { registry.say("d") }
        #expect(registry.renewal("d")?.messages.count == Renewal.messagesMax)
        var refused = 0
        while let answer = registry.state.answers(limit: 1).first {
            var event = registry.step(.refused, "d", cause: answer.position)
            event.reason = "no"
            try registry.run(.renewal(event))
            refused += 1
            for _ in 0..<10 { registry.say("d") }
        }
        #expect(refused <= Renewal.refusalsMax + Renewal.messagesMax)
        #expect(registry.renewal("d")?.error == "no")
        // The next request gives it another chance.
        registry.acknowledge(registry.sending(.renewDevice("d")))
        registry.say("d")
        #expect(registry.renewal("d")?.status == .answered && registry.renewal("d")?.attempt == 2)
    }

    @Test mutating func aRepeatedRequestIsAnsweredEightTimes() throws {
        _ = try opened()
        registry.acknowledge(registry.sending(.add([registry.answer(2, "d", to: registry.say("d"))])))
        var resent = 0
        for _ in 0..<100 {
            registry.say("d")
            while let answer = registry.state.answers(limit: 1).first {
                var event = registry.step(.resent, "d", cause: answer.position)
                (event.issued, event.certificate) = ("ca/02", "MAA=")
                registry.acknowledge(registry.sending(.renewal(event)))
                resent += 1
            }
        }
        #expect(resent == Renewal.refusalsMax)
        #expect(registry.state.renewals.timers.count < 10)
        registry.say("d", "installed")
        #expect(registry.state.answers(limit: 1).count == 1, "the report is heard all the same")
    }

    @Test mutating func whatIsNotTheDevicesWordIsPassedOver() throws {
        _ = try opened()
        registry.say("d", verdict: .certMismatch)
        registry.say("d", flags: .retained)
        registry.say("e")
        registry.say("d", "other")
        #expect(registry.renewal("d")?.status == .requested)
    }

    @Test mutating func aLateAnswerIsRefusedOnce() throws {
        _ = try opened()
        try registry.change(1, .revoke(.superseded))
        registry.advance()
        for _ in 0..<5 { registry.say("d") }
        let events = registry.advance().events
        #expect(events.map(\.step) == [.refused] && events[0].reason?.hasPrefix("the renewal ended") == true)
        registry.pass(seconds: 2 * 3_600)
        try registry.run(.add([registry.certificate(4, "f")]))
        #expect(!registry.state.wantsMessages)
    }

    // MARK: Restart

    /// In each state: the same bytes, and the same next decision, at the next retry or when the renewal ends.
    @Test mutating func everyStateSurvivesARestart() throws {
        func check(_ registry: TestRegistry, _ what: String, days: Int64) throws {
            let stored = registry.state.stored()
            var restored = registry, live = registry
            restored.state = try CertificateRegistry(stored: stored)
            #expect(restored.state.stored() == stored, "\(what)")
            #expect(
                restored.state.nextDeadline(after: registry.now) == live.state.nextDeadline(after: registry.now),
                "\(what)")
            #expect(restored.state.answers(limit: 9).map(\.position) == live.state.answers(limit: 9).map(\.position))
            #expect(restored.state.pendingEffects() == live.state.pendingEffects(), "\(what)")
            restored.pass(seconds: days * 86_400)
            live.now = restored.now
            let events = restored.advance().events
            #expect(events == live.advance().events, "\(what)")
            #expect(!events.isEmpty, "\(what)")
        }
        try registry.setPolicy()
        try registry.run(.add([registry.certificate(1, "d", days: 90)]))
        try check(registry, "none", days: 70)
        try registry.run(.renewAuthority("ca"))
        try check(registry, "ordered", days: 8)
        var sent = registry.advance().sent
        try check(registry, "requested", days: 200)
        registry.acknowledge(sent)
        try check(registry, "delivered", days: 8)
        let request = registry.say("d")
        try check(registry, "answered", days: 200)
        sent = registry.sending(.add([registry.answer(2, "d", to: request)]))
        try check(registry, "issued", days: 200)
        registry.acknowledge(sent)
        try check(registry, "certificate delivered", days: 200)
        var installed = registry.step(.installed, "d", cause: registry.say("d", "installed"))
        installed.issued = "ca/02"
        try registry.run(.renewal(installed))
        registry.say("d")
        try check(registry, "installed, with a late answer", days: 8)
    }

    @Test mutating func aSnapshotFromBeforeRenewalsOpens() throws {
        try registry.run(.add([registry.certificate(1, "d")]))
        let stored = registry.state.stored()
        let length = Int(stored[0]) | Int(stored[1]) << 8 | Int(stored[2]) << 16
        var header = try #require(
            JSONSerialization.jsonObject(with: Data(stored[4..<4 + length])) as? [String: Any])
        #expect(header.removeValue(forKey: "renewals") != nil)
        let json = try JSONSerialization.data(withJSONObject: header)
        let old = withUnsafeBytes(of: UInt32(json.count).littleEndian) { Array($0) } + json + stored[(4 + length)...]
        registry.state = try CertificateRegistry(stored: old)
        #expect(registry.state.stored() == stored)
    }

    @Test mutating func aStepOfTheClockMovesTheRetry() throws {
        _ = try opened()
        let before = try registry.deadline()
        registry.state.moveTimers(by: 5_000_000)
        registry.now = registry.now.adding(microseconds: 5_000_000)
        #expect(registry.state.nextDeadline(after: registry.now)?.microseconds ?? 0 >= before.microseconds + 4_000_000)
    }
}
