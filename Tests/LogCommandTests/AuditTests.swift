import EventLog
import EventModel
import Evidence
import Foundation
import TestSupport
import Testing

/// `refold log prove`, `check-proof` and `export-tiles`, against an independent checker in Python (Tests/audit) that
/// must agree on every case: honest logs, and edited, dropped, reordered and rolled-back ones that their owner signed
/// anew.
@Suite struct AuditTests {
    private let folder = FileManager.default.temporaryDirectory
        .appendingPathComponent("refold-audit-\(UUID().uuidString)")

    private static let program = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        .deletingLastPathComponent().appendingPathComponent("refold").path
    private static let checkers = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("audit").path

    // MARK: what the tests are made of

    /// A data folder with a log of these payloads. Logs of one seed have one id; `key` makes one owner of them.
    private func write(_ name: String, _ payloads: [String], key: URL? = nil) throws -> URL {
        let data = folder.appendingPathComponent(name)
        try FileManager.default.createDirectory(at: data, withIntermediateDirectories: true)
        if let key {
            for file in [LogKey.name, LogKey.publicName] {
                try FileManager.default.copyItem(
                    at: key.appendingPathComponent(file), to: data.appendingPathComponent(file))
            }
        }
        var options = FileLogOptions()
        options.segmentBytes = 256 << 10
        options.random = { 0x1122_3344_5566_7788 }
        options.signer = { (id) throws(LogError) in try LogKey.open(dataFolder: data.path, logID: id) }
        let log = try FileLog.open(directory: data.path + "/log", options: options)
        for start in stride(from: 0, to: payloads.count, by: 100) {
            var batch = RecordBatch()
            let time = Timestamp(rfc3339: "2026-11-20T00:00:00Z")!, topic = Array("tenant/t/device/d/telemetry".utf8)
            for payload in payloads[start..<min(start + 100, payloads.count)] {
                topic.withUnsafeBytes { topic in
                    Array(payload.utf8).withUnsafeBytes { payload in
                        batch.append(
                            kind: .message, verdict: .accepted, flags: RecordFlags(qos: 1), receivedAt: time,
                            packetID: 3,
                            broker: topic[..<4].rebased, topic: topic, properties: topic[..<0].rebased, payload: payload
                        )
                    }
                }
            }
            _ = try log.append(&batch)
        }
        log.close()
        return data
    }

