// What the log says about itself (`EventKind.system`): the record's topic is the schema, its payload one of these in
// JSON.

/// Schemas of the log's own events.
public enum LogSchema: String, Sendable, CaseIterable {
    /// `ClockStepped`; the writer puts it ahead of the next batch.
    case clockStepped = "log.clock_stepped/1"
    case lossAccepted = "log.loss_accepted/1"
    case segmentsRemoved = "log.segments_removed/1"
    case snapshotCreated = "snapshot.created/1"
}

/// The wall clock stepped by more than a second.
public struct ClockStepped: Codable, Sendable, Equatable {
    /// What the wall clock would have been, and what it is.
    public var before: String
    public var after: String
    public var stepMicroseconds: Int64
    /// Received-at follows the wall clock from this event on; false: the step is not believed (yet). Absent in events
    /// of versions that believed every step.
    public var adopted: Bool?
    /// Received-at is lower from this event on than before it.
    public var era: Bool?

    public init(before: Timestamp, after: Timestamp) {
        self.before = before.description
        self.after = after.description
        stepMicroseconds = Int64(storedMicroseconds: after.microseconds.saturatingSubtracting(before.microseconds))
    }

    /// The step is moved within the bounds of stored times, as received-at is: deciders add it to their timers.
    public init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        before = try fields.decode(String.self, forKey: .before)
        after = try fields.decode(String.self, forKey: .after)
        stepMicroseconds = Int64(storedMicroseconds: try fields.decode(Int64.self, forKey: .stepMicroseconds))
        adopted = try fields.decodeIfPresent(Bool.self, forKey: .adopted)
        era = try fields.decodeIfPresent(Bool.self, forKey: .era)
    }

    enum CodingKeys: String, CodingKey {
        case before, after, stepMicroseconds = "step_microseconds", adopted, era
    }

    /// By how much whatever waits for a time must be moved, so that it waits no less and no longer than before.
    public var movesTimersBy: Int64 {
        switch adopted {
        case true?: stepMicroseconds
        case false?: 0
        // Received-at stood still when the clock was set back.
        case nil: max(0, stepMicroseconds)
        }
    }

    /// The payload, spelled in one way.
    public var json: [UInt8] {
        var text = #"{"before":"\#(before)","after":"\#(after)","step_microseconds":\#(stepMicroseconds)"#
        if let adopted { text += #","adopted":\#(adopted)"# }
        if let era { text += #","era":\#(era)"# }
        return Array((text + "}").utf8)
    }
}

/// An operator signed for events that cannot be read any more: from here on readers and projectors go on behind them.
public struct LossAccepted: Codable, Sendable, Equatable {
    /// The first and the last position that is lost.
    public var from: UInt64
    public var to: UInt64
    /// Name of the damaged file, and the first and last byte of it that is damaged; of a missing file: where it began.
    public var segment: String
    public var firstByte: Int
    public var lastByte: Int
    /// What was found, in the words of `refold log verify`.
    public var damage: String
    /// Why the operator gives the events up.
    public var reason: String
    public var operatorName: String

    public init(
        from: UInt64, to: UInt64, segment: String, firstByte: Int, lastByte: Int, damage: String, reason: String,
        operatorName: String
    ) {
        self.from = from
        self.to = to
        self.segment = segment
        self.firstByte = firstByte
        self.lastByte = lastByte
        self.damage = damage
        self.reason = reason
        self.operatorName = operatorName
    }

    enum CodingKeys: String, CodingKey {
        case from, to, segment, firstByte = "first_byte", lastByte = "last_byte", damage, reason
        case operatorName = "operator"
    }
}

/// Segments left the disk under the retention rules, oldest first and without a gap.
public struct SegmentsRemoved: Codable, Sendable, Equatable {
    /// The first and the last position that they held.
    public var from: UInt64
    public var to: UInt64
    public var segments: [String]
    /// Whether each had been archived before.
    public var archived: Bool
    /// `size` or `age`.
    public var reason: String

    public init(from: UInt64, to: UInt64, segments: [String], archived: Bool, reason: String) {
        self.from = from
        self.to = to
        self.segments = segments
        self.archived = archived
        self.reason = reason
    }
}

/// A snapshot was written and is durable: what its bytes must be from now on.
public struct SnapshotCreated: Codable, Sendable, Equatable {
    /// Its name in the folder of snapshots.
    public var file: String
    /// Number of events folded into it.
    public var end: UInt64
    public var bytes: Int
    /// Of the file, in hex, as `sha256sum` gives it.
    public var sha256: String
    public var tables: [Table]
    public var deciders: [Decider]

    public struct Table: Codable, Sendable, Equatable {
        public var projection: String
        public var version: Int
        public var table: String
        public var rows: Int
        /// SHA-256 of the rows in the order of their keys, in hex (`schemas/snapshot-format.md`).
        public var digest: String

        public init(projection: String, version: Int, table: String, rows: Int, digest: String) {
            self.projection = projection
            self.version = version
            self.table = table
            self.rows = rows
            self.digest = digest
        }
    }

    public struct Decider: Codable, Sendable, Equatable {
        public var name: String
        public var version: Int
        public var sha256: String

        public init(name: String, version: Int, sha256: String) {
            self.name = name
            self.version = version
            self.sha256 = sha256
        }
    }

    public init(file: String, end: UInt64, bytes: Int, sha256: String, tables: [Table], deciders: [Decider]) {
        self.file = file
        self.end = end
        self.bytes = bytes
        self.sha256 = sha256
        self.tables = tables
        self.deciders = deciders
    }
}
