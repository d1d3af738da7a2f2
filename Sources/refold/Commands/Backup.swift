import ArgumentParser
import EventLog
import EventModel
import Foundation

/// `refold backup`: works on the files, daemon up or down.
struct BackupCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "backup", abstract: "Copy the log, its keys and the newest snapshot into a new folder.",
        discussion: """
            Every event that is durable when it begins is in it, while the daemon goes on. backup.json lists every \
            file with its SHA-256. The copy is read back and verified. It holds the log's signing key: keep it as \
            safe as the data folder. It does not hold the keys of certificate authorities (DATA/authorities): copy \
            them apart. What retention took to the archive stays there. Exit code 1 when the copy is \
            damaged (as the log is).
            """)
    @Argument(help: "A folder that does not exist yet, or is empty.") var folder: String
    @Option(help: "The data folder. Default: REFOLD_DATA, else ./data.") var data: String?
    @Flag(help: "Print JSON.") var json = false

    func run() throws {
        let dataFolder = data ?? DaemonOptions.environment("REFOLD_DATA") ?? "data"
        try backing {
            let bar = json ? nil : ProgressBar("backup")
            let manifest = try DataBackup.make(
                of: dataFolder, to: folder, note: { printError($0) },
                progress: { done, all in bar?.show(done.rawValue, of: all.rawValue) })
            bar?.clear()
            try BackupCommand.report(manifest, in: folder, "backed up", json: json)
        }
    }

    fileprivate static func report(
        _ manifest: BackupManifest, in folder: String, _ verb: String, json: Bool
    ) throws {
        let problems = try DataBackup.problems(of: folder, manifest)
        let bytes = manifest.files.reduce(0) { $0 + $1.bytes }
        let hasKey = manifest.files.contains { $0.name == LogKey.name }
        let snapshot = manifest.files.first { $0.name.hasSuffix(".snapshot") }?.name
        if json {
            var object: [String: Any] = [
                "folder": folder, "log_id": manifest.logID, "first_position": manifest.first, "events": manifest.end,
                "files": manifest.files.count, "bytes": bytes, "sound": problems.isEmpty, "problems": problems,
            ]
            object["snapshot"] = snapshot
            object["signing_key"] = hasKey
            print(jsonLine(object))
        } else {
            print(
                "\(verb): positions \(manifest.first) to \(manifest.end), \(manifest.files.count) files, "
                    + "\(byteCountText(UInt64(bytes))), \(snapshot ?? "no snapshot")")
            print(problems.isEmpty ? "verified: whole" : "damaged:\n" + problems.joined(separator: "\n"))
        }
        if !problems.isEmpty { throw ExitCode(1) }
    }
}

/// `refold restore`: a new data folder from a backup.
struct RestoreCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "restore", abstract: "Make a new data folder from a backup.",
        discussion: """
            Every file must be what backup.json says, and one that a backup of Refold holds: the log's, its signing \
            key, a snapshot; never a token. Then the log and the snapshot are read and verified. refold run \
            on the new folder goes on behind the backup's last event, under the same log id: never beside the daemon \
            that it was taken from. Tables that are ahead of it must be made anew (drop schema refold cascade). \
            Revocations after the backup are missing: see docs/certificates.md before you start the daemon. Exit \
            code 1 when the backup is damaged.
            """)
    @Argument(help: "The folder of the backup.") var folder: String
    @Option(help: "The new data folder: one that does not exist yet, or is empty.") var data: String
    @Flag(help: "Print JSON.") var json = false

    func run() throws {
        try backing {
            let manifest = try DataBackup.restore(folder, to: data)
            // Warn that the signing key came from the backup.
            if manifest.files.contains(where: { $0.name == LogKey.name }) {
                printError(
                    "the log's signing key (\(LogKey.name)) comes from the backup: whoever can read the backup "
                        + "can sign for this log. The data folder's token is made anew at the first start")
            }
            try BackupCommand.report(manifest, in: data, "restored", json: json)
        }
    }
}

private func backing(_ body: () throws -> Void) throws {
    do {
        try reporting(body)
    } catch {
        if let error = error as? BackupError { throw ExitCode(error.code, printing: error.description) }
        if let error = error as? FileError { throw ExitCode(2, printing: error.description) }
        throw error
    }
}
