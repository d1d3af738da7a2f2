import Foundation

/// A PostgreSQL of our own inside the data folder: unix socket only, no password, reachable only by who may enter the
/// socket's folder. For trying Refold out and for small installations; anything in it can be refolded from the log.
public final class PrivatePostgres: Sendable {
    public let url: String
    /// What a person types to look inside.
    public let psqlCommand: String
    private let process: ChildProcess?

    private static let user = "refold", database = "refold"

    /// Where the one of this folder is reached, should it run.
    public static func url(folder: String) -> String {
        let socket = socketFolder(in: URL(fileURLWithPath: folder).standardizedFileURL.path)
        return "postgresql:///\(database)?host=\(socket)&user=\(user)"
    }

    /// Makes the cluster when there is none, starts it, waits until it answers. Blocks for seconds.
    public init(folder: String, onExit: @escaping @Sendable (String) -> Void) throws(ServiceError) {
        let folder = URL(fileURLWithPath: folder).standardizedFileURL.path
        let bin = try Self.programs()
        let runAs = geteuid() == 0 ? "postgres" : nil
        if let runAs, getpwnam(runAs) == nil {
            throw ServiceError(
                "PostgreSQL does not run as root, and there is no user \(runAs): install the package postgresql"
            )
        }
        let cluster = folder + "/cluster", output = folder + "/postgres.log"
        let socket = Self.socketFolder(in: folder)
        url = Self.url(folder: folder)
        psqlCommand = "psql -h \(socket) -U \(Self.user) \(Self.database)"
        for path in [folder, socket] { try Self.makeFolder(path, owner: runAs) }

        if !FileManager.default.fileExists(atPath: cluster + "/PG_VERSION") {
            try? FileManager.default.removeItem(atPath: cluster)
            try Self.makeFolder(cluster, owner: runAs)
            try Self.run(
                [
                    "\(bin)/initdb", "-D", cluster, "-U", Self.user, "--auth=trust", "-E", "UTF8",
                    "--locale=C.UTF-8", "--data-checksums",
                ],
                as: runAs, output: output)
        }
        Self.waitForPredecessor(pidFile: cluster + "/postmaster.pid") { Self.answers(bin, socket) }
        if Self.answers(bin, socket) {
            process = nil  // It outlived a killed daemon: it is ours, by its folder.
        } else {
            process = try ChildProcess(
                name: "postgres",
                arguments: [
                    "\(bin)/postgres", "-D", cluster, "-c", "listen_addresses=", "-c",
                    "unix_socket_directories=\(socket)",
                    "-c", "unix_socket_permissions=0777", "-c", "max_connections=40", "-c", "shared_buffers=64MB",
                    "-c", "max_wal_size=2GB", "-c", "log_min_messages=warning",
                ],
                user: runAs, output: output, deathSignal: "INT", onExit: onExit)
        }
        let deadline = Date().addingTimeInterval(30)
        while !Self.answers(bin, socket) {
            if Date() > deadline {
                throw ServiceError("the private PostgreSQL does not answer; its words are in \(output)")
            }
            usleep(50_000)
        }
        let base = ["\(bin)/psql", "-h", socket, "-U", Self.user, "-d", "postgres", "-Atqc"]
        let exists = try runProgram(base + ["select 1 from pg_database where datname = '\(Self.database)'"])
        if exists.output.trimmingCharacters(in: .whitespacesAndNewlines) != "1" {
            let made = try runProgram(base + ["create database \(Self.database)"])
            if made.code != 0 { throw ServiceError("cannot create the database \(Self.database): \(made.output)") }
        }
    }

    /// A daemon that was killed leaves servers that are still on their way out.
    static func waitForPredecessor(pidFile: String, unless isUsable: () -> Bool = { false }) {
        let deadline = Date().addingTimeInterval(15)
        while let text = try? String(contentsOfFile: pidFile, encoding: .utf8),
            let pid = pid_t(text.prefix { $0.isNumber }), kill(pid, 0) == 0 || errno == EPERM, !isUsable(),
            Date() < deadline
        {
            usleep(50_000)
        }
    }

    /// PostgreSQL's "fast" shutdown: SIGINT.
    public func stop() { process?.stop(signal: SIGINT, timeoutSeconds: 8) }

    private static func answers(_ bin: String, _ socket: String) -> Bool {
        (try? runProgram(["\(bin)/pg_isready", "-q", "-h", socket, "-U", user, "-d", "postgres"]))?.code == 0
    }

    /// Unix socket addresses hold 107 bytes (unix(7)); a deep data folder gets its socket under the temporary folder.
    static func socketFolder(in folder: String) -> String {
        let inside = folder + "/socket"
        if inside.utf8.count <= 85 { return inside }
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in folder.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        return "/tmp/refold-" + String(hash, radix: 36)
    }

    /// Where initdb and postgres are: Debian keeps them out of PATH, by version.
    private static func programs() throws(ServiceError) -> String {
        let root = "/usr/lib/postgresql"
        let versions = ((try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []).compactMap(
            Int.init
        ).sorted(by: >)
        for version in versions where version >= 15 {
            let bin = "\(root)/\(version)/bin"
            if FileManager.default.isExecutableFile(atPath: bin + "/postgres") { return bin }
        }
        if let found = try? runProgram(["pg_config", "--bindir"]), found.code == 0 {
            let bin = found.output.trimmingCharacters(in: .whitespacesAndNewlines)
            if FileManager.default.isExecutableFile(atPath: bin + "/postgres") { return bin }
        }
        throw ServiceError("no PostgreSQL 15 or newer found: install the package postgresql, or give --database-url")
    }

    private static func makeFolder(_ path: String, owner: String?) throws(ServiceError) {
        do {
            try FileManager.default.createDirectory(
                atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        } catch {
            throw ServiceError("cannot create the folder \(path): \(error.localizedDescription)")
        }
        guard let owner, let entry = getpwnam(owner) else { return }
        if chown(path, entry.pointee.pw_uid, entry.pointee.pw_gid) != 0 {
            throw ServiceError("cannot give \(path) to the user \(owner): \(String(cString: strerror(errno)))")
        }
    }

    private static func run(_ arguments: [String], as user: String?, output: String) throws(ServiceError) {
        var command = arguments
        if let user {
            var prefix = ["setpriv", "--reuid", user, "--regid", user, "--init-groups"]
            if !ChildProcess.everybodyMayTraverse(output) {
                prefix += ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
            }
            command = prefix + ["--"] + arguments
        }
        let result = try runProgram(command)
        if result.code != 0 { throw ServiceError("\(arguments[0]) failed:\n\(result.output)") }
    }
}
