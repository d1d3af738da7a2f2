#if canImport(Glibc)
    import Glibc
#else
    import Musl
#endif

/// Ends waits from another thread: once signalled, every wait of the connections that were given it fails at
/// once, until `reset`. Costs two file descriptors.
public final class Interrupt: Sendable {
    /// The end of a pipe(2) that is readable while signalled.
    let descriptor: Int32
    private let writing: Int32

    public init() {
        var ends: [Int32] = [-1, -1]
        let result = pipe(&ends)
        precondition(result == 0, "pipe: \(String(cString: strerror(errno)))")
        for end in ends {
            _ = fcntl(end, F_SETFD, FD_CLOEXEC)
            _ = fcntl(end, F_SETFL, O_NONBLOCK)
        }
        (descriptor, writing) = (ends[0], ends[1])
    }

    deinit {
        close(descriptor)
        close(writing)
    }

    public func signal() {
        // Fails only when the pipe is full, and then it is readable, which is all that is asked.
        var byte: UInt8 = 1
        _ = write(writing, &byte, 1)
    }

    var isSignalled: Bool {
        var ready = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return poll(&ready, 1, 0) > 0
    }

    public func reset() {
        var bytes = [UInt8](repeating: 0, count: 64)
        while read(descriptor, &bytes, bytes.count) > 0 {}
    }
}
