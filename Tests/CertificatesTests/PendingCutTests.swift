import Decisions
import EventModel
import Foundation
import PKI
import Primitives
import Testing
@testable import Certificates

/// Which clients are to be disconnected at which broker.
@Suite struct PendingCutTests {
    private var registry: TestRegistry
    private let north = EnforcementKey(broker: "north", authority: "ca")

    init() throws {
        registry = TestRegistry()
        try registry.run(registry.authority("ca"), tenant: "*")
        try registry.run(.add((1...6).map { registry.certificate($0, "d\($0)") }))
    }

    private mutating func step(_ step: CRLEnforced.Step, _ number: UInt64, broker: String = "north", bans: Bool = false)
        throws
    {
        var event = CRLEnforced(step, broker: broker, authority: "ca", tenantID: "*", number: number, actor: "")
        (event.bans, event.error) = (bans ? true : nil, [.uncut, .unproved].contains(step) ? "away" : nil)
        #expect(code(try registry.run(.enforce(event), tenant: "*")) == nil, "\(step)")
    }

    /// Issues a CRL and proves it.
    @discardableResult
    private mutating func prove(bans: Bool = false) throws -> CRLDraft {
        registry.pass(seconds: 2)
        let draft = try registry.issueCRL()
        try step(.written, draft.number, bans: bans)
        try step(.proved, draft.number)
        return draft
    }

    private mutating func cut(
        _ serial: UInt64, _ number: UInt64, _ outcome: ClientCut.Outcome = .cut, broker: String = "north",
        isBanned: Bool = false
    ) throws -> RegistryRefusal.Code? {
        code(try registry.run(.cut([event(serial, number, outcome, broker: broker, isBanned: isBanned)]), tenant: "*"))
    }

    private func event(
        _ serial: UInt64, _ number: UInt64, _ outcome: ClientCut.Outcome, broker: String = "north",
        isBanned: Bool = false
    ) -> ClientCut {
        ClientCut(
            broker: broker, authority: "ca", serial: SerialNumber(serial)!.description, tenantID: "t",
            deviceID: "d\(serial)", number: number, outcome: outcome, evidence: nil, isBanned: isBanned ? true : nil,
            actor: "")
    }

    private func uncut(_ number: UInt64) -> CRLEnforced {
        var event = CRLEnforced(.uncut, broker: "north", authority: "ca", tenantID: "*", number: number, actor: "")
        event.error = "away"
        return event
    }

    private func lifted(_ serial: UInt64, _ number: UInt64) -> ClientBanLifted {
        ClientBanLifted(
            broker: "north", authority: "ca", serial: SerialNumber(serial)!.description, tenantID: "t",
            deviceID: "d\(serial)", number: number, actor: "")
    }

    private func waiting(_ end: UInt64 = .max) -> [String] {
        registry.state.clientsToCut(north, end: end).map(\.certificate.deviceID)
    }
    private func lifts(_ end: UInt64) -> [String] {
        registry.state.bansToLift(north, ends: ["ca": end], at: registry.now).map(\.certificate.deviceID)
    }

    @Test mutating func aRevocationWaitsForItsCutAtEachBroker() throws {
        let first = try prove()
        try step(.written, first.number, broker: "south")
        try registry.change(1, .revoke(.keyCompromise))
        try registry.change(2, .hold)
        #expect(waiting() == ["d1", "d2"] && waiting(first.end.rawValue).isEmpty, "the CRL in force lists neither")
        #expect(try cut(1, first.number) == .illegalTransition, "nobody is cut before the proof")
        let second = try prove()
        #expect(waiting(second.end.rawValue) == ["d1", "d2"])
        registry.pass(seconds: 3)
        #expect(try cut(1, second.number) == nil)
        #expect(try cut(1, second.number) == .outdated, "once")
        #expect(try cut(2, second.number, .stillConnected) == nil && waiting() == ["d2"])
        #expect(try cut(2, second.number, .stillConnected) == .outdated, "it is on the record already")
        #expect(registry.state.clientsToCut(north, end: .max)[0].isStillConnected)
        #expect(try cut(2, second.number, .wasNotConnected) == nil && waiting().isEmpty)
        let south = registry.state.enforcementStatuses(at: registry.now).first { $0.key.broker == "south" }
        #expect(south?.uncut == 2)
        #expect(try cut(3, second.number) == .outdated, "it is not revoked")
    }

