import EventModel
import Evidence
import Snapshots

/// The ways in which the rows of a position can be had from the log alone. All must come to the same.
public enum FoldWay: String, Sendable, CaseIterable {
    /// Every event, in one go.
    case full
    /// The devices in parts, at the same time.
    case parallel
    /// The newest snapshot, and the events behind it.
    case snapshot
}

/// What the live tables were compared with, and what came of it.
public struct ReplayVerification: Sendable {
    public struct Rows: Sendable, Equatable {
        public var count: UInt64
        public var digest: TreeHash
    }

    public struct Table: Sendable {
        public var projection: String
        public var name: String
        /// So many events are in its rows.
        public var end: Position
        public var live: Rows
        public var folded: [FoldWay: Rows]

        public var agrees: Bool { folded.values.allSatisfy { $0 == live } }
    }

    /// A row that the log does not give, and the events that touched it.
    public struct Difference: Sendable {
        public var table: String
        /// Columns of the key, and their values as JSON.
        public var key: [(column: String, value: String)]
        /// Nil: there is no such row.
        public var live: NamedRow?
        public var folded: NamedRow?
        /// The last of them, and how many there are; none are known of a row that is a campaign's.
        public var events: [Position]
        public var eventCount: Int

        /// The columns that differ, with both values as JSON; all of them when there is but one row.
        public var columns: [(name: String, live: String, folded: String)] {
            NamedRow.changes(from: live, to: folded).map { ($0.name, $0.from, $0.to) }
        }
    }

    public var tables: [Table] = []
    public var differences: [Difference] = []
    /// How many rows differ; `differences` holds the first of them.
    public var differenceCount = 0
    /// The snapshot that was begun from; nil when none fits.
    public var snapshotEnd: Position?
    /// Projections that could not be compared, and why.
    public var skipped: [(projection: String, reason: String)] = []
    /// What was passed over on the way (a damaged snapshot).
    public var notes: [String] = []
    public var seconds = 0.0

    public var agrees: Bool { skipped.isEmpty && tables.allSatisfy(\.agrees) }
}
