import CPlatform

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// File descriptors of this process. Clients of the API must not take those that the log, the brokers and the database
/// need: the soft limit is raised at the start, and the number of HTTP connections follows from it.
public enum Descriptors {
    /// What everything but HTTP connections may have open: the log's files and reads of past segments, two connections
    /// a broker, about twenty to the database, private services, commands.
    public static let reserved = 192

    /// Raises the soft limit to the hard one (shells and containers give 1,024 of 524,288); returns what is in force.
    @discardableResult
    public static func raiseLimit() -> Int {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 1024 }
        if limit.rlim_cur < limit.rlim_max {
            var wanted = limit
            // Beyond that, programs that walk over all possible descriptors take seconds (containers, 2^30).
            wanted.rlim_cur = max(limit.rlim_cur, min(limit.rlim_max, 1 << 20))
            if setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &wanted) == 0 { limit = wanted }
        }
        return Int(clamping: limit.rlim_cur)
    }

    /// The soft limit.
    public static var limit: Int {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 1024 }
        return Int(clamping: limit.rlim_cur)
    }

    /// Descriptors that are open now; nil when the system does not say (proc(5), or none is left to ask with).
    public static var open: Int? {
        guard let folder = opendir("/proc/self/fd") else { return nil }
        defer { closedir(folder) }
        var count = -3  // ".", ".." and the folder's own
        while readdir(folder) != nil { count += 1 }
        return max(0, count)
    }

    /// HTTP connections that may be open at once: at most `wanted`, and at least a few for probes.
    public static func connectionsMax(wanted: Int, limit: Int) -> Int { max(8, min(wanted, limit - reserved)) }
}

/// An eventfd(2) that does not block. Made at the start only; without one a part cannot be woken, so that the process
/// ends with a message when there are no descriptors left even after a while.
public func makeEventDescriptor() -> Int32 {
    makeDescriptor("an eventfd") { eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK)) }
}

/// - Parameter make: returns a descriptor, or -1 and errno.
public func makeDescriptor(_ name: String, _ make: () -> Int32) -> Int32 {
    for _ in 0..<50 {
        let descriptor = make()
        if descriptor >= 0 { return descriptor }
        guard errno == EMFILE || errno == ENFILE || errno == ENOMEM else { break }
        usleep(100_000)
    }
    let reason = strerror(errno).map { String(cString: $0) } ?? "error \(errno)"
    endProcess("cannot make \(name): \(reason) (limit \(Descriptors.limit); raise ulimit -n, LimitNOFILE=)")
}
