import CPostgres

/// Where to connect: a `postgresql://` URL or libpq's `key=value` form, with what should hold unless it says
/// otherwise.
public struct DatabaseTarget: Sendable {
    public let url: String
    public var applicationName: String
    public var connectTimeoutSeconds: Int
    /// How long a statement may leave us without a word before the connection counts as lost.
    public var responseTimeoutSeconds: Int

    public init(
        _ url: String, applicationName: String = "refold", connectTimeoutSeconds: Int = 5,
        responseTimeoutSeconds: Int = 150
    ) {
        self.url = url
        self.applicationName = applicationName
        self.connectTimeoutSeconds = connectTimeoutSeconds
        self.responseTimeoutSeconds = responseTimeoutSeconds
    }

    /// The keywords for `PQconnectStartParams`, in order: for one that appears twice the later wins, so the
    /// URL (expanded where `dbname` stands) overrides what is before it.
    var keywords: [(String, String)] {
        [
            ("application_name", applicationName), ("connect_timeout", String(connectTimeoutSeconds)),
            // A peer that vanished without a word is noticed after about half a minute.
            ("keepalives_idle", "15"), ("keepalives_interval", "5"), ("keepalives_count", "3"),
            ("tcp_user_timeout", "30000"),
            ("dbname", url), ("client_encoding", "UTF8"),
        ]
    }

    /// The URL's own, if it names one: libpq's asynchronous calls leave it to the caller.
    var connectTimeoutSecondsInForce: Int {
        (try? options()["connect_timeout"]).flatMap { Int($0) }.flatMap { $0 > 0 ? $0 : nil }
            ?? connectTimeoutSeconds
    }

    /// Throws when `url` cannot be read. libpq's own message would quote it, password included.
    public func check() throws(PostgresError) { _ = try options() }

    /// For people: user, host, port and database, and no secret.
    public var description: String {
        guard let options = try? options() else { return "(unreadable database URL)" }
        let host = options["host"] ?? options["hostaddr"] ?? "local"
        let port = options["port"].map { ":\($0)" } ?? ""
        return "\(options["user"].map { "\($0)@" } ?? "")\(host)\(port)/\(options["dbname"] ?? "")"
    }

    /// `text` without the password.
    func redact(_ text: String) -> String {
        guard let password = try? options()["password"], !password.isEmpty else { return text }
        var rest = text[...], result = ""
        while let found = rest.firstRange(of: password) {
            result += rest[..<found.lowerBound] + "***"
            rest = rest[found.upperBound...]
        }
        return result + rest
    }

    func options() throws(PostgresError) -> [String: String] {
        guard let list = PQconninfoParse(url, nil) else {
            throw PostgresError(
                sqlState: nil, message: "the database URL cannot be read",
                hint: "expected postgresql://user:password@host:port/database, with %-escapes in its parts",
                statement: "connect", kind: .refused)
        }
        defer { PQconninfoFree(list) }
        var options: [String: String] = [:]
        var option = list
        while let keyword = option.pointee.keyword {
            if let value = option.pointee.val { options[String(cString: keyword)] = String(cString: value) }
            option += 1
        }
        return options
    }
}
