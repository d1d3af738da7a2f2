// Snapshots: the rows of every projection and the folds of the deciders at one position, in a file beside the log, so
// that nobody need begin at the log's first event: a rebuild, a decider at its start, a look into the past, and the
// retention rules, whose horizon builds on them.
//
// Lifecycle of a file. `SnapshotMaker` folds from the newest one before it (or from nothing), writes under another
// name, syncs, renames, syncs the folder; only then `snapshot.created/1` goes into the log with its digests. It is
// never changed again. It goes when the log no longer reaches back to it and a newer one stands at or before the
// log's beginning.
//
// Invariants. A snapshot is the same as folding the log up to its end, by the versions of projections that it names.
// Nothing of a damaged one is used: it is reported, and an older one taken. A snapshot can always be deleted: it is
// made of the log; only where the log's beginning is gone for good, the newest at the horizon is all there is.
//
// `schemas/snapshot-format.md` is the format. Rows that are still being folded live in `RowFiles`.

import EventLog
import EventModel
import Projections
import Synchronization

/// The snapshots in a folder. Safe to use from any thread; other processes may add and remove some meanwhile.
public final class SnapshotFolder: Sendable {
    /// One file of the folder.
    public enum Item: Sendable {
        case whole(SnapshotFile)
        /// It cannot be used, and why.
        case unusable(name: String, end: Position, SnapshotError)

        public var end: Position {
            switch self {
            case .whole(let file): file.end
            case .unusable(_, let end, _): end
            }
        }
    }

    public let path: String
    /// Of which log; nil: of any.
    public let logID: LogID?
    private let fileSystem: any LogFileSystem
    /// A few open files by name: those that are asked for again and again.
    private let known = Mutex<[String: SnapshotFile]>([:])
    private static let knownMax = 16
    /// Those whose blocks turned out damaged in use.
    private let distrusted = Mutex<[String: SnapshotError]>([:])

    public init(_ path: String, logID: LogID?, fileSystem: any LogFileSystem = PosixFileSystem()) {
        self.path = path
        self.logID = logID
        self.fileSystem = fileSystem
    }

    /// All of them, the oldest first; none when there is no such folder.
    public func items() throws -> [Item] { try ends().map { open($0.name, $0.end) } }

    /// Calls `body` with each of them, the oldest first; one is open at a time.
    public func forEach(_ body: (Item) throws -> Void) throws {
        for (name, end) in try ends() { try body(open(name, end)) }
    }

    /// Whether a file of this name is a snapshot.
    public static func isSnapshot(name: String) -> Bool { SnapshotFormat.end(name: name) != nil }

    /// By their names alone.
    private func ends() throws -> [(name: String, end: Position)] {
        let ends = try names().compactMap { name in SnapshotFormat.end(name: name).map { (name: name, end: $0) } }
        let names = Set(ends.map(\.name))
        known.withLock { $0 = $0.filter { names.contains($0.key) } }
        distrusted.withLock { $0 = $0.filter { names.contains($0.key) } }
        return ends.sorted { $0.end < $1.end }
    }

    private func names() throws -> [String] {
        do throws(FileError) {
            return try fileSystem.list(path)
        } catch {
            if (try? fileSystem.status(path)) ?? nil == nil { return [] }
            throw SnapshotError(.system, "\(error)")
        }
    }

    private func open(_ name: String, _ end: Position) -> Item {
        if let why = distrusted.withLock({ $0[name] }) { return .unusable(name: name, end: end, why) }
        if let file = known.withLock({ $0[name] }) { return .whole(file) }
        do {
            let file = try SnapshotFile(path + "/" + name, fileSystem: fileSystem)
            guard file.end == end else {
                throw SnapshotError(.foreign, "\(file.path) ends at \(file.end), not at what its name says")
            }
            if let logID, file.logID != logID {
                throw SnapshotError(.foreign, "\(file.path) belongs to the log \(file.logID), not to \(logID)")
            }
            known.withLock { known in
                if known.count >= Self.knownMax { known.removeAll() }
                known[name] = file
            }
            return .whole(file)
        } catch {
            return .unusable(
                name: name, end: end, (error as? SnapshotError) ?? SnapshotError(.system, "\(error)"))
        }
    }

    /// Those that can be used, the oldest first.
    public func usable() throws -> [SnapshotFile] {
        try items().compactMap { if case .whole(let file) = $0 { file } else { nil } }
    }

    /// The newest that ends at or before a position, and has what is asked for.
    public func newest(
        atOrBefore end: Position, where fits: (SnapshotFile) -> Bool = { _ in true }
    ) throws -> SnapshotFile? {
        try newest(atOrBefore: end, where: fits) { _, _ in }
    }

    private func newest(
        atOrBefore end: Position, where fits: (SnapshotFile) -> Bool, unusable: (String, SnapshotError) -> Void
    ) throws -> SnapshotFile? {
        for (name, found) in try ends().reversed() where found <= end {
            switch open(name, found) {
            case .whole(let file): if fits(file) { return file }
            case .unusable(let name, _, let why): unusable(name, why)
            }
        }
        return nil
    }

    /// Calls `body` with the newest snapshot that fits, or nil where there is none; should that one turn out damaged,
    /// with the next older one, and so on. `report` is told of each that is passed over.
    public func withNewest<R>(
        atOrBefore end: Position, where fits: (SnapshotFile) -> Bool = { _ in true },
        report: (SnapshotError) -> Void = { _ in }, _ body: (SnapshotFile?) throws -> R
    ) throws -> R {
        var reported: Set<String> = []
        while true {
            let file = try newest(atOrBefore: end, where: fits) { name, why in
                if reported.insert(name).inserted { report(why) }
            }
            do {
                return try body(file)
            } catch {
                // The damage is reported when it is met again, as one that cannot be used.
                guard let file, damage(of: file) != nil else { throw error }
            }
        }
    }

    /// Reads all of a snapshot; what is wrong with it, when something is. From then on it is not used.
    public func damage(of file: SnapshotFile) -> SnapshotError? {
        do {
            _ = try file.check()
            return nil
        } catch {
            let error = (error as? SnapshotError) ?? SnapshotError(.system, "\(error)")
            let name = String(file.path.dropFirst(path.count + 1))
            distrusted.withLock { $0[name] = error }
            return error
        }
    }

    /// Removes what is of no use any more: files that were never finished, and snapshots that end before `horizon`,
    /// the first position that can be read, but for the newest of them. Returns the names of the snapshots removed.
    public func prune(horizon: Position) throws -> [String] {
        var removed: [String] = []
        for name in try names() where name.hasSuffix(SnapshotFormat.suffix + SnapshotFormat.temporarySuffix) {
            try fileSystem.remove(path + "/" + name)
        }
        // What is damaged stays, for whoever wants to know why.
        let kept = try newest(atOrBefore: horizon)?.end
        for (name, end) in try ends() where end < horizon && end != kept {
            guard case .whole = open(name, end) else { continue }
            try fileSystem.remove(path + "/" + name)
            removed.append(name)
        }
        if !removed.isEmpty { try fileSystem.synchronizeDirectory(path) }
        return removed
    }
}
