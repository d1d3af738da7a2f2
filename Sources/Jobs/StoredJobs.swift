import Deciding
import Decisions
import EventModel
import FoundationEssentials
import Primitives

// The state in snapshots: JSON for what is few, and about 100 bytes for each job, in the order of ids. Equal states
// give equal bytes.

extension JobQueues {
    public static let storedName = "jobs"
    public static let storedVersion = 1
    public static let commonSubject: String? = "jobs"

    private struct Header: Codable {
        struct Pause: Codable {
            var queue: JobQueue
            var pause: QueuePause
        }
        struct Limit: Codable {
            var kind: String
            var scope: String?
            var until: Int64?
            /// Time and number, in turn.
            var starts: [Int64]
        }
        struct Run: Codable {
            var id: Int64
            var token: UInt64
            var number: Int64
            var worker: String
            var leaseSeconds: Int64?
            var startedAt: Int64
        }
        struct Answer: Codable {
            var key: Ledger.Key
            var digest: String?
            var at: Timestamp
            var position: UInt64
            var ids: [Int64]
        }
        struct Hour: Codable {
            var hour: Int64
            var queue: JobQueue
            var succeeded: Int
            var failed: Int
        }
        var nextID: Int64
        var policy: JobPolicy
        var rates: [String: JobRate]
        var ticks: [String: Timestamp]
        var pauses: [Pause]
        var limits: [Limit]
        var running: [Run]
        var startCount: UInt64
        var lastStarts: [String: UInt64]
        var results: [JobAttempt]
        var outcomes: [String]
        var answers: [Answer]
        var hours: [Hour]
        var tenants: [String]
        var kinds: [String]
        var scopes: [String]
    }

    public func stored() -> [UInt8] {
        var out = ByteWriter()
        out.bytes(eventJSON(header))
        let slots = store.slots.sorted { store[$0].id < store[$1].id }
        out.integer(UInt32(slots.count))
        for slot in slots {
            let record = store[slot]
            out.integer(record.id)
            for time in [record.runAt, record.deadline, record.queuedAt] { out.integer(time) }
            out.integer(record.position.rawValue)
            for number in [record.tenant, record.scope] { out.integer(number) }
            for number in [record.kind, record.starts, record.failures, record.attemptsMax] { out.integer(number) }
            for number in [record.rescues, record.queue.number, record.status.rawValue] { out.integer(number) }
            out.integer(UInt8((record.hasArguments ? 1 : 0) | (record.isReady ? 2 : 0)))
            out.bytes(Array(record.key))
            if let arguments = record.arguments { out.bytes(Array(arguments)) }
        }
        out.integer(UInt32(ended.count))
        for entry in ended {
            out.integer(entry.at)
            out.integer(entry.id)
        }
        return out.out
    }

    private var header: Header {
        let limits = Set(windows.keys).union(pauses.keys).map { key in
            Header.Limit(
                kind: kinds[UInt32(key.kind)], scope: key.scope == NameTable.none ? nil : scopes[key.scope],
                until: pauses[key],
                starts: JobsFault.isPlanted(.forgetsStartsInSnapshots)
                    ? [] : windows[key]?.starts.flatMap { [$0.at, $0.count] } ?? [])
        }
        return Header(
            nextID: nextID, policy: policy, rates: rates, ticks: ticks,
            pauses: pausedQueues.sorted { $0.key < $1.key }.map { .init(queue: $0.key, pause: $0.value) },
            limits: limits.sorted { ($0.kind, $0.scope ?? "") < ($1.kind, $1.scope ?? "") },
            running: running.sorted { $0.key < $1.key }.map { id, run in
                .init(
                    id: id, token: run.token, number: run.number, worker: run.worker, leaseSeconds: run.leaseSeconds,
                    startedAt: run.startedAt)
            },
            startCount: startCount,
            lastStarts: Dictionary(uniqueKeysWithValues: lastStarts.map { ($0.key.rawValue, $0.value) }),
            results: Array(results), outcomes: results.map { outcomes[$0] ?? "" },
            answers: answers.uses.compactMap { use in
                answers.entries[use.key].map { entry in
                    .init(
                        key: use.key, digest: entry.digest, at: use.at, position: entry.answer.position,
                        ids: entry.answer.ids)
                }
            },
            hours: hours.counts.map { key, count in
                .init(hour: key.hour, queue: key.queue, succeeded: count.succeeded, failed: count.failed)
            }.sorted { ($0.hour, $0.queue.number) < ($1.hour, $1.queue.number) },
            tenants: tenants.names, kinds: kinds.names, scopes: scopes.names)
    }

