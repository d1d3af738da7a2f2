import Foundation
import Synchronization

/// A real Mosquitto on a free loopback port, in a temporary folder. Killed when released or when the test process ends.
public final class MosquittoServer: Sendable {
    public let folder: String
    public let port: Int
    public let certificates: TestCertificates?
    private let process = Mutex<ChildProcess?>(nil)

    /// - Parameters:
    ///   - tls: the only listener speaks TLS, by `certificates`.
    ///   - clientCertificates: clients must show one that the test CA has signed.
    ///   - persistent: sessions survive `stop` and `start`.
    ///   - limits: queue limits are lifted unless this is false (the defaults drop messages in silence).
    ///   - lines: more of `mosquitto.conf`. `$folder` stands for the folder.
    ///   - files: more files to write into the folder first, by name.
    public init(
        tls: Bool = false, serverNames: String = "DNS:localhost,IP:127.0.0.1", clientCertificates: Bool = false,
        persistent: Bool = false, allowAnonymous: Bool = true, liftLimits: Bool = true, lines: [String] = [],
        files: [String: String] = [:], started: Bool = true
    ) throws {
        folder = try makeTemporaryFolder("mqtt")
        port = freeLoopbackPort()
        certificates = tls ? try TestCertificates(folder: folder, serverNames: serverNames) : nil
        var conf = [
            "listener \(port) 127.0.0.1", "allow_anonymous \(allowAnonymous)", "log_dest stderr",
            "log_type all",
        ]
        // Given root, Mosquitto would become another user and could not read the folder.
        if getuid() == 0 { conf.append("user root") }
        if let certificates {
            conf += [
                "certfile \(certificates.serverCert)", "keyfile \(certificates.serverKey)",
                "cafile \(certificates.ca)",
            ]
            if clientCertificates { conf.append("require_certificate true") }
        }
        if liftLimits { conf += ["max_inflight_messages 0", "max_queued_messages 0"] }
        conf += persistent ? ["persistence true", "persistence_location \(folder)/"] : ["persistence false"]
        conf += lines.map { $0.replacingOccurrences(of: "$folder", with: folder) }
        for (name, text) in files {
            try text.write(toFile: "\(folder)/\(name)", atomically: true, encoding: .utf8)
            _ = chmod("\(folder)/\(name)", 0o600)
        }
        try conf.joined(separator: "\n").appending("\n").write(
            toFile: folder + "/mosquitto.conf", atomically: true, encoding: .utf8)
        if started { try start() }
    }

    deinit {
        kill()
        try? FileManager.default.removeItem(atPath: folder)
    }

    public var url: String { "\(certificates == nil ? "mqtt" : "mqtts")://127.0.0.1:\(port)" }
    public var logText: String { (try? String(contentsOfFile: folder + "/server.log", encoding: .utf8)) ?? "" }

    /// Starts the broker and waits until it accepts connections.
    public func start() throws {
        let child = try ChildProcess(
            ["/usr/sbin/mosquitto", "-c", folder + "/mosquitto.conf"], log: folder + "/server.log")
        let deadline = Date().addingTimeInterval(20)
        while !acceptsConnections(port: port) {
            guard child.isRunning, Date() < deadline else {
                throw SystemError("mosquitto does not start: \(logText)")
            }
            usleep(5_000)
        }
        process.withLock { $0 = child }
    }

    /// Ends in order: sessions are saved when persistent.
    public func stop() { end(SIGTERM) }
    public func kill() { end(SIGKILL) }

    /// Saves sessions now, as `autosave_interval` does (mosquitto(8): SIGUSR1). Returns when the file is written.
    public func save() throws {
        let path = folder + "/mosquitto.db"
        func modified() -> Date? {
            (try? FileManager.default.attributesOfItem(atPath: path))?[.modificationDate] as? Date
        }
        let before = modified()
        process.withLock { $0?.kill(SIGUSR1) }
        let deadline = Date().addingTimeInterval(20)
        while modified() == before {
            guard Date() < deadline else { throw SystemError("mosquitto does not save: \(logText.suffix(500))") }
            usleep(5_000)
        }
    }

    /// Makes the broker read its CRL and ACL files again (mosquitto(8): SIGHUP).
    public func reload() { process.withLock { $0?.kill(SIGHUP) } }

    /// Nil while the broker is stopped.
    public var pid: pid_t? { process.withLock { $0?.pid } }

    /// Freezes the broker: connections stay open and nothing answers.
    public func freeze() { process.withLock { $0?.kill(SIGSTOP) } }
    public func thaw() { process.withLock { $0?.kill(SIGCONT) } }

    private func end(_ signal: Int32) {
        process.withLock { child in
            child?.kill(signal)
            child?.wait()
            child = nil
        }
    }
}

/// A port of 127.0.0.1 that nobody uses now.
public func freeLoopbackPort() -> Int {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    defer { close(descriptor) }
    return bindLoopback(descriptor, port: 0)
}

private func acceptsConnections(port: Int) -> Bool {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    defer { close(descriptor) }
    return connectLoopback(descriptor, port: port)
}

/// A CA, a server certificate for 127.0.0.1 and localhost, and a client certificate, made by openssl(1).
public struct TestCertificates: Sendable {
    public let ca, serverCert, serverKey, clientCert, clientKey: String
    /// A CA that has signed none of the others.
    public let strangerCA: String

    /// - Parameter serverNames: the names that the server's certificate is for.
    public init(folder: String, serverNames: String = "DNS:localhost,IP:127.0.0.1") throws {
        ca = folder + "/ca.pem"
        serverCert = folder + "/server.pem"
        serverKey = folder + "/server.key"
        clientCert = folder + "/client.pem"
        clientKey = folder + "/client.key"
        strangerCA = folder + "/stranger.pem"
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        func make(_ name: String, _ more: [String]) throws {
            try Self.openssl(
                ["req", "-x509"] + key + ["-keyout", "\(folder)/\(name).key", "-out", "\(folder)/\(name).pem"] + more,
                log: folder + "/openssl.log")
        }
        let authority = ["-addext", "basicConstraints=critical,CA:TRUE"]
        try make("ca", ["-subj", "/CN=test ca"] + authority)
        try make("stranger", ["-subj", "/CN=stranger"] + authority)
        let signed = ["-CA", ca, "-CAkey", folder + "/ca.key", "-addext", "basicConstraints=critical,CA:FALSE"]
        try make("server", signed + ["-subj", "/CN=server", "-addext", "subjectAltName=\(serverNames)"])
        try make("client", signed + ["-subj", "/CN=refold"])
    }

    private static func openssl(_ arguments: [String], log: String) throws {
        let child = try ChildProcess(["/usr/bin/openssl"] + arguments, log: log)
        child.wait()
        let output = (try? String(contentsOfFile: log, encoding: .utf8)) ?? ""
        guard let out = arguments.firstIndex(of: "-out"), access(arguments[out + 1], R_OK) == 0 else {
            throw SystemError("openssl \(arguments.joined(separator: " ")): \(output)")
        }
    }
}
