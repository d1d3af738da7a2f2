import EventModel

/// One setting: its key in `refold.yaml`, dots for nesting. The environment variable is `REFOLD_` and the key in
/// capitals with underscores (`broker.url` → `REFOLD_BROKER_URL`).
public struct Setting: Sendable {
    public enum Kind: Sendable {
        case string, secret, bool, list
        /// Whole numbers within the range.
        case int(ClosedRange<Int>)
        case choice([String])
    }

    public let key: String
    public let kind: Kind
    /// As written in a file; empty means none.
    public let fallback: String
    public let help: String

    init(_ key: String, _ kind: Kind, _ fallback: String, _ help: String) {
        self.key = key
        self.kind = kind
        self.fallback = fallback
        self.help = help
    }

    var isSecret: Bool { if case .secret = kind { true } else { false } }
    public var environmentName: String { "REFOLD_" + key.uppercased().replacing(".", with: "_") }
}

/// Every setting there is. A key that is not here is an error.
public enum SettingsCatalog {
    static let fixed: [Setting] = [
        Setting("data", .string, "./data", "folder of the log, the token, and the private services"),
        Setting(
            "node", .string, "",
            "name of this node in its MQTT client id, refold-<node>-<log id>; none: refold-<log id>"),
        Setting("http", .string, "127.0.0.1:7480", "address of the API, the metrics and the pages"),
        Setting(
            "http_hosts", .list, "",
            "names (NAME or NAME:PORT) under which a reverse proxy serves the API; reads then need a token"),
        Setting(
            "http_proxies", .list, "",
            "addresses or blocks (10.0.0.0/8) of reverse proxies that end TLS; needed to listen beyond loopback"),
        Setting("database.url", .secret, "", "postgresql://user:password@host:5432/name; none: a private PostgreSQL"),
        Setting(
            "database.password_file", .string, "",
            "file whose first line is the password, where the URL has none; a bare name: a systemd credential"),
        Setting(
            "gate.payload_bytes_max", .int(1...1_048_576), "262144",
            "larger payloads are recorded cut, as PAYLOAD_TOO_LARGE"),
        Setting(
            "gate.rate_per_second", .int(1...1_000_000), "1000",
            "messages a second that a device may send on average"),
        Setting("gate.burst", .int(1...10_000_000), "5000", "messages that a device may send at once"),
        Setting("gate.devices_tracked_max", .int(1_000...50_000_000), "1000000", "devices whose rate is remembered"),
        Setting("log.segment_bytes", .int(1_048_576...1_073_741_824), "67108864", "size of a segment file"),
        Setting(
            "scrub.bytes_per_second", .int(0...10_737_418_240), "1048576",
            "how fast the log is read again in the background, to find damage; 0: not at all"),
        Setting(
            "archive_command", .string, "",
            "shell command for each sealed segment, in order: %p its path, %f its name; exit 0: it is archived"),
        Setting(
            "archive_timeout_seconds", .int(0...31_536_000), "0",
            "a segment is sealed, to be archived, when it is older than this, full or not; 0: when it is full"),
        Setting(
            "restore_command", .string, "",
            "shell command that fetches an archived segment: %f its name, %p where to put it"),
        Setting(
            "retention.bytes", .int(0...1_125_899_906_842_624), "0",
            "the oldest segments leave the disk while the log uses more; 0: whatever it uses"),
        Setting(
            "retention.seconds", .int(0...3_153_600_000), "0",
            "segments leave the disk when their last event is older; 0: however old"),
        Setting(
            "retention.allow_horizon", .bool, "false",
            "remove without an archive: older events are then lost, and whatever needs them says so"),
        Setting(
            "snapshot.log_bytes", .int(0...1_125_899_906_842_624), "16777216",
            "a snapshot is made when the log has grown by 10 times the last one's size, and by so much; 0: by command"),
        Setting(
            "verify.every_seconds", .int(0...31_536_000), "0",
            "the live tables are compared with the log (replay verify) so often; 0: by command"),
        Setting(
            "checkpoint_command", .string, "",
            "shell command for each signed checkpoint: %p its file, %f a name for it; exit 0: it is kept elsewhere"),
        Setting(
            "checkpoint.publish", .bool, "true",
            "publish each signed checkpoint, retained, on refold/<log id>/checkpoint of every broker"),
        Setting(
            "command_timeout_seconds", .int(1...86_400), "300",
            "archive_command, restore_command and checkpoint_command are killed after so long"),
        Setting(
            "presence.stale_seconds", .int(1...31_536_000), "\(Int(PresenceThresholds().staleSeconds))",
            "a device is STALE after so long without a message"),
        Setting(
            "presence.offline_seconds", .int(1...31_536_000), "\(Int(PresenceThresholds().offlineSeconds))",
            "and OFFLINE after so long"),
        Setting(
            "certificates.common_name", .string, "{tenant}/{device}",
            "common name of a device's certificate; a broker may use it as the user name"),
        Setting("certificates.organization", .string, "", "organization in the subject of issued certificates"),
        Setting("certificates.valid_days", .int(1...36_500), "90", "validity of a device's certificate"),
        Setting("certificates.crl_days", .int(1...365), "7", "validity of a CRL; it is issued again at half of it"),
        Setting(
            "certificates.renew", .bool, "false",
            "renew certificates over MQTT before they expire; an operator can always order it"),
        Setting(
            "certificates.renew_after_percent", .int(1...95), "67",
            "share of its life after which a certificate is renewed"),
        Setting(
            "certificates.renew_grace_days", .int(1...365), "7",
            "minimum time, from the issue of the new certificate, for the device to report it as installed"),
        Setting(
            "certificates.crl_url", .string, "",
            "http:// address at which brokers reach the API; the CRL distribution point in certificates"),
        Setting(
            "certificates.enforce", .choice(["off", "report", "enforce"]), "off",
            "enforce: messages of devices without a live certificate are refused, as CERT_MISMATCH; report: counted"),
        Setting(
            "certificates.key_passphrase_file", .string, "",
            "file whose first line encrypts the authorities' keys; a bare name: a systemd credential"),
        Setting(
            "certificates.sign_command", .string, "",
            "shell command that signs for authorities whose key is elsewhere: it reads bytes and prints the signature"
        ),
        Setting(
            "jobs.workers", .int(0...64), "2",
            "jobs that the daemon runs at a time, of each queue; 0: remote workers run all of them"),
        Setting(
            "jobs.renewals_per_minute", .int(0...1_000_000), "100",
            "certificate renewals that jobs start in any minute; 0: no limit"),
        Setting(
            "projections.state_bytes", .int(1_048_576...68_719_476_736), "1073741824",
            "state kept in memory, a projection"),
        Setting(
            "logging.level", .choice(["trace", "debug", "info", "notice", "warning", "error"]), "info",
            "least level logged"),
        Setting(
            "logging.format", .choice(["auto", "text", "json"]), "auto",
            "auto: text on a terminal, JSON otherwise"),
    ]