    @discardableResult
    private func run(_ program: String, _ arguments: [String]) throws -> (code: Int32, out: String) {
        let process = Process(), out = Pipe()
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = arguments
        process.standardOutput = out
        process.standardError = out
        try process.run()
        let text = String(decoding: out.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return (process.terminationStatus, text)
    }

    private func refold(_ arguments: String...) throws -> (code: Int32, out: String) {
        try run(Self.program, ["log"] + arguments)
    }

    private func prove(_ data: URL, _ position: Int, _ checkpoint: URL? = nil) throws -> [UInt8] {
        let file = folder.appendingPathComponent("made").path
        let named = checkpoint.map { ["--checkpoint", $0.path] } ?? []
        let result = try run(
            Self.program, ["log", "prove", "--data", data.path, "--position", "\(position)", "-o", file] + named)
        #expect(result.code == 0, "\(result.out)")
        return Array(try Data(contentsOf: URL(fileURLWithPath: file)))
    }

    private func checkpoint(of data: URL, as name: String) throws -> URL {
        let kept = folder.appendingPathComponent(name)
        try? FileManager.default.removeItem(at: kept)
        try FileManager.default.copyItem(at: data.appendingPathComponent("log/checkpoint"), to: kept)
        return kept
    }

    private func note(_ file: URL) throws -> SignedNote { try SignedNote(parsing: Array(try Data(contentsOf: file))) }

    /// Asks our checker, and notes the case for the other one, which must agree with ours and with what is expected.
    private func judge(
        _ what: String, _ proof: [UInt8], key: String, witnesses: [String] = [], holds: Bool,
        _ place: SourceLocation = #_sourceLocation
    ) throws {
        let file = folder.appendingPathComponent("judged-\(cases.all.count)")
        try Data(proof).write(to: file)
        let arguments = [file.path, "--key", key] + witnesses.flatMap { ["--witness", $0] }
        let ours = try run(Self.program, ["log", "check-proof"] + arguments)
        #expect(ours.code == (holds ? 0 : 1), "\(what): \(ours.out)", sourceLocation: place)
        #expect(ours.out.contains("held elsewhere"), "\(what)", sourceLocation: place)
        cases.all.append((what, arguments, holds, place))
    }

    /// Asks the other checker for all cases at once.
    private func askTheOther() throws {
        let table = folder.appendingPathComponent("table.json")
        try JSONSerialization.data(withJSONObject: cases.all.map(\.arguments)).write(to: table)
        let result = try run("/usr/bin/python3", [Self.checkers + "/check_proof.py", "--table", table.path])
        let answers = result.out.split(separator: "\n")
        try #require(answers.count == cases.all.count, "\(result.out)")
        for (answer, one) in zip(answers, cases.all) {
            #expect(answer.hasPrefix(one.holds ? "0 " : "1 "), "\(one.what): \(answer)", sourceLocation: one.place)
        }
    }

    private final class Cases {
        var all: [(what: String, arguments: [String], holds: Bool, place: SourceLocation)] = []
    }
    private let cases = Cases()

    private let payloads = (0..<700).map { #"{"metrics":{"n":\#($0)}}"# }

    // MARK: the table

    @Test func bothCheckersAgreeOnInclusion() throws {
        defer { try? FileManager.default.removeItem(at: folder) }
        let data = try write("honest", Array(payloads[..<300]))
        let older = try checkpoint(of: data, as: "older")
        _ = try write("honest", Array(payloads[300...]))
        let key = data.path + "/log.pub"
        for position in [0, 1, 255, 256, 299, 300, 511, 512, 699] {
            let proof = try prove(data, position)
            #expect(proof.count < 4096)
            try judge("position \(position)", proof, key: key, holds: true)
        }
        let proof = try prove(data, 42, older)
        try judge("under an older checkpoint", proof, key: key, holds: true)
        let beyond = try refold(
            "prove", "--data", data.path, "--position", "300", "--checkpoint", older.path, "-o", "/dev/null")
        #expect(beyond.code == 2, "the older checkpoint does not cover it")

        // The same bytes, changed.
        func changed(_ find: String, _ replacement: String) -> [UInt8] {
            let range = Data(proof).firstRange(of: Data(find.utf8))!
            return Array(proof[..<range.lowerBound]) + Array(replacement.utf8) + Array(proof[range.upperBound...])
        }
        try judge("an edited payload", changed(#""n":42"#, #""n":43"#), key: key, holds: false)
        try judge("an edited topic", changed("device/d/", "device/e/"), key: key, holds: false)
        try judge("another position", changed("index 42", "index 43"), key: key, holds: false)
        try judge("a position with a zero before it", changed("index 42", "index 042"), key: key, holds: false)
        try judge("another size", changed("\n300\n", "\n301\n"), key: key, holds: false)
        try judge("another origin", changed("\n\nrefold/11", "\n\nrefold/12"), key: key, holds: false)
        try judge("lines that end otherwise", changed("index 42\n", "index 42\r\n"), key: key, holds: false)
        for offset in [36, 37, 40, 45, 50, 60, 65] {
            var bytes = proof
            bytes[offset] ^= 1
            try judge("a flipped bit of the record's header, byte \(offset)", bytes, key: key, holds: false)
        }
        for count in [0, 1, 15, 30, 120, proof.count / 2, proof.count - 60, proof.count - 1] {
            try judge("cut off after \(count) bytes", Array(proof[..<count]), key: key, holds: false)
        }
        try judge("bytes behind it", proof + [0x0A], key: key, holds: false)
        try judge("garbage", (0..<5000).map { UInt8(truncatingIfNeeded: $0 &* 197) }, key: key, holds: false)
        try judge("nothing but a length", Array("refold-proof/1\nrecord 8388609\n".utf8), key: key, holds: false)
        try askTheOther()
    }

    @Test func bothCheckersAgreeOnKeysAndWitnesses() throws {
        defer { try? FileManager.default.removeItem(at: folder) }
        let data = try write("honest", Array(payloads[..<100]))
        let key = data.path + "/log.pub"
        let stranger = try write("stranger", Array(payloads[..<101]))
        let proof = try prove(data, 17)
        try judge("the right key", proof, key: key, holds: true)
        try judge("a stranger's key of the same name", proof, key: stranger.path + "/log.pub", holds: false)
        let other = try SigningKey.generate(name: "refold/other")
        try judge("a key of another name", proof, key: other.verifier.description, holds: false)

        let witness = try SigningKey.generate(name: "witness.example/w1", kind: .cosignature)
        let absent = try SigningKey.generate(name: "witness.example/w1", kind: .cosignature)
        var cosigned = try note(data.appendingPathComponent("log/checkpoint"))
        try cosigned.sign(with: witness, at: 1_795_000_000)
        let seen = folder.appendingPathComponent("cosigned")
        try Data(cosigned.bytes).write(to: seen)
        let shown = try prove(data, 17, seen)
        let (w, a) = (witness.verifier.description, absent.verifier.description)
        try judge("cosigned", shown, key: key, witnesses: [w], holds: true)
        try judge("cosigned, and nobody asks", shown, key: key, holds: true)
        try judge("a witness of the same name with another key", shown, key: key, witnesses: [a], holds: false)
        try judge("one witness of two", shown, key: key, witnesses: [w, a], holds: false)
        try judge("not cosigned", proof, key: key, witnesses: [w], holds: false)
        // A witness signs the text: under one that it did not see, its line is worth nothing.
        let line = cosigned.signatures[1]
        let moved = try note(stranger.appendingPathComponent("log/checkpoint"))
        let forged =
            moved.bytes + Array("\u{2014} \(line.name) ".utf8)
            + Array(Data(line.keyID + line.bytes).base64EncodedString().utf8) + [0x0A]
        let forgedFile = folder.appendingPathComponent("forged")
        try Data(forged).write(to: forgedFile)
        try judge(
            "a cosignature moved to another checkpoint", try prove(stranger, 17, forgedFile),
            key: stranger.path + "/log.pub", witnesses: [w], holds: false)
        try askTheOther()
        for (what, bad) in [("no key", "nonsense"), ("a witness as the log", w)] {
            let file = folder.appendingPathComponent("judged-0").path
            #expect(try refold("check-proof", file, "--key", bad).code == 2, "\(what)")
            let theirs = try run("/usr/bin/python3", [Self.checkers + "/check_proof.py", file, "--key", bad])
            #expect(theirs.code == 2, "\(what)")
        }
        #expect(try refold("check-proof", folder.path + "/absent", "--key", key).code == 2)
    }

    /// The owner of the key signs another history. Only what was held elsewhere tells.
    @Test func bothCheckersAgreeOnHistoriesThatWereChanged() throws {
        defer { try? FileManager.default.removeItem(at: folder) }
        let data = try write("honest", Array(payloads[..<400]))
        let held = try checkpoint(of: data, as: "held")
        _ = try write("honest", Array(payloads[400...]))
        let newest = try checkpoint(of: data, as: "newest")
        let key = data.path + "/log.pub"

        let made = folder.appendingPathComponent("consistency").path
        let result = try refold(
            "prove", "--data", data.path, "--consistency", held.path, newest.path, "--output", made)
        #expect(result.code == 0, "\(result.out)")
        let honest = Array(try Data(contentsOf: URL(fileURLWithPath: made)))
        try judge("an honest log", honest, key: key, holds: true)
        try judge("its proof cut off", Array(honest.dropLast(10)), key: key, holds: false)

        var edited = payloads, dropped = payloads, reordered = payloads
        edited[100] = #"{"metrics":{"n":0}}"#
        dropped.remove(at: 100)
        dropped.append("{}")
        reordered.swapAt(100, 101)
        for (what, history) in [
            ("edited", edited), ("dropped", dropped), ("reordered", reordered),
            ("rolled back", Array(payloads[..<399])),
            ("rolled back and grown again", payloads[..<399] + Array(repeating: "{}", count: 301)),
        ] {
            let forged = try write(what, Array(history), key: data)
            let forgedNote = try note(forged.appendingPathComponent("log/checkpoint"))
            // With its own checkpoint each looks well: that is what every report says.
            try judge("\(what), by itself", try prove(forged, 101), key: key, holds: true)
            // Against what was held elsewhere it does not.
            let asked = try refold(
                "prove", "--data", forged.path, "--consistency", held.path, forged.path + "/log/checkpoint", "-o", made)
            #expect(asked.code != 0, "\(what) proves consistency")
            guard case .consistency(let proof) = try ProofFile(parsing: honest) else { return }
            let lie = ConsistencyProof(old: proof.old, new: forgedNote, path: proof.path)
            try judge("\(what), against a held checkpoint", lie.bytes, key: key, holds: false)
            guard case .inclusion(let shown) = try ProofFile(parsing: try prove(forged, 101)) else { return }
            let borrowed = InclusionProof(
                record: shown.record, position: shown.position, path: shown.path, note: try note(newest))
            try judge("\(what), under the honest checkpoint", borrowed.bytes, key: key, holds: false)
        }
        try askTheOther()
        let backwards = try refold("prove", "--data", data.path, "--consistency", newest.path, held.path, "-o", made)
        #expect(backwards.code == 2)
    }

    @Test func exportedTilesAreTheSignedTree() throws {
        defer { try? FileManager.default.removeItem(at: folder) }
        let data = try write("honest", payloads)
        let tiles = folder.appendingPathComponent("tiles")
        let result = try refold("export-tiles", tiles.path, "--data", data.path)
        #expect(result.code == 0, "\(result.out)")
        func judge() throws -> (code: Int32, out: String) {
            try run(
                "/usr/bin/python3",
                [
                    Self.checkers + "/check_tiles.py", tiles.path, "--key", data.path + "/log.pub",
                ])
        }
        let first = try judge()
        #expect(first.code == 0 && first.out.contains("700"), "\(first.out)")
        for name in ["tile/0/001", "tile/entries/002.p/188", "tile/1/000.p/2"] {
            let file = tiles.appendingPathComponent(name)
            let bytes = try Data(contentsOf: file)
            var changed = bytes
            changed[changed.startIndex + 40] ^= 1
            try changed.write(to: file)
            #expect(try judge().code == 1, "\(name) changed")
            try FileManager.default.removeItem(at: file)
            #expect(try judge().code == 1, "\(name) missing")
            try bytes.write(to: file)
        }
        #expect(try judge().code == 0)
        #expect(try refold("export-tiles", tiles.path, "--data", folder.path + "/nothing").code == 2)
    }

    @Test func theLogSaysItsKeyAndWhatWasSigned() throws {
        defer { try? FileManager.default.removeItem(at: folder) }
        let data = try write("honest", Array(payloads[..<5]))
        let info = try refold("info", "--json", "--data", data.path)
        let object = try #require(try JSONSerialization.jsonObject(with: Data(info.out.utf8)) as? [String: Any])
        let key = try String(contentsOfFile: data.path + "/log.pub", encoding: .utf8)
        #expect(object["public_key"] as? String == key.trimmingCharacters(in: .newlines))
        #expect(object["checkpoint_size"] as? Int == 5)
        let mode = try FileManager.default.attributesOfItem(atPath: data.path + "/log.key")[.posixPermissions] as? Int
        #expect(mode == 0o600)
        // Without its key the log goes on, unsigned, and no new key is made in silence.
        try FileManager.default.removeItem(atPath: data.path + "/log.key")
        _ = try write("honest", ["{}"])
        #expect(!FileManager.default.fileExists(atPath: data.path + "/log.key"))
        #expect(try note(data.appendingPathComponent("log/checkpoint")).checkpoint().size == 5)
        #expect(try refold("prove", "--data", data.path, "--position", "5", "-o", "/dev/null").code == 2)
        let proof = try refold("prove", "--data", data.path, "--position", "4", "--json")
        #expect(proof.code == 0 && proof.out.contains("proof_base64"))
    }
}

extension Slice<UnsafeRawBufferPointer> {
    fileprivate var rebased: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: self) }
}
