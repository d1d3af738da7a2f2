import Primitives

/// Counters of a writer since it was opened; a plain copy, cheap to take.
public struct LogStatistics: Sendable {
    public internal(set) var commits: UInt64 = 0
    public internal(set) var events: UInt64 = 0
    /// Bytes of records, before compression.
    public internal(set) var rawBytes: UInt64 = 0
    /// Bytes written: stored records, headers and padding.
    public internal(set) var storedBytes: UInt64 = 0
    /// Seconds from before the fdatasync of a commit to after it.
    public internal(set) var syncSeconds = Histogram(
        bounds: [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5])
    /// Events a commit.
    public internal(set) var commitEvents = Histogram(
        bounds: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000])
    public internal(set) var segments = 0
    /// Bytes in use on disk, and bytes that the segments take there with what is preallocated.
    public internal(set) var usedBytes: UInt64 = 0
    public internal(set) var allocatedBytes: UInt64 = 0

    /// What became of segments that are no longer written.
    public internal(set) var keeping = Keeping()

    public struct Keeping: Sendable, Equatable {
        /// Live segments packed into larger ones, and segments sealed, since the log was opened.
        public internal(set) var packed = 0
        public internal(set) var sealed = 0
        /// Segments that are neither sealed nor being written, the growing one included.
        public internal(set) var waiting = 0
        /// Names of segments that are left as they are, because they are damaged.
        public internal(set) var damaged: [String] = []
        /// Why nothing is packed or sealed at present; it is tried again, unless the text says that a restart is
        /// needed.
        public internal(set) var problem: String?
    }
}