    public init(stored: [UInt8]) throws {
        var input = ByteReader(stored)
        do {
            self.init()
            try restore(JSONDecoder().decode(Header.self, from: Data(try input.bytes())))
            for _ in 0..<(try input.integer(UInt32.self)) { try restoreJob(&input) }
            for _ in 0..<(try input.integer(UInt32.self)) {
                ended.append((try input.integer(Int64.self), try input.integer(Int64.self)))
            }
            guard running.keys.allSatisfy({ store.find($0).map { store[$0].status == .running } ?? false }) else {
                throw ByteReader.Truncated()
            }
        } catch let error as ByteReader.Truncated {
            throw UnreadableDecision("the jobs in the snapshot cannot be understood (\(error))")
        } catch let error as DecodingError {
            throw UnreadableDecision("the jobs in the snapshot cannot be understood (\(error))")
        }
    }

    private mutating func restore(_ header: Header) {
        (nextID, policy, rates, ticks) = (header.nextID, header.policy, header.rates, header.ticks)
        setKindPolicies()
        for pause in header.pauses { pausedQueues[pause.queue] = pause.pause }
        for name in header.tenants { _ = tenants.add(name) }
        for name in header.kinds { _ = kinds.add(name) }
        for name in header.scopes { _ = scopes.add(name) }
        for limit in header.limits {
            let key = JobLimitKey(
                kind: UInt16(truncatingIfNeeded: kinds.add(limit.kind)),
                scope: limit.scope.map { scopes.add($0) } ?? NameTable.none)
            pauses[key] = limit.until
            var window = RateWindow()
            for index in stride(from: 0, to: limit.starts.count - 1, by: 2) {
                window.restore(.init(at: limit.starts[index], count: limit.starts[index + 1]))
            }
            if !window.starts.isEmpty { windows[key] = window }
        }
        for run in header.running {
            running[run.id] = RunningAttempt(
                token: run.token, number: run.number, worker: run.worker, leaseSeconds: run.leaseSeconds,
                startedAt: run.startedAt)
        }
        startCount = header.startCount
        for (name, number) in header.lastStarts { JobQueue(rawValue: name).map { lastStarts[$0] = number } }
        for (attempt, outcome) in zip(header.results, header.outcomes)
        where outcomes.updateValue(outcome, forKey: attempt) == nil {
            results.append(attempt)
        }
        for answer in header.answers {
            answers.remember(
                answer.key,
                .init(
                    digest: answer.digest, at: answer.at, answer: .init(position: answer.position, ids: answer.ids)))
        }
        for hour in header.hours {
            hours.counts[.init(hour: hour.hour, queue: hour.queue)] = .init(
                succeeded: hour.succeeded, failed: hour.failed)
        }
    }

    private mutating func restoreJob(_ input: inout ByteReader) throws(ByteReader.Truncated) {
        let id = try input.integer(Int64.self)
        let runAt = try input.integer(Int64.self), deadline = try input.integer(Int64.self)
        let queuedAt = try input.integer(Int64.self), position = Position(try input.integer(UInt64.self))
        let tenant = try input.integer(UInt32.self), scope = try input.integer(UInt32.self)
        let kind = try input.integer(UInt16.self), starts = try input.integer(UInt16.self)
        let failures = try input.integer(UInt16.self), attemptsMax = try input.integer(UInt16.self)
        let rescues = try input.integer(UInt8.self), queue = JobQueue(number: try input.integer(UInt8.self))
        let status = JobStatus(rawValue: try input.integer(UInt8.self))
        let flags = try input.integer(UInt8.self), key = Array(try input.bytes())
        let arguments = flags & 1 != 0 ? Array(try input.bytes()) : nil
        guard let queue, let status, Int(tenant) < tenants.names.count, Int(kind) < kinds.names.count,
            scope == NameTable.none || Int(scope) < scopes.names.count, store.find(id) == nil, key.count <= UInt16.max
        else { throw .init() }
        var record = JobStore.Record(
            id: id, tenant: tenant, kind: kind, scope: scope, queue: queue, key: key, arguments: arguments,
            runAt: runAt, deadline: deadline, attemptsMax: attemptsMax, queuedAt: queuedAt, position: position)
        (record.starts, record.failures, record.rescues, record.status) = (starts, failures, rescues, status)
        let slot = store.add(record)
        if status == .waiting { enter(slot, flags & 2 != 0 ? .max : .min) }
    }
}

extension JobQueue {
    /// In snapshots.
    fileprivate var number: UInt8 { UInt8(priority) }
    fileprivate init?(number: UInt8) {
        guard let queue = JobQueue.allCases.first(where: { $0.number == number }) else { return nil }
        self = queue
    }
}

extension JobQueues: Equatable {
    /// By what snapshots hold: the order in which heaps and tables were filled does not count.
    public static func == (a: JobQueues, b: JobQueues) -> Bool { a.stored() == b.stored() }
}
