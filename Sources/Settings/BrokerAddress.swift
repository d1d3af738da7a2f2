import Foundation

/// Where a broker is, from `mqtt://[user[:password]@]host[:port]` and its relatives.
public struct BrokerAddress: Sendable, Equatable {
    public var host: String
    public var port: Int
    public var tls: Bool
    public var username: String?
    public var password: String?

    /// `mqtt`, `tcp` and no scheme at all mean plain (port 1883), `mqtts`, `ssl` and `tls` mean TLS (port 8883).
    public init?(url text: String) {
        let withScheme = text.contains("://") ? text : "mqtt://" + text
        guard let url = URLComponents(string: withScheme), let scheme = url.scheme?.lowercased(), var host = url.host,
            !host.isEmpty, url.path.isEmpty || url.path == "/", url.query == nil, url.fragment == nil
        else { return nil }
        switch scheme {
        case "mqtt", "tcp": tls = false
        case "mqtts", "ssl", "tls": tls = true
        default: return nil
        }
        if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
        self.host = host
        port = url.port ?? (tls ? 8883 : 1883)
        guard (1...65_535).contains(port) else { return nil }
        username = url.user.flatMap { $0.isEmpty ? nil : $0 }
        password = url.password
    }
}

func isReadable(_ path: String) -> Bool { FileManager.default.isReadableFile(atPath: path) }

/// The first line of a file that holds a secret. A bare name is a credential of the unit, where it has one
/// (systemd.exec(5), LoadCredential=).
func readSecret(
    _ name: String, environment: [String: String] = ProcessInfo.processInfo.environment
) throws(SettingsError) -> String {
    var path = name
    if !name.contains("/"), let folder = environment["CREDENTIALS_DIRECTORY"], isReadable("\(folder)/\(name)") {
        path = "\(folder)/\(name)"
    }
    guard let text = try? String(contentsOfFile: path, encoding: .utf8) else {
        throw SettingsError(["the file \(path) is missing or cannot be read as UTF-8 text"])
    }
    return String(text.prefix { !$0.isNewline })
}
