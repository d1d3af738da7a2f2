import Foundation

/// Writes a file that holds what devices sent, for its owner only (mode 0600): whole, or not at all.
/// - Throws: `POSIXError`.
func writePrivately(_ bytes: [UInt8], to path: String) throws {
    let draft = "\(path).\(getpid()).part"
    // One that a killed process left.
    unlink(draft)
    let descriptor = open(draft, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw POSIXError(.init(rawValue: errno) ?? .EIO) }
    do {
        defer { close(descriptor) }
        var written = 0
        while written < bytes.count {
            let count = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress! + written, $0.count - written) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw POSIXError(.init(rawValue: errno) ?? .EIO) }
            written += count
        }
        guard fsync(descriptor) == 0, rename(draft, path) == 0 else { throw POSIXError(.init(rawValue: errno) ?? .EIO) }
    } catch {
        unlink(draft)
        throw error
    }
}
