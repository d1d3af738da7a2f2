import Certificates
import EventLog
import EventModel
import PKI
import Testing

@testable import WhatIf

/// Certificates of 100 days, with serial numbers 1, 2, …; days count from 2026-03-01.
private struct CertificateStory {
    private var lines: [String] = []
    private static let begin: Int64 = 1_772_352_000

    private static func time(_ day: Double) -> Timestamp {
        Timestamp(microseconds: begin * 1_000_000 + Int64(day * 86_400e6))
    }

    private mutating func add(_ schema: String, _ payload: String, _ day: Double) {
        let escaped = payload.replacing("\n", with: "").replacing("\"", with: "\\\"")
        lines.append(
            #"{"position":\#(lines.count),"received_at":"\#(Self.time(day))","kind":"decision","broker":"","#
                + #""topic":"\#(schema)","retain":false,"verdict":"ACCEPTED","payload_text":"\#(escaped)"}"#)
    }

    mutating func policy(_ percent: Int, graceDays: Int = 7, isEnabled: Bool = true, on day: Double = 0) {
        add(
            "certificate.renewal_policy/1",
            """
            {"policy":{"enabled":\(isEnabled),"after_percent":\(percent),"grace_seconds":\(graceDays * 86_400)},
            "actor":"engine"}
            """, day)
    }

    mutating func certificate(
        _ serial: UInt64, on day: Double = 0, life: Double = 100, renews: UInt64? = nil, device: UInt64? = nil,
        imported: Bool = false
    ) {
        let more =
            renews.map { #","renews":"ca/\#(SerialNumber($0)!)","renewal":{"id":1,"request":2,"chain":[]}"# } ?? ""
        add(
            imported ? "certificate.imported/1" : "certificate.issued/1",
            """
            {"origin":"\(imported ? "imported" : "issued")","authority":"ca","serial":"\(SerialNumber(serial)!)",
            "tenant_id":"acme","device_id":"d\(device ?? renews ?? serial)",
            "common_name":"x","certificate":"","sha256":"","spki_sha256":"","key_algorithm":"P-256",
            "not_before":\(Self.time(day).microseconds),
            "not_after":\(Self.time(day + life).microseconds),"actor":"ann"\(more)}
            """, day)
    }

    mutating func step(_ step: String, _ serial: UInt64, on day: Double, by actor: String = "engine") {
        let renewal = step == "requested" ? "" : #","renewal":1"#
        add(
            "certificate.renewal_\(step)/1",
            """
            {"step":"\(step)","authority":"ca","serial":"\(SerialNumber(serial)!)","tenant_id":"acme",
            "device_id":"d\(serial)",
            "actor":"\(actor)"\(renewal)}
            """, day)
    }

    mutating func change(_ change: String, _ serial: UInt64, on day: Double) {
        add(
            "certificate.\(change)/1",
            """
            {"change":"\(change)","authority":"ca","serial":"\(SerialNumber(serial)!)","tenant_id":"acme",
            "device_id":"d\(serial)",
            "actor":"ann"}
            """, day)
    }

    mutating func order(tenant: String = "*", on day: Double) {
        add("authority.renewal_ordered/1", #"{"id":"ca","tenant_id":"\#(tenant)","actor":"ann"}"#, day)
    }

    /// The history goes on until this day.
    mutating func end(on day: Double) { policy(67, on: day) }

    func ask(_ settings: String..., from first: UInt64 = 0) throws -> RenewalWhatIf {
        var asked = WhatIfSettings()
        for text in settings { try asked.set("certificates.\(text)") }
        let log = CaseLog(try lines.map(RecordedCase.Event.init), commitEvents: 3)
        let report = try WhatIf.run(asked, over: log, in: Position(first)..<Position(log.durableCount))
        return try #require(report.renewals)
    }
}

@Suite struct RenewalWhatIfTests {
    /// d1 renews within two days; d2 takes 20 days; d3 never answers; d4 is revoked early; d5's is imported.
    private func story() -> CertificateStory {
        var story = CertificateStory()
        story.policy(90)
        for serial in 1...4 as ClosedRange<UInt64> { story.certificate(serial) }
        story.certificate(5, imported: true)
        story.change("revoked", 4, on: 10)
        for serial in [1, 2, 3] as [UInt64] { story.step("requested", serial, on: 91) }
        story.certificate(11, on: 92, renews: 1)
        story.step("installed", 1, on: 93)
        story.change("superseded", 1, on: 93)
        story.certificate(12, on: 110, renews: 2)
        story.step("installed", 2, on: 111)
        story.end(on: 120)
        return story
    }

    @Test func anEarlierWindowWouldHaveBeenInTime() throws {
        let found = try story().ask("renew_after_percent=60")
        #expect(found.certificates == 6, "two of them are the new ones")
        #expect(found.recorded.afterPercent == 67 && found.whatIf.afterPercent == 60)
        #expect(found.recorded.requested == 3 && found.whatIf.requested == 3)
        #expect(found.recorded.requestedPerDayMax == 3 && found.recorded.busiestDay == "2026-05-31")
        #expect(found.recorded.secondsLeftMin == 9 * 86_400 && found.recorded.inTime == 1 && found.recorded.late == 1)
        let left = try #require(found.whatIf.secondsLeftMin)
        #expect(left > 35 * 86_400 && left <= 40 * 86_400)
        #expect(found.whatIf.inTime == 2 && found.whatIf.late == 0)
        #expect(found.newlyInTime.map(\.deviceID) == ["d2"] && found.newlyLate.isEmpty)
        #expect(
            found.caveats.dropFirst() == [
                "not included: 1 imported certificate, which Refold renews on request only",
                "the renewal settings changed 1 time; `recorded` shows the last ones",
                "1 request has no report on record; the what-if cannot tell when the device would have reported",
            ])
    }

    /// By the hashes of their serial numbers, d1 is asked on day 96.54 and d4 on day 98.37.
    @Test func aLaterWindowWouldHaveBeenTooLate() throws {
        var story = CertificateStory()
        story.policy(90)
        for serial in [1, 4] as [UInt64] { story.certificate(serial) }
        for serial in [1, 4] as [UInt64] { story.step("requested", serial, on: 91) }
        for serial in [1, 4] as [UInt64] { story.step("installed", serial, on: 93) }
        story.policy(90, on: 120)
        let found = try story.ask("renew_after_percent=95")
        #expect(found.recorded.inTime == 2 && found.whatIf.inTime == 1 && found.whatIf.late == 1)
        #expect(found.newlyInTime.isEmpty && found.newlyLate.map(\.deviceID) == ["d4"])
        #expect(found.caveats.count == 1, "the settings did not change")
    }

    @Test func graceDecidesWhenRenewalsEnd() throws {
        var story = CertificateStory()
        story.policy(50)
        for serial in [1, 2] as [UInt64] { story.certificate(serial, life: 20) }
        for serial in [1, 2] as [UInt64] { story.step("requested", serial, on: 10) }
        for serial in [1, 2] as [UInt64] { story.certificate(10 + serial, on: 11, life: 10, renews: serial) }
        story.step("installed", 2, on: 17.9)
        story.change("superseded", 1, on: 18)
        story.step("failed", 1, on: 18)
        story.end(on: 60)
        // The windows of the new certificates begin on day 17.7.
        for (days, count) in [(1, 2), (40, 1), (60, 0)] {
            let found = try story.ask("renew_grace_days=\(days)")
            #expect(found.recorded.endedWithoutReport == 1 && found.whatIf.endedWithoutReport == count)
        }
    }

    @Test func revocationsEndRenewalsOtherwise() throws {
        var story = CertificateStory()
        story.policy(50)
        for serial in [1, 2] as [UInt64] {
            story.certificate(serial, life: 20)
            story.step("requested", serial, on: 10)
            story.certificate(10 + serial, on: 11, life: 10, renews: serial)
        }
        story.change("revoked", 11, on: 12)
        story.change("held", 2, on: 12)
        for serial in [1, 2] as [UInt64] { story.step("failed", serial, on: 12) }
        story.end(on: 60)
        let found = try story.ask("renew_grace_days=1")
        #expect(found.recorded.endedWithoutReport == 0 && found.whatIf.endedWithoutReport == 0)
    }

    @Test func renewalsByOperatorsAreUnchanged() throws {
        var story = CertificateStory()
        story.certificate(1)
        story.step("requested", 1, on: 20, by: "ann")
        story.certificate(11, on: 21, renews: 1)
        story.step("installed", 1, on: 22)
        story.certificate(2)
        story.policy(67, isEnabled: false, on: 130)
        let found = try story.ask("renew_after_percent=50")
        #expect(found.recorded.requested == 0 && found.recorded.inTime == 1)
        #expect(found.recorded.expiredWithoutRequest == 2)
        #expect(found.whatIf.requested == 2, "the second one, and the new one of the first")
        #expect(found.whatIf.inTime == 1 && found.whatIf.expiredWithoutRequest == 0)
        #expect(found.caveats.contains("1 renewal that an operator requested: unchanged"))
        #expect(found.caveats.contains { $0.hasPrefix("certificates.renew was off") })
    }

    /// An order covers the certificates of its tenant that exist by then, and no later ones.
    @Test func ordersEndWithTheirCertificates() throws {
        var story = CertificateStory()
        story.policy(67)
        story.certificate(1)
        story.order(on: 10)
        story.certificate(2, on: 10)
        story.order(tenant: "other", on: 11)
        story.step("requested", 1, on: 11)
        story.certificate(11, on: 12, renews: 1)
        story.step("installed", 1, on: 13)
        story.step("requested", 2, on: 78)
        story.step("requested", 11, on: 80)
        story.end(on: 90)
        let found = try story.ask("renew_after_percent=67")
        #expect(found.recorded.requested == 2 && found.recorded.secondsLeftMin == 32 * 86_400)
        #expect(found.caveats.contains("1 renewal that an operator requested: unchanged"))
    }

    @Test func earlierCertificatesAreNotIncluded() throws {
        var story = CertificateStory()
        story.policy(67)
        for serial in 1...3 as ClosedRange<UInt64> { story.certificate(serial) }
        let found = try story.ask("renew_after_percent=50", from: 2)
        #expect(found.certificates == 2 && found.recorded.afterPercent == nil)
        #expect(
            found.caveats.dropFirst() == [
                "certificates issued before position 2 are not included",
                "no renewal settings are on record in this range: those not given have their defaults",
            ])
    }

    /// The newest certificate of a device is renewed, and no older one.
    @Test func aCertificateThatWasReplacedByHandIsNotRenewed() throws {
        var story = CertificateStory()
        story.certificate(1)
        story.certificate(11, on: 50, device: 1)
        story.end(on: 105)
        let found = try story.ask("renew_after_percent=60")
        #expect(found.certificates == 2 && found.recorded.expiredWithoutRequest == 0 && found.whatIf.requested == 0)
        #expect(try story.ask("renew_after_percent=30").whatIf.requested == 2)
    }

    @Test(arguments: [
        "renew_after_percent=0", "renew_after_percent=96", "renew_after_percent=x", "renew_grace_days=0",
        "renew_grace_days=366", "renew_grace_days=9223372036854775807", "renew=on",
    ])
    func settingsThatMakeNoSenseAreRefused(text: String) {
        var settings = WhatIfSettings()
        #expect(throws: WhatIfError.self) { try settings.set("certificates.\(text)") }
    }
}
