// Settings: what the daemon is configured with: flag, then `REFOLD_…` variable, then `refold.yaml`, then default.
//
// `Catalog.swift` lists every setting once; `SettingsSource` finds its value and where that came from; `Settings` is
// the checked result. A misspelt key, a wrong type or a contradiction is an error that says where it stands and what
// was probably meant: a setting that is silently ignored is found out in the worst night of the year.

import EventModel

/// The checked settings of a daemon.
public struct Settings: Sendable {
    public var data: String
    /// Nil: the log id alone names this Refold to brokers.
    public var node: String?
    public var httpHost: String
    public var httpPort: Int
    /// Names under which reverse proxies serve the API.
    public var httpHosts: [String]
    /// Addresses of reverse proxies that end TLS.
    public var httpProxies: [String]
    public var databaseURL: String?
    public var brokers: [Broker]
    public var payloadBytesMax: Int
    public var ratePerSecond: Int
    public var burst: Int
    public var devicesTrackedMax: Int
    public var segmentBytes: Int
    public var archiveCommand: String?
    /// Nil: segments are sealed when they are full.
    public var archiveTimeoutSeconds: Int?
    public var restoreCommand: String?
    /// Nil: no such rule.
    public var retentionBytes: Int?
    public var retentionSeconds: Int?
    public var retentionAllowsHorizon: Bool
    /// Nil: no snapshot is made but by command.
    public var snapshotLogBytes: Int?
    /// Nil: only when asked.
    public var verifySeconds: Int?
    public var checkpointCommand: String?
    public var publishesCheckpoints: Bool
    /// Of archive, restore and checkpoint commands.
    public var commandTimeoutSeconds: Int
    /// 0: no scrubbing.
    public var scrubBytesPerSecond: Int
    public var presence = PresenceThresholds()
    public var certificates: Certificates
    /// Jobs that the daemon runs at a time, of each queue.
    public var jobWorkers: Int
    /// Certificate renewals that jobs start in any minute; nil: no limit.
    public var renewalsPerMinute: Int?
    public var stateBytes: Int
    public var loggingLevel: String
    public var loggingFormat: String
    /// Everything in force, in the order of the catalog, for `refold config check`.
    public var resolved: [ResolvedSetting]

    public struct Certificates: Sendable {
        public var commonName: String
        public var organization: String?
        public var validDays: Int
        public var crlDays: Int
        public var renews: Bool
        public var renewAfterPercent: Int
        public var renewGraceDays: Int
        /// Without a slash at its end.
        public var crlURL: String?
        public var keyPassphrase: String?
        public var signCommand: String?
        /// What happens to messages of devices without a live certificate.
        public var enforce = Enforce.off
    }

    public enum Enforce: String, Sendable { case off, report, enforce }

    public struct Broker: Sendable {
        public var name: String
        public var address: BrokerAddress
        /// Nil: made of the log id, and of the node's name where it has one.
        public var clientID: String?
        public var username: String?
        public var password: String?
        public var caFile: String?
        public var certFile: String?
        public var keyFile: String?
        public var verify: Bool
        /// `auto`, `5` or `3.1.1`.
        public var protocolVersion: String
        public var sessionExpirySeconds: UInt32
        public var receiveMaximum: UInt16
        public var keepaliveSeconds: Int
        public var filters: [String]
        public var shareGroup: String?
        public var batchMessagesMax: Int
        public var lingerMicros: Int
        public var crl: CRL?
    }

