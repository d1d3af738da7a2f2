import Foundation
import Synchronization

/// A private PostgreSQL: a fresh cluster in a temporary folder, reachable by a unix socket only, everybody
/// trusted. Runs as `postgres` when we are root. Killed and removed when released or when the test process
/// ends.
public final class PostgresServer: Sendable {
    public let folder: String
    private let process = Mutex<ChildProcess?>(nil)

    /// One server for all tests of the process that do not disturb it. Make a database each.
    public static let shared: Result<PostgresServer, any Error> = Result { try PostgresServer() }

    /// Makes the cluster and starts the server, unless `started` is false. `settings` are lines of
    /// `postgresql.conf`.
    public init(settings: [String] = [], started: Bool = true) throws {
        folder = try makeTemporaryFolder("pg")
        if getuid() == 0 {
            guard let user = getpwnam("postgres"), chown(folder, user.pointee.pw_uid, user.pointee.pw_gid) == 0
            else { throw SystemError("the user postgres is needed to run a server as") }
        }
        let initdb = try ChildProcess(
            [
                try Self.program("initdb"), "-D", folder + "/data", "-A", "trust", "-U", "postgres", "-E",
                "UTF8",
                "--locale=C.UTF-8", "--no-instructions", "--no-sync",
            ], user: "postgres", log: folder + "/initdb.log")
        initdb.wait()
        let lines = [
            "listen_addresses = ''", "unix_socket_directories = '\(folder)'", "max_connections = 200",
            "shared_buffers = 64MB", "max_wal_size = 256MB",
            // Before recovery every file is synced: one call instead of a thousand.
            "recovery_init_sync_method = syncfs",
        ]
        try configure(lines + settings)
        if started { try start() }
    }

    deinit {
        kill()
        try? FileManager.default.removeItem(atPath: folder)
    }

    public func url(database: String = "postgres", user: String = "postgres") -> String {
        "postgresql:///\(database)?host=\(folder)&user=\(user)"
    }

    /// Starts the server and waits until it accepts connections.
    public func start() throws {
        let log = folder + "/server.log", data = folder + "/data"
        let deadline = Date().addingTimeInterval(60)
        while Date() < deadline {
            let child = try ChildProcess([try Self.program("postgres"), "-D", data], user: "postgres", log: log)
            while child.isRunning && Date() < deadline {
                // The postmaster writes its state into the eighth line of its pid file.
                let lines = try? String(contentsOfFile: data + "/postmaster.pid", encoding: .utf8).split(
                    separator: "\n", omittingEmptySubsequences: false)
                if let lines, lines.count > 7, lines[0] == "\(child.pid)", lines[7].hasPrefix("ready") {
                    process.withLock { $0 = child }
                    return
                }
                usleep(5000)
            }
            // After kill -9 the shared memory may still be held for a moment.
            usleep(50_000)
        }
        throw SystemError(
            "PostgreSQL does not start: " + ((try? String(contentsOfFile: log, encoding: .utf8)) ?? ""))
    }

    /// Ends sessions and shuts down in order ("fast").
    public func stop() {
        process.withLock { child in
            child?.kill(SIGINT)
            child?.wait()
            child = nil
        }
    }

    /// kill -9 for the postmaster and every process of the server.
    public func kill() {
        process.withLock { child in
            guard let server = child else { return }
            server.kill(SIGSTOP)
            for pid in server.children { _ = Foundation.kill(pid, SIGKILL) }
            server.kill(SIGKILL)
            server.wait()
            child = nil
        }
    }

    /// Freezes the server and all sessions: connections stay open and nothing answers.
    public func freeze() { signalAll(SIGSTOP) }
    public func thaw() { signalAll(SIGCONT) }

    private func signalAll(_ signal: Int32) {
        process.withLock { child in
            guard let child else { return }
            for pid in [child.pid] + child.children { _ = Foundation.kill(pid, signal) }
        }
    }

    /// Before `start`: TLS with a certificate of its own making, on a loopback port.
    public func configureTLS(port: Int) throws {
        let openssl = try ChildProcess(
            [
                "/usr/bin/openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                "/CN=localhost",
                "-keyout", folder + "/data/server.key", "-out", folder + "/data/server.crt",
            ], user: "postgres", log: folder + "/openssl.log")
        openssl.wait()
        try configure(["ssl = on", "listen_addresses = '127.0.0.1'", "port = \(port)"])
    }

    private func configure(_ lines: [String]) throws {
        guard let handle = FileHandle(forWritingAtPath: folder + "/data/postgresql.conf") else {
            throw SystemError(
                "initdb failed: "
                    + ((try? String(contentsOfFile: folder + "/initdb.log", encoding: .utf8)) ?? ""))
        }
        try handle.seekToEnd()
        try handle.write(contentsOf: Data(lines.joined(separator: "\n").appending("\n").utf8))
        try handle.close()
    }

    /// Runs SQL by psql and returns what it prints, unaligned and without headers.
    @discardableResult
    public func psql(_ sql: String, database: String = "postgres", user: String = "postgres") throws -> String {
        let log = folder + "/psql-\(UInt64.random(in: 0 ... .max)).out"
        let child = try ChildProcess(
            [
                "/usr/bin/psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d",
                url(database: database, user: user), "-c", sql,
            ],
            log: log)
        child.wait()
        defer { try? FileManager.default.removeItem(atPath: log) }
        return ((try? String(contentsOfFile: log, encoding: .utf8)) ?? "").trimmingCharacters(in: .newlines)
    }

    /// A new database, empty or a copy of another one that nobody is connected to; returns its name.
    public func makeDatabase(copyOf template: String = "template1") throws -> String {
        let name = "test_" + String(UInt64.random(in: 0 ... .max), radix: 36)
        let output = try psql("CREATE DATABASE \(name) TEMPLATE \(template)")
        guard output.isEmpty else { throw SystemError(output) }
        return name
    }

    /// Debian keeps server programs beside each other by major version; elsewhere they are in the path.
    private static func program(_ name: String) throws -> String {
        let root = "/usr/lib/postgresql"
        let versions = ((try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []).compactMap(Int.init)
            .sorted()
        let folders = versions.reversed().map { "\(root)/\($0)/bin" } + ["/usr/local/bin", "/usr/bin"]
        for folder in folders where access("\(folder)/\(name)", X_OK) == 0 { return "\(folder)/\(name)" }
        throw SystemError("\(name) is not installed (Debian: postgresql)")
    }
}
