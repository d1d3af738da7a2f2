import COpenSSL
import Glibc

/// One broker to ingest from. Secrets are already resolved; nothing here is ever logged but `name` and `address`.
public struct BrokerSettings: Sendable, Equatable {
    public enum ProtocolPreference: String, Sendable, CaseIterable {
        /// MQTT 5 first, 3.1.1 when the broker refuses that.
        case automatic = "auto"
        case v5 = "5.0"
        case v311 = "3.1.1"
    }

    public struct TLS: Sendable, Equatable {
        /// PEM files. Without a CA file the system's certificates decide.
        public var caFile: String?
        public var certFile: String?
        public var keyFile: String?
        /// Off: any certificate and any host name is accepted.
        public var verify: Bool

        public init(caFile: String? = nil, certFile: String? = nil, keyFile: String? = nil, verify: Bool = true) {
            self.caFile = caFile
            self.certFile = certFile
            self.keyFile = keyFile
            self.verify = verify
        }
    }

    /// What records call this broker: 1 to 255 bytes.
    public var name: String
    public var host: String
    public var port: Int
    public var tls: TLS?
    public var username: String?
    public var password: String?
    /// Stable: the broker finds our session by it.
    public var clientID: String
    public var protocolPreference = ProtocolPreference.automatic
    /// How long the broker keeps our session and its queue while we are away (MQTT 5.0, 3.1.2.11.2).
    public var sessionExpirySeconds: UInt32 = 86_400
    /// How many unacknowledged QoS 1 messages we ask the broker to send at most: a hint (Mosquitto 2.0.11 overshoots).
    public var receiveMaximum: UInt16 = 16_384
    public var keepaliveSeconds = 30
    public var filters = ["tenant/+/device/+/#"]
    /// With a group, `$share/group/filter` is subscribed to: several nodes share the load.
    public var sharedGroup: String?
    public var batchMessagesMax = 4_096
    public var batchBytesMax = 4 << 20
    /// How long a batch may wait for more while traffic is dense; it never waits when traffic is thin.
    public var lingerMicros = 200
    public var backoff = ReconnectBackoff.Settings()
    /// Takes over a session that the broker has under our client id and that the log does not know.
    public var adoptsSession = false
    /// Subscribes to Mosquitto's count of dropped messages and its version too. Off for brokers that hang up on a
    /// refused subscription.
    public var watchesDropCounter = true

    public init(name: String, host: String, port: Int, clientID: String, tls: TLS? = nil) {
        self.name = name
        self.host = host
        self.port = port
        self.clientID = clientID
        self.tls = tls
    }

    /// `host:port`, never with credentials.
    public var address: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }

    /// What is subscribed to on the wire.
    package var wireFilters: [String] {
        guard let sharedGroup else { return filters }
        return filters.map { "$share/\(sharedGroup)/\($0)" }
    }

    /// Refuses what cannot work, before anything is started: a certificate file that is missing is an error here and
    /// never a silent fall back to a plain connection.
    public func validate() throws(BrokerSettingsError) {
        func fail(_ field: String, _ text: String) -> BrokerSettingsError {
            BrokerSettingsError(broker: name, field: field, text: text)
        }
        guard (1...255).contains(name.utf8.count) else { throw fail("name", "must have 1 to 255 bytes") }
        guard !host.isEmpty else { throw fail("host", "is empty") }
        guard (1...65_535).contains(port) else { throw fail("port", "\(port) is not in 1…65535") }
        guard (1...65_535).contains(clientID.utf8.count) else {
            throw fail("client_id", "must not be empty: the broker keeps our session by it")
        }
        guard username != nil || password == nil else { throw fail("username", "is needed with a password") }
        guard (5...65_535).contains(keepaliveSeconds) else {
            throw fail("keepalive", "\(keepaliveSeconds) s is not in 5…65535 s")
        }
        guard receiveMaximum > 0 else { throw fail("receive_maximum", "must be at least 1") }
        guard batchMessagesMax > 0, batchBytesMax > 0 else { throw fail("batch", "limits must be at least 1") }
        guard (0...1_000_000).contains(lingerMicros) else { throw fail("linger", "must be 0 to 1,000,000 µs") }
        guard !filters.isEmpty else { throw fail("filters", "is empty: there is nothing to ingest") }
        for filter in wireFilters where !Self.isFilter(filter) {
            throw fail("filters", "`\(filter)` is not an MQTT topic filter (MQTT 5.0, 4.7)")
        }
        if let tls { try Self.check(tls, fail) }
    }

    private static func isFilter(_ filter: String) -> Bool {
        guard !filter.isEmpty, filter.utf8.count <= 65_535, !filter.utf8.contains(0) else { return false }
        let levels = filter.split(separator: "/", omittingEmptySubsequences: false)
        for (index, level) in levels.enumerated() {
            if level.contains("#"), level != "#" || index != levels.count - 1 { return false }
            if level.contains("+"), level != "+" { return false }
        }
        return true
    }

    /// Loads the files as the connection will, into a context that is thrown away.
    private static func check(
        _ tls: TLS, _ fail: (String, String) -> BrokerSettingsError
    ) throws(BrokerSettingsError) {
        for (field, file) in [("ca_file", tls.caFile), ("cert_file", tls.certFile), ("key_file", tls.keyFile)] {
            guard let file else { continue }
            if access(file, R_OK) != 0 { throw fail(field, "cannot read \(file): \(String(cString: strerror(errno)))") }
        }
        guard (tls.certFile == nil) == (tls.keyFile == nil) else {
            throw fail(tls.certFile == nil ? "cert_file" : "key_file", "a client certificate and its key go together")
        }
        guard let context = SSL_CTX_new(TLS_client_method()) else { throw fail("tls", "OpenSSL gives no context") }
        defer {
            SSL_CTX_free(context)
            ERR_clear_error()
        }
        SSL_CTX_set_default_passwd_cb(context, { _, _, _, _ in 0 })
        if let file = tls.caFile, SSL_CTX_load_verify_locations(context, file, nil) != 1 {
            throw fail("ca_file", "\(file) holds no certificate in PEM form")
        }
        if let file = tls.certFile, SSL_CTX_use_certificate_chain_file(context, file) != 1 {
            throw fail("cert_file", "\(file) holds no certificate in PEM form")
        }
        if let file = tls.keyFile, SSL_CTX_use_PrivateKey_file(context, file, SSL_FILETYPE_PEM) != 1 {
            throw fail("key_file", "\(file) holds no key that fits the certificate (PEM, without a passphrase)")
        }
    }
}

/// A setting of a broker that cannot work. The text names the broker, the setting and what is wrong.
public struct BrokerSettingsError: Error, Sendable, CustomStringConvertible {
    public let broker: String
    public let field: String
    public let text: String
    public var description: String { "broker `\(broker)`: \(field) \(text)" }

    package init(broker: String, field: String, text: String) {
        (self.broker, self.field, self.text) = (broker, field, text)
    }
}

extension BrokerSettings {
    /// For another connection of the same log: `purpose` follows in the client id, and the log's id where the client id
    /// does not end with it. A second instance under the same client id, which ingest refuses, must not end it.
    public func beside(_ purpose: String, logID: String) -> BrokerSettings {
        let short = logID.prefix(12)
        var settings = self
        settings.clientID += clientID.hasSuffix(short) ? "-\(purpose)" : "-\(short)-\(purpose)"
        return settings
    }
}
