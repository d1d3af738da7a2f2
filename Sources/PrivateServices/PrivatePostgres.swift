import Foundation

/// A PostgreSQL of our own inside the data folder: unix socket only, in a folder that its owner alone may enter, and
/// for users whom the kernel names (peer authentication): root, its owner and ours. For trying Refold out and for small
/// installations; anything in it can be refolded from the log.
public final class PrivatePostgres: Sendable {
    public let url: String
    /// What a person types to look inside.
    public let psqlCommand: String
    private let process: ChildProcess?

    private static let user = "refold", database = "refold"

    /// Where the one of this folder is reached, should it run.
    /// libpq checks that the server is run by the cluster's owner: a socket of somebody else's is not believed.
    public static func url(folder: String) -> String {
        let folder = URL(fileURLWithPath: folder).standardizedFileURL.path
        var info = stat()
        let owner = stat(folder + "/cluster", &info) == 0 ? Account(uid: info.st_uid) : nil
        // Without a socket folder that is fit for use there is nothing to reach.
        let socket = (try? socketFolder(in: folder, owner: owner)) ?? folder + "/socket"
        return "postgresql:///\(database)?host=\(escaped(socket))&user=\(user)"
            + (owner.map { "&requirepeer=\(escaped($0.name))" } ?? "")
    }

    private static func escaped(_ text: String) -> String {
        text.addingPercentEncoding(withAllowedCharacters: .urlPathAllowed.subtracting(["&", "=", "+"])) ?? text
    }

    /// Makes the cluster when there is none, starts it, waits until it answers. Blocks for seconds.
    public init(folder: String, onExit: @escaping @Sendable (String) -> Void) throws(ServiceError) {
        let folder = URL(fileURLWithPath: folder).standardizedFileURL.path
        let bin = try Self.programs()
        let runAs = geteuid() == 0 ? Account(named: "postgres") : nil
        if geteuid() == 0, runAs == nil {
            throw ServiceError(
                "PostgreSQL does not run as root, and there is no user postgres: install the package postgresql")
        }
        let cluster = folder + "/cluster", output = folder + "/postgres.log"
        try Self.makeParents(of: folder)
        try PrivateFolder.make(folder, owner: runAs)
        let socket = try Self.makeSocketFolder(in: folder, owner: runAs)
        psqlCommand = "psql -h \(socket) -U \(Self.user) \(Self.database)"

        if !FileManager.default.fileExists(atPath: cluster + "/PG_VERSION") {
            try? FileManager.default.removeItem(atPath: cluster)
            try PrivateFolder.make(cluster, owner: runAs)
            try Self.run(
                [
                    "\(bin)/initdb", "-D", cluster, "-U", Self.user, "--auth=peer", "-E", "UTF8",
                    "--locale=C.UTF-8", "--data-checksums",
                ],
                as: runAs?.name, output: output)
        }
        url = Self.url(folder: folder)
        try Self.writeAccessRules(cluster, owner: runAs)
        Self.waitForPredecessor(pidFile: cluster + "/postmaster.pid") { Self.answers(bin, socket) }
        if Self.answers(bin, socket) {
            process = nil  // It outlived a killed daemon: it is ours, by its folder.
        } else {
            process = try ChildProcess(
                name: "postgres",
                arguments: [
                    "\(bin)/postgres", "-D", cluster, "-c", "listen_addresses=", "-c",
                    "unix_socket_directories=\(socket)",
                    "-c", "unix_socket_permissions=0700", "-c", "max_connections=40", "-c", "shared_buffers=64MB",
                    "-c", "max_wal_size=2GB", "-c", "log_min_messages=warning",
                ],
                user: runAs?.name, output: output, deathSignal: "INT", onExit: onExit)
        }
        let deadline = ContinuousClock.now + .seconds(30)
        while !Self.answers(bin, socket) {
            if ContinuousClock.now > deadline {
                throw ServiceError("the private PostgreSQL does not answer; see \(output)")
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
        let deadline = ContinuousClock.now + .seconds(15)
        while let text = try? String(contentsOfFile: pidFile, encoding: .utf8),
            let pid = pid_t(text.prefix { $0.isNumber }), kill(pid, 0) == 0 || errno == EPERM, !isUsable(),
            ContinuousClock.now < deadline
        {
            usleep(50_000)
        }
    }

    /// PostgreSQL's "fast" shutdown: SIGINT.
    public func stop() { process?.stop(signal: SIGINT, timeoutSeconds: 8) }

    private static func answers(_ bin: String, _ socket: String) -> Bool {
        (try? runProgram(["\(bin)/pg_isready", "-q", "-h", socket, "-U", user, "-d", "postgres"]))?.code == 0
    }

    /// Unix socket addresses hold 107 bytes (unix(7)): a deep data folder has its socket in a folder of its own in the
    /// shared temporary folder, whose name
    /// nobody can know before, and which is recorded in this file.
    private static let record = "socket-folder"

    private static func isDeep(_ folder: String) -> Bool { (folder + "/socket").utf8.count > 85 }

    /// - Throws: `ServiceError` when no folder was made yet, or the one that was is not private any more.
    static func socketFolder(in folder: String, owner: Account?) throws(ServiceError) -> String {
        let inside = folder + "/socket"
        guard isDeep(folder) else { return inside }
        let text = (try? String(contentsOfFile: "\(folder)/\(record)", encoding: .utf8)) ?? ""
        let path = String(text.prefix { !$0.isNewline })
        guard path.hasPrefix("/tmp/refold-"), PrivateFolder.isPrivate(path, owner: owner) else {
            throw ServiceError("the private PostgreSQL has no socket folder; start the daemon")
        }
        return path
    }

    private static func makeSocketFolder(in folder: String, owner: Account?) throws(ServiceError) -> String {
        if !isDeep(folder) {
            try PrivateFolder.make(folder + "/socket", owner: owner)
            return folder + "/socket"
        }
        if let known = try? socketFolder(in: folder, owner: owner) { return known }
        let path = try PrivateFolder.makeTemporary(owner: owner)
        try PrivateFolder.write(path + "\n", to: "\(folder)/\(record)", owner: owner)
        return path
    }

    /// Clusters of older versions trusted whoever reached the socket.
    private static func writeAccessRules(_ cluster: String, owner: Account?) throws(ServiceError) {
        let names = [owner?.name, Account(uid: geteuid())?.name, "root"].compactMap(\.self)
        let roles = [user, "refold_app"]
        let map = Set(names).sorted().flatMap { name in roles.map { "refold \"\(name)\" \($0)" } }
        try PrivateFolder.write(
            "# Written at each start.\n" + map.joined(separator: "\n") + "\n", to: cluster + "/pg_ident.conf",
            owner: owner)
        let rules = roles.map { "local all \($0) peer map=refold" } + ["local all all scram-sha-256"]
        try PrivateFolder.write(
            "# Written at each start.\n" + rules.joined(separator: "\n") + "\n", to: cluster + "/pg_hba.conf",
            owner: owner)
    }

    static func makeParents(of folder: String) throws(ServiceError) {
        let parent = URL(fileURLWithPath: folder).deletingLastPathComponent().path
        do {
            try FileManager.default.createDirectory(
                atPath: parent, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        } catch {
            throw ServiceError("cannot create the folder \(parent): \(error.localizedDescription)")
        }
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
