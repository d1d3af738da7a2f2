import CPlatform
import Glibc

/// File descriptors of this process. Clients of the API must not take those that the log, the brokers and the database
/// need: the soft limit is raised at the start, and the number of HTTP connections follows from it.
public enum Descriptors {
    /// What everything but HTTP connections may have open: the log's files and reads of past segments, two connections
    /// a broker, about twenty to the database, private services, commands.
    public static let reserved = 192

    /// HTTP connections that are always taken: probes and an operator must get through.
    public static let connectionsMin = 8

    /// The lowest hard limit that the daemon starts with. It cannot run on fewer: libdispatch opens files of its own
    /// (its workqueue monitor reads /proc/self/task) and ends the process by SIGILL when no descriptor is left.
    public static let hardLimitMin = reserved + connectionsMin

    /// Why the hard limit is too low for the daemon, and the remedy; nil when it is not.
    public static func shortage(hardLimit: Int = Descriptors.hardLimit) -> String? {
        guard hardLimit < hardLimitMin else { return nil }
        return "cannot run with a hard limit of \(hardLimit) open files: at least \(hardLimitMin) are needed (raise "
            + "ulimit -n in the shell, LimitNOFILE= in the systemd unit)"
    }

    /// Raises the soft limit to the hard one (shells and containers give 1,024 of 524,288); returns what is in force.
    @discardableResult
    public static func raiseLimit() -> Int {
        guard var limit = readLimit() else { return unknownLimit }
        if limit.rlim_cur < limit.rlim_max {
            var wanted = limit
            // Beyond that, programs that walk over all possible descriptors take seconds (containers, 2^30).
            wanted.rlim_cur = max(limit.rlim_cur, min(limit.rlim_max, 1 << 20))
            if setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &wanted) == 0 { limit = wanted }
        }
        return Int(clamping: limit.rlim_cur)
    }

    /// A soft limit that was lowered while the process runs, and raised again.
    public struct RestoredLimit: Equatable, Sendable {
        public let found: Int
        public let restored: Int
    }

    /// Raises a soft limit that somebody has lowered (prlimit(1)) since `wanted` was in force, as far as the hard limit
    /// lets it. Nil when there is nothing to raise, or the system refuses. Needs no descriptor.
    @discardableResult
    public static func restoreLimit(_ wanted: Int) -> RestoredLimit? {
        guard var limit = readLimit() else { return nil }
        let found = Int(clamping: limit.rlim_cur)
        guard let target = Self.target(soft: found, hard: Int(clamping: limit.rlim_max), wanted: wanted)
        else { return nil }
        limit.rlim_cur = rlim_t(target)
        guard setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return nil }
        return RestoredLimit(found: found, restored: target)
    }

    /// What a soft limit is to be raised to; nil when it stays.
    static func target(soft: Int, hard: Int, wanted: Int) -> Int? {
        let target = min(hard, wanted)
        return soft < target ? target : nil
    }

    /// The soft limit.
    public static var limit: Int { readLimit().map { Int(clamping: $0.rlim_cur) } ?? unknownLimit }

    /// How far the soft limit can be raised.
    public static var hardLimit: Int { readLimit().map { Int(clamping: $0.rlim_max) } ?? unknownLimit }

    /// What shells give, where the system does not say.
    private static let unknownLimit = 1024

    private static func readLimit() -> rlimit? {
        var limit = rlimit()
        return getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 ? limit : nil
    }

    /// Descriptors that are open now; nil when the system does not say (proc(5)).
    public static var open: Int? { count { opendir("/proc/self/fd") } }

    /// - Parameter openFolder: opens the folder of the descriptors; nil and errno when it cannot. EMFILE: none is left
    ///   to count with, so that all are open.
    static func count(_ openFolder: () -> OpaquePointer?) -> Int? {
        guard let folder = openFolder() else { return errno == EMFILE ? limit : nil }
        defer { closedir(folder) }
        var count = -3  // ".", ".." and the folder's own
        while readdir(folder) != nil { count += 1 }
        return max(0, count)
    }

    /// HTTP connections that may be open at once: at most `wanted`, and at least a few for probes.
    public static func connectionsMax(wanted: Int, limit: Int) -> Int {
        max(connectionsMin, min(wanted, limit - reserved))
    }
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
