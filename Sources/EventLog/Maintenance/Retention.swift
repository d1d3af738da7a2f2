import EventModel
import Synchronization

/// When sealed segments may leave this disk.
public struct RetentionRules: Sendable, Equatable {
    /// The oldest go while the log uses more; nil: whatever it uses.
    public var bytesMax: UInt64?
    /// Segments go whose last event is older; nil: however old.
    public var secondsMax: Int?
    /// Remove without an archive: whatever needs older events is told that they lie before the horizon.
    public var allowHorizon = false
    /// There is a command that brings archived segments back.
    public var canRestore = false

    public init() {}

    public var isOff: Bool { bytesMax == nil && secondsMax == nil }
}

/// A consumer that still needs the events from a position on.
public struct RetentionGuard: Sendable, Equatable {
    /// Who, and how it knows: for the operator.
    public let name: String
    public let needsFrom: Position

    public init(name: String, needsFrom: Position) {
        self.name = name
        self.needsFrom = needsFrom
    }
}

/// Removes what the rules no longer want and nobody needs: only sealed segments, oldest first, never the newest sealed
/// one, and only when they were archived or the operator has allowed a horizon.
///
/// What cannot be had back goes only when a snapshot covers it (`coveredThrough`), so that rows and deciders' folds can
/// still be made: from that snapshot on. Nobody making snapshots, it goes all the same, but for segments that hold
/// decisions: the deciders then read all decisions at each start.
///
/// The order of a removal: line in `removed`, synced; event `log.segments_removed/1`, durable; file deleted. After a
/// crash in between, the file is still there and still read; it is removed again, and said again.
/// A plain object with a synchronous step.
public final class Retention: Sendable {
    public struct Status: Sendable, Equatable {
        public internal(set) var removedSegments: UInt64 = 0
        public internal(set) var removedBytes: UInt64 = 0
        /// Why a segment that the rules want gone is still there.
        public internal(set) var blockedBy: String?
        public internal(set) var lastError: String?
    }

    private let log: FileLog
    private let rules: RetentionRules
    private let archiver: Archiver?
    private let state = Mutex(Status())
    private static let segmentsMax = 100

    public init(log: FileLog, rules: RetentionRules, archiver: Archiver?) {
        self.log = log
        self.rules = rules
        self.archiver = archiver
    }

    public var status: Status { state.withLock { $0 } }

    /// True if there is no retention rule.
    public var isOff: Bool { rules.isOff }

    /// Whether the rules want anything gone: cheap, to be asked before `guards` are gathered.
    public var isDue: Bool { wanted().segments.isEmpty == false }

    /// Removes what may go now; returns how many segments went. Blocks on the disk and on an append.
    /// - Parameter coveredThrough: where the newest whole snapshot ends; nil: nobody makes snapshots.
    public func step(guards: [RetentionGuard], coveredThrough: Position? = nil) -> Int {
        let (segments, reason) = wanted()
        var removable: [Segment] = [], blockedBy: String?
        for segment in segments {
            blockedBy = obstacle(to: segment, guards, coveredThrough)
            if blockedBy != nil { break }
            removable.append(segment)
        }
        do {
            if !removable.isEmpty { try remove(removable, reason: reason) }
            state.withLock { $0.lastError = nil }
        } catch {
            state.withLock { $0.lastError = "\(error)" }
            removable = []
        }
        state.withLock { status in
            status.blockedBy = blockedBy
            status.removedSegments += UInt64(removable.count)
            status.removedBytes += removable.reduce(0) { $0 + UInt64($1.trailer?.fileBytes ?? 0) }
        }
        return removable.count
    }

    /// What the rules want gone, oldest first, and by which of them the first.
    private func wanted() -> (segments: [Segment], reason: String) {
        guard !rules.isOff else { return ([], "") }
        let bases = log.catalog.bases.prefix(Self.segmentsMax + 1)
        var used = log.statistics.usedBytes, found: [Segment] = [], reason = ""
        let oldest = rules.secondsMax.map { log.clock.ageReference().adding(microseconds: -Int64($0) * 1_000_000) }
        for (base, next) in zip(bases, bases.dropFirst()) {
            // The newest sealed one stays: the tree begins behind it.
            guard let segment = try? log.catalog.segmentIfPresent(base: base), let trailer = segment.trailer,
                (try? log.catalog.segmentIfPresent(base: next))??.trailer != nil
            else { break }
            let isOverSize = rules.bytesMax.map { used > $0 } ?? false
            let isOverAge = oldest.map { trailer.lastTime < $0 } ?? false
            guard isOverSize || isOverAge else { break }
            if reason.isEmpty { reason = isOverSize ? "size" : "age" }
            used -= min(used, UInt64(trailer.fileBytes))
            found.append(segment)
        }
        return (found, reason)
    }

