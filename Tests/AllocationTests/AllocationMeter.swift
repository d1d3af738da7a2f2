import CAllocationCounter

/// Counts the heap allocations of the calling thread.
struct AllocationMeter {
    /// Extra allocations made inside each measurement. They prove that a threshold finds one more allocation per event.
    var planted = 0

    func count(_ body: () throws -> Void) rethrows -> Int {
        refold_allocations_start()
        do {
            try body()
        } catch {
            _ = refold_allocations_stop()
            throw error
        }
        Self.allocate(planted)
        return Int(refold_allocations_stop())
    }

    /// Makes `count` arrays, one after the other.
    static func allocate(_ count: Int) {
        for number in 0..<count { consume([UInt8](repeating: UInt8(truncatingIfNeeded: number), count: 64)) }
    }

    /// Keeps an optimiser from removing the array.
    @inline(never)
    private static func consume(_ bytes: [UInt8]) { withExtendedLifetime(bytes) {} }
}
