import EventLog
import EventModel
import Projecting
import Projections

/// How a decider's fold goes on: for the snapshot, which does not know what is in it.
public struct DeciderFold: Sendable {
    public var name: String
    /// See `DeciderState.version`.
    public var version: Int
    /// The state behind the last of these positions, from the state before the first of them (nil: that of nothing).
    public var fold: @Sendable ([UInt8]?, Range<Position>, any LogSource) throws -> [UInt8]

    public init(
        name: String, version: Int,
        fold: @escaping @Sendable ([UInt8]?, Range<Position>, any LogSource) throws -> [UInt8]
    ) {
        self.name = name
        self.version = version
        self.fold = fold
    }
}

/// A snapshot that is durable, and what the log is to be told of it.
public struct MadeSnapshot: Sendable {
    public let file: SnapshotFile
    /// Nil when it had been there before.
    public let event: SnapshotCreated?
    /// Where the folding began: the end of the snapshot before, or 0.
    public let from: Position
}

/// Makes snapshots. A plain value; `make` blocks the thread as long as folding takes.
public struct SnapshotMaker: Sendable {
    public var source: any LogSource
    public var logID: LogID
    public var folder: SnapshotFolder
    public var entries: [Catalog.Entry] = Catalog.entries
    public var deciders: [DeciderFold]
    /// Bounds of the folding; of memory above all.
    public var options = BulkOptions()
    /// What the rows of one projection take in memory before they go into files.
    public var rowBytesMax = 16 << 20
    /// When it was made: for people.
    public var now: @Sendable () -> Timestamp
    /// Told of a damaged snapshot that was passed over.
    public var note: @Sendable (String) -> Void = { _ in }
    public var fileSystem: any LogFileSystem = PosixFileSystem()

    public init(
        source: any LogSource, logID: LogID, folder: SnapshotFolder, deciders: [DeciderFold],
        now: @escaping @Sendable () -> Timestamp
    ) {
        self.source = source
        self.logID = logID
        self.folder = folder
        self.deciders = deciders
        self.now = now
        options.stateBytesMax = 96 << 20
        options.pendingBytesMax = 32 << 20
    }

    /// Folds up to `end` (exclusive; nil: all that is durable) from the newest usable snapshot before it, and writes.
    /// A snapshot with that end that is there and whole is given back as it is.
    /// - Parameter watch: is given the fold as it begins, for progress and cancelling.
    /// - Throws: `LogError` when the log is damaged or does not reach back far enough, `SnapshotError`, `StoreError`.
    public func make(end wanted: Position? = nil, watch: (BulkFold) -> Void = { _ in }) throws -> MadeSnapshot {
        let durable = Position(source.durableCount), end = wanted ?? durable
        guard end <= durable else {
            throw LogError(.outOfRange, "position \(end) lies beyond the log's end (\(durable) events)")
        }
        guard end > Position(0) else { throw SnapshotError(.missing, "the log is empty: there is nothing to keep") }
        return try folder.withNewest(atOrBefore: end, report: { note($0.description) }) { base in
            if let base, base.end == end, entries.allSatisfy({ base.holds($0.descriptor) }), holdsDeciders(base) {
                return MadeSnapshot(file: base, event: nil, from: end)
            }
            return try make(end: end, base: base, watch)
        }
    }

    private func holdsDeciders(_ file: SnapshotFile) -> Bool {
        deciders.allSatisfy { decider in
            file.description.deciders.contains { $0.name == decider.name && $0.version == decider.version }
        }
    }

    private func make(end: Position, base: SnapshotFile?, _ watch: (BulkFold) -> Void) throws -> MadeSnapshot {
        let rows = entries.map { entry in
            RowFiles(
                entry.descriptor, folder: folder.path + "/scratch", base: base, memoryBytesMax: rowBytesMax,
                fileSystem: fileSystem)
        }
        let fold = try BulkFold(source: source, entries: entries, stores: rows, options: options)
        watch(fold)
        guard try fold.run(to: end) else { throw CancellationError() }
        let states = try deciders.map { decider in
            let old = try base?.state(ofDecider: decider.name).flatMap { $0.version == decider.version ? $0 : nil }
            let from = old == nil ? Position(0) : base?.end ?? Position(0)
            return DeciderState(
                name: decider.name, version: decider.version,
                bytes: try decider.fold(old?.bytes, from..<end, source))
        }
        let written = try SnapshotWriter.write(
            SnapshotContents(
                logID: logID, end: end, lastTime: try source.receivedAt(Position(end.rawValue - 1)), created: now(),
                salt: UInt32.random(in: 0...UInt32.max),
                tables: zip(entries, rows).flatMap { entry, rows in
                    rows.tables.map { table in
                        SnapshotContents.Table(projection: entry.descriptor, table: table) {
                            try rows.cursor(of: table.name)
                        }
                    }
                }, deciders: states),
            folder: folder.path, fileSystem: fileSystem)
        return MadeSnapshot(
            file: try SnapshotFile(written.path, fileSystem: fileSystem), event: SnapshotCreated(written),
            from: base?.end ?? Position(0))
    }
}

extension SnapshotCreated {
    init(_ written: WrittenSnapshot) {
        self.init(
            file: String(written.path.split(separator: "/").last ?? ""), end: written.description.end,
            bytes: written.byteCount, sha256: written.digest.description,
            tables: written.description.tables.map {
                Table(projection: $0.projection, version: $0.version, table: $0.name, rows: $0.rows, digest: $0.digest)
            },
            deciders: written.description.deciders.map {
                Decider(name: $0.name, version: $0.version, sha256: $0.sha256)
            })
    }

    /// The record of it, for the log.
    public func batch(at time: Timestamp) -> RecordBatch {
        var batch = RecordBatch()
        batch.append(
            kind: .system, schema: LogSchema.snapshotCreated.rawValue, receivedAt: time,
            json: eventJSON(self))
        return batch
    }
}

extension LogSource {
    /// When an event was received.
    public func receivedAt(_ wanted: Position) throws -> Timestamp? {
        let block = EventBlock()
        guard try reader(from: wanted).read(into: block, atLeast: 1) else { return nil }
        var time: Timestamp?
        block.forEach { record, position in if position == wanted { time = record.receivedAt } }
        return time
    }
}