    /// The end of the newest segment that the rules want gone and that only a snapshot can replace; nil when there is
    /// none: whoever makes snapshots asks for it.
    public var needsCoverThrough: Position? {
        guard archiver == nil || !rules.canRestore else { return nil }
        return wanted().segments.last?.trailer?.end
    }

    private func obstacle(
        to segment: Segment, _ guards: [RetentionGuard], _ coveredThrough: Position?
    ) -> String? {
        guard let trailer = segment.trailer else { return "\(segment.name) is not sealed" }
        if let who = guards.first(where: { $0.needsFrom < trailer.end }) {
            return "\(segment.name) is still needed: \(who.name) is at position \(who.needsFrom)"
        }
        if let archiver {
            guard archiver.status.through >= trailer.end else { return "\(segment.name) is not archived yet" }
        } else if !rules.allowHorizon {
            return "\(segment.name) is not archived: set archive_command, or retention.allow_horizon: true to lose "
                + "what is removed"
        }
        guard archiver == nil || !rules.canRestore else { return nil }
        if let coveredThrough {
            return coveredThrough >= trailer.end
                ? nil
                : "\(segment.name) is in no snapshot yet (the newest ends at "
                    + "position \(coveredThrough)): one is made by itself, or by refold snapshot create"
        }
        let decisions = trailer.kindCounts[Int(EventKind.decision.rawValue)]
        if decisions > 0 {
            return "\(segment.name) holds \(decisions) decisions (campaigns, firmware), which are read again at each "
                + "start: it goes only when it is archived and restore_command can bring it back"
        }
        return nil
    }

    private func remove(_ segments: [Segment], reason: String) throws {
        let catalog = log.catalog, isArchived = archiver != nil
        var lines: [RemovedSegment] = []
        for segment in segments {
            guard let trailer = segment.trailer else { preconditionFailure("only sealed segments are removed") }
            let root = try segment.treeSection()?.root
            lines.append(
                RemovedSegment(
                    name: segment.name, base: trailer.base.rawValue, end: trailer.end.rawValue,
                    bytes: trailer.fileBytes,
                    firstTime: trailer.firstTime.description, lastTime: trailer.lastTime.description,
                    root: root?.description,
                    archived: isArchived, decisions: trailer.kindCounts[Int(EventKind.decision.rawValue)]))
        }
        try catalog.removed.note(lines, catalog)
        let event = SegmentsRemoved(
            from: lines[0].base, to: lines[lines.count - 1].end - 1, segments: lines.map(\.name), archived: isArchived,
            reason: reason)
        var batch = RecordBatch()
        batch.append(
            kind: .system, schema: LogSchema.segmentsRemoved.rawValue, receivedAt: log.options.clock.now(),
            json: eventJSON(event))
        _ = try log.append(&batch)
        // Remove it from the catalog first, so that no reader opens a missing file. Open readers continue.
        for segment in segments { catalog.remove(segment.base) }
        for segment in segments { try log.options.fileSystem.remove(segment.path) }
        try log.options.fileSystem.synchronizeDirectory(catalog.directory)
    }
}

extension FileLog {
    /// Sets how removed segments are had back; nil: not at all.
    public func setRestorer(_ restorer: SegmentRestorer?) { catalog.removed.setRestorer(restorer) }
    /// The oldest position whose events can be had, from this disk or from the archive.
    public var horizon: Position { catalog.removed.horizon(catalog) }
}

extension ReadOnlyLog {
    /// See `FileLog.setRestorer`.
    public func setRestorer(_ restorer: SegmentRestorer?) { catalog.removed.setRestorer(restorer) }
    /// See `FileLog.horizon`.
    public var horizon: Position { catalog.removed.horizon(catalog) }
    /// What the retention rules took off this disk, oldest first.
    public func removedSegments() throws(LogError) -> [RemovedSegment] { try catalog.removed.all(catalog) }
}
