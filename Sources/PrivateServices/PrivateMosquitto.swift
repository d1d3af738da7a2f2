import Foundation
import Primitives

/// A Mosquitto of our own inside the data folder: loopback only, one user with a password of this folder's, never run
/// as root, and none of its default limits under which a broker loses messages in silence.
public final class PrivateMosquitto: Sendable {
    public let port: Int
    public let username = "refold"
    /// In the file `password` of its folder, which only its owner can enter.
    public let password: String
    /// What a person types before `-t TOPIC -m TEXT`: the address and the password come from the folder.
    public let publishCommand: String
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
        let runAs = geteuid() == 0 ? Account(named: "mosquitto", "nobody") : nil
        if geteuid() == 0, runAs == nil {
            throw ServiceError(
                "Refold does not run Mosquitto as root, and there is no user mosquitto: install the package mosquitto")
        }
        try PrivatePostgres.makeParents(of: folder)
        try PrivateFolder.make(folder, owner: runAs)
        // Versions before ran it as root.
        if let runAs {
            for name in ["mosquitto.db", "mosquitto.db.new", "mosquitto.log", "mosquitto.pid"] {
                _ = lchown("\(folder)/\(name)", runAs.uid, runAs.gid)
            }
        }
        password = try Self.password(in: folder, owner: runAs)
        try Self.writeHash(of: password, username, in: folder, owner: runAs)
        let client = folder + "/client"
        try PrivateFolder.make(client, owner: runAs)
        for program in ["mosquitto_pub", "mosquitto_sub"] {
            try PrivateFolder.write(
                "-h 127.0.0.1\n-p \(port)\n-u \(username)\n-P \(password)\n", to: "\(client)/\(program)", owner: runAs)
        }
        publishCommand = "XDG_CONFIG_HOME=\(client) mosquitto_pub -q 1"
        // Root's mosquitto would become another user by itself, who need not be able to enter the data folder.
        let text = """
            # Written at each start.
            listener \(port) 127.0.0.1
            allow_anonymous false
            password_file \(folder)/mosquitto.passwd
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
        try PrivateFolder.write(text, to: folder + "/mosquitto.conf", owner: runAs)
        process = try ChildProcess(
            name: "mosquitto", arguments: [program, "-c", folder + "/mosquitto.conf"], user: runAs?.name,
            output: folder + "/mosquitto.log", onExit: onExit)
        let deadline = ContinuousClock.now + .seconds(10)
        while Self.isFree(port) {
            guard process.isRunning, ContinuousClock.now < deadline else {
                process.stop(timeoutSeconds: 1)
                throw ServiceError("the private Mosquitto does not start; see \(folder)/mosquitto.log")
            }
            usleep(20_000)
        }
    }

    /// Made once.
    private static func password(in folder: String, owner: Account?) throws(ServiceError) -> String {
        let path = folder + "/password"
        let known = ((try? String(contentsOfFile: path, encoding: .utf8)) ?? "").prefix { !$0.isNewline }
        if known.utf8.count >= 32, known.allSatisfy(\.isHexDigit) { return String(known) }
        var generator = SystemRandomNumberGenerator()
        let made = Hex.encode(generator.next() as UInt64) + Hex.encode(generator.next() as UInt64)
        try PrivateFolder.write(made + "\n", to: path, owner: owner)
        return made
    }

    /// By Mosquitto's own tool, which replaces passwords in a file by their hashes.
    private static func writeHash(
        of password: String, _ username: String, in folder: String, owner: Account?
    ) throws(ServiceError) {
        let path = folder + "/mosquitto.passwd"
        // The tool needs a file of ours: it warns of others, and refuses them in newer versions.
        try PrivateFolder.write("\(username):\(password)\n", to: path, owner: nil)
        let result = try runProgram(["mosquitto_passwd", "-U", path])
        guard result.code == 0, let text = try? String(contentsOfFile: path, encoding: .utf8),
            !text.contains(password)
        else {
            unlink(path)
            throw ServiceError("mosquitto_passwd failed (package mosquitto): \(result.output)")
        }
        try PrivateFolder.write(text, to: path, owner: owner)
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
