/// Binary heap of jobs by an order and, where that is equal, by their ids. Jobs that have left it are not searched for:
/// their entries are passed over when they come up, and swept out when they are many.
struct JobHeap: Sendable {
    struct Entry: Sendable {
        let order: Int64
        let id: Int64
        let slot: JobStore.Slot
        /// Of the job when it was put here: the entry is stale once the job has another one.
        let version: UInt32

        static func < (a: Entry, b: Entry) -> Bool { (a.order, a.id) < (b.order, b.id) }
    }

    fileprivate var entries = ContiguousArray<Entry>()
    /// Jobs that are here.
    private(set) var count = 0

    /// Never a stale one.
    var first: Entry? { entries.first }
    var firstOrder: Int64? { entries.first?.order }

    mutating func insert(_ entry: Entry) {
        entries.append(entry)
        count += 1
        var place = entries.count - 1
        while place > 0, entry < entries[(place - 1) / 2] {
            entries[place] = entries[(place - 1) / 2]
            place = (place - 1) / 2
        }
        entries[place] = entry
    }

    /// One of its jobs has left it: `store` has a newer version of it.
    mutating func left(_ store: JobStore) {
        count -= 1
        while let first = entries.first, !store.isCurrent(first) { dropFirst() }
        // Each sweep removes more than half of the entries, so that one costs as much as the removals before it.
        if entries.count > 2 * count + 64 { sweep(store) }
    }

    /// Removes the first entry together with its job.
    mutating func removeFirst(_ store: JobStore) {
        dropFirst()
        left(store)
    }

    mutating func reorder(_ order: (Int64) -> Int64) {
        entries = ContiguousArray(
            entries.map { Entry(order: order($0.order), id: $0.id, slot: $0.slot, version: $0.version) }.sorted(by: <))
    }

    private mutating func dropFirst() {
        let last = entries.removeLast()
        if !entries.isEmpty { sink(last, from: 0) }
    }

    private mutating func sink(_ entry: Entry, from start: Int) {
        var place = start
        while true {
            var child = 2 * place + 1
            guard child < entries.count else { break }
            if child + 1 < entries.count, entries[child + 1] < entries[child] { child += 1 }
            guard entries[child] < entry else { break }
            entries[place] = entries[child]
            place = child
        }
        entries[place] = entry
    }

    private mutating func sweep(_ store: JobStore) {
        entries.removeAll { !store.isCurrent($0) }
        for place in stride(from: entries.count / 2 - 1, through: 0, by: -1) { sink(entries[place], from: place) }
    }

    /// Reads a heap in order and leaves it as it is. Costs as much as what is read, however large the heap.
    struct Cursor {
        private let entries: ContiguousArray<Entry>
        /// Places whose parents have been read; the first is the next one. A heap of places.
        private var frontier: [Int] = []

        init(_ heap: JobHeap) {
            entries = heap.entries
            if !entries.isEmpty { frontier = [0] }
        }

        mutating func next() -> Entry? {
            guard let place = frontier.first else { return nil }
            let last = frontier.removeLast()
            if !frontier.isEmpty { sink(last) }
            for child in [2 * place + 1, 2 * place + 2] where child < entries.count { rise(child) }
            return entries[place]
        }

        private mutating func rise(_ new: Int) {
            frontier.append(new)
            var at = frontier.count - 1
            while at > 0, entries[new] < entries[frontier[(at - 1) / 2]] {
                frontier[at] = frontier[(at - 1) / 2]
                at = (at - 1) / 2
            }
            frontier[at] = new
        }

        private mutating func sink(_ place: Int) {
            var at = 0
            while true {
                var child = 2 * at + 1
                guard child < frontier.count else { break }
                if child + 1 < frontier.count, entries[frontier[child + 1]] < entries[frontier[child]] { child += 1 }
                guard entries[frontier[child]] < entries[place] else { break }
                frontier[at] = frontier[child]
                at = child
            }
            frontier[at] = place
        }
    }
}