    public init(from source: SettingsSource) throws(SettingsError) {
        var problems: [String] = []
        var resolved: [String: ResolvedSetting] = [:]
        var ordered: [ResolvedSetting] = []
        for setting in SettingsCatalog.all(brokers: source.brokerNames) {
            let value = source.resolve(setting, problems: &problems)
            resolved[setting.key] = value
            ordered.append(value)
        }
        let values = Values(resolved: resolved)
        let text = values.text, int = values.int, optional = values.optional, positive = values.positive
        data = text("data")
        node = optional("node")
        databaseURL = optional("database.url")
        payloadBytesMax = int("gate.payload_bytes_max")
        ratePerSecond = int("gate.rate_per_second")
        burst = int("gate.burst")
        devicesTrackedMax = int("gate.devices_tracked_max")
        segmentBytes = int("log.segment_bytes")
        archiveCommand = optional("archive_command")
        archiveTimeoutSeconds = positive("archive_timeout_seconds")
        restoreCommand = optional("restore_command")
        retentionBytes = positive("retention.bytes")
        retentionSeconds = positive("retention.seconds")
        retentionAllowsHorizon = SettingsSource.parseBool(text("retention.allow_horizon")) ?? false
        snapshotLogBytes = positive("snapshot.log_bytes")
        verifySeconds = positive("verify.every_seconds")
        checkpointCommand = optional("checkpoint_command")
        publishesCheckpoints = SettingsSource.parseBool(text("checkpoint.publish")) ?? true
        commandTimeoutSeconds = int("command_timeout_seconds")
        scrubBytesPerSecond = int("scrub.bytes_per_second")
        presence.staleSeconds = Double(int("presence.stale_seconds"))
        presence.offlineSeconds = Double(int("presence.offline_seconds"))
        (jobWorkers, renewalsPerMinute) = (int("jobs.workers"), positive("jobs.renewals_per_minute"))
        certificates = Certificates(
            commonName: text("certificates.common_name"), organization: optional("certificates.organization"),
            validDays: int("certificates.valid_days"), crlDays: int("certificates.crl_days"),
            renews: SettingsSource.parseBool(text("certificates.renew")) ?? false,
            renewAfterPercent: int("certificates.renew_after_percent"),
            renewGraceDays: int("certificates.renew_grace_days"),
            crlURL: optional("certificates.crl_url"), signCommand: optional("certificates.sign_command"),
            enforce: Enforce(rawValue: text("certificates.enforce")) ?? .off)
        stateBytes = int("projections.state_bytes")
        loggingLevel = text("logging.level")
        loggingFormat = text("logging.format")
        let (host, port) = Self.hostAndPort(text("http"))
        httpHost = host
        httpPort = port ?? 0
        httpHosts = values.list("http_hosts")
        httpProxies = values.list("http_proxies")
        brokers = []
        // The private services' case: nothing was said of the other broker form, so it is not shown.
        self.resolved = ordered.filter { !$0.setting.key.hasPrefix("broker.") || source.brokerNames.isEmpty }

        if port == nil {
            problems.append("\(values.origin("http")): http is '\(text("http"))': must be HOST:PORT")
        }
        problems += contradictions
        checkDatabase(values, &problems)
        checkCertificates(values, &problems)
        readBrokers(named: source.brokerNames, values, &problems)
        if certificates.crlURL == nil {
            for broker in brokers where broker.crl?.cut?.emqx != nil {
                problems.append(
                    "broker \(broker.name): crl_cut is emqx, which fetches CRLs from the distribution point in "
                        + "certificates: set certificates.crl_url")
            }
        }
        if !problems.isEmpty { throw SettingsError(problems) }
    }

    /// Found values by key.
    private struct Values {
        let resolved: [String: ResolvedSetting]

        /// Empty: not set.
        func text(_ key: String) -> String { resolved[key]?.text ?? "" }
        func int(_ key: String) -> Int { Int(text(key)) ?? 0 }
        func optional(_ key: String) -> String? { text(key).isEmpty ? nil : text(key) }
        func positive(_ key: String) -> Int? { int(key) > 0 ? int(key) : nil }
        func list(_ key: String) -> [String] {
            text(key).split(separator: ",").map { $0.trimmingPrefix(" ") }.map(String.init).filter { !$0.isEmpty }
        }
        func origin(_ key: String) -> String { resolved[key]?.origin ?? "" }
    }

    /// Problems of settings that are valid one by one.
    private var contradictions: [String] {
        var problems: [String] = []
        if retentionBytes != nil || retentionSeconds != nil, archiveCommand == nil, !retentionAllowsHorizon {
            problems.append("retention needs archive_command, or retention.allow_horizon: true to lose what is removed")
        }
        if presence.offlineSeconds <= presence.staleSeconds {
            problems.append(
                "presence.offline_seconds (\(Int(presence.offlineSeconds))) must be more than "
                    + "presence.stale_seconds (\(Int(presence.staleSeconds)))")
        }
        if let node,
            node.utf8.count > 64
                || !node.utf8.allSatisfy({ $0.isLetterOrDigit || $0 == 0x2E || $0 == 0x2D || $0 == 0x5F })
        {
            problems.append("node is '\(node)': must be 1 to 64 of A-Z a-z 0-9 . _ -")
        }
        return problems
    }

