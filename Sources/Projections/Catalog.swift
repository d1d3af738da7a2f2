/// Every projection that there is: its name, and how one begins. Adding a projection adds a line here, a file beside
/// this one, a migration and a recorded case.
public struct Catalog: Sendable {
    public struct Entry: Sendable {
        public let descriptor: ProjectionDescriptor
        public let makeFold: @Sendable () -> any ProjectionFold

        public var name: String { descriptor.name }
    }

    public static let entries: [Entry] = [
        Entry(descriptor: DeviceStatus.descriptor) { KeyedFold<DeviceStatus>() },
        Entry(descriptor: DeviceConnectionEvents.descriptor) { AppendFold<DeviceConnectionEvents>() },
        Entry(descriptor: CampaignTables.descriptor) { CampaignFold() },
        Entry(descriptor: MQTTConnectionStatus.descriptor) { KeyedFold<MQTTConnectionStatus>() },
        Entry(descriptor: DeadLetters.descriptor) { AppendFold<DeadLetters>() },
        Entry(descriptor: AuditLogs.descriptor) { AppendFold<AuditLogs>() },
    ]

    public static func entry(named name: String) -> Entry? { entries.first { $0.name == name } }
}
