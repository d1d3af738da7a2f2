import Foundation

/// Tells systemd how we are: sd_notify(3)'s protocol, datagrams to the socket named in NOTIFY_SOCKET.
/// Does nothing when we were not started by systemd.
struct ServiceManager: Sendable {
    private let address: String?
    /// How often the watchdog wants to hear of us: half of what is set (sd_watchdog_enabled(3)); nil when it does not.
    let watchdogInterval: Duration?

    init(environment: [String: String] = ProcessInfo.processInfo.environment) {
        address = environment["NOTIFY_SOCKET"]
        let mine = environment["WATCHDOG_PID"].map { $0 == String(getpid()) } ?? true
        watchdogInterval =
            mine
            ? environment["WATCHDOG_USEC"].flatMap(Int64.init)
                .flatMap { $0 > 1 ? .microseconds($0 / 2) : nil } : nil
    }

    func ready() { send("READY=1") }
    func stopping() { send("STOPPING=1") }
    /// Shown by `systemctl status`; the watchdog is not fed.
    func stuck(status: String) { send("STATUS=\(status)") }
    func alive(status: String) { send("WATCHDOG=1\nSTATUS=\(status)") }

    private func send(_ text: String) {
        guard let address, var path = Optional(Array(address.utf8)), path.count < 107, !path.isEmpty else { return }
        if path[0] == UInt8(ascii: "@") { path[0] = 0 }  // the abstract namespace, unix(7)
        let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        var target = sockaddr_un()
        target.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &target.sun_path) { $0.copyBytes(from: path) }
        let length = socklen_t(MemoryLayout<sa_family_t>.size + path.count)
        _ = withUnsafePointer(to: &target) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
                sendto(descriptor, text, text.utf8.count, Int32(MSG_NOSIGNAL), generic, length)
            }
        }
    }
}