    /// Checks the database's URL and adds the password of its file.
    private mutating func checkDatabase(_ values: Values, _ problems: inout [String]) {
        if let url = databaseURL, !url.hasPrefix("postgresql://"), !url.hasPrefix("postgres://") {
            problems.append("\(values.origin("database.url")): database.url must begin with postgresql://")
        }
        if let file = values.optional("database.password_file") {
            if let url = databaseURL {
                do {
                    databaseURL = Self.adding(password: try readSecret(file), to: url)
                } catch {
                    problems.append("database.password_file: \(error)")
                }
            } else {
                problems.append("database.password_file is set without database.url")
            }
        }
    }

    /// Checks the pattern and the address, and reads the passphrase of its file.
    private mutating func checkCertificates(_ values: Values, _ problems: inout [String]) {
        if !certificates.commonName.contains("{device}") {
            problems.append(
                "\(values.origin("certificates.common_name")): certificates.common_name must contain {device}: brokers "
                    + "tell devices apart by it")
        }
        if var url = certificates.crlURL {
            while url.hasSuffix("/") { url.removeLast() }
            certificates.crlURL = url
            if !url.hasPrefix("http://") {
                problems.append(
                    "\(values.origin("certificates.crl_url")): certificates.crl_url must begin with http://: a CRL is "
                        + "signed, and verifying TLS may need it (RFC 5280, section 8)")
            }
        }
        if let file = values.optional("certificates.key_passphrase_file") {
            do {
                let passphrase = try readSecret(file)
                if passphrase.isEmpty {
                    problems.append("certificates.key_passphrase_file: the first line of \(file) is empty")
                }
                certificates.keyPassphrase = passphrase
            } catch {
                problems.append("certificates.key_passphrase_file: \(error)")
            }
        }
    }

    private mutating func readBrokers(named names: [String], _ values: Values, _ problems: inout [String]) {
        let singleGiven = SettingsCatalog.settings(under: "broker").contains {
            values.resolved[$0.key]?.origin != "default"
        }
        if singleGiven, !names.isEmpty {
            problems.append(
                "both 'broker' and 'brokers' are set: give one broker under 'broker', or several under 'brokers.<name>'"
            )
        }
        let named =
            names.isEmpty ? (singleGiven ? [("main", "broker")] : []) : names.map { ($0, "brokers.\($0)") }
        for (name, prefix) in named {
            if let broker = Self.broker(name, prefix, values.resolved, &problems) { brokers.append(broker) }
        }
    }

