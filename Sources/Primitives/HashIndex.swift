/// Finds numbers by a hash of what they stand for; the caller compares the keys. Open addressing with linear probing,
/// 8 bytes a slot, at most two thirds of the slots taken. It cannot be iterated over: its order differs between
/// processes, and must reach no output.
package struct HashIndex: Sendable {
    package init() {}

    private struct Slot {
        var number = UInt32.max
        var hash: UInt32 = 0
        var isEmpty: Bool { number == .max }
    }

    private var slots = ContiguousArray(repeating: Slot(), count: 16)
    private var count = 0

    private func home(_ hash: UInt32) -> Int { Int(hash) & (slots.count - 1) }
    private func next(_ slot: Int) -> Int { (slot + 1) & (slots.count - 1) }

    /// The first number under `hash` that `matches`.
    package func first(_ hash: UInt32, where matches: (UInt32) -> Bool) -> UInt32? {
        var slot = home(hash)
        while !slots[slot].isEmpty {
            if slots[slot].hash == hash, matches(slots[slot].number) { return slots[slot].number }
            slot = next(slot)
        }
        return nil
    }

    package mutating func insert(_ number: UInt32, _ hash: UInt32) {
        if (count + 1) * 3 > slots.count * 2 {
            let old = slots
            slots = ContiguousArray(repeating: Slot(), count: old.count * 2)
            for slot in old where !slot.isEmpty { place(slot) }
        }
        place(Slot(number: number, hash: hash))
        count += 1
    }

    /// Puts `new` in the place of `old`, which has the same key.
    package mutating func replace(_ old: UInt32, by new: UInt32, _ hash: UInt32) {
        if let slot = slot(of: old, hash) { slots[slot].number = new }
    }

    package mutating func remove(_ number: UInt32, _ hash: UInt32) {
        guard var gap = slot(of: number, hash) else { return }
        count -= 1
        // Searches end at a gap: what was placed behind it, because its own slot was taken, moves up.
        var slot = next(gap)
        while !slots[slot].isEmpty {
            let distance = (slot - home(slots[slot].hash)) & (slots.count - 1)
            if distance >= (slot - gap) & (slots.count - 1) {
                slots[gap] = slots[slot]
                gap = slot
            }
            slot = next(slot)
        }
        slots[gap] = Slot()
    }

    private mutating func place(_ new: Slot) {
        var slot = home(new.hash)
        while !slots[slot].isEmpty { slot = next(slot) }
        slots[slot] = new
    }

    private func slot(of number: UInt32, _ hash: UInt32) -> Int? {
        var slot = home(hash)
        while !slots[slot].isEmpty {
            if slots[slot].number == number { return slot }
            slot = next(slot)
        }
        return nil
    }
}