    @Test mutating func theEventHasWhatRemainsAndHowLongItTook() throws {
        try prove()
        for serial in [1, 2] as [UInt64] { try registry.change(serial, .revoke(.superseded)) }
        let crl = try prove()
        registry.pass(seconds: 3)
        let request = RegistryRequest(
            tenantID: "*", actor: "engine",
            command: .cut([event(1, crl.number, .cut), event(3, crl.number, .cut), event(2, crl.number, .cut)]))
        guard case .append(let events) = registry.state.decide(request, now: registry.now) else {
            Issue.record("not accepted")
            return
        }
        let cuts = events.compactMap { if case .clientCut(let cut) = $0 { cut } else { nil } }
        #expect(cuts.map(\.deviceID) == ["d1", "d2"], "the third one does not wait")
        #expect(cuts.map(\.remaining) == [1, 0] && cuts.map(\.milliseconds) == [5_000, 5_000])
        #expect(cuts.allSatisfy { $0.actor == "engine" })
    }

    @Test mutating func aReleaseEndsTheWait() throws {
        try prove()
        try registry.change(1, .hold)
        try registry.change(1, .release)
        #expect(waiting().isEmpty)
        // Held and cut: a revocation cuts nobody again. After a release it does.
        try registry.change(1, .hold)
        #expect(try cut(1, prove().number) == nil)
        try registry.change(1, .revoke(.keyCompromise))
        #expect(waiting().isEmpty)
        try registry.change(2, .hold)
        #expect(try cut(2, prove().number) == nil)
        try registry.change(2, .release)
        try registry.change(2, .revoke(.keyCompromise))
        #expect(waiting() == ["d2"])
    }

    @Test mutating func aBrokersStateIsThatOfTheNewestCRL() throws {
        var state: EnforcementState? { registry.state.enforcementStatuses(at: registry.now).first?.state }
        #expect(state == nil)
        let first = try registry.issueCRL().number
        try step(.unproved, first)
        #expect(state == .unproved)
        try step(.written, first)
        #expect(state == .written)
        try step(.reloaded, first)
        #expect(state == .reloaded)
        try step(.proved, first)
        #expect(state == .proved)
        registry.pass(seconds: 2)
        let second = try registry.issueCRL().number
        #expect(state == .pending, "the newest is not there yet")
        try step(.written, second)
        #expect(state == .written)
        try registry.run(registry.authority("cb", replaces: "ca"), tenant: "*")
        #expect(state == .written, "its certificates are in use")
        for serial in 1...6 as ClosedRange<UInt64> { try registry.change(serial, .revoke(.superseded)) }
        #expect(state == .unused)
        try step(.unproved, second)
        #expect(state == .unproved, "a failure is one all the same")
        try step(.proved, second)
        #expect(state == .proved)
    }

    /// The failure is an error of the broker as long as it lasts, and the next incident is recorded although it has the
    /// same text.
    @Test mutating func aFailureToDisconnectEndsWithItsCause() throws {
        var status: EnforcementStatus { registry.state.enforcementStatuses(at: registry.now)[0] }
        func isNews(_ number: UInt64) -> Bool {
            status.enforcement.isNews(uncut(number), isLast: false)
        }
        let first = try prove(bans: true).number
        #expect(code(try registry.run(.enforce(uncut(first)), tenant: "*")) == .outdated, "nobody is connected")
        for serial in [1, 2] as [UInt64] { try registry.change(serial, .hold) }
        try step(.uncut, first)
        #expect(status.error == "away" && !isNews(first) && isNews(first + 1))
        #expect(try cut(1, first, isBanned: true) == nil)
        #expect(status.error == "away", "one remains")
        #expect(try cut(2, first, isBanned: true) == nil)
        #expect(status.error == nil && isNews(first))

        // A ban that is not lifted is an error too, also where a CRL is not proved meanwhile.
        let second = try prove(bans: true).number
        try step(.unproved, second)
        try step(.uncut, second)
        try step(.written, second, bans: true)
        #expect(status.uncut == 0 && status.banned == 2 && status.error == "away" && !isNews(second))
        let stored = registry.state.stored()
        #expect(try CertificateRegistry(stored: stored).stored() == stored, "a restart does not end it")
        for serial in [1, 2] as [UInt64] {
            #expect(code(try registry.run(.liftBans([lifted(serial, second)]), tenant: "*")) == nil)
            #expect(status.error == nil && isNews(second))
        }

        // A release ends it, and so does a proof at which nobody remains.
        try registry.change(3, .hold)
        try step(.uncut, second)
        #expect(status.error == "away")
        try registry.change(3, .release)
        #expect(status.error == nil)
        try registry.change(4, .revoke(.superseded))
        let third = try prove(bans: true).number
        try step(.uncut, third)
        try prove(bans: true)
        #expect(status.error == "away" && status.uncut == 1)
    }