    private static func broker(
        _ name: String, _ prefix: String, _ resolved: [String: ResolvedSetting], _ problems: inout [String]
    ) -> Broker? {
        func text(_ key: String) -> String { resolved["\(prefix).\(key)"]?.text ?? "" }
        func optional(_ key: String) -> String? { text(key).isEmpty ? nil : text(key) }
        func int(_ key: String) -> Int { Int(text(key)) ?? 0 }
        guard let url = optional("url") else {
            problems.append("\(prefix).url is missing: mqtt://[user[:password]@]host[:port]")
            return nil
        }
        guard let address = BrokerAddress(url: url) else {
            problems.append(
                "\(resolved["\(prefix).url"]?.origin ?? ""): \(prefix).url must be "
                    + "mqtt://[user[:password]@]host[:port], or mqtts:// for TLS")
            return nil
        }
        var broker = Broker(
            name: name, address: address, clientID: optional("client_id"),
            username: address.username ?? optional("username"),
            password: address.password ?? optional("password"), caFile: optional("ca_file"),
            certFile: optional("cert_file"),
            keyFile: optional("key_file"), verify: SettingsSource.parseBool(text("verify")) ?? true,
            protocolVersion: text("protocol"), sessionExpirySeconds: UInt32(clamping: int("session_expiry_seconds")),
            receiveMaximum: UInt16(clamping: int("receive_maximum")), keepaliveSeconds: int("keepalive_seconds"),
            filters: text("filters").split(separator: ",").map { $0.trimmingPrefix(" ") }.map(String.init),
            shareGroup: optional("share_group"), batchMessagesMax: int("batch_messages_max"),
            lingerMicros: int("linger_micros"))
        if let inURL = address.username, let beside = optional("username"), inURL != beside {
            problems.append("\(prefix): url and username name two users; give one")
        }
        if let inURL = address.password, (optional("password") ?? inURL) != inURL || optional("password_file") != nil {
            problems.append("\(prefix): a password stands in url and another beside it; give one")
        }
        if let file = optional("password_file") {
            if optional("password") != nil {
                problems.append("\(prefix): both password and password_file are set; give one")
            }
            do {
                broker.password = try readSecret(file)
            } catch {
                problems.append("\(prefix).password_file: \(error)")
            }
        }
        broker.crl = crl(prefix, text, broker, &problems)
        let namesTLS = broker.caFile ?? broker.certFile ?? broker.keyFile
        if namesTLS != nil, !address.tls {
            problems.append("\(prefix): certificate files are named but the URL is plain; use mqtts://")
        }
        if (broker.certFile == nil) != (broker.keyFile == nil) {
            problems.append("\(prefix): cert_file and key_file go together")
        }
        for file in [broker.caFile, broker.certFile, broker.keyFile].compactMap(\.self) where !isReadable(file) {
            problems.append("\(prefix): the file \(file) is missing or cannot be read")
        }
        if broker.password != nil, broker.username == nil {
            problems.append("\(prefix): a password without a user name (MQTT 3.1.1 forbids it)")
        }
        for filter in broker.filters where !isValidFilter(filter) {
            problems.append("\(prefix).filters: '\(filter)' is no MQTT topic filter")
        }
        for (index, filter) in broker.filters.enumerated() {
            // A broker may deliver a message once for each subscription that matches (MQTT 5.0, 3.3.4).
            for other in broker.filters[..<index] where overlap(filter, other) {
                problems.append(
                    "\(prefix).filters: '\(other)' and '\(filter)' overlap: messages would be recorded twice")
            }
        }
        return broker
    }

    /// MQTT 5.0, 4.7.1: `#` only last and whole, `+` only whole levels.
    static func isValidFilter(_ filter: String) -> Bool {
        guard !filter.isEmpty, filter.utf8.count <= 65_535, !filter.contains("\0") else { return false }
        let levels = filter.split(separator: "/", omittingEmptySubsequences: false)
        return levels.enumerated().allSatisfy { index, level in
            if level.contains("#") { return level == "#" && index == levels.count - 1 }
            return !level.contains("+") || level == "+"
        }
    }

    /// Whether a topic exists that both match (MQTT 5.0, 4.7).
    static func overlap(_ a: String, _ b: String) -> Bool {
        var a = a.split(separator: "/", omittingEmptySubsequences: false)[...]
        var b = b.split(separator: "/", omittingEmptySubsequences: false)[...]
        // `#` also matches the level above it.
        while let first = a.first, let second = b.first {
            if first == "#" || second == "#" { return true }
            guard first == "+" || second == "+" || first == second else { return false }
            (a, b) = (a.dropFirst(), b.dropFirst())
        }
        return a.isEmpty && b.isEmpty || (a.first ?? b.first) == "#"
    }

    /// As a parameter: libpq's URLs may name several hosts (PostgreSQL manual, 34.1.1), which other parsers refuse.
    static func adding(password: String, to url: String) -> String {
        let hex = Array("0123456789ABCDEF".utf8)
        let escaped = password.utf8.flatMap { byte -> [UInt8] in
            byte.isLetterOrDigit ? [byte] : [UInt8(ascii: "%"), hex[Int(byte >> 4)], hex[Int(byte & 15)]]
        }
        return url + (url.contains("?") ? "&" : "?") + "password=" + String(decoding: escaped, as: UTF8.self)
    }

    /// `host:port`, `[v6]:port`.
    static func hostAndPort(_ text: String) -> (String, Int?) {
        guard let colon = text.lastIndex(of: ":") else { return (text, nil) }
        var host = String(text[..<colon])
        if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
        guard let port = Int(text[text.index(after: colon)...]), (0...65_535).contains(port), !host.isEmpty
        else { return (host, nil) }
        return (host, port)
    }
}
