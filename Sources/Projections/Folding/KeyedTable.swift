import CPlatform
import Glibc

/// The rows of one table that a fold has in memory: a cache of the table, by key, plus the changes not yet drained.
///
/// A key's bytes become a dense id (open addressing, 8-byte slots of tag and id), and everything else goes by id.
/// A row is *unknown* until it was asked for, then *known*, whether it exists or not. Once nothing was evicted and
/// folding began at the log's start, nothing can be unknown, and no row is ever asked for.
struct KeyedTable<State: RowState>: ~Copyable {
    struct Row {
        var key = ByteRef()
        /// The last round in which the row was touched: eviction takes those that were longest not.
        var round: UInt32 = 0
        var isKnown = false
        var isDirty = false
    }

    var arena = ByteArena()
    var states: ContiguousArray<State> = []
    private(set) var rows: ContiguousArray<Row> = []
    private(set) var dirty: [UInt32] = []
    private var unknown: [UInt32] = []
    private var slots: ContiguousArray<UInt64>
    /// The tables hold every row that there is.
    private var isComplete = false
    private var round: UInt32 = 0
    private var last: UInt32?
    private var loadedKey: [UInt8] = []
    /// For those visitors of a row that need its key alone.
    private var blank = State()
    private let seed = UInt64.random(in: .min ... .max)

    init() { slots = ContiguousArray(repeating: 0, count: 1024) }

    var count: Int { rows.count }
    var hasUnknown: Bool { !unknown.isEmpty }

    /// About what the rows take, in bytes.
    var byteCount: Int {
        arena.allocatedBytes + slots.count * 8 + rows.count * (MemoryLayout<Row>.stride + MemoryLayout<State>.stride)
    }

    /// About what the changed rows take, in bytes.
    var dirtyByteCount: Int { rows.isEmpty ? 0 : byteCount / rows.count * dirty.count }

    func key(_ id: UInt32) -> UnsafeRawBufferPointer { arena.bytes(rows[Int(id)].key) }

    // MARK: looking up

    /// Begins a round of touches. `isStart`: no row can exist yet (`FoldScope.startsEmpty`).
    mutating func beginRound(isStart: Bool) {
        if isStart && rows.isEmpty { isComplete = true }
        round &+= 1
    }

    /// The id of a key that is about to be folded. A row not in memory is noted in `unknown`.
    @inline(__always)
    mutating func touch(_ key: UnsafeRawBufferPointer) -> UInt32 {
        let id = intern(key)
        rows[Int(id)].round = round
        return id
    }

    /// The same, looking first at the key of the last touch.
    @inline(__always)
    mutating func touchAgain(_ key: UnsafeRawBufferPointer) -> UInt32 {
        if let last, rows[Int(last)].round == round, isSame(arena.bytes(rows[Int(last)].key), key) { return last }
        let id = touch(key)
        last = id
        return id
    }

    /// Brings a state nearer, for a fold that will soon come to it.
    @inline(__always)
    func prefetch(_ id: UInt32) {
        states.withUnsafeBufferPointer { states in
            refold_prefetch(states.baseAddress.unsafelyUnwrapped + Int(id), MemoryLayout<State>.stride)
        }
    }

    /// The id of a key, new or old.
    @inline(__always)
    mutating func intern(_ key: UnsafeRawBufferPointer) -> UInt32 {
        let hash = keyHash(key, seed)
        let mask = slots.count - 1
        var index = Int(truncatingIfNeeded: hash) & mask
        let tag = tag(hash)
        while true {
            let slot = slots[index]
            if slot == 0 { return add(key, hash: hash, at: index) }
            if slot >> 32 == tag {
                let id = UInt32(truncatingIfNeeded: slot) - 1
                let known = arena.bytes(rows[Int(id)].key)
                if isSame(known, key) { return id }
            }
            index = (index + 1) & mask
        }
    }

    /// The id of a key that is in memory.
    func find(_ key: UnsafeRawBufferPointer) -> UInt32? {
        let hash = keyHash(key, seed)
        let mask = slots.count - 1
        var index = Int(truncatingIfNeeded: hash) & mask
        while slots[index] != 0 {
            let slot = slots[index]
            if slot >> 32 == tag(hash) {
                let id = UInt32(truncatingIfNeeded: slot) - 1
                let known = arena.bytes(rows[Int(id)].key)
                if isSame(known, key) { return id }
            }
            index = (index + 1) & mask
        }
        return nil
    }

    @inline(__always)
    private func tag(_ hash: UInt64) -> UInt64 { hash >> 32 }

    @inline(never)
    private mutating func add(_ key: UnsafeRawBufferPointer, hash: UInt64, at index: Int) -> UInt32 {
        precondition(rows.count < Int(UInt32.max) - 1, "more than four billion rows in memory")
        let id = UInt32(rows.count)
        var row = Row(isKnown: isComplete)
        arena.put(key, in: &row.key)
        rows.append(row)
        states.append(State())
        if !isComplete { unknown.append(id) }
        slots[index] = (tag(hash) << 32) | UInt64(id + 1)
        if rows.count * 3 > slots.count * 2 { rehash(slots.count * 2) }
        return id
    }

    private mutating func rehash(_ size: Int) {
        slots = ContiguousArray(repeating: 0, count: size)
        for id in rows.indices {
            let hash = keyHash(arena.bytes(rows[id].key), seed)
            var index = Int(truncatingIfNeeded: hash) & (size - 1)
            while slots[index] != 0 { index = (index + 1) & (size - 1) }
            slots[index] = (tag(hash) << 32) | UInt64(id + 1)
        }
    }

    // MARK: loading

