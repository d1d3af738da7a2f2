import CAllocationCounter
import Foundation
import Testing

/// Hot paths stay within their checked-in numbers of heap allocations for a block of 1,000 events
/// (`AllocationThreshold`). The counts are deterministic: each thread counts its own, and nothing depends on time.
struct AllocationTests {
    @Test(.enabled(if: AllocationThreshold.isOfThisCompiler), arguments: AllocationThreshold.all)
    func staysWithinItsThreshold(threshold: AllocationThreshold) throws {
        let counts = try Self.path(of: threshold).allocations()
        let fewest = try #require(counts.min())
        #expect(
            fewest <= threshold.allocations,
            "\(threshold.path): \(counts) allocations; at \(threshold.allocations) these were: \(threshold.sources)")
    }

    /// What the thresholds are for: one more allocation per event is found on every path.
    @Test(.enabled(if: AllocationThreshold.isOfThisCompiler), arguments: AllocationThreshold.all)
    func findsOneMoreAllocationPerEvent(threshold: AllocationThreshold) throws {
        let counts = try Self.path(of: threshold).allocations(AllocationMeter(planted: FleetRecords.count))
        #expect(try #require(counts.min()) > threshold.allocations)
    }

    @Test func everyPathHasOneThreshold() {
        #expect(HotPath.all.map(\.name).sorted() == AllocationThreshold.all.map(\.path).sorted())
    }

    /// The executable's `malloc` is the one that the Swift runtime, the C++ runtime and Foundation call.
    @Test func countsKnownAllocations() {
        final class Object {}
        let meter = AllocationMeter()
        #expect(meter.count {} == 0)
        #expect(AllocationMeter(planted: 1_000).count {} == 1_000)
        #expect(meter.count { withExtendedLifetime(Object()) {} } == 1)
        #expect(meter.count { UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 256).deallocate() } == 1)
        #expect(meter.count { free(realloc(calloc(1, 8), 1 << 16)) } == 2)
        let text: [CChar] = [65, 66, 0]
        #expect(meter.count { free(strdup(text)) } == 1)
        #expect(meter.count { _ = Data(repeating: 1, count: 1 << 12) } >= 1)
    }

    @Test func countsTheCallingThreadOnly() {
        let allocations = AllocationMeter().count {
            let thread = Thread { _ = AllocationMeter(planted: 1_000).count {} }
            thread.start()
            while !thread.isFinished { sched_yield() }
        }
        #expect(allocations < 1_000)
    }

    @Test func stopsCountingAfterAnError() {
        struct Failure: Error {}
        _ = try? AllocationMeter().count { throw Failure() }
        AllocationMeter.allocate(1_000)
        #expect(refold_allocations_stop() < 1_000)
    }

    private static func path(of threshold: AllocationThreshold) throws -> HotPath {
        try #require(HotPath.all.first { $0.name == threshold.path })
    }
}
