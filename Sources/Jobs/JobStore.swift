import Decisions
import EventModel
import Primitives

/// Whether and how a job runs.
public enum JobStatus: UInt8, Sendable, CaseIterable {
    /// It starts when its time has come and a worker is free.
    case waiting, running
    /// It has ended.
    case succeeded, failed, cancelled, poisoned

    public var isOpen: Bool { self == .waiting || self == .running }

    /// In tables and answers.
    public var name: String {
        switch self {
        case .waiting: "WAITING"
        case .running: "RUNNING"
        case .succeeded: "SUCCEEDED"
        case .failed: "FAILED"
        case .cancelled: "CANCELLED"
        case .poisoned: "POISONED"
        }
    }
}

/// Jobs by id and by key, in about 250 bytes each.
struct JobStore: Sendable {
    /// Number of a record; that of a removed one is used again.
    typealias Slot = UInt32

    struct Record: Sendable {
        let id: Int64
        /// Not before; of one that has ended: when. Microseconds since 1970, here and below.
        var runAt: Int64
        /// `noDeadline`: none.
        var deadline: Int64
        let queuedAt: Int64
        /// Of the event that queued it.
        let position: Position
        /// Key and arguments, one behind the other: one allocation.
        fileprivate let text: [UInt8]
        fileprivate let keyCount: UInt16
        let hasArguments: Bool
        /// Changes when the job leaves its heap.
        var version: UInt32 = 0
        let tenant: UInt32
        /// `NameTable.none`: no scope.
        let scope: UInt32
        let kind: UInt16
        var starts: UInt16 = 0
        var failures: UInt16 = 0
        let attemptsMax: UInt16
        /// Attempts that ended without a result.
        var rescues: UInt8 = 0
        var queue: JobQueue
        var status = JobStatus.waiting
        /// In the heap of those whose time has come.
        var isReady = false

        static let noDeadline = Int64.max

        var key: ArraySlice<UInt8> { text[..<Int(keyCount)] }
        var arguments: ArraySlice<UInt8>? { hasArguments ? text[Int(keyCount)...] : nil }

        init(
            id: Int64, tenant: UInt32, kind: UInt16, scope: UInt32, queue: JobQueue, key: [UInt8], arguments: [UInt8]?,
            runAt: Int64, deadline: Int64, attemptsMax: UInt16, queuedAt: Int64, position: Position
        ) {
            (self.id, self.tenant, self.kind, self.scope, self.queue) = (id, tenant, kind, scope, queue)
            text = key + (arguments ?? [])
            (keyCount, hasArguments) = (UInt16(clamping: key.count), arguments != nil)
            (self.runAt, self.deadline, self.attemptsMax) = (runAt, deadline, attemptsMax)
            (self.queuedAt, self.position) = (queuedAt, position)
        }
    }

    /// In chunks: a growing array of a million records would need room for three millions.
    private var chunks: [ContiguousArray<Record?>] = []
    private static let chunkCount = 1 << 12
    private var free: [Slot] = []
    private(set) var count = 0
    private var byID = HashIndex()
    /// Open jobs with a key.
    private var byKey = HashIndex()

    /// - Precondition: `slot` is of a record.
    private(set) subscript(slot: Slot) -> Record {
        get { chunks[Int(slot) / Self.chunkCount][Int(slot) % Self.chunkCount]! }
        set { chunks[Int(slot) / Self.chunkCount][Int(slot) % Self.chunkCount] = newValue }
    }

    mutating func update(_ slot: Slot, _ body: (inout Record) -> Void) { body(&self[slot]) }

    /// True if the entry's job is still where the entry was made.
    func isCurrent(_ entry: JobHeap.Entry) -> Bool {
        let chunk = Int(entry.slot) / Self.chunkCount, place = Int(entry.slot) % Self.chunkCount
        guard chunk < chunks.count, let record = chunks[chunk][place] else { return false }
        return record.id == entry.id && record.version == entry.version
    }

    var slots: [Slot] {
        var slots: [Slot] = []
        slots.reserveCapacity(count)
        for (number, chunk) in chunks.enumerated() {
            for place in chunk.indices where chunk[place] != nil {
                slots.append(Slot(number * Self.chunkCount + place))
            }
        }
        return slots
    }

