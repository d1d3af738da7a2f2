import Foundation
import Synchronization

/// A PgBouncer before a `PostgresServer`, on a loopback port. Killed when released.
public final class PgBouncer: Sendable {
    public let port: Int
    private let folder: String
    private let server: PostgresServer
    private let process = Mutex<ChildProcess?>(nil)

    /// - Parameter mode: `session` or `transaction`.
    public init(_ server: PostgresServer, mode: String) throws {
        self.server = server
        port = freeLoopbackPort()
        folder = try makeTemporaryFolder("pgbouncer")
        if getuid() == 0, let user = getpwnam("postgres") { chown(folder, user.pointee.pw_uid, user.pointee.pw_gid) }
        try start(mode)
    }

    deinit {
        stop()
        try? FileManager.default.removeItem(atPath: folder)
    }

    public func url(database: String) -> String { "postgresql://postgres@127.0.0.1:\(port)/\(database)" }

    public func restart(mode: String) throws {
        stop()
        try start(mode)
    }

    private func stop() {
        process.withLock { child in
            child?.kill(SIGKILL)
            child?.wait()
            child = nil
        }
    }

    private func start(_ mode: String) throws {
        let lines = [
            "[databases]", "* = host=\(server.folder) user=postgres", "[pgbouncer]", "listen_addr = 127.0.0.1",
            "listen_port = \(port)", "unix_socket_dir =", "auth_type = any", "pool_mode = \(mode)",
            "default_pool_size = 40", "max_client_conn = 200",
        ]
        let file = folder + "/pgbouncer.ini"
        try lines.joined(separator: "\n").appending("\n").write(toFile: file, atomically: true, encoding: .utf8)
        // It does not run as root.
        let child = try ChildProcess(["/usr/sbin/pgbouncer", file], user: "postgres", log: folder + "/pgbouncer.log")
        process.withLock { $0 = child }
        let deadline = Date().addingTimeInterval(10)
        while !isListening {
            guard child.isRunning, Date() < deadline else {
                let said = (try? String(contentsOfFile: folder + "/pgbouncer.log", encoding: .utf8)) ?? ""
                throw SystemError("pgbouncer does not start (Debian: pgbouncer): \(said)")
            }
            usleep(20_000)
        }
    }

    private var isListening: Bool {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        return connectLoopback(descriptor, port: port)
    }
}
