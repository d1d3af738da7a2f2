import CPlatform
import Glibc
import Threading

/// epoll, level-triggered. libmosquitto's own loop uses `select`, which ends at descriptor 1,024.
final class Poller {
    private let descriptor: CInt
    private var events = Array(repeating: epoll_event(), count: 512)

    init() {
        descriptor = makeDescriptor("an epoll instance") { epoll_create1(CInt(EPOLL_CLOEXEC)) }
    }

    deinit { close(descriptor) }

    /// Watches `socket` for input, and for room to write when `writing`. `token` comes back with its events.
    /// A closed descriptor leaves the set by itself.
    func watch(_ socket: CInt, token: Int, writing: Bool, isNew: Bool) {
        var event = epoll_event()
        event.events = EPOLLIN.rawValue | (writing ? EPOLLOUT.rawValue : 0)
        event.data.u64 = UInt64(token)
        // It may have no room (epoll_ctl(2): ENOMEM, ENOSPC): the device then gets no events, and its time-out ends it.
        _ = epoll_ctl(descriptor, isNew ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, socket, &event)
    }

    /// Waits at most `millis` and calls `body` with each token that is ready.
    func wait(millis: Int, _ body: (_ token: Int, _ readable: Bool, _ writable: Bool) -> Void) {
        let count = epoll_wait(descriptor, &events, CInt(events.count), CInt(millis))
        guard count > 0 else {
            if count < 0, errno != EINTR { usleep(10_000) }
            return
        }
        for event in events[..<Int(count)] {  // a copy: `body` may come back to this poller
            // An error or hang-up shows itself to whoever reads.
            let readable = event.events & (EPOLLIN.rawValue | EPOLLERR.rawValue | EPOLLHUP.rawValue) != 0
            body(Int(event.data.u64), readable, event.events & EPOLLOUT.rawValue != 0)
        }
    }
}

/// Asks for room for `wanted` open files and answers how many there may be now.
func raiseFileLimit(to wanted: Int) -> Int {
    var limit = rlimit()
    guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 1024 }
    if Int(clamping: limit.rlim_cur) < wanted {
        limit.rlim_cur = min(limit.rlim_max, rlim_t(wanted))
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }
    return Int(clamping: limit.rlim_cur)
}
