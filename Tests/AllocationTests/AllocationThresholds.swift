import Testing

/// The most heap allocations that a hot path may make for one block of 1,000 events.
///
/// The numbers are those of a debug build (`swift build --build-tests`, Swift 6.3, glibc, x86-64), as measured, without
/// a margin: repeated runs give the same number. Of the targets measured, a debug build optimises only `Primitives` and
/// `CampaignRules`. "Unspecialised": a generic algorithm of the standard library, which allocates in a debug build and
/// which an optimised build specialises. Release builds were not measured.
///
/// A test fails above a number. After a mend, lower the number.
struct AllocationThreshold: Sendable, CustomTestStringConvertible {
    let path: String
    let allocations: Int
    /// What allocates.
    let sources: String

    init(_ path: String, _ allocations: Int, _ sources: String) {
        (self.path, self.allocations, self.sources) = (path, allocations, sources)
    }

    var testDescription: String { path }

    /// Another compiler specialises other calls.
    static var isOfThisCompiler: Bool {
        #if compiler(>=6.3) && compiler(<6.4) && arch(x86_64)
        true
        #else
        false
        #endif
    }

    static let all: [AllocationThreshold] = [
        AllocationThreshold(
            "append a block", 10, "submission, gate and semaphore; queue of taken submissions; write to `durable`"),
        AllocationThreshold("read a block", 0, "nothing"),
        AllocationThreshold("ingest a batch", 12, "the append, and the gate's tally"),
        AllocationThreshold("suppress a redelivered batch", 11, "the gate's tally with the packet ids; copied filter"),
        AllocationThreshold(
            "fold device_status", 809, "unspecialised: order of 100 changed rows, two status words a device"),
        AllocationThreshold("fold device_connection_events", 201, "unspecialised: status words, copy of 100 new rows"),
        AllocationThreshold(
            "fold campaigns", 1904, "unspecialised: comparison of tenants, order of 100 changed rows, status words"),
        AllocationThreshold("fold campaign_events", 1, "copy of no new rows"),
        AllocationThreshold("fold device_groups", 3, "load requests"),
        AllocationThreshold("fold mqtt_connection_status", 3, "order of one changed row"),
        AllocationThreshold("fold dead_letters", 231, "unspecialised: status words; texts of 10 dead letters"),
        AllocationThreshold("fold audit_logs", 1, "copy of no new rows"),
        AllocationThreshold("fold access", 1, "copy of no new rows"),
        AllocationThreshold("fold crl_enforcement", 3, "load requests"),
        AllocationThreshold("fold jobs", 5, "load requests, copies of no new rows"),
        AllocationThreshold("fold certificates", 5, "load requests, two copies of no new rows"),
    ]
}
