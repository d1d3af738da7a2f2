/// A device's identity at a broker, and the device that it stands for.
public struct DeviceAccess: Hashable, Sendable {
    /// The certificate's common name.
    public let username: String
    public let tenant: String
    public let device: String

    public init(username: String, tenant: String, device: String) {
        self.username = username
        self.tenant = tenant
        self.device = device
    }
}

/// Topics below `tenant/{tenant}/device/{device}/`.
public struct DeviceTopics: Sendable {
    /// Published by the device.
    public var published: [String]
    /// Subscribed to by the device.
    public var subscribed: [String]

    public init(published: [String], subscribed: [String]) {
        self.published = published
        self.subscribed = subscribed
    }

    /// What Refold reads from devices and sends to them (`schemas/messages`).
    public static let standard = DeviceTopics(
        published: [
            "telemetry", "heartbeat", "connection", "shadow/reported", "commands/ack", "ota/status",
            "certificate/request", "certificate/installed",
        ], subscribed: ["ota", "certificate"])
}

/// Permissions that confine each device to its own topics. One explicit entry for each username: `%u` in Mosquitto's
/// `pattern` lines matches a common name with a slash in 2.0 and not in 2.1.
public enum AccessList {
    /// Lines for Mosquitto's `acl_file`. Mosquitto denies what the file does not allow.
    /// - Parameter refoldUser: the username of Refold's own connection; nil: the list has no rules for it.
    public static func mosquitto(
        _ devices: [DeviceAccess], refoldUser: String? = nil, topics: DeviceTopics = .standard
    ) throws(AccessListError) -> String {
        var text = ""
        if let refoldUser {
            text += "user \(try checked(refoldUser))\n"
            for (action, topic) in refoldTopics { text += "topic \(action.mosquitto) \(topic)\n" }
            text += "\n"
        }
        for (username, devices) in try entries(devices) {
            text += "user \(username)\n"
            for device in devices {
                let prefix = "tenant/\(device.tenant)/device/\(device.device)/"
                for topic in topics.published { text += "topic write \(prefix)\(topic)\n" }
                for topic in topics.subscribed { text += "topic read \(prefix)\(topic)\n" }
            }
            text += "\n"
        }
        return text
    }

    /// Rules for EMQX's `acl.conf`. EMQX must take the username from the certificate (`peer_cert_as_username = cn`) and
    /// deny what no rule allows (`authorization.no_match = deny`).
    /// - Parameter refoldUser: as for `mosquitto`.
    public static func emqx(
        _ devices: [DeviceAccess], refoldUser: String? = nil, topics: DeviceTopics = .standard
    ) throws(AccessListError) -> String {
        var text = ""
        if let refoldUser {
            let user = try checked(refoldUser)
            for (action, topic) in refoldTopics {
                text += "{allow, {username, \"\(user)\"}, \(action.emqx), [\"\(topic)\"]}.\n"
            }
        }
        for (username, devices) in try entries(devices) {
            for (action, names) in [("publish", topics.published), ("subscribe", topics.subscribed)] {
                let list = devices.flatMap { device in
                    names.map { "\"tenant/\(device.tenant)/device/\(device.device)/\($0)\"" }
                }
                guard !list.isEmpty else { continue }
                text += "{allow, {username, \"\(username)\"}, \(action), [\(list.joined(separator: ", "))]}.\n"
            }
        }
        return text
    }

    private enum Action {
        case read, write, readWrite

        var mosquitto: String {
            switch self {
            case .read: "read"
            case .write: "write"
            case .readWrite: "readwrite"
            }
        }

        var emqx: String {
            switch self {
            case .read: "subscribe"
            case .write: "publish"
            case .readWrite: "all"
            }
        }
    }

    /// What Refold itself does at a broker, with the standard `broker.filters`.
    private static let refoldTopics: [(Action, String)] = [
        (.read, "tenant/+/device/+/#"), (.read, "$SYS/broker/#"), (.write, "tenant/+/device/+/ota"),
        (.write, "tenant/+/device/+/certificate"), (.write, "refold/+/checkpoint"), (.readWrite, "refold/+/handover"),
    ]

    private static func checked(_ username: String) throws(AccessListError) -> String {
        guard isSafe(username, alsoAllowed: "/@=,~") else {
            throw AccessListError(devices: [DeviceAccess(username: username, tenant: "refold", device: "itself")])
        }
        return username
    }

    /// By username, sorted. All or nothing: a list that leaves a device out would lock it out.
    private static func entries(
        _ devices: [DeviceAccess]
    ) throws(AccessListError) -> [(username: String, devices: [DeviceAccess])] {
        let unsafe = devices.filter { device in
            !isSafe(device.username, alsoAllowed: "/@=,~") || !isSafe(device.tenant) || !isSafe(device.device)
        }
        guard unsafe.isEmpty else { throw AccessListError(devices: unsafe) }
        return Dictionary(grouping: Set(devices), by: \.username).sorted { $0.key < $1.key }.map { username, devices in
            (username, devices.sorted { ($0.tenant, $0.device) < ($1.tenant, $1.device) })
        }
    }

    /// ASCII letters and digits, `.`, `_`, `:` and `-`: what a tenant or device id may contain. Everything else could
    /// end a line, a quoted text or a topic level, or be a wildcard or placeholder.
    private static func isSafe(_ name: String, alsoAllowed: String = "") -> Bool {
        !name.isEmpty
            && name.utf8.allSatisfy { byte in
                switch byte {
                case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
                default: "._:-".utf8.contains(byte) || alsoAllowed.utf8.contains(byte)
                }
            }
    }
}

/// Names that an access list cannot contain.
public struct AccessListError: Error, Sendable, CustomStringConvertible {
    public let devices: [DeviceAccess]

    public var description: String {
        let names = devices.prefix(5).map { "\($0.username.debugDescription) (\($0.tenant)/\($0.device))" }
        return "cannot write access rules for \(names.joined(separator: ", "))"
            + (devices.count > 5 ? " and \(devices.count - 5) more" : "")
            + ": names may contain letters, digits, . _ : - and, in a common name, / @ = , ~; issue certificates with "
            + "other names"
    }
}