    /// The rows that must be fetched, or nil; sorted by key. They count as known from now on: those not found do not
    /// exist.
    mutating func takeUnknown(table: Int) -> LoadRequest? {
        guard !unknown.isEmpty else { return nil }
        unknown = sorted(unknown)
        var keys = KeyWriter()
        let columnCount = State.table.columns.count { $0.role == .key }
        for id in unknown {
            var key = State.Key(key(id))
            keys.rows.beginRow(fieldCount: columnCount)
            blank.columns(&keys, &key, &arena)
            rows[Int(id)].isKnown = true
        }
        unknown.removeAll(keepingCapacity: true)
        return LoadRequest(table: table, keys: keys.rows)
    }

    /// A row that was asked for and exists.
    mutating func load(_ row: RowReader) {
        var key = State.Key(), keyReader = RowDecoder(row, keys: true), reader = RowDecoder(row, keys: false)
        blank.columns(&keyReader, &key, &arena)
        loadedKey.removeAll(keepingCapacity: true)
        key.append(to: &loadedKey)
        let id = Int(loadedKey.withUnsafeBytes { intern($0) })
        states[id].columns(&reader, &key, &arena)
        states[id].didLoad(key)
    }

    // MARK: changing and draining

    @inline(__always)
    mutating func update<R>(_ id: UInt32, _ body: (inout State, inout ByteArena) -> R) -> R {
        body(&states[Int(id)], &arena)
    }

    @inline(__always)
    mutating func markDirty(_ id: UInt32) {
        if !rows[Int(id)].isDirty {
            rows[Int(id)].isDirty = true
            dirty.append(id)
        }
    }

    /// Appends the changed rows in the order of their keys and marks them clean.
    mutating func drain(into buffer: inout RowBuffer) {
        dirty = sorted(dirty)
        let columnCount = State.table.columns.count
        for id in dirty {
            var key = State.Key(key(id))
            buffer.beginRow(fieldCount: columnCount)
            states[Int(id)].columns(&buffer, &key, &arena)
            rows[Int(id)].isDirty = false
        }
        dirty.removeAll(keepingCapacity: true)
    }

    private func sorted(_ ids: [UInt32]) -> [UInt32] {
        ids.sorted { a, b in
            let left = key(a), right = key(b)
            let order = memcmp(left.baseAddress!, right.baseAddress!, min(left.count, right.count))
            return order == 0 ? left.count < right.count : order < 0
        }
    }

    // MARK: evicting

    /// Forgets clean rows, those first that were longest not touched, when there are more than `target` bytes; then
    /// until about three quarters of that are left, so that it is not done again for every block.
    mutating func shrink(toBytes target: Int) {
        precondition(unknown.isEmpty, "rows are evicted between blocks, not between prepare and fold")
        guard byteCount > target, !rows.isEmpty else { return }
        let share = 0.75 * Double(target) / Double(byteCount)
        let room = max(0, min(rows.count, Int(Double(rows.count) * share)))
        let rounds = rows.lazy.map(\.round).sorted(by: >)
        let oldest = room == 0 ? UInt32.max : rounds[room - 1]
        var kept = KeyedTable<State>()
        kept.round = round
        for id in rows.indices where rows[id].isDirty || (rows[id].isKnown && rows[id].round > oldest) {
            let new = kept.intern(arena.bytes(rows[id].key))
            var state = states[id], key = State.Key(arena.bytes(rows[id].key))
            withUnsafeMutablePointer(to: &kept.arena) {
                var mover = Mover(target: $0)
                state.columns(&mover, &key, &arena)
            }
            kept.states[Int(new)] = state
            kept.rows[Int(new)].round = rows[id].round
            kept.rows[Int(new)].isKnown = rows[id].isKnown
            if rows[id].isDirty { kept.markDirty(new) }
        }
        kept.unknown.removeAll()
        self = kept
    }
}

@inline(__always)
private func isSame(_ a: UnsafeRawBufferPointer, _ b: UnsafeRawBufferPointer) -> Bool {
    a.count == b.count && (a.isEmpty || memcmp(a.baseAddress!, b.baseAddress!, a.count) == 0)
}

/// Sixteen bytes a step, each folded by one wide multiplication (the construction of wyhash). The seed differs from
/// table to table, so that nobody can choose ids that collide; nothing that leaves a fold depends on it, because
/// rows are drained in the order of their keys.
@inline(__always)
func keyHash(_ key: UnsafeRawBufferPointer, _ seed: UInt64) -> UInt64 {
    guard let base = key.baseAddress else { return seed }
    let count = key.count
    var hash = seed ^ UInt64(truncatingIfNeeded: count)
    var offset = 0
    while count - offset > 16 {
        let a = base.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
        let b = base.loadUnaligned(fromByteOffset: offset + 8, as: UInt64.self)
        hash = foldedProduct(a ^ 0xA076_1D64_78BD_642F, b ^ hash)
        offset += 16
    }
    var a: UInt64 = 0, b: UInt64 = 0
    if count >= 16 {
        a = base.loadUnaligned(fromByteOffset: count - 16, as: UInt64.self)
        b = base.loadUnaligned(fromByteOffset: count - 8, as: UInt64.self)
    } else if count >= 8 {
        a = base.loadUnaligned(as: UInt64.self)
        b = base.loadUnaligned(fromByteOffset: count - 8, as: UInt64.self)
    } else {
        for index in 0..<count { a = a << 8 | UInt64(key[index]) }
    }
    return foldedProduct(foldedProduct(a ^ 0xE703_7ED1_A0B4_28DB, b ^ hash), 0x8EBC_6AF0_9C88_C6E3)
}

@inline(__always)
private func foldedProduct(_ a: UInt64, _ b: UInt64) -> UInt64 {
    let product = a.multipliedFullWidth(by: b)
    return product.high ^ product.low
}