    @Test mutating func aBanIsLiftedAfterTheProofOrARelease() throws {
        let first = try prove(bans: true)
        for serial in [1, 2] as [UInt64] { try registry.change(serial, .hold) }
        for serial in [1, 2] as [UInt64] { #expect(try cut(serial, first.number, isBanned: true) == nil) }
        #expect(waiting().isEmpty && lifts(first.end.rawValue).isEmpty)
        #expect(registry.state.enforcementStatuses(at: registry.now)[0].banned == 2)
        // Whether or not the ban is on the record: a crash may have prevented that.
        try registry.change(1, .release)
        try registry.change(3, .hold)
        try registry.change(3, .release)
        #expect(lifts(0) == ["d1", "d3"])
        let second = try prove(bans: true)
        #expect(lifts(second.end.rawValue).sorted() == ["d1", "d2", "d3"])
        for serial in [1, 2, 3] as [UInt64] {
            let event = lifted(serial, second.number)
            #expect(code(try registry.run(.liftBans([event]), tenant: "*")) == nil)
            #expect(code(try registry.run(.liftBans([event]), tenant: "*")) == .outdated)
        }
        #expect(lifts(.max).isEmpty && waiting().isEmpty)
    }

    @Test mutating func aBanStaysWhileAnotherCertificateOfTheDeviceNeedsIt() throws {
        try registry.run(.add([registry.certificate(11, "d1")]))
        let first = try prove(bans: true)
        try registry.change(1, .hold)
        #expect(try cut(1, first.number, isBanned: true) == nil)
        let second = try prove(bans: true)
        try registry.change(11, .revoke(.keyCompromise))
        #expect(lifts(second.end.rawValue).isEmpty)
        let third = try prove(bans: true)
        // Not banned yet, and still to be cut.
        #expect(lifts(third.end.rawValue).isEmpty)
    }

    /// A ban is by the device's names, not by a certificate.
    @Test mutating func aBanStaysWhileACertificateOfAnotherAuthorityNeedsIt() throws {
        try registry.run(registry.authority("cb"), tenant: "*")
        try registry.run(.add([registry.certificate(21, "d1", authority: "cb")]))
        try prove(bans: true)
        let draft = try #require(registry.state.draftCRL("cb", canary: nil, CRLPolicy(), now: registry.now))
        try registry.run(.issueCRL(registry.event(draft)), tenant: "*")
        for step in [CRLEnforced.Step.written, .proved] {
            var event = CRLEnforced(
                step, broker: "north", authority: "cb", tenantID: "*", number: draft.number, actor: "")
            event.bans = true
            try registry.run(.enforce(event), tenant: "*")
        }
        try registry.change(1, .revoke(.keyCompromise))
        try registry.run(.change(registry.reference(21, "cb"), CertificateChange(.revoke(.keyCompromise))))
        let number = try prove(bans: true).number
        #expect(try cut(1, number, isBanned: true) == nil)
        func lifted(_ ends: [String: UInt64]) -> [String] {
            registry.state.bansToLift(north, ends: ends, at: registry.now).map(\.certificate.deviceID)
        }
        #expect(lifted(["ca": .max]).isEmpty, "nothing shows that the broker refuses the certificate of cb")
        var other = event(21, draft.number, .cut, isBanned: true)
        (other.authority, other.deviceID) = ("cb", "d1")
        #expect(code(try registry.run(.cut([other]), tenant: "*")) == nil)
        #expect(lifted(["ca": .max, "cb": draft.end.rawValue]).isEmpty)
        #expect(lifted(["ca": .max, "cb": .max]) == ["d1"])
    }

    /// No CRL of an expired authority will ever be proved, and nobody was banned before the first proof of another.
    @Test mutating func liftsBansOfExpiredAuthorities() throws {
        try registry.run(registry.authority("cb"), tenant: "*")
        try registry.run(.add([registry.certificate(21, "d1", authority: "cb")]))
        let number = try prove(bans: true).number
        let draft = try #require(registry.state.draftCRL("cb", canary: nil, CRLPolicy(), now: registry.now))
        try registry.run(.issueCRL(registry.event(draft)), tenant: "*")
        var written = CRLEnforced(
            .written, broker: "north", authority: "cb", tenantID: "*", number: draft.number, actor: "")
        written.bans = true
        try registry.run(.enforce(written), tenant: "*")
        try registry.change(1, .revoke(.keyCompromise))
        try registry.run(.change(registry.reference(21, "cb"), CertificateChange(.revoke(.keyCompromise))))
        #expect(try cut(1, number, isBanned: true) == nil)
        #expect(lifts(.max) == ["d1"], "cb was never proved at this broker")
        #expect(lifts(0).isEmpty)
        let end = try #require(registry.state.authority("ca")).added.notAfter
        registry.pass(seconds: end.wholeSeconds - registry.now.wholeSeconds + 1)
        #expect(lifts(0) == ["d1"], "the authority has expired")
    }

    @Test(arguments: [
        // Pattern, and whether it names a device of another tenant, too.
        ("{device}", true), ("{tenant}/{device}", false), ("x-{device}-{device}", true), ("{tenant}", false),
        ("fixed", false), ("{device}@{tenant}", false),
    ])
    mutating func aNameThatTwoTenantsHaveIsShared(text: String, isShared: Bool) throws {
        let pattern = NamePattern(text), name = pattern.name(tenantID: "t", deviceID: "d1")
        func found() -> [Bool] { registry.state.areShared([(name, "t"), ("", "t")], by: pattern, at: registry.now) }
        #expect(found() == [false, false])
        try registry.run(.add([registry.certificate(31, "d1", tenant: "u")]), tenant: "u")
        #expect(found() == [isShared, false])
        try registry.run(
            .change(registry.reference(31), CertificateChange(.revoke(.keyCompromise))), tenant: "u")
        #expect(found() == [false, false])
    }

    @Test mutating func ambiguousNamesAreShared() throws {
        let pattern = NamePattern("{tenant}-{device}"), name = pattern.name(tenantID: "t", deviceID: "a-b")
        try registry.run(.add([registry.certificate(31, "b", tenant: "t-a")]), tenant: "t-a")
        #expect(registry.state.areShared([(name, "t")], by: pattern, at: registry.now) == [true])
        #expect(pattern.device(named: name, ofTenant: "t") == "a-b")
        #expect(pattern.device(named: name, ofTenant: "t-a") == "b")
        #expect(pattern.device(named: name, ofTenant: "u") == nil)
        #expect(pattern.device(named: "t-", ofTenant: "t") == nil)
        #expect(NamePattern("{device}.{device}").device(named: "a.b", ofTenant: "t") == nil)
        #expect(NamePattern("{device}.{device}").device(named: "é.é", ofTenant: "t") == "é")
        #expect(NamePattern("{device}{device}").device(named: "é", ofTenant: "t") == nil, "half a character")
    }

    /// A broker that comes later, and a snapshot from before there were cuts: whatever is revoked may be connected.
    @Test mutating func whatWasRevokedBeforeCountsToo() throws {
        try registry.change(1, .revoke(.keyCompromise))
        try registry.change(2, .hold)
        let crl = try prove()
        #expect(waiting(crl.end.rawValue) == ["d1", "d2"])
        #expect(try cut(1, crl.number) == nil)
        try step(.uncut, crl.number)
        let stored = registry.state.stored(), restored = try CertificateRegistry(stored: stored)
        #expect(restored.stored() == stored && restored.pendingCuts == registry.state.pendingCuts)
        #expect(restored.enforcements == registry.state.enforcements)

        // Without what is new in the header.
        let length = Int(stored.prefix(4).withUnsafeBytes { $0.loadUnaligned(as: UInt32.self) })
        var header = try #require(
            try JSONSerialization.jsonObject(with: Data(stored[4..<4 + length])) as? [String: Any])
        header["enforcements"] = (header["enforcements"] as? [[String: Any]])?.map { form in
            var form = form
            form["cuts"] = nil
            var value = form["value"] as? [String: Any] ?? [:]
            (value["uncutError"], value["bans"]) = (nil, nil)
            form["value"] = value
            return form
        }
        var old = ByteWriter()
        old.bytes(Array(try JSONSerialization.data(withJSONObject: header)))
        let opened = try CertificateRegistry(stored: old.out + stored[(4 + length)...])
        #expect(opened.clientsToCut(north, end: .max).map(\.certificate.deviceID) == ["d1", "d2"])
    }

    /// A certificate's index is used again once it was evicted.
    @Test mutating func anEvictedCertificateIsNotCut() throws {
        try registry.run(.add((100..<600).map { registry.certificate($0, "e\($0)", days: 1) }))
        try prove()
        try registry.change(100, .revoke(.keyCompromise))
        #expect(waiting() == ["e100"])
        registry.pass(seconds: 100 * 86_400)
        for start in stride(from: 1_000, to: 13_000, by: 500) as StrideTo<UInt64> {
            try registry.run(.add((start..<start + 500).map { registry.certificate($0, "f\($0)") }))
        }
        #expect(registry.state.certificate(registry.reference(100)) == nil && waiting().isEmpty)
    }
}