    /// Jobs of a queue whose time has come, the earliest time among them, and running ones. Copies no record.
    func ready(_ queue: JobQueue, now: Int64) -> (count: Int, oldest: Int64?, running: Int) {
        var count = 0, oldest: Int64?, running = 0
        for chunk in chunks {
            for place in chunk.indices where chunk[place]?.queue == queue {
                switch chunk[place]?.status {
                case .running: running += 1
                case .waiting:
                    guard let runAt = chunk[place]?.runAt, runAt <= now else { continue }
                    count += 1
                    oldest = min(oldest ?? runAt, runAt)
                default: break
                }
            }
        }
        return (count, oldest, running)
    }

    func find(_ id: Int64) -> Slot? { byID.first(Self.hash(id)) { self[$0].id == id } }

    /// The open job of a tenant and kind with this key.
    func open(tenant: UInt32, kind: UInt16, key: [UInt8]) -> Slot? {
        byKey.first(Self.hash(tenant, kind, key[...])) {
            self[$0].tenant == tenant && self[$0].kind == kind && self[$0].key.elementsEqual(key)
        }
    }

    mutating func add(_ record: Record) -> Slot {
        let slot: Slot
        if let reused = free.popLast() {
            slot = reused
            self[slot] = record
        } else {
            if chunks.last.map({ $0.count == Self.chunkCount }) ?? true {
                chunks.append([])
                chunks[chunks.count - 1].reserveCapacity(Self.chunkCount)
            }
            chunks[chunks.count - 1].append(record)
            slot = Slot((chunks.count - 1) * Self.chunkCount + chunks[chunks.count - 1].count - 1)
        }
        count += 1
        byID.insert(slot, Self.hash(record.id))
        if record.status.isOpen { addKey(slot) }
        return slot
    }

    mutating func remove(_ slot: Slot) {
        if self[slot].status.isOpen { removeKey(slot) }
        byID.remove(slot, Self.hash(self[slot].id))
        chunks[Int(slot) / Self.chunkCount][Int(slot) % Self.chunkCount] = nil
        free.append(slot)
        count -= 1
    }

    /// The key is free once the job has ended, and taken when it waits again.
    mutating func setStatus(_ slot: Slot, _ status: JobStatus) {
        let wasOpen = self[slot].status.isOpen
        if wasOpen, !status.isOpen { removeKey(slot) }
        self[slot].status = status
        if !wasOpen, status.isOpen { addKey(slot) }
    }

    private mutating func addKey(_ slot: Slot) {
        if !self[slot].key.isEmpty { byKey.insert(slot, keyHash(slot)) }
    }

    private mutating func removeKey(_ slot: Slot) {
        if !self[slot].key.isEmpty { byKey.remove(slot, keyHash(slot)) }
    }

    private func keyHash(_ slot: Slot) -> UInt32 { Self.hash(self[slot].tenant, self[slot].kind, self[slot].key) }

    private static func hash(_ id: Int64) -> UInt32 {
        UInt32(truncatingIfNeeded: (UInt64(bitPattern: id) &* 0x9e37_79b9_7f4a_7c15) >> 32)
    }

    private static func hash(_ tenant: UInt32, _ kind: UInt16, _ key: ArraySlice<UInt8>) -> UInt32 {
        var hasher = Hasher()
        hasher.combine(tenant)
        hasher.combine(kind)
        key.withUnsafeBytes { hasher.combine(bytes: $0) }
        return UInt32(truncatingIfNeeded: hasher.finalize())
    }
}

/// Names by number, and back. Never shrinks.
struct NameTable: Sendable {
    static let none = UInt32.max

    private(set) var names: [String] = []
    private var numbers: [String: UInt32] = [:]

    func number(_ name: String) -> UInt32? { numbers[name] }

    mutating func add(_ name: String) -> UInt32 {
        if let number = numbers[name] { return number }
        let number = UInt32(clamping: names.count)
        names.append(name)
        numbers[name] = number
        return number
    }

    subscript(number: UInt32) -> String { names[Int(number)] }
}
