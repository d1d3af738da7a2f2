import Decisions
import Decoding
import EventModel

/// What jobs add to the sums of their tenant, queue and kind, whoever folds them: statistics of a million jobs read a
/// few rows.
struct JobSums {
    struct Group: Hashable, Comparable {
        var tenant = "", kind = ""

        static func < (a: Group, b: Group) -> Bool { (a.tenant, a.kind) < (b.tenant, b.kind) }
    }

    private struct Key: Hashable {
        let group: UInt32
        let queue: JobQueue
        /// Since 1970; 0 in `counts`.
        let hour: Int64
    }

    /// Names of tenants and kinds, by numbers: a sum is found without comparing texts.
    private var groups: [Group] = []
    private var numbers: [Group: UInt32] = [:]
    private var counts: [Key: JobCountsRow.Deltas] = [:]
    private var hours: [Key: JobHoursRow.Deltas] = [:]

    var rowCount: Int { counts.count + hours.count }

    mutating func number(of group: Group) -> UInt32 {
        if let last = groups.indices.last, groups[last] == group { return UInt32(last) }
        if let number = numbers[group] { return number }
        let number = UInt32(groups.count)
        groups.append(group)
        numbers[group] = number
        return number
    }

    mutating func add(_ count: Int64, _ group: UInt32, _ queue: JobQueue, _ status: JobState.Status) {
        counts[Key(group: group, queue: queue, hour: 0), default: .init()].add(count, to: status)
    }

    mutating func add(
        _ group: UInt32, _ queue: JobQueue, at time: Timestamp, _ event: WritableKeyPath<JobHoursRow.Deltas, Int64>
    ) {
        let (hour, rest) = time.microseconds.quotientAndRemainder(dividingBy: 3_600_000_000)
        let key = Key(group: group, queue: queue, hour: rest < 0 ? hour - 1 : hour)
        hours[key, default: .init()][keyPath: event] += 1
    }

    /// In the order of their keys: several folds write the same rows, and must lock them in the same order.
    mutating func drain(into rows: inout [RowBuffer]) {
        for (key, deltas) in counts.sorted(by: { order($0.key, $1.key) }) {
            let group = groups[Int(key.group)]
            rows[JobTables.counts].append(JobCountsRow(group: group, queue: key.queue, deltas: deltas))
        }
        for (key, deltas) in hours.sorted(by: { order($0.key, $1.key) }) {
            let group = groups[Int(key.group)]
            rows[JobTables.hours].append(
                JobHoursRow(group: group, queue: key.queue, hour: key.hour, deltas: deltas))
        }
        counts.removeAll(keepingCapacity: true)
        hours.removeAll(keepingCapacity: true)
    }

    private func order(_ a: Key, _ b: Key) -> Bool {
        if a.group != b.group { return groups[Int(a.group)] < groups[Int(b.group)] }
        return (a.queue, a.hour) < (b.queue, b.hour)
    }
}

struct JobCountsRow: TableRow {
    static let table = Table("job_counts_v1", write: .upsert, Self.self)

    struct Deltas {
        var waiting: Int64 = 0, running: Int64 = 0, succeeded: Int64 = 0, failed: Int64 = 0
        var cancelled: Int64 = 0, poisoned: Int64 = 0

        mutating func add(_ count: Int64, to status: JobState.Status) {
            switch status {
            case .waiting: waiting += count
            case .running: running += count
            case .succeeded: succeeded += count
            case .failed: failed += count
            case .cancelled: cancelled += count
            case .poisoned: poisoned += count
            }
        }
    }

    var group = JobSums.Group(), queue = JobQueue.normal, deltas = Deltas()

    mutating func columns(_ row: inout some RowVisitor) {
        row.key("tenant_id", &group.tenant)
        row.key("queue", &queue)
        row.key("kind", &group.kind)
        row.delta("waiting", &deltas.waiting)
        row.delta("running", &deltas.running)
        row.delta("succeeded", &deltas.succeeded)
        row.delta("failed", &deltas.failed)
        row.delta("cancelled", &deltas.cancelled)
        row.delta("poisoned", &deltas.poisoned)
    }
}

struct JobHoursRow: TableRow {
    static let table = Table("job_hours_v1", write: .upsert, Self.self)

    struct Deltas {
        var queued: Int64 = 0, started: Int64 = 0, succeeded: Int64 = 0, failed: Int64 = 0
        var rescued: Int64 = 0, limited: Int64 = 0, late: Int64 = 0
    }

    var group = JobSums.Group(), queue = JobQueue.normal, hour: Int64 = 0, deltas = Deltas()

    mutating func columns(_ row: inout some RowVisitor) {
        row.key("tenant_id", &group.tenant)
        row.key("queue", &queue)
        row.key("kind", &group.kind)
        row.key("hour", &hour)
        row.delta("queued", &deltas.queued)
        row.delta("started", &deltas.started)
        row.delta("succeeded", &deltas.succeeded)
        row.delta("failed", &deltas.failed)
        row.delta("rescued", &deltas.rescued)
        row.delta("limited", &deltas.limited)
        row.delta("late", &deltas.late)
    }
}
