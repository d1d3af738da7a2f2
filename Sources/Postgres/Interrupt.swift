import Glibc
import Synchronization

/// Ends waits from another thread: once signalled, every wait of the connections that were given it fails at
/// once, until `reset`. Costs two file descriptors; where the process has none left, waits look every
/// `pollMilliseconds` instead.
public final class Interrupt: Sendable {
    /// The end of a pipe(2) that is readable while signalled; -1, which poll(2) ignores, without a pipe.
    let descriptor: Int32
    private let writing: Int32
    private let isRaised = Atomic<Bool>(false)

    static let pollMilliseconds = 200
    var isSignalled: Bool { isRaised.load(ordering: .acquiring) }

    public init() {
        var ends: [Int32] = [-1, -1]
        if pipe(&ends) != 0 { ends = [-1, -1] }
        for end in ends where end >= 0 {
            _ = fcntl(end, F_SETFD, FD_CLOEXEC)
            _ = fcntl(end, F_SETFL, O_NONBLOCK)
        }
        (descriptor, writing) = (ends[0], ends[1])
    }

    deinit {
        for end in [descriptor, writing] where end >= 0 { close(end) }
    }

    public func signal() {
        isRaised.store(true, ordering: .releasing)
        // Fails only when the pipe is full, and then it is readable, which is all that is asked.
        var byte: UInt8 = 1
        _ = write(writing, &byte, 1)
    }

    public func reset() {
        isRaised.store(false, ordering: .releasing)
        var bytes = [UInt8](repeating: 0, count: 64)
        while read(descriptor, &bytes, bytes.count) > 0 {}
    }
}
