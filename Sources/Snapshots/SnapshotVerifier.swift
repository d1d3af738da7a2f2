import EventLog
import EventModel
import Evidence
import Primitives
import Projecting
import Projections

/// Holds snapshots against the log: folds every event again, from the first, and compares digests.
/// One use, one thread; snapshots in the order of their ends.
public final class SnapshotVerifier {
    /// One thing that differs, or that could not be compared.
    public struct Finding: Sendable, Equatable {
        /// A table, or a decider's fold.
        public let name: String
        public let inSnapshot: String
        /// Nil: this program cannot fold it, because it has another version of it.
        public let folded: String?

        public var isDifference: Bool { folded != nil && folded != inSnapshot }
    }

    private let maker: SnapshotMaker
    private let rows: [RowFiles]
    private let fold: BulkFold
    private var states: [[UInt8]?]
    private var position = Position(0)

    public init(_ maker: SnapshotMaker) throws {
        self.maker = maker
        rows = maker.entries.map {
            RowFiles($0.descriptor, folder: maker.folder.path + "/scratch", memoryBytesMax: maker.rowBytesMax)
        }
        fold = try BulkFold(source: maker.source, entries: maker.entries, stores: rows, options: maker.options)
        states = maker.deciders.map { _ in nil }
    }

    /// How far the folding has come.
    public var progress: @Sendable () -> Position {
        nonisolated(unsafe) let fold = fold  // `progress` is for any thread
        return { fold.progress.folded }
    }

    /// What differs, or cannot be compared; nothing when the snapshot is what folding gives.
    /// - Throws: `LogError` when the log does not reach back to its first event.
    public func compare(_ file: SnapshotFile) throws -> [Finding] {
        precondition(file.end >= position, "snapshots are compared in the order of their ends")
        guard try fold.run(to: file.end) else { throw CancellationError() }
        var findings: [Finding] = []
        for table in file.description.tables {
            let entry = zip(maker.entries, rows).first {
                $0.0.name == table.projection && $0.0.descriptor.version == table.version
            }
            var digest: String?
            if let rows = entry?.1, let stored = table.stored, rows.tables.contains(stored) {
                digest = try Self.digest(rows.cursor(of: stored.name), stored)
            }
            if digest != table.digest {
                findings.append(Finding(name: table.name, inSnapshot: table.digest, folded: digest))
            }
        }
        for (index, decider) in maker.deciders.enumerated() {
            states[index] = try decider.fold(states[index], position..<file.end, maker.source)
        }
        for stored in file.description.deciders {
            let index = maker.deciders.firstIndex { $0.name == stored.name && $0.version == stored.version }
            let digest = index.flatMap { states[$0] }.map { SHA256.digest($0).description }
            if digest != stored.sha256 {
                findings.append(Finding(name: stored.name, inSnapshot: stored.sha256, folded: digest))
            }
        }
        position = file.end
        return findings
    }

    private static func digest(_ cursor: any RowCursor, _ table: StoredTable) throws -> String {
        var digest = TableDigest(table)
        while try cursor.next() { cursor.withRow { digest.add($0) } }
        return digest.finish().description
    }
}
