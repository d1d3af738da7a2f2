import EventModel

/// What is to be sent to one device: its update, or that the update which the broker keeps for it is taken back.
public struct DeviceCommand: Sendable, Hashable {
    public var campaignID: Int64
    public var tenantID: String
    public var deviceID: String
    /// Position of the decision behind it: the `command_id`.
    public var command: Position
    public var firmwareURL: String
    public var version: String
    public var checksum: String?
    /// The broker is to keep it for the device, in place of the one before.
    public var isRetained: Bool
    /// An empty retained message takes the retained command back. Nothing is recorded of its acknowledgement.
    public var isWithdrawal: Bool

    public init(
        campaignID: Int64, tenantID: String, deviceID: String, command: Position, firmwareURL: String, version: String,
        checksum: String? = nil, isRetained: Bool = false, isWithdrawal: Bool = false
    ) {
        self.campaignID = campaignID
        self.tenantID = tenantID
        self.deviceID = deviceID
        self.command = command
        self.firmwareURL = firmwareURL
        self.version = version
        self.checksum = checksum
        self.isRetained = isRetained
        self.isWithdrawal = isWithdrawal
    }
}

/// Carries commands to the devices. Only what is durable is handed to it.
public protocol CommandSending: Sendable {
    /// Takes them over and returns at once. Sends each at least once, in their order for each device, and goes on
    /// trying while the broker is away.
    func send(_ commands: [DeviceCommand])
    /// Forgets what has not been sent yet of this campaign: it was paused or has ended.
    func withdraw(campaign: Int64)
    /// `body` is called, on any thread, with commands that the broker has acknowledged.
    func onAcknowledged(_ body: @escaping @Sendable ([DeviceCommand]) -> Void)
}
