import EventModel
import Postgres
import Primitives
import Projecting
import Projections

/// Something that a database refuses, in SQL and for tables in memory.
struct PoisonRule: Sendable, CustomStringConvertible {
    let table: String
    let sql: String
    let refuses: @Sendable (MemoryTables.Row) -> Bool

    var description: String { "\(table): \(sql)" }

    private static func text(_ table: String, _ column: String, _ value: String) -> PoisonRule {
        PoisonRule(table: table, sql: "\(column) = '\(value)'") { $0[column] ?? nil == Array(value.utf8) }
    }

    private static func atLeast(_ table: String, _ column: String, _ value: Int64) -> PoisonRule {
        PoisonRule(table: table, sql: "\(column) >= \(value)") { row in
            (row[column] ?? nil).map { $0.reduce(0) { $0 << 8 | Int64($1) } } ?? 0 >= value
        }
    }

    private static func number(_ table: String, _ column: String, _ value: Int64) -> PoisonRule {
        PoisonRule(table: table, sql: "\(column) = \(value)") { row in
            (row[column] ?? nil).map { $0.reduce(0) { $0 << 8 | Int64($1) } } == value
        }
    }

    static func random(_ random: inout SeededRandom) -> PoisonRule {
        let device = "d\(random.below(5))"
        switch random.below(23) {
        case 0: return text("device_status_v1", "device_id", device)
        case 1: return atLeast("device_status_v1", "message_count", Int64(2 + random.below(20)))
        case 2: return text("device_connection_events_v1", "event_type", "CONNECTION_LOST")
        case 3: return number("ota_campaigns_v2", "id", 1 + Int64(random.below(5)))
        case 4: return atLeast("ota_campaigns_v2", "succeeded", 1 + Int64(random.below(3)))
        case 5: return text("ota_device_status_v2", "status", random.pick(["FAILED", "SUCCESS", "INSTALLING"]))
        case 6: return text("ota_device_status_v2", "device_id", device)
        case 7: return text("ota_unmatched_reports_v1", "reason", random.pick(["OTHER_TENANT", "UNKNOWN_CAMPAIGN"]))
        case 8: return number("firmware_versions_v1", "id", 1 + Int64(random.below(3)))
        case 9: return text("mqtt_connection_status_v1", "broker_name", "second")
        case 10: return text("dead_letters_v1", "device_id", device)
        case 11: return text("audit_logs_v1", "action", "campaign.started")
        case 12: return text("ota_campaigns_v2", "status", "RUNNING")
        case 13: return text("device_certificates_v1", "status", random.pick(["REVOKED", "HELD", "SUPERSEDED"]))
        case 14: return text("device_certificates_v1", "serial", "a\(1 + random.below(5))")
        case 15: return text("certificate_authorities_v1", "status", random.pick(["REPLACED", "RETIRED"]))
        case 16: return atLeast("crls_v1", "number", Int64(10 + random.below(20)))
        case 17: return text("certificate_events_v1", "event_type", "certificate.held")
        case 18: return text("jobs_v1", "status", random.pick(["RUNNING", "SUCCEEDED", "FAILED"]))
        case 19: return number("jobs_v1", "id", 1 + Int64(random.below(9)))
        case 20: return text("job_attempts_v1", "outcome", random.pick(["SUCCEEDED", "LATE"]))
        case 21:
            return text(random.pick(["job_queues_v1", "job_schedules_v1"]), "name", random.pick(["high", "sweep"]))
        default: return atLeast("ota_device_status_v2", "report_count", 1 + Int64(random.below(3)))
        }
    }
}

/// Where the rules are in force: a PostgreSQL of its own, or tables in memory.
protocol PoisonGround: Sendable {
    func enforce(_ rules: [PoisonRule]) throws
    func rows() throws -> [String]
    func makeStore() -> any ParkingStore
}

struct MemoryGround: PoisonGround {
    let tables = MemoryTables()

    func enforce(_ rules: [PoisonRule]) {
        tables.refuse { table, row in
            rules.first { $0.table == table && $0.refuses(row) }.map { "poison: \($0.sql)" }
        }
    }
    func rows() -> [String] { RowLines.of(tables) }
    func makeStore() -> any ParkingStore { MemoryStore(tables) }
}

/// A store whose connection breaks now and then, before or behind what it does.
final class BreakingStore: ParkingStore {
    private let inner: any ParkingStore
    private let share: Double
    private var random: SeededRandom

    init(_ inner: any ParkingStore, share: Double, seed: UInt64) {
        self.inner = inner
        self.share = share
        random = SeededRandom(seed: seed)
    }

    var interrupter: @Sendable () -> Void { inner.interrupter }

    private func breaking<R>(_ body: () throws(StoreError) -> R) throws(StoreError) -> R {
        if random.chance(share) { throw .unavailable("broken before") }
        let result = try body()
        if random.chance(share) { throw .unavailable("broken behind") }
        return result
    }

    func checkpoint(of projection: ProjectionDescriptor, partition: Int) throws(StoreError) -> Position? {
        try breaking { () throws(StoreError) in try inner.checkpoint(of: projection, partition: partition) }
    }
    func load(
        _ requests: [LoadRequest], of projection: ProjectionDescriptor, found: (Int, RowReader) -> Void
    ) throws(StoreError) {
        try breaking { () throws(StoreError) in try inner.load(requests, of: projection, found: found) }
    }
    func commit(
        _ rows: [RowBuffer], of projection: ProjectionDescriptor, partition: Int, from old: Position?, to new: Position
    ) throws(StoreError) {
        try breaking { () throws(StoreError) in
            try inner.commit(rows, of: projection, partition: partition, from: old, to: new)
        }
    }
    func parked(of projection: ProjectionDescriptor, partition: Int) throws(StoreError) -> [ParkedKey] {
        try breaking { () throws(StoreError) in try inner.parked(of: projection, partition: partition) }
    }
    func commit(
        _ rows: [RowBuffer], of projection: ProjectionDescriptor, partition: Int, from old: Position?, to new: Position,
        parking: ParkingChange
    ) throws(StoreError) {
        try breaking { () throws(StoreError) in
            try inner.commit(rows, of: projection, partition: partition, from: old, to: new, parking: parking)
        }
    }
    func rehearse(
        _ rows: [RowBuffer], of projection: ProjectionDescriptor, partition: Int, from old: Position?, to new: Position
    ) throws(StoreError) {
        try breaking { () throws(StoreError) in
            try inner.rehearse(rows, of: projection, partition: partition, from: old, to: new)
        }
    }
}
