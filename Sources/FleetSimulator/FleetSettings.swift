import EventModel

public enum FleetError: Error, CustomStringConvertible, Equatable {
    /// A setting that cannot be meant; the text names it.
    case invalid(String)
    /// The broker did not answer, or refused, before a single connection stood.
    case unreachable(String)
    /// The ledger could not be written any further.
    case ledger(String)

    public var description: String {
        switch self {
        case .invalid(let text), .unreachable(let text), .ledger(let text): text
        }
    }
}

/// `mqtt[s]://[user[:password]@]host[:port]`; user and password may be percent-encoded (RFC 3986, section 2.1).
public struct BrokerURL: Sendable, Equatable {
    public var host: String
    public var port: Int
    public var usesTLS: Bool
    public var username: String?
    public var password: String?

    public init(parsing text: String) throws(FleetError) {
        let wrong = FleetError.invalid(
            "--broker-url: \"\(Self.masked(text))\" is not mqtt[s]://[user[:password]@]host[:port]")
        guard let separator = text.firstRange(of: "://") else { throw wrong }
        switch text[..<separator.lowerBound].lowercased() {
        case "mqtt", "tcp": usesTLS = false
        case "mqtts", "ssl", "tls": usesTLS = true
        default: throw wrong
        }
        var authority = text[separator.upperBound...]
        while authority.last == "/" { authority.removeLast() }
        if let at = authority.lastIndex(of: "@") {
            let parts = authority[..<at].split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            guard let user = Self.decoded(parts[0]), parts.count < 2 || Self.decoded(parts[1]) != nil else {
                throw wrong
            }
            username = user
            password = parts.count < 2 ? nil : Self.decoded(parts[1])
            authority = authority[authority.index(after: at)...]
        }
        var portText = Substring(usesTLS ? "8883" : "1883")
        if authority.first == "[" {  // an IPv6 address (RFC 3986, 3.2.2)
            guard let end = authority.firstIndex(of: "]") else { throw wrong }
            host = String(authority[authority.index(after: authority.startIndex)..<end])
            let rest = authority[authority.index(after: end)...]
            if rest.first == ":" { portText = rest.dropFirst() } else if !rest.isEmpty { throw wrong }
        } else if let colon = authority.lastIndex(of: ":") {
            host = String(authority[..<colon])
            portText = authority[authority.index(after: colon)...]
        } else {
            host = String(authority)
        }
        guard !host.isEmpty, !host.contains(":") || authority.first == "[", !host.contains("/"),
            let number = Int(portText), (1...65_535).contains(number)
        else { throw wrong }
        port = number
    }

    /// `host:port`, never with credentials.
    public var address: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }

    private static func masked(_ text: String) -> String {
        guard let at = text.lastIndex(of: "@") else { return text }
        return "***" + text[at...]
    }

    private static func decoded(_ text: Substring) -> String? {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard rest.count >= 2, let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
            else { return nil }
            rest = rest.dropFirst(2)
            bytes.append(value)
        }
        return String(validating: bytes, as: UTF8.self)
    }
}

/// When a run ends by itself.
public enum FleetExtent: Sendable, Equatable {
    /// After this many messages of the generator; births, farewells and OTA reports come on top.
    case messages(Int)
    case seconds(Double)
    /// Until it is cancelled.
    case endless
}

public struct FleetSettings: Sendable {
    public static let singleConnectionsMax = 5000

    public var broker: BrokerURL
    public var shape = FleetShape()
    public var seed: UInt64 = 1
    /// Messages a second over all devices; 0 is as fast as the broker acknowledges.
    public var rate = 100.0
    public var extent = FleetExtent.messages(1000)
    /// Nil: one connection a device, with its last will. Otherwise all devices share this many connections, without
    /// births, last wills and commands: for rate benches only.
    public var connections: Int?
    /// Publishes that one connection may have unacknowledged; nil: 16, or 256 when connections are shared.
    public var window: Int?
    /// When set, `ts` follows from it and the rate, so that payloads are the same to the last byte.
    public var startTime: Timestamp?
    public var ledgerPath: String?
    /// What devices were told and what they said of it.
    public var otaLedgerPath: String?
    /// Client ids are `<prefix>-<tenant>-<device>`. Two fleets on one broker need two prefixes.
    public var clientPrefix = "sim"
    /// For `mqtts`: nil takes the system's authorities.
    public var caFile: String?
    public var certificateFile: String?
    public var keyFile: String?
    /// Folder with `DEVICE.pem` and `DEVICE.key` of each device: they connect with them, and renew them over MQTT.
    public var identityFolder: String?
    public var keepAliveSeconds = 60
    public var connectTimeoutSeconds = 10.0
    /// How long acknowledgements may stay away at the end before the rest is written off as unacknowledged.
    public var drainTimeoutSeconds = 30.0

    public init(broker: BrokerURL) { self.broker = broker }

    var connectionCount: Int { min(connections ?? shape.devices, shape.devices) }
    var isShared: Bool { connections != nil }
    var windowSize: Int { window ?? (isShared ? 256 : 16) }

    public func validate() throws(FleetError) {
        try shape.validate()
        guard rate >= 0, rate <= 10_000_000 else { throw .invalid("--rate must be from 0 (unlimited) to 10000000") }
        if let connections {
            guard (1...Self.singleConnectionsMax).contains(connections) else {
                throw .invalid("--connections must be from 1 to \(Self.singleConnectionsMax)")
            }
            guard shape.churn == 0 else {
                throw .invalid("--churn needs one connection a device: leave out --connections")
            }
        } else if shape.devices > Self.singleConnectionsMax {
            throw .invalid(
                "more than \(Self.singleConnectionsMax) devices cannot each have a connection: "
                    + "share some with --connections K")
        }
        guard (1...20_000).contains(windowSize) else { throw .invalid("--window must be from 1 to 20000") }
        switch extent {
        case .messages(let count) where count < 0: throw .invalid("--count must not be negative")
        case .seconds(let seconds) where !(seconds > 0 && seconds <= 1e9):
            throw .invalid("--duration must be above 0 and at most 1000000000 seconds")
        default: break
        }
        guard (keyFile == nil) == (certificateFile == nil) else { throw .invalid("--cert and --key belong together") }
        if identityFolder != nil {
            guard broker.usesTLS, connections == nil, certificateFile == nil else {
                throw .invalid(
                    "--identities needs mqtts:// and a connection for each device: leave out --connections, --cert and "
                        + "--key")
            }
        }
        // MQTT 3.1.1, 3.1.3.1: a server must take 23 characters, brokers take far more; UTF-8 without wildcards.
        guard !clientPrefix.isEmpty, clientPrefix.utf8.count <= 64 else {
            throw .invalid("--client-prefix must have 1 to 64 characters")
        }
    }
}
