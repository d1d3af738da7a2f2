// What the log says about itself (`EventKind.system`): the record's topic is the schema, its payload one of these in
// JSON.

/// Schemas of the log's own events.
public enum LogSchema: String, Sendable, CaseIterable {
    /// `ClockWatch` writes it ahead of the next batch.
    case clockStepped = "log.clock_stepped/1"
    case lossAccepted = "log.loss_accepted/1"
    case segmentsRemoved = "log.segments_removed/1"
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
