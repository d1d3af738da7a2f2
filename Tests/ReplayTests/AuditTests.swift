import EventLog
import EventModel
import Evidence
import Foundation
import Primitives
import Snapshots
import TestSupport
import Testing

@testable import Auditing

/// A log of a small fleet and one campaign, signed.
private struct History {
    let folder: DataFolder
    let log: ReadOnlyLog
    let key: VerifierKey
    let signer: SigningKey

    init() throws {
        folder = try DataFolder()
        try folder.append(isSigned: true) { batch in
            batch.message(telemetry("d1"), #"{"metrics":{"t": 1.50},"seq":1}"#, at: moment(0))
            batch.message(telemetry("d2"), #"{"metrics":{"t":2}}"#, at: moment(1))
            Self.decide(
                &batch, "firmware.added/1", moment(2),
                [
                    "id": 3, "tenant_id": "acme", "version": "2.0", "file_url": "https://x/y", "actor": "ann",
                ])
            Self.decide(
                &batch, "campaign.created/1", moment(3),
                [
                    "id": 7, "tenant_id": "acme", "name": "<june>", "firmware_version_id": 3,
                    "rollout_strategy": "immediate", "total_devices": 2, "actor": "ann",
                ])
            Self.decide(
                &batch, "campaign.targets/1", moment(3),
                [
                    "campaign_id": 7, "tenant_id": "acme", "first_id": 1, "devices": ["d1", "d2"],
                ])
            Self.decide(
                &batch, "campaign.created/1", moment(3.5),
                [
                    "id": 8, "tenant_id": "acme", "name": "other", "firmware_version_id": 3,
                    "rollout_strategy": "immediate", "total_devices": 0, "actor": "bob",
                ])
            Self.decide(
                &batch, "campaign.started/1", moment(4),
                [
                    "campaign_id": 7, "tenant_id": "acme", "before": "CREATED", "after": "RUNNING", "actor": "ann",
                ])
            batch.message(ota("d1"), #"{"campaign_id":7,"status":"DOWNLOADING","progress":10}"#, at: moment(5))
            batch.message(ota("d2"), #"{"campaign_id":7,"status":"SUCCESS"}"#, at: moment(6))
            batch.message(telemetry("d1"), "<script>alert('x')</script>\u{202E}", at: moment(7))
            batch.append(
                kind: .connection, schema: "broker.session_lost/1", broker: "main", receivedAt: moment(8),
                json: Array(#"{"client_id":"refold-x"}"#.utf8))
            batch.message(ota("d1"), #"{"campaign_id":7,"status":"FAILED","error":"no \"space\""}"#, at: moment(9))
            Self.decide(
                &batch, "campaign.aborted/1", moment(10),
                [
                    "campaign_id": 7, "tenant_id": "acme", "before": "RUNNING", "after": "ABORTED", "actor": "bob",
                    "reason": "too many failures",
                ])
            for index in 0..<50 {
                batch.message(telemetry("d\(3 + index % 5)"), #"{"metrics":{"n":\#(index)}}"#, at: moment(11))
            }
            let shadow = "{\"version\":2,\n\"reported\":{\"a\": 1}}"
            batch.message("tenant/acme/device/d1/shadow/reported", shadow, at: moment(12))
        }
        log = try folder.open()
        key = try #require(try LogKey.publicKey(dataFolder: folder.path))
        signer = try LogKey.open(dataFolder: folder.path, logID: log.logID)
    }

    private static func decide(
        _ batch: inout RecordBatch, _ schema: String, _ time: Timestamp, _ json: [String: Any]
    ) {
        let data = try? JSONSerialization.data(withJSONObject: json, options: [.sortedKeys])
        batch.append(kind: .decision, schema: schema, receivedAt: time, json: Array(data ?? Data()))
    }

    func audit(_ subject: AuditSubject, _ range: Range<UInt64>? = nil) throws -> AuditReport {
        let range = range.map { Position($0.lowerBound)..<Position($0.upperBound) }
        return try Audit.run(
            subject, in: range ?? Position(0)..<Position(log.durableCount), of: log, key: key, madeAt: moment(100))
    }
}

private func ota(_ device: String) -> String { "tenant/acme/device/\(device)/ota/status" }

struct AuditTests {
    private let device = AuditSubject.device(tenant: "acme", device: "d1")

    @Test func aDevicesEventsSayWhatTheyChanged() throws {
        let history = try History(), report = try history.audit(device)
        #expect(report.events.map(\.position.rawValue) == [0, 2, 3, 4, 6, 7, 9, 10, 11, 12, 63])
        #expect(
            report.events.map(\.isContext) == [
                false, false, false, false, false, false, false, true, false, false, false,
            ])
        #expect(report.start.isEmpty && report.gaps.isEmpty && !report.isCutToCheckpoint)
        let failed = try #require(report.events.first { $0.position.rawValue == 11 })
        let change = try #require(failed.changes.first { $0.table.name.hasPrefix("ota_device_status") })
        #expect(change.differences.contains { $0 == ("status", "\"DOWNLOADING\"", "\"FAILED\"") })
        #expect(report.events[9].who == "bob" && report.events[9].what.contains("too many failures"))
        // Others' rows are folded, not shown.
        #expect(report.events.flatMap(\.changes).allSatisfy { $0.after.text("device_id", $0.table) == "d1" })
        let letters = report.end.filter { $0.table.name.hasPrefix("dead_letters") }
        #expect(letters.count == 1)
    }

    @Test func aCampaignsEventsSayWhoDecided() throws {
        let history = try History(), report = try history.audit(.campaign(7))
        #expect(report.events.map(\.position.rawValue) == [2, 3, 4, 6, 7, 8, 10, 11, 12])
        let campaign = try #require(report.end.first { $0.table.name.hasPrefix("ota_campaigns") })
        #expect(campaign.row.int8("succeeded", campaign.table) == 1 && campaign.row.int8("failed", campaign.table) == 1)
        #expect(campaign.row.text("status", campaign.table) == "ABORTED")
        #expect(throws: AuditError.self) { try history.audit(.campaign(99)) }
    }

    /// An audit said "the campaign decider" of a refused token command.
    @Test func aRefusalIsTheOperators() throws {
        let folder = try DataFolder()
        try folder.append(isSigned: true) { batch in
            for (schema, json) in [
                (
                    "command.rejected/1",
                    #"{"command":"token.create","subject":"","tenant_id":"*","actor":"bob","reason":"no such role"}"#
                ),
                ("campaign.targets/1", #"{"campaign_id":7,"tenant_id":"acme","first_id":1,"devices":["d1"]}"#),
                ("unknown.decided/1", "{}"),
            ] { batch.append(kind: .decision, schema: schema, receivedAt: moment(1), json: Array(json.utf8)) }
        }
        let log = try folder.open(), key = try #require(try LogKey.publicKey(dataFolder: folder.path))
        let report = try Audit.run(
            .range, in: Position(0)..<Position(log.durableCount), of: log, key: key, madeAt: moment(9))
        #expect(report.events.map(\.who) == ["bob", "a decider", "a decider"])
        #expect(
            report.events.map(\.what) == [
                "token.create was refused: no such role", "targeted 1 device by campaign 7", "unknown.decided/1",
            ])
    }

    /// Wherever a report begins, states are the same as in one that begins at the beginning.
    @Test(arguments: 0..<64) func aReportMayBeginAnywhere(_ from: Int) throws {
        let history = try History()
        for subject in [device, .campaign(7), .range] {
            let whole = try history.audit(subject).events.filter { $0.position.rawValue >= UInt64(from) }
            let part = try history.audit(subject, UInt64(from)..<64)
            func lines(_ events: [AuditReport.Event]) -> [String] {
                events.map { AuditBundle.event($0.position.rawValue, $0.record, isContext: $0.isContext, $0.changes) }
            }
            #expect(lines(part.events) == lines(whole))
            let verdict = try AuditCheck.run(try part.bundle(signedWith: history.signer), key: history.key)
            #expect(verdict.isFolded && verdict.isSigned && verdict.events == part.events.count)
            #expect(verdict.isComplete == (subject == .range) || subject != .range)
        }
    }

    /// Where the beginning was removed, a snapshot stands for it: events and rows are the same.
    @Test(arguments: [5, 9, 12, 40]) func aSnapshotStandsForWhatCameBefore(_ end: Int) throws {
        let history = try History()
        let snapshots = SnapshotFolder(history.folder.path + "/snapshots", logID: history.log.logID)
        _ = try SnapshotMaker(
            source: history.log, logID: history.log.logID, folder: snapshots, deciders: [], now: { moment(50) }
        ).make(end: Position(UInt64(end)))
        let file = try #require(try snapshots.usable().last)
        for subject in [device, .campaign(7), .range] {
            for from in end..<min(end + 8, 64) {
                let plain = try history.audit(subject, UInt64(from)..<64)
                let range = Position(UInt64(from))..<Position(64)
                let based = try Audit(
                    log: history.log, subject: subject, range: range, eventsMax: 100, report: plain.empty,
                    snapshot: file
                ).run()
                #expect(try based.bundle(signedWith: nil) == plain.bundle(signedWith: nil), "\(subject) from \(from)")
            }
        }
    }

    @Test func thePageIsSafeAndSelfContained() throws {
        let history = try History()
        for report in [try history.audit(device), try history.audit(.campaign(7)), try history.audit(.range, 0..<64)] {
            let page = report.html
            #expect(!page.contains("<script") && !page.contains("<june>") && !page.unicodeScalars.contains("\u{202E}"))
            #expect(page.contains("prefers-color-scheme: dark") && page.contains("width=device-width"))
            #expect(!page.contains("http://") && !page.contains("src=") && !page.contains("<link"))
            #expect(page.contains("default-src 'none'"))
            #expect(unclosed(page).isEmpty, "\(unclosed(page))")
            #expect(!report.text.unicodeScalars.contains("\u{202E}"))
        }
        #expect(try history.audit(device).html.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"))
        #expect(try history.audit(.campaign(7)).html.contains("&lt;june&gt;"))
    }

    /// Tags that are not closed where they should be.
    private func unclosed(_ page: String) -> [String] {
        var open: [String] = []
        for tag in page.matches(of: /<(\/?)([a-z0-9]+)[^<>]*>/) where tag.2 != "meta" {
            if tag.1.isEmpty {
                open.append(String(tag.2))
            } else if open.last == String(tag.2) {
                open.removeLast()
            } else {
                return open + ["/" + tag.2]
            }
        }
        return open
    }

    @Test func lostEventsAreSaid() throws {
        let history = try History(), folder = history.folder
        let name = try #require(
            try FileManager.default.contentsOfDirectory(atPath: folder.logPath)
                .first { $0.hasSuffix(".seg") })
        try folder.append(isSigned: true) { $0.message(telemetry("d1"), #"{"metrics":{"t":9}}"#, at: moment(20)) }
        // A bit of the first block.
        let path = folder.logPath + "/" + name
        chmod(path, 0o600)
        let file = try #require(FileHandle(forUpdatingAtPath: path))
        try file.seek(toOffset: 4096 + 200)
        try file.write(contentsOf: [0xFF, 0xFF, 0xFF])
        try file.close()
        let log = try folder.open()
        let report = try Audit.run(
            device, in: Position(0)..<Position(log.durableCount), of: log, key: history.key, madeAt: moment(100))
        let gap = try #require(report.gaps.first)
        #expect(gap.kind == .damage && gap.from == 0 && gap.to == 63)
        #expect(report.events.map(\.position.rawValue) == [64])
        // The leaves are gone with the events: there is a report, and no proof.
        #expect(report.proofProblem != nil)
        #expect(throws: AuditError.self) { try report.bundle(signedWith: history.signer) }
        #expect(report.html.contains("Missing") && report.text.contains("positions 0 to 63"))
    }

    /// The log is complete, and messages are missing all the same: a broker lost them.
    @Test func brokerLossesAreSaidWithReasonAndOperator() throws {
        let folder = try DataFolder()
        try folder.append(isSigned: true) { batch in
            batch.message(telemetry("d1"), #"{"metrics":{"t":1}}"#, at: moment(0))
            for (schema, rest) in [
                ("broker.alarm_raised/1", #""alarm":"session_taken_over","reason":"5 messages \u001b[2J for another""#),
                ("broker.session_lost/1", #""reason":"no session present","count":3"#),
                ("broker.alarm_raised/1", #""alarm":"session_expiry_capped","reason":"60 s""#),
                ("broker.alarms_acknowledged/1", #""alarm":"session_lost","operator":"ann","reason":"seen""#),
            ] {
                batch.append(
                    kind: .connection, schema: schema, broker: "main", receivedAt: moment(1),
                    json: Array(#"{"client_id":"refold-x",\#(rest)}"#.utf8))
            }
        }
        let log = try folder.open(), key = try #require(try LogKey.publicKey(dataFolder: folder.path))
        func audit(_ subject: AuditSubject, _ end: UInt64 = 5) throws -> AuditReport {
            try Audit.run(subject, in: Position(0)..<Position(end), of: log, key: key, madeAt: moment(9))
        }
        #expect(try audit(.range, 1).text.contains("nothing that is known"))
        for report in [try audit(.range), try audit(.device(tenant: "acme", device: "d1"))] {
            #expect(report.brokerLosses.map(\.position.rawValue) == [1, 2])
            let text = report.text
            #expect(text.contains("the log is complete; 2 broker losses are reported in it, see below"), "\(text)")
            #expect(text.contains("alarm session_taken_over; 5 messages \u{FFFD}[2J for another"), "\(text)")
            #expect(text.contains("no session present; 3 messages"), "\(text)")
            #expect(report.html.contains("Broker losses") && unclosed(report.html).isEmpty)
        }
        let text = try audit(.range).text
        #expect(text.contains("operator ann, on broker main: broker.alarms_acknowledged/1: acknowledged session_lost;"))
        // A bundle of it proves that the device has sent nothing; the verb says so.
        #expect(try audit(.device(tenant: "acme", device: "nope")).isEmpty)
    }
}

extension AuditReport {
    /// As it was before anything was found.
    fileprivate var empty: AuditReport {
        var copy = self
        (copy.events, copy.start, copy.gaps, copy.proof) = ([], [], [], [])
        return copy
    }
}

/// Whoever changes a bundle is found out, by our checker and by an independent one (Tests/audit/check_bundle.py).
struct BundleTests {
    private static let checker = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("audit/check_bundle.py").path

    private func lines(_ bytes: [UInt8]) -> [String] {
        String(decoding: bytes, as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: true).map(String.init)
    }

    private func join(_ lines: [String]) -> [UInt8] { Array((lines.joined(separator: "\n") + "\n").utf8) }

    /// The other checker's answers: 0 holds, 1 does not.
    private func askTheOther(_ bundles: [[UInt8]], _ history: History, unsigned: Bool = false) throws -> [String] {
        var table: [[String]] = []
        for (index, bundle) in bundles.enumerated() {
            let path = history.folder.path + "/bundle-\(index)"
            try Data(bundle).write(to: URL(fileURLWithPath: path))
            table.append([path, "--key", history.key.description] + (unsigned ? ["--unsigned"] : []))
        }
        let file = history.folder.path + "/table.json"
        try JSONSerialization.data(withJSONObject: table).write(to: URL(fileURLWithPath: file))
        let process = Process(), out = Pipe()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/python3")
        process.arguments = [Self.checker, "--table", file]
        process.standardOutput = out
        try process.run()
        let text = String(decoding: out.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return text.split(separator: "\n").map(String.init)
    }

    private func holds(_ bundle: [UInt8], _ history: History, unsigned: Bool = false) -> Bool {
        (try? AuditCheck.run(bundle, key: history.key, needsStatement: !unsigned)) != nil
    }

    private var subjects: [(AuditSubject, Range<UInt64>?)] {
        [
            (.device(tenant: "acme", device: "d1"), nil), (.device(tenant: "acme", device: "d1"), 5..<64),
            (.campaign(7), nil), (.range, 0..<64), (.range, 6..<20), (.device(tenant: "acme", device: "nobody"), nil),
        ]
    }

    @Test func honestBundlesHold() throws {
        let history = try History()
        let bundles = try subjects.map { try history.audit($0.0, $0.1).bundle(signedWith: history.signer) }
        for bundle in bundles {
            let isHonest = holds(bundle, history)
            #expect(isHonest)
        }
        let others = try askTheOther(bundles, history)
        #expect(others.count == bundles.count && others.allSatisfy { $0.hasPrefix("0 ") }, "\(others)")
        // Without a signature over the whole only when that is accepted.
        let unsigned = try subjects.map { try history.audit($0.0, $0.1).bundle(signedWith: nil) }
        for bundle in unsigned {
            let isRefused = !holds(bundle, history), isAccepted = holds(bundle, history, unsigned: true)
            #expect(isRefused && isAccepted)
        }
        #expect(try askTheOther(unsigned, history).allSatisfy { $0.hasPrefix("1 ") })
        let accepted = try askTheOther(unsigned, history, unsigned: true)
        #expect(accepted.allSatisfy { $0.hasPrefix("0 ") }, "\(accepted)")
    }

    /// A history in which `d9` reports values that no double holds, and names that come twice.
    private static let unusual = [
        #"{"metrics":{"t":1e309}}"#, #"{"t":1,"t":2}"#, #"{"metrics":{"t":1,"t":2}}"#,
        #"{"metrics":{"t":1},"metrics":{"t":-0.0,"u":9007199254740993}}"#, #"{"metrics":{"t":1.50},"seq":1,"seq":2}"#,
        #"{"metrics":{"\u00e9":1,"e\u0301":2,"t":0.1000000000000000000001}}"#,
        #"{"metrics":{"t":-1E-400,"n":1234567890123456789012345678901234567890}}"#,
        #"{"metrics":{"t":"# + String(repeating: "9", count: 5000) + "}}",
    ]

    /// The checkers agree: one took a sound bundle for a false one because of a number, the other because of a name.
    @Test(arguments: unusual.indices) func bundlesHoldWhateverDevicesSend_JSONTestSuite51(_ index: Int) throws {
        let history = try History()
        try history.folder.append(isSigned: true) { batch in
            for payload in [Self.unusual[index], #"{"metrics":{"v":1}}"#, Self.unusual[index]] {
                batch.message(telemetry("d9"), payload, at: moment(30))
            }
            let shadow = #"{"version":3,"reported":"# + Self.unusual[index] + "}"
            batch.message("tenant/acme/device/d9/shadow/reported", shadow, at: moment(31))
            batch.message(telemetry("d9"), #"{"metrics":{"v":2}}"#, at: moment(32))
        }
        let log = try history.folder.open(), device = AuditSubject.device(tenant: "acme", device: "d9")
        let end = log.durableCount
        var bundles: [[UInt8]] = []
        for (subject, from) in [(device, 0), (device, end - 3), (device, end - 1), (.range, end - 4)] {
            let report = try Audit.run(
                subject, in: Position(from)..<Position(end), of: log, key: history.key, madeAt: moment(100))
            bundles.append(try report.bundle(signedWith: history.signer))
        }
        for bundle in bundles {
            let verdict = try AuditCheck.run(bundle, key: history.key)
            #expect(verdict.isFolded)
        }
        let others = try askTheOther(bundles, history)
        #expect(others.count == bundles.count && others.allSatisfy { $0.hasPrefix("0 ") }, "\(others)")
    }

    /// Numbers that are one double are not one row.
    @Test func aRowIsItsTextAndNotItsDoubles() throws {
        let history = try History()
        try history.folder.append(isSigned: true) { batch in
            batch.message(telemetry("d9"), #"{"metrics":{"t":0.10000000000000000001}}"#, at: moment(30))
            batch.message(telemetry("d9"), #"{"metrics":{"v":1}}"#, at: moment(31))
        }
        let log = try history.folder.open(), device = AuditSubject.device(tenant: "acme", device: "d9")
        let report = try Audit.run(
            device, in: Position(0)..<Position(log.durableCount), of: log, key: history.key, madeAt: moment(100))
        var text = lines(try report.bundle(signedWith: nil))
        let last = try #require(text.lastIndex { $0.contains(#""before":{"#) })
        text[last] = text[last].replacingOccurrences(of: "0.10000000000000000001", with: "0.1")
        let changed = join(text)
        let isFound = !holds(changed, history, unsigned: true)
        #expect(isFound)
        #expect(try askTheOther([changed], history, unsigned: true).allSatisfy { $0.hasPrefix("1 ") })
    }

    @Test func everyChangedByteIsFound() throws {
        let history = try History()
        var random = SystemRandomNumberGenerator(), changed: [[UInt8]] = []
        for (subject, range) in subjects {
            let bundle = try history.audit(subject, range).bundle(signedWith: history.signer)
            for _ in 0..<60 {
                var copy = bundle
                copy[Int.random(in: 0..<copy.count, using: &random)] ^= UInt8.random(in: 1...255, using: &random)
                changed.append(copy)
            }
            changed.append(Array(bundle.dropLast(bundle.count / 3)))
            changed.append(bundle + bundle)
        }
        for bundle in changed {
            let isFound = !holds(bundle, history)
            #expect(isFound)
        }
        let others = try askTheOther(changed, history)
        #expect(others.count == changed.count)
        for answer in others { #expect(answer.hasPrefix("1 "), "\(answer)") }
    }

    /// Where nobody has signed the whole, anything may stand in it: it is refused or believed, and ends no program.
    @Test func nonsenseIsRefused() throws {
        let history = try History()
        var random = SystemRandomNumberGenerator(), refused = 0, tried = 0
        for (subject, range) in subjects {
            let bundle = try history.audit(subject, range).bundle(signedWith: nil), whole = lines(bundle)
            for round in 0..<150 {
                var copy = bundle
                if round % 3 == 0 {
                    var some = whole
                    some.swapAt(Int.random(in: 0..<some.count, using: &random), Int.random(in: 0..<some.count))
                    some.remove(at: Int.random(in: 0..<some.count, using: &random))
                    copy = join(some)
                } else {
                    for _ in 0..<round % 5 + 1 {
                        let place = Int.random(in: 0..<copy.count, using: &random)
                        copy[place] = UInt8.random(in: 32...126, using: &random)
                    }
                }
                tried += 1
                if !holds(copy, history, unsigned: true) { refused += 1 }
            }
        }
        // A digit of the header's time, or of a gap's text, is nobody's to prove.
        #expect(refused > tried * 9 / 10)
    }

    /// What the owner of the key signs anew: events, their order and the proof are found by both, rows by folding.
    @Test func evenTheOwnerCannotChangeHistory() throws {
        let history = try History()
        func sign(_ lines: [String]) throws -> [UInt8] {
            let bytes = join(lines)
            let statement = try AuditStatement(origin: history.key.name, digest: SHA256.digest(bytes))
                .signed(with: history.signer)
            return bytes + Array((AuditBundle.note("statement", statement) + "\n").utf8)
        }
        let honest = lines(try history.audit(.device(tenant: "acme", device: "d1"), 5..<64).bundle(signedWith: nil))
        let signed = try sign(honest)
        let isHonest = holds(signed, history)
        #expect(isHonest)
        // JSON leaves open how a character is escaped (RFC 8259, 7). The statement does not cover its own line.
        var escaped = lines(signed)
        let statement = escaped.removeLast().replacingOccurrences(of: "\\n", with: "\\u000a")
        #expect(statement.contains("\\u000a"))
        let isHonestStill = holds(join(escaped + [statement]), history)
        #expect(isHonestStill)
        let isSpaced = holds(join(escaped + [statement.replacingOccurrences(of: "\":", with: "\": ")]), history)
        #expect(!isSpaced, "white space outside of strings")
        let first = try #require(honest.firstIndex { $0.hasPrefix(#"{"position""#) })
        let proof = try #require(honest.firstIndex { $0.hasPrefix(#"{"proof""#) })
        func edit(_ index: Int, _ change: (String) -> String) throws -> [UInt8] {
            var copy = honest
            copy[index] = change(copy[index])
            let isOther = copy[index] != honest[index]
            #expect(isOther)
            return try sign(copy)
        }
        func record(_ line: String, _ change: (inout [UInt8]) -> Void) -> String {
            let start = line.range(of: #""record":""#)!.upperBound, end = line[start...].firstIndex(of: "\"")!
            var bytes = Array(Data(base64Encoded: String(line[start..<end]))!)
            change(&bytes)
            return line.replacingCharacters(in: start..<end, with: Data(bytes).base64EncodedString())
        }
        var dropped = honest
        dropped.remove(at: first + 1)
        var swapped = honest
        swapped.swapAt(first, first + 1)
        var doubled = honest
        doubled.insert(honest[first], at: first)
        let found: [(String, [UInt8])] = [
            ("a payload", try edit(first) { record($0) { $0[$0.count - 2] ^= 1 } }),
            ("a time", try edit(first) { record($0) { $0[9] ^= 1 } }),
            ("a verdict", try edit(first) { record($0) { $0[5] = 4 } }),
            ("a position", try edit(first) { $0.replacingOccurrences(of: #""position":6,"#, with: #""position":5,"#) }),
            ("an event left out", try sign(dropped)), ("two swapped", try sign(swapped)),
            ("one twice", try sign(doubled)),
            (
                "a hash",
                try edit(proof) { line in
                    let at = line.index(line.endIndex, offsetBy: -20)
                    return line.replacingCharacters(in: at...at, with: line[at] == "A" ? "B" : "A")
                }
            ),
            ("the size", try edit(proof) { $0.replacingOccurrences(of: #""size":64"#, with: #""size":63"#) }),
        ]
        for (what, bundle) in found {
            let isFound = !holds(bundle, history)
            #expect(isFound, "\(what)")
        }
        let others = try askTheOther(found.map(\.1), history)
        for (answer, one) in zip(others, found) { #expect(answer.hasPrefix("1 "), "\(one.0): \(answer)") }
        // Rows that do not follow from the events.
        let row = try #require(honest.indices.last { honest[$0].contains(#""message_count":"#) })
        let isRowFound = try !holds(
            edit(row) {
                $0.replacingOccurrences(of: #""message_count":5"#, with: #""message_count":7"#)
            }, history)
        #expect(isRowFound)
        // A row at the beginning that shows another than it holds.
        let start = try #require(honest.firstIndex { $0.hasPrefix(#"{"start""#) && $0.contains("message_count") })
        let isStartFound = try !holds(
            edit(start) {
                $0.replacingOccurrences(of: #""message_count":1"#, with: #""message_count":9"#)
            }, history)
        #expect(isStartFound)
    }

    @Test func anotherKeyProvesNothing() throws {
        let history = try History(), other = try History()
        let bundle = try history.audit(.campaign(7)).bundle(signedWith: history.signer)
        #expect(throws: EvidenceError.self) { try AuditCheck.run(bundle, key: other.key) }
        let witness = try SigningKey.generate(name: "witness.example", kind: .cosignature)
        #expect(throws: EvidenceError.self) {
            try AuditCheck.run(bundle, key: history.key, witnesses: [witness.verifier])
        }
    }
}
