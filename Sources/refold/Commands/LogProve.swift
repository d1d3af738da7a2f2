import ArgumentParser
import EventLog
import EventModel
import Evidence
import Foundation
import Primitives

// `refold log prove`, `check-proof` and `export-tiles`: evidence for those who need not believe us.

/// What no proof can show, said with every report.
let rollbackNote =
    "A proof shows what was signed with the log's key. Whoever holds that key could sign another "
    + "history: that a log was rolled back can be shown only against a checkpoint that is held elsewhere, by a witness "
    + "or by those who were sent it."

struct LogProve: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "prove", abstract: "Write a proof that others can check without the log.",
        discussion: """
            --position proves that an event is in the log that a signed checkpoint says; --consistency that the log of \
            one checkpoint is the beginning of that of another. Works on the files alone. \
            Exit code 1: the log does not hold what was signed.
            """)
    @OptionGroup var data: DataOption
    @Option(help: "The position of the event.") var position: UInt64?
    @Option(help: "A file with a signed checkpoint. Default: the log's last.") var checkpoint: String?
    @Option(parsing: .upToNextOption, help: "Two files with signed checkpoints, the older first.")
    var consistency: [String] = []
    @Option(name: [.customShort("o"), .long], help: "Where to write the proof. Default: standard output.")
    var output: String?
    @Flag(help: "Print JSON: what the proof says, and the proof in base64 unless it goes to a file.") var json = false

    func validate() throws {
        guard consistency.isEmpty || consistency.count == 2 else {
            throw ValidationError("--consistency needs two files with checkpoints, the older first")
        }
        guard (position != nil) != !consistency.isEmpty else {
            throw ValidationError("say either --position P or --consistency OLD NEW")
        }
        if !consistency.isEmpty, checkpoint != nil { throw ValidationError("--checkpoint goes with --position") }
        if output == nil, !json, isatty(1) == 1 {
            throw ValidationError("a proof holds bytes that no terminal should see: name a file with --output")
        }
    }

    func run() throws {
        let log = try data.openLog()
        try answering {
            let file: ProofFile
            var summary: [String: Any]
            if let position {
                let note = try checkpoint.map(readNote) ?? storedNote(log)
                try verify(note)
                let proof = try log.prove(Position(position), in: note)
                let checkpoint = try note.checkpoint()
                file = .inclusion(proof)
                summary = ["position": position, "checkpoint": checkpoint.json]
            } else {
                let (old, new) = (try readNote(consistency[0]), try readNote(consistency[1]))
                try verify(old)
                try verify(new)
                let proof = try log.proveConsistency(from: old, to: new)
                file = .consistency(proof)
                summary = ["old": try old.checkpoint().json, "new": try new.checkpoint().json]
            }
            let bytes = file.bytes
            summary["bytes"] = bytes.count
            if let output {
                try writePrivately(bytes, to: output)
                summary["output"] = output
            } else if json {
                summary["proof_base64"] = Data(bytes).base64EncodedString()
            } else {
                printBytes(bytes)
            }
            if json {
                print(jsonLine(summary))
            } else if let output {
                print(
                    "wrote \(output), \(bytes.count) bytes. To check it: refold log check-proof \(output) "
                        + "--key \(data.folder)/\(LogKey.publicName)")
            }
        }
    }

    /// A checkpoint that this log's key did not sign proves nothing.
    private func verify(_ note: SignedNote) throws {
        guard let key = try LogKey.publicKey(dataFolder: data.folder) else { return }
        _ = try note.checkpoint(verifiedBy: key)
    }

    private func storedNote(_ log: ReadOnlyLog) throws -> SignedNote {
        guard let bytes = try log.storedCheckpoint() else {
            throw LogError(.outOfRange, "nothing of this log was signed yet: a running refold signs every second")
        }
        return try SignedNote(parsing: bytes)
    }

    private func readNote(_ path: String) throws -> SignedNote {
        try SignedNote(parsing: try readFile(path, bytesMax: SignedNote.byteCountMax))
    }
}

