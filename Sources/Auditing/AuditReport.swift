import EventModel
import Evidence
import Projections

/// What happened to a subject: the events, what each changed, what is missing, and how it can be checked.
public struct AuditReport: Sendable {
    public struct Event: Sendable {
        public let position: Position
        public let receivedAt: Timestamp
        /// Who or what it comes from, and what it says.
        public let who: String
        public let what: String
        /// It is no event of the subject, but says something about the record: a lost session, a loss.
        public let isContext: Bool
        /// A broker lost messages, or may have lost some: they are missing although the log is complete.
        public let reportsBrokerLoss: Bool
        let record: [UInt8]
        let changes: [RowChange]
    }

    /// Events that cannot be shown.
    public struct Gap: Sendable, Equatable {
        public enum Kind: String, Sendable {
            /// Damage that an operator gave up, and damage that nobody has signed for.
            case accepted, damage
        }
        public let kind: Kind
        public let from: UInt64
        public let to: UInt64
        public let text: String
    }

    /// Nothing in the range is about the device. A bundle proves that; for people it is most often a wrong name.
    public var isEmpty: Bool {
        guard case .device = subject else { return false }
        return gaps.isEmpty && events.allSatisfy(\.isContext)
    }

    public let subject: AuditSubject
    /// What was asked for, and is covered by the checkpoint.
    public let range: Range<Position>
    public let origin: String
    public let madeAt: Timestamp
    public internal(set) var events: [Event] = []
    /// Rows that were there before the first event, the subject's and those that folding needs.
    var start: [(table: StoredTable, row: AuditRow)] = []
    public internal(set) var gaps: [Gap] = []
    /// Events of the report in which a broker lost messages, or may have.
    public var brokerLosses: [Event] { events.filter(\.reportsBrokerLoss) }
    public internal(set) var proof: [TreeHash] = []
    /// Why there is none.
    public internal(set) var proofProblem: String?
    public internal(set) var checkpoint: SignedNote
    public internal(set) var size: UInt64 = 0
    /// The end was moved to what is signed: events behind it need a later checkpoint.
    public internal(set) var isCutToCheckpoint = false

    /// The subject's rows at the end, in the order in which they came to be.
    var end: [(table: StoredTable, row: AuditRow)] {
        var order: [[UInt8]] = [], rows: [[UInt8]: (StoredTable, AuditRow)] = [:]
        func put(_ table: StoredTable, _ row: AuditRow) {
            let key = Array(table.name.utf8) + [0] + AuditRow(values: Array(row.values.prefix(table.keyCount))).tuple
            if rows.updateValue((table, row), forKey: key) == nil { order.append(key) }
        }
        for (table, row) in start where subject.shows(row, of: table) { put(table, row) }
        for change in events.flatMap(\.changes) { put(change.table, change.after) }
        return order.compactMap { rows[$0] }
    }
}
