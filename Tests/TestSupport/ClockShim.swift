import Foundation

/// The wall clock of processes under test, stepped at will (`clock_shim/clock_shim.c`). Children of such a process,
/// its private PostgreSQL for one, run on the same clock.
public final class ClockShim: Sendable {
    private let library: String
    private let offsetFile: String

    /// Compiles the library into `folder`.
    public init(in folder: String) throws {
        library = try preloadedLibrary("clock_shim", in: folder)
        offsetFile = folder + "/clock-offset"
        try set(seconds: 0)
    }

    /// To put in front of a command.
    public var prefix: [String] {
        ["/usr/bin/env", "LD_PRELOAD=\(library)", "CLOCK_SHIM_OFFSET_FILE=\(offsetFile)"]
    }

    /// Sets how far the clock is ahead of the real one; it counts within 10 ms.
    public func set(seconds: Double) throws {
        let next = offsetFile + ".next"
        try Data("\(seconds)\n".utf8).write(to: URL(fileURLWithPath: next))
        guard rename(next, offsetFile) == 0 else { throw SystemError("rename: \(String(cString: strerror(errno)))") }
    }
}