struct LogCheckProof: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check-proof", abstract: "Check a proof. Needs no log and no daemon.",
        discussion: """
            Checks what `refold log prove` wrote against the log's public key, and with --witness that a witness has \
            cosigned its checkpoint. Exit code 0: the proof holds; 1: it does not.
            """)
    @Argument(help: "The proof.") var file: String
    @Option(help: "The log's public key, or a file that holds it (log.pub).") var key: String
    @Option(help: "The public key of a witness that must have cosigned, or a file that holds it; repeatable.")
    var witness: [String] = []
    @Flag(help: "Print JSON.") var json = false

    func run() throws {
        let keys: (log: VerifierKey, witnesses: [VerifierKey])
        let bytes: [UInt8]
        do {
            keys = try readKeys(key, witness)
            bytes = try readFile(file, bytesMax: ProofFile.byteCountMax)
        } catch {
            throw ExitCode(2, printing: "\(error)")
        }
        do {
            let summary = try check(bytes, keys.log, keys.witnesses)
            report(summary, holds: true)
        } catch {
            report(["reason": "\(error)"], holds: false)
            throw ExitCode(1)
        }
    }

    private func check(_ bytes: [UInt8], _ key: VerifierKey, _ witnesses: [VerifierKey]) throws -> [String: Any] {
        var summary: [String: Any] = ["log": key.name]
        let newest: SignedNote
        switch try ProofFile(parsing: bytes) {
        case .inclusion(let proof):
            summary["checkpoint"] = try proof.check(key).json
            summary["position"] = proof.position.rawValue
            proof.record.withUnsafeBytes { bytes in
                let record = RecordView(unchecked: bytes.baseAddress!)
                summary["received_at"] = record.receivedAt.description
                summary["kind"] = record.kind.name
                summary["verdict"] = record.verdict.name
                summary["topic"] = record.topicString
                summary["broker"] = record.brokerString
                summary["payload_bytes"] = record.payload.count
                summary["payload_sha256"] = SHA256.digest(record.payload).description
                if json { summary["payload_base64"] = Data(record.payload).base64EncodedString() }
            }
            newest = proof.note
        case .consistency(let proof):
            let (old, new) = try proof.check(key)
            summary["old"] = old.json
            summary["checkpoint"] = new.json
            newest = proof.new
        }
        summary["witnesses"] = try witnesses.map { witness -> [String: Any] in
            let seconds = try newest.verify(witness) ?? 0
            let time = Timestamp(microseconds: Int64(clamping: seconds).multipliedReportingOverflow(by: 1_000_000).0)
            return ["name": witness.name, "at": seconds < 1 << 40 ? time.description : "\(seconds)"]
        }
        return summary
    }

    private func report(_ summary: [String: Any], holds: Bool) {
        if json {
            var object = summary
            object["holds"] = holds
            object["note"] = rollbackNote
            print(jsonLine(object))
            return
        }
        print(holds ? "the proof holds" : "THE PROOF DOES NOT HOLD: \(TextTable.cell(summary["reason"]))")
        if holds {
            print(
                TextTable.record(
                    summary,
                    order: [
                        "log", "position", "received_at", "kind", "verdict", "broker", "topic", "payload_bytes",
                        "payload_sha256", "old", "checkpoint", "witnesses",
                    ]))
        }
        print("\n" + rollbackNote)
    }
}

struct LogExportTiles: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "export-tiles",
        abstract: "Write the Merkle tree as static files for stock tools (C2SP tlog-tiles).",
        discussion: """
            Writes tile/…, tile/entries/… and checkpoint into a folder, for the log's last checkpoint. Entries hold \
            names and hashes, no payloads. Exit code 1: the log is not what was signed; then no checkpoint is written.
            """)
    @OptionGroup var data: DataOption
    @Argument(help: "The folder to write into; made when it does not exist.") var directory: String
    @Option(help: "A file with a signed checkpoint. Default: the log's last.") var checkpoint: String?
    @Flag(inversion: .prefixedNo, help: "Also the entry bundles.") var entries = true
    @Flag(help: "Print JSON.") var json = false

    func run() throws {
        let log = try data.openLog()
        try answering {
            let bytes =
                try checkpoint.map { try readFile($0, bytesMax: SignedNote.byteCountMax) }
                ?? log.storedCheckpoint()
            guard let bytes else {
                throw LogError(.outOfRange, "nothing of this log was signed yet: a running refold signs every second")
            }
            let note = try SignedNote(parsing: bytes)
            if let key = try LogKey.publicKey(dataFolder: data.folder) { _ = try note.checkpoint(verifiedBy: key) }
            let signed = try note.checkpoint()
            let bar = json ? nil : ProgressBar("exporting")
            defer { bar?.clear() }
            var files = 0, made: Set<String> = []
            try log.exportTiles(
                of: note, withEntries: entries, progress: { bar?.show($0, of: signed.size) }
            ) { path, bytes in
                let path = directory + "/" + path
                let folder = String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)])
                if made.insert(folder).inserted {
                    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
                }
                try writePrivately(bytes, to: path)
                files += 1
            }
            bar?.clear()
            if json {
                print(jsonLine(["files": files, "directory": directory, "checkpoint": signed.json]))
            } else {
                print(
                    "wrote \(files) files into \(directory): the tree of \(signed.size) events, root "
                        + signed.root.base64)
            }
        }
    }
}

extension Checkpoint {
    var json: [String: Any] { ["origin": origin, "size": size, "root": root.base64] }
}

/// Runs what answers a question about evidence; errors become exit codes: 1 the answer is no, 2 wrong usage.
private func answering(_ body: () throws -> Void) throws {
    do {
        try body()
    } catch let error as LogError {
        throw error.exit
    } catch let error as EvidenceError {
        throw ExitCode(error.code == .untrue ? 1 : 2, printing: error.description)
    } catch let error as CocoaError {
        throw ExitCode(2, printing: error.localizedDescription)
    }
}

func readKeys(_ key: String, _ witness: [String]) throws -> (log: VerifierKey, witnesses: [VerifierKey]) {
    let keys = (log: try readKey(key), witnesses: try witness.map(readKey))
    guard keys.log.kind == .note else { throw EvidenceError(.malformed, "--key is a witness's key") }
    guard keys.witnesses.allSatisfy({ $0.kind == .cosignature }) else {
        throw EvidenceError(.malformed, "--witness is no key of a witness: its type must be 4, cosignature/v1")
    }
    return keys
}

/// A key, or a file that holds one. Keys hold a plus in their third part at the earliest; files may, too.
func readKey(_ text: String) throws -> VerifierKey {
    if FileManager.default.fileExists(atPath: text) {
        let line = try readFile(text, bytesMax: 4096).prefix { $0 != 0x0A }
        return try VerifierKey(String(decoding: line, as: UTF8.self))
    }
    return try VerifierKey(text)
}

/// All of a file that is not larger than it may be; one byte more of one that is, so that its parser says so.
private func readFile(_ path: String, bytesMax: Int) throws -> [UInt8] {
    let file = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
    defer { try? file.close() }
    var bytes: [UInt8] = []
    while bytes.count <= bytesMax, let more = try file.read(upToCount: bytesMax + 1 - bytes.count), !more.isEmpty {
        bytes += more
    }
    return bytes
}
