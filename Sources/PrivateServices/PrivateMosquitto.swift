import Foundation

/// A Mosquitto of our own inside the data folder: loopback only, no passwords, and none of its default limits under
/// which a broker loses messages in silence.
public final class PrivateMosquitto: Sendable {
    public let port: Int
    private let process: ChildProcess

    public init(folder: String, onExit: @escaping @Sendable (String) -> Void) throws(ServiceError) {
        let folder = URL(fileURLWithPath: folder).standardizedFileURL.path
        let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/usr/bin/mosquitto"]
            .first { FileManager.default.isExecutableFile(atPath: $0) }
        guard let program else {
            throw ServiceError("no mosquitto found: install the package mosquitto, or give --broker-url")
        }
        PrivatePostgres.waitForPredecessor(pidFile: folder + "/mosquitto.pid")
        port = Self.isFree(1883) ? 1883 : Self.freePort()
        do {
            try FileManager.default.createDirectory(
                atPath: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
            let user = getpwuid(geteuid()).map { String(cString: $0.pointee.pw_name) } ?? "root"
            let text = """
                # Written at each start.
                user \(user)
                listener \(port) 127.0.0.1
                allow_anonymous true
                pid_file \(folder)/mosquitto.pid
                persistence true
                persistence_location \(folder)/
                autosave_interval 60
                # 0: no limit. The defaults (20 and 1000) drop messages in silence.
                max_inflight_messages 0
                max_queued_messages 0
                # Otherwise an acknowledgement may wait 40 ms for company (Nagle's algorithm).
                set_tcp_nodelay true
                sys_interval 10
                log_dest stderr
                log_type error
                log_type warning
                """
            try text.write(toFile: folder + "/mosquitto.conf", atomically: true, encoding: .utf8)
        } catch {
            throw ServiceError("cannot write into \(folder): \(error.localizedDescription)")
        }
        process = try ChildProcess(
            name: "mosquitto", arguments: [program, "-c", folder + "/mosquitto.conf"], user: nil,
            output: folder + "/mosquitto.log", onExit: onExit)
        let deadline = Date().addingTimeInterval(10)
        while Self.isFree(port) {
            guard process.isRunning, Date() < deadline else {
                process.stop(timeoutSeconds: 1)
                throw ServiceError("the private Mosquitto does not start; its words are in \(folder)/mosquitto.log")
            }
            usleep(20_000)
        }
    }

    /// Saves its sessions and ends.
    public func stop() { process.stop(timeoutSeconds: 5) }

    /// Whether nobody listens on the port: we can bind it ourselves.
    static func isFree(_ port: Int) -> Bool { bound(port) != nil }

    static func freePort() -> Int { bound(0) ?? 0 }

    private static func bound(_ port: Int) -> Int? {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var one: Int32 = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, socklen_t(MemoryLayout<Int32>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(port)).bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        return withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
                guard bind(descriptor, generic, length) == 0, getsockname(descriptor, generic, &length) == 0
                else { return nil }
                return Int(UInt16(bigEndian: UnsafeRawPointer(generic).load(fromByteOffset: 2, as: UInt16.self)))
            }
        }
    }
}
