import ArgumentParser
import Auditing
import EventLog
import EventModel
import Evidence
import Foundation
import Snapshots

/// `refold audit`: what happened, why, and how others can check it. Works on the files alone.
struct AuditCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "audit", abstract: "What happened to a device or a campaign, with proof that others can check.",
        subcommands: [AuditDevice.self, AuditCampaign.self, AuditRange.self, AuditCheckCommand.self])
}

/// What all reports share.
struct AuditOptions: ParsableArguments {
    @OptionGroup var data: DataOption
    @Option(help: "Report from this position on, or from a time (RFC 3339).") var from: String?
    @Option(help: "Report up to this position, or before a time. Default: the last signed event.") var until: String?
    @Option(help: "Refuse a report of more events.") var limit = 100_000
    @Option(help: "Write the report as one HTML file.") var html: String?
    @Option(help: "Write the bundle for machines: events, rows, proof and checkpoint.") var bundle: String?
    @Flag(help: "Write the bundle without the log key's signature, where the key cannot be read.") var unsigned = false
    @Flag(help: "Print JSON: what was found, in short.") var json = false

    func validate() throws {
        if limit < 1 { throw ValidationError("--limit must be 1 or more") }
        _ = (
            try from.map { try PointInTime($0, flag: "--from") }, try until.map { try PointInTime($0, flag: "--until") }
        )
    }

    func run(_ subject: AuditSubject) throws {
        let log = try data.openLog()
        try auditing {
            let begin = try from.map { try PointInTime($0, flag: "--from").begin(in: log) } ?? Position(0)
            let durable = Position(log.durableCount)
            let end = try until.map { min(durable, try PointInTime($0, flag: "--until").end(in: log)) } ?? durable
            guard begin <= durable else {
                throw AuditError(.usage, "--from \(begin) lies beyond the log's end (\(durable) events)")
            }
            let key = try LogKey.publicKey(dataFolder: data.folder)
            let report = try Audit.run(
                subject, in: begin..<max(begin, end), of: log, eventsMax: limit,
                snapshots: SnapshotFolder(data.folder + "/snapshots", logID: log.logID), key: key,
                madeAt: wallClock())
            if report.isEmpty, html == nil, bundle == nil {
                throw AuditError(
                    .no,
                    "no event of \(subject) in \(begin)..<\(end): check tenant and device, as in "
                        + "the topic tenant/TENANT/device/DEVICE/…")
            }
            if let html { try write(Array(report.html.utf8), to: html) }
            var bytes: [UInt8]?
            if let bundle {
                bytes = try report.bundle(signedWith: unsigned ? nil : signer(log))
                try write(bytes ?? [], to: bundle)
            }
            try show(report, bundleBytes: bytes?.count)
        }
    }

    private func signer(_ log: ReadOnlyLog) throws -> SigningKey {
        let path = data.folder + "/" + LogKey.name
        guard FileManager.default.isReadableFile(atPath: path) else {
            throw AuditError(
                .usage,
                "the bundle is signed with the log's key, and \(path) cannot be read: run this "
                    + "as the log's owner, or write it --unsigned")
        }
        return try LogKey.open(dataFolder: data.folder, logID: log.logID)
    }

    private func write(_ bytes: [UInt8], to path: String) throws {
        do {
            try writePrivately(bytes, to: path)
        } catch {
            throw AuditError(.usage, "cannot write \(path): \(error.localizedDescription)")
        }
    }

    private func show(_ report: AuditReport, bundleBytes: Int?) throws {
        if json {
            var object: [String: Any] = [
                "subject": report.subject.description, "log": report.origin, "from": report.range.lowerBound.rawValue,
                "end": report.range.upperBound.rawValue, "events": report.events.count,
                "checkpoint_size": report.size, "cut_to_checkpoint": report.isCutToCheckpoint,
                "gaps": report.gaps.map { ["kind": $0.kind.rawValue, "from": $0.from, "to": $0.to, "text": $0.text] },
                "broker_losses": report.brokerLosses.map {
                    [
                        "position": $0.position.rawValue, "received_at": "\($0.receivedAt)", "who": $0.who,
                        "what": $0.what,
                    ] as [String: Any]
                },
            ]
            object["html"] = html
            object["bundle"] = bundle
            object["bundle_bytes"] = bundleBytes
            return print(jsonLine(object))
        }
        guard html != nil || bundle != nil else {
            return print(report.text, terminator: "")
        }
        print(
            "\(report.subject): \(report.events.count) events"
                + (report.gaps.isEmpty ? "" : ", \(report.gaps.count) stretches are missing")
                + (report.brokerLosses.isEmpty ? "" : ", \(report.brokerLosses.count) of them report broker losses"))
        if let html { print("wrote \(html)") }
        if let bundle {
            print(
                "wrote \(bundle), \(bundleBytes ?? 0) bytes. To check it: refold audit check \(bundle) "
                    + "--key \(data.folder)/\(LogKey.publicName)")
        }
    }
}