    /// Settings of one broker: under `broker.`, or under `brokers.<name>.` when there are several.
    static let broker: [Setting] = [
        Setting("url", .secret, "", "mqtt://[user[:password]@]host[:port], mqtts:// for TLS"),
        Setting("client_id", .string, "", "MQTT client id; made of `node` and the log's id by default"),
        Setting("username", .string, "", "user name, where the URL has none"),
        Setting("password", .secret, "", "password, where the URL has none"),
        Setting(
            "password_file", .string, "",
            "file whose first line is the password; a bare name: a systemd credential"),
        Setting("ca_file", .string, "", "PEM file of the authorities to trust; the system's by default"),
        Setting("cert_file", .string, "", "PEM file of our client certificate"),
        Setting("key_file", .string, "", "PEM file of its key"),
        Setting("verify", .bool, "true", "check the broker's certificate and its name"),
        Setting("protocol", .choice(["auto", "5", "3.1.1"]), "auto", "MQTT version; auto: 5, then 3.1.1"),
        Setting(
            "session_expiry_seconds", .int(0...4_294_967_294), "86400",
            "how long the broker keeps our session (MQTT 5)"),
        Setting("receive_maximum", .int(1...65_535), "16384", "messages in flight to us (MQTT 5); a hint to Mosquitto"),
        Setting("keepalive_seconds", .int(5...65_535), "30", "seconds between pings"),
        Setting("filters", .list, "tenant/+/device/+/#", "topic filters to subscribe to"),
        Setting("share_group", .string, "", "subscribe as $share/<group>/<filter>"),
        Setting("batch_messages_max", .int(1...65_535), "4096", "messages in one commit"),
        Setting("linger_micros", .int(0...100_000), "2000", "how long a commit waits for more messages"),
        Setting("crl_file", .string, "", "file with the CRLs of all authorities, in PEM, for this broker to read"),
        Setting(
            "crl_reload_command", .string, "",
            "shell command that makes a running broker read crl_file (%p), such as systemctl reload mosquitto"),
        Setting(
            "crl_probe_url", .string, "",
            "mqtts://host[:port] where devices connect: there each CRL is proved to be in force"),
        Setting("crl_probe_ca_file", .string, "", "PEM file of the authorities to trust there; ca_file by default"),
        Setting(
            "crl_cut", .choice(["none", "dynsec", "takeover", "emqx"]), "none",
            "how connected clients of revoked certificates are disconnected, once their CRL is proved"),
        Setting(
            "crl_cut_url", .secret, "",
            "mqtt://[user[:password]@]host[:port] for dynsec's administrator or for takeovers; url by default"),
        Setting(
            "crl_client_id", .string, "{device}",
            "client id of a device: {tenant}, {device}, {common_name}; with several tenants, include {tenant}"),
        Setting(
            "crl_username", .string, "{common_name}",
            "user name of a device: {tenant}, {device}, {common_name}; with several tenants, include {tenant}"),
        Setting("emqx_api_url", .string, "", "http://host:18083, EMQX's API, for crl_cut: emqx"),
        Setting("emqx_api_user", .string, "", "user name for emqx_api_url"),
        Setting("emqx_api_password", .secret, "", "password of emqx_api_user"),
        Setting(
            "emqx_api_password_file", .string, "",
            "file whose first line is that password; a bare name: a systemd credential"),
        Setting(
            "crl_refresh_seconds", .int(60...3_600), "900",
            "EMQX's crl_cache.refresh_interval: a CRL that is not in force a minute later is a problem"),
    ]

    /// Variables that the programs which Refold replaces already have, and the settings that they stand for.
    static let aliases: [(variable: String, key: String)] = [
        ("MQTT_BROKER_URL", "broker.url"), ("MQTT_USERNAME", "broker.username"), ("MQTT_PASSWORD", "broker.password"),
        ("MQTT_CA_CERT", "broker.ca_file"), ("CRL_OUTPUT_PATH", "broker.crl_file"),
        ("EMQX_API_URL", "broker.emqx_api_url"), ("EMQX_API_USER", "broker.emqx_api_user"),
        ("EMQX_DASHBOARD_PASSWORD", "broker.emqx_api_password"),
        ("DATABASE_URL", "database.url"),
    ]

    /// `REFOLD_…` variables of the command line's own that are no settings.
    static let otherVariables: Set<String> = ["REFOLD_TOKEN", "REFOLD_CONFIG"]

    /// Every setting, with those of the brokers named.
    public static func all(brokers: [String]) -> [Setting] {
        fixed + settings(under: "broker") + brokers.flatMap { settings(under: "brokers.\($0)") }
    }

    static func settings(under prefix: String) -> [Setting] {
        broker.map { Setting("\(prefix).\($0.key)", $0.kind, $0.fallback, $0.help) }
    }
}
