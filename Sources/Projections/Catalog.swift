// Projections: folds of facts into rows. Pure: no clock, no I/O; a refold gives the same bytes.
//
//     Catalog      every projection: the entry point
//     Folding      what they share: fold protocol, keyed tables, row buffers, scopes, canonical JSON
//     the rest     projections, their rows (`RowSchema`), and what each fact changes
//
// Folding is no module of its own: its tables are generic over the state of a row, and specialised in this module.

import Decoding

/// Every projection that there is: its name, and how one begins. Adding a projection adds a line here, a file beside
/// this one, a migration and a recorded case.
public struct Catalog: Sendable {
    public struct Entry: Sendable {
        public let descriptor: ProjectionDescriptor
        let make: @Sendable (FoldScope, FactDecoder) -> any ProjectionFold

        public var name: String { descriptor.name }

        /// A new fold, without memory, over the keys of a scope. Folds of one thread that fold the same blocks in turn
        /// may share a decoder: what one found sound another need not look at again.
        public func makeFold(_ scope: FoldScope, decoder: FactDecoder = FactDecoder()) -> any ProjectionFold {
            make(scope, decoder)
        }
    }

    public static let entries: [Entry] = [
        Entry(descriptor: DeviceStatus.descriptor) { FoldBox(KeyedFold<DeviceStatus>.self, $0, $1) },
        Entry(descriptor: DeviceConnectionEvents.descriptor) {
            FoldBox(AppendFold<DeviceConnectionEvents>.self, $0, $1)
        },
        Entry(descriptor: CampaignTables.descriptor) { CampaignFold($0, $1) },
        Entry(descriptor: CampaignEvents.descriptor) { FoldBox(AppendFold<CampaignEvents>.self, $0, $1) },
        Entry(descriptor: DeviceGroupTables.descriptor) { DeviceGroupFold($0, $1) },
        Entry(descriptor: MQTTConnectionStatus.descriptor) { FoldBox(KeyedFold<MQTTConnectionStatus>.self, $0, $1) },
        Entry(descriptor: DeadLetters.descriptor) { FoldBox(AppendFold<DeadLetters>.self, $0, $1) },
        Entry(descriptor: AuditLogs.descriptor) { FoldBox(AppendFold<AuditLogs>.self, $0, $1) },
        Entry(descriptor: APITokens.descriptor) { FoldBox(AppendFold<APITokens>.self, $0, $1) },
        Entry(descriptor: CertificateTables.descriptor) { CertificateFold($0, $1) },
        Entry(descriptor: CRLEnforcementFold.descriptor) { CRLEnforcementFold($0, $1) },
        Entry(descriptor: JobTables.descriptor) { JobFold($0, $1) },
    ]

    public static func entry(named name: String) -> Entry? { entries.first { $0.name == name } }
}
