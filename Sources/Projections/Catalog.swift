/// Every projection that there is: its name, and how one begins. Adding a projection adds a line here, a file beside
/// this one, a migration and a recorded case.
public struct Catalog: Sendable {
    public struct Entry: Sendable {
        public let descriptor: ProjectionDescriptor
        public let makeFold: @Sendable () -> any ProjectionFold

        public var name: String { descriptor.name }
    }

    public static let entries: [Entry] = [
        Entry(descriptor: DeviceStatus.descriptor) { FoldBox(KeyedFold<DeviceStatus>.self) },
        Entry(descriptor: DeviceConnectionEvents.descriptor) { FoldBox(AppendFold<DeviceConnectionEvents>.self) },
        Entry(descriptor: CampaignTables.descriptor) { CampaignFold() },
        Entry(descriptor: MQTTConnectionStatus.descriptor) { FoldBox(KeyedFold<MQTTConnectionStatus>.self) },
        Entry(descriptor: DeadLetters.descriptor) { FoldBox(AppendFold<DeadLetters>.self) },
        Entry(descriptor: AuditLogs.descriptor) { FoldBox(AppendFold<AuditLogs>.self) },
    ]

    public static func entry(named name: String) -> Entry? { entries.first { $0.name == name } }
}
