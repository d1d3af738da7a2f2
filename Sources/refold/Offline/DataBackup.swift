import EventLog
import EventModel
import Foundation
import Snapshots

// A data folder, copied whole: the log, its keys and the newest snapshot. Consistent while the daemon writes, because
// nothing below the durable end is ever changed.

/// What a backup holds: `backup.json`, written last, without which a folder is no backup.
struct BackupManifest: Codable {
    static let name = "backup.json"
    static let formatVersion = 1

    var format = Self.formatVersion
    var logID: String
    /// The first position in it, and the one behind the last.
    var first: UInt64
    var end: UInt64
    var created: String
    /// Every other file, with its path in the folder.
    var files: [CopiedFile]

    enum CodingKeys: String, CodingKey { case format, logID = "log_id", first, end, created, files }
}

struct BackupError: Error, CustomStringConvertible {
    let description: String
    /// 1: the answer is no; 2: wrong usage.
    let code: Int32
}

enum DataBackup {
    /// - Parameter folder: must not exist, or be empty.
    static func make(
        of dataFolder: String, to folder: String, note: (String) -> Void, progress: (Position, Position) -> Void
    ) throws -> BackupManifest {
        try checkEmpty(folder)
        let log = try ReadOnlyLog(directory: dataFolder + "/log")
        let disk = PosixFileSystem(), copier = FileCopier(), expected = Position(log.durableCount)
        try disk.makeDirectory(folder)
        let copied = try log.copy(to: folder + "/log") { progress($0, expected) }
        var files = copied.files.map { CopiedFile(name: "log/" + $0.name, bytes: $0.bytes, sha256: $0.sha256) }
        for name in [LogKey.name, LogKey.publicName] {
            if let file = try copier.copy("\(dataFolder)/\(name)", to: "\(folder)/\(name)", name: name) {
                files.append(file)
            }
        }
        if let snapshot = try newest(dataFolder, log, copied.end, note) {
            let name = "snapshots/" + (snapshot.path.split(separator: "/").last ?? "")
            try disk.makeDirectory(folder + "/snapshots")
            if let file = try copier.copy(snapshot.path, to: "\(folder)/\(name)", name: name) {
                files.append(file)
                try disk.makeReadOnly("\(folder)/\(name)")
            }
            try disk.synchronizeDirectory(folder + "/snapshots")
        }
        let manifest = BackupManifest(
            logID: log.logID.description, first: copied.first.rawValue, end: copied.end.rawValue,
            created: wallClock().description, files: files)
        try write(manifest, to: folder, disk)
        return manifest
    }

    /// The newest snapshot that is whole and of what was copied.
    private static func newest(
        _ dataFolder: String, _ log: ReadOnlyLog, _ end: Position, _ note: (String) -> Void
    ) throws -> SnapshotFile? {
        let snapshots = SnapshotFolder.of(dataFolder: dataFolder, logID: log.logID)
        while let file = try snapshots.newest(atOrBefore: end) {
            guard let damage = snapshots.damage(of: file) else { return file }
            note("a damaged snapshot is passed over: \(damage)")
        }
        return nil
    }

    private static func write(_ manifest: BackupManifest, to folder: String, _ disk: PosixFileSystem) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes, .prettyPrinted]
        let path = folder + "/" + BackupManifest.name
        let file = try disk.open(path + ".tmp", create: true, writable: true)
        let bytes = Array(try encoder.encode(manifest)) + [0x0A]
        try bytes.withUnsafeBytes { try file.write($0, at: 0) }
        try file.synchronize()
        try disk.rename(path + ".tmp", to: path)
        try disk.synchronizeDirectory(folder)
    }

    /// Copies a backup into a new data folder; every file must be what the manifest says.
    static func restore(_ folder: String, to dataFolder: String) throws -> BackupManifest {
        let path = folder + "/" + BackupManifest.name
        guard let data = FileManager.default.contents(atPath: path) else {
            throw BackupError(
                description: "\(folder) is no backup, or one that was never finished: it has no \(BackupManifest.name)",
                code: 2)
        }
        guard let manifest = try? JSONDecoder().decode(BackupManifest.self, from: data) else {
            throw BackupError(description: "\(path) cannot be read", code: 1)
        }
        guard manifest.format == BackupManifest.formatVersion else {
            throw BackupError(description: "\(path) has format \(manifest.format): use a newer program", code: 2)
        }
        try checkEmpty(dataFolder)
        let disk = PosixFileSystem(), copier = FileCopier()
        for folder in ["", "/log", "/snapshots"] { try disk.makeDirectory(dataFolder + folder) }
        for file in manifest.files {
            // Names are from outside. A `token`, or settings, would be the backup's maker's.
            guard isKnown(file.name) else {
                throw BackupError(
                    description: "\(path) names \(file.name.debugDescription), which no backup of Refold holds: "
                        + "\(dataFolder) is incomplete: delete it, and use a backup that you trust", code: 1)
            }
            let target = "\(dataFolder)/\(file.name)"
            let found = try copier.copy("\(folder)/\(file.name)", to: target, name: file.name)
            guard found == file else {
                throw BackupError(
                    description: "\(folder)/\(file.name) is \(found == nil ? "missing" : "not what was backed up"); "
                        + "\(dataFolder) is incomplete: delete it, and use another backup", code: 1)
            }
            if file.name.hasSuffix(".snapshot") { try disk.makeReadOnly(target) }
        }
        for folder in ["/log", "/snapshots", ""] { try disk.synchronizeDirectory(dataFolder + folder) }
        return manifest
    }

    private static func isKnown(_ name: String) -> Bool {
        if [LogKey.name, LogKey.publicName].contains(name) { return true }
        let parts = name.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 2 else { return false }
        switch parts[0] {
        case "log": return LogCopyFiles.isKnown(parts[1])
        case "snapshots": return SnapshotFolder.isSnapshot(name: parts[1])
        default: return false
        }
    }

    /// What is wrong with the log and the snapshots of a folder that was copied; nothing when all is well.
    static func problems(of dataFolder: String, _ manifest: BackupManifest) throws -> [String] {
        let log = try ReadOnlyLog(directory: dataFolder + "/log")
        var problems: [String] = []
        if log.durableCount != manifest.end {
            problems.append("the log ends at \(log.durableCount), not at \(manifest.end)")
        }
        let report = try log.verify(nil, options: .init())
        for damage in report.damages where damage.accepted == nil { problems.append(damage.text) }
        if let missing = try log.missingBeginning() {
            problems.append(ReadOnlyLog.describe(missing: missing, in: log.directory).description)
        }
        let snapshots = SnapshotFolder.of(dataFolder: dataFolder, logID: log.logID)
        for item in try snapshots.items() {
            switch item {
            case .unusable(_, _, let why): problems.append(why.description)
            case .whole(let file): if let damage = snapshots.damage(of: file) { problems.append(damage.description) }
            }
        }
        return problems
    }

    private static func checkEmpty(_ folder: String) throws {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        guard names.isEmpty else {
            throw BackupError(description: "\(folder) is not empty: name a folder that does not exist yet", code: 2)
        }
    }
}
