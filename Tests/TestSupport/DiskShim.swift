import Foundation

/// A disk that does not answer, for processes under test (`disk_shim/disk_shim.c`).
public final class DiskShim: Sendable {
    private let library: String
    private let file: String

    /// Compiles the library into `folder`.
    public init(in folder: String) throws {
        library = try preloadedLibrary("disk_shim", in: folder)
        file = folder + "/hang"
    }

    /// To put in front of a command.
    public var prefix: [String] { ["/usr/bin/env", "LD_PRELOAD=\(library)", "DISK_SHIM_HANG_FILE=\(file)"] }

    /// From now on fdatasync and fsync do not return.
    public func hang() throws { try Data().write(to: URL(fileURLWithPath: file)) }

    public func release() { unlink(file) }
}
