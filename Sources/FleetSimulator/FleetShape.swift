/// What a device says. The names are those of the command line, the ledger and `--mix`.
public enum MessageKind: String, Sendable, CaseIterable {
    case telemetry, heartbeat, shadow, ack, ota, other
    /// Birth, farewell: published when a connection begins and ends, never drawn from the mix.
    case connection
}

/// How often each kind of message is drawn: whole weights, relative to their sum.
public struct MessageMix: Sendable, Equatable {
    public var telemetry = 84
    public var heartbeat = 10
    public var shadow = 3
    public var ack = 2
    /// Status reports that no command asked for.
    public var ota = 0
    public var other = 1

    public init() {}

    /// Reads `telemetry=90,heartbeat=5,…`; kinds that are not named get none.
    public init(parsing text: String) throws(FleetError) {
        var weights: [MessageKind: Int] = [:]
        for part in text.split(separator: ",") {
            let pair = part.split(separator: "=", maxSplits: 1).map { $0.filter { $0 != " " } }
            guard pair.count == 2, let kind = MessageKind(rawValue: pair[0]), kind != .connection,
                let weight = Int(pair[1]), weight >= 0, weight <= 1_000_000
            else {
                throw .invalid(
                    "--mix: \"\(part)\" is not KIND=WEIGHT with a kind of "
                        + "telemetry, heartbeat, shadow, ack, ota, other and a whole weight")
            }
            weights[kind, default: 0] += weight
        }
        guard weights.values.contains(where: { $0 > 0 }) else {
            throw .invalid("--mix: at least one weight must be above 0")
        }
        telemetry = weights[.telemetry] ?? 0
        heartbeat = weights[.heartbeat] ?? 0
        shadow = weights[.shadow] ?? 0
        ack = weights[.ack] ?? 0
        ota = weights[.ota] ?? 0
        other = weights[.other] ?? 0
    }

    var total: Int { telemetry + heartbeat + shadow + ack + ota + other }

    /// The kind at `point`, from 0 up to `total`.
    func kind(at point: Int) -> MessageKind {
        var rest = point
        for (kind, weight) in [
            (MessageKind.telemetry, telemetry), (.heartbeat, heartbeat), (.shadow, shadow), (.ack, ack), (.ota, ota),
        ] {
            if rest < weight { return kind }
            rest -= weight
        }
        return .other
    }
}

/// Who the devices are and how they misbehave. Shares are from 0 to 1, of all messages.
public struct FleetShape: Sendable {
    public var devices = 200
    public var tenants = 2
    public var mix = MessageMix()
    /// Sent again a little later, the same bytes.
    public var duplicates = 0.0
    /// Sent with a `ts` of up to an hour ago.
    public var late = 0.0
    /// Two messages of a device that change places.
    public var outOfOrder = 0.0
    /// Not as the contract wants it; see `Defect` for the ways.
    public var malformed = 0.0
    /// Messages after which their device leaves for a while.
    public var churn = 0.0
    /// Of the leaving ones, those that go without DISCONNECT, so that the broker publishes their last will.
    public var ungraceful = 0.5
    public var ota = OTABehaviour()

    public init() {}

    public static let devicesMax = 1_000_000

    func validate() throws(FleetError) {
        guard (1...Self.devicesMax).contains(devices) else {
            throw .invalid("--devices must be from 1 to \(Self.devicesMax), not \(devices)")
        }
        guard (1...devices).contains(tenants) else {
            throw .invalid("--tenants must be from 1 to the number of devices (\(devices)), not \(tenants)")
        }
        for (name, share) in [
            ("duplicates", duplicates), ("late", late), ("out-of-order", outOfOrder), ("malformed", malformed),
            ("churn", churn), ("ungraceful", ungraceful),
        ] where !(0...1).contains(share) {
            throw .invalid("--\(name) is a share from 0 to 1, not \(share)")
        }
        try ota.validate()
        guard mix.total > 0 else { throw .invalid("--mix: at least one weight must be above 0") }
    }

    /// Devices take turns over the tenants, so that every tenant has its share from the first device on. Numbers are a
    /// tenant's own: two tenants may each have a `dev-0001`, and only both ids together name a device.
    public func tenant(ofDevice index: Int) -> String {
        let number = index % tenants
        return number < Self.tenantNames.count ? Self.tenantNames[number] : "tenant-\(number + 1)"
    }

    public func device(_ index: Int) -> String {
        let number = String(index / tenants + 1)
        return "dev-" + String(repeating: "0", count: max(0, 4 - number.utf8.count)) + number
    }

    public func address(ofDevice index: Int) -> String { "tenant/\(tenant(ofDevice: index))/device/\(device(index))" }
    func site(ofDevice index: Int) -> String { "site-\(index / tenants % 8 + 1)" }

    private static let tenantNames = ["acme", "globex", "initech", "umbrella"]
}