struct AuditDevice: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "device", abstract: "What happened to a device.",
        discussion: "Exit code 1: the log is damaged where it matters, or not what was signed.")
    @OptionGroup var options: AuditOptions
    @Argument(help: "The tenant.") var tenant: String
    @Argument(help: "The device.") var device: String

    func run() throws { try options.run(.device(tenant: tenant, device: device)) }
}

struct AuditCampaign: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "campaign", abstract: "What happened in a campaign, and who decided it.",
        discussion: "Exit code 1: the log is damaged where it matters, or not what was signed.")
    @OptionGroup var options: AuditOptions
    @Argument(help: "The campaign's id.") var id: Int64

    func run() throws { try options.run(.campaign(id)) }
}

struct AuditRange: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "range", abstract: "Everything in a stretch of the log: a bundle of it is complete.",
        discussion: "Exit code 1: the log is damaged where it matters, or not what was signed.")
    @OptionGroup var options: AuditOptions

    func run() throws {
        guard options.from != nil else {
            throw ValidationError("--from is missing: say from where on, even if it is 0")
        }
        try options.run(.range)
    }
}

struct AuditCheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check", abstract: "Check a bundle. Needs no log, no daemon and no database.",
        discussion: """
            Checks every event against the signed checkpoint, folds the events again and compares every row, and says \
            what the bundle proves and what it cannot. Exit code 0: it holds; 1: it does not.
            """)
    @Argument(help: "The bundle.") var file: String
    @Option(help: "The log's public key, or a file that holds it (log.pub).") var key: String
    @Option(help: "The public key of a witness that must have cosigned, or a file that holds it; repeatable.")
    var witness: [String] = []
    @Flag(help: "Accept a bundle that is not signed as a whole.") var unsigned = false
    @Flag(help: "Print JSON.") var json = false

    func run() throws {
        let keys: (log: VerifierKey, witnesses: [VerifierKey]), bytes: [UInt8]
        do {
            keys = try readKeys(key, witness)
            guard let data = FileManager.default.contents(atPath: file) else {
                throw EvidenceError(.malformed, "\(file) cannot be read: is it there, and may you read it?")
            }
            bytes = Array(data)
        } catch {
            throw ExitCode(2, printing: "\(error)")
        }
        do {
            report(try AuditCheck.run(bytes, key: keys.log, witnesses: keys.witnesses, needsStatement: !unsigned))
        } catch {
            if json {
                print(jsonLine(["holds": false, "reason": "\(error)"]))
            } else {
                print("THE BUNDLE DOES NOT HOLD: \(TextTable.cell("\(error)"))")
            }
            throw ExitCode(1)
        }
    }

    private func report(_ verdict: AuditVerdict) {
        let missing = verdict.missing.map { ["kind": $0.kind.rawValue, "from": $0.from, "to": $0.to, "text": $0.text] }
        if json {
            print(
                jsonLine(
                    [
                        "holds": true, "subject": verdict.subject.description, "log": verdict.origin,
                        "from": verdict.from,
                        "end": verdict.end, "events": verdict.events, "changes": verdict.changes,
                        "start_rows": verdict.startRows, "checkpoint_size": verdict.checkpointSize,
                        "signed": verdict.isSigned,
                        "folded": verdict.isFolded, "complete": verdict.isComplete, "missing": missing,
                        "proves": verdict.proves, "does_not_prove": verdict.doesNotProve, "made_at": verdict.madeAt,
                    ] as [String: Any]))
            return
        }
        print("the bundle holds")
        var rows: [String: Any] = [
            "subject": verdict.subject.description, "log": verdict.origin, "events": verdict.events,
            "checkpoint": "\(verdict.checkpointSize) events", "made_at": verdict.madeAt,
        ]
        if let first = verdict.firstTime, let last = verdict.lastTime { rows["received"] = "\(first) to \(last)" }
        print(TextTable.record(rows, order: ["subject", "log", "events", "received", "checkpoint", "made_at"]))
        for gap in verdict.missing { print("missing: positions \(gap.from) to \(gap.to): \(TextTable.cell(gap.text))") }
        print("\nIt proves")
        for line in verdict.proves { print("  - that \(line)") }
        print("It does not prove")
        for line in verdict.doesNotProve { print("  - \(line)") }
    }
}

/// Errors of an audit become exit codes.
private func auditing(_ body: () throws -> Void) throws {
    do {
        try replaying(body)
    } catch let error as EvidenceError {
        throw ExitCode(error.code == .untrue ? 1 : 2, printing: error.description)
    }
}
