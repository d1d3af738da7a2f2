import Decisions
import EventModel
import Foundation
import Projecting
import Testing

@testable import Projections

/// The rows of every table, read and written again by their own schema.
@Suite struct RowSchemaTests {
    private typealias Copy = (RowReader) -> RowBuffer

    private static func copy<Row: TableRow>(_ type: Row.Type) -> Copy {
        { reader in
            var row = Row(), rows = RowBuffer()
            for keys in [true, false] {
                var decoder = RowDecoder(reader, keys: keys)
                row.columns(&decoder)
            }
            rows.append(row)
            return rows
        }
    }

    private static func copy<State: RowState>(_ type: State.Type) -> Copy {
        { reader in
            var table = KeyedTable<State>(), rows = RowBuffer()
            table.load(reader)
            table.markDirty(0)
            table.drain(into: &rows)
            return rows
        }
    }

    /// By projection, in the order of its tables.
    private static var copies: [String: [Copy]] {
        [
            "device_status": [copy(DeviceStatus.State.self)],
            "device_connection_events": [copy(DeviceConnectionEvents.Row.self)],
            "campaigns": [
                copy(FirmwareRow.self), copy(CampaignRowState.self), copy(CampaignCountsRow.self),
                copy(CampaignDeviceState.self), copy(CampaignProgressRow.self), copy(UnmatchedReportRow.self),
            ],
            "campaign_events": [copy(CampaignEvents.Row.self)],
            "device_groups": [copy(GroupState.self), copy(GroupMemberState.self), copy(TenantSettingsRow.self)],
            "mqtt_connection_status": [copy(MQTTConnectionStatus.State.self)],
            "dead_letters": [copy(DeadLetters.Row.self)],
            "audit_logs": [copy(AuditLogs.Row.self)],
            "access": [copy(APITokens.Row.self)],
            "certificates": [
                copy(AuthorityState.self), copy(CertificateState.self), copy(CRLRow.self),
                copy(CertificateEventRow.self),
            ],
            "crl_enforcement": [copy(EnforcementState.self)],
            "jobs": [
                copy(JobState.self), copy(JobAttemptRow.self), copy(JobQueueState.self), copy(JobScheduleState.self),
                copy(JobPolicyRow.self), copy(JobCountsRow.self), copy(JobHoursRow.self),
            ],
        ]
    }

    /// Each column has a value in some row.
    private static func history() throws -> History {
        var history = try History.random(seed: 13, count: 6000)
        var firmware = FirmwareAdded(id: 9, tenantID: "acme", version: "1", fileURL: "https://x/1", actor: "ann")
        (firmware.description, firmware.fileSizeBytes) = ("first", 4096)
        (firmware.checksumSHA256, firmware.deviceType) = ("ab", "sensor")
        try history.decision(.firmwareAdded, firmware)
        var group = GroupCreated(id: 99, tenantID: "acme", name: "all", actor: "ann")
        group.description = "all of them"
        try history.decision(.groupCreated, group)

        var authority = AuthorityAdded(
            id: "newer", tenantID: "acme", subject: "CN=newer", certificate: "MAA=", spkiSHA256: "00", key: .file,
            notBefore: History.time(1), notAfter: History.time(2), actor: "ann")
        authority.replaces = "ca1"
        try history.decision(.authorityAdded, authority)

        var campaign = CampaignCreated(
            id: 999, tenantID: "acme", name: "june", firmwareVersionID: 9, rolloutStrategy: "linear", totalDevices: 2,
            actor: "ann")
        (campaign.targetGroupID, campaign.rolloutRate, campaign.abortThreshold) = (99, 5, 0.05)
        campaign.plan = CampaignPlan()
        try history.decision(.campaignCreated, campaign)
        let targets = UInt64(history.batches.count)
        try history.decision(
            .campaignTargets,
            CampaignTargets(campaignID: 999, tenantID: "acme", firstID: 999_000, devices: ["f", "s"]))
        history.message("ota/status", #"{"campaign_id":999,"status":"FAILED","error":"no space"}"#, device: "f")
        try history.decision(
            .campaignDevicesEnded,
            CampaignDevicesEnded(
                campaignID: 999, tenantID: "acme", status: "SKIPPED", kind: "ABORTED", devices: ["s"],
                seen: [targets]))
        var aborted = CampaignStatusChanged(
            campaignID: 999, tenantID: "acme", before: "RUNNING", after: "ABORTED", actor: "ann")
        (aborted.code, aborted.reason, aborted.cause) = ("OPERATOR", "enough", targets)
        try history.decision(.campaignAborted, aborted)

        let pause = QueueChanged(.paused, queue: .high, note: "maintenance", actor: "ann")
        try history.decision(pause.schema, pause)

        var event = BrokerEvent(clientID: "refold")
        event.reason = "closed"
        try history.broker(.disconnected, event)
        var token = TokenCreated(
            id: 9, name: "n", role: "viewer", tenantID: "acme", secretSHA256: "ab", actor: "ann")
        token.expiresAt = 1_800_000_000_000_000
        let json = String(decoding: try JSONEncoder().encode(token), as: UTF8.self)
        history.add(AccessSchema.tokenCreated.rawValue, json, "", .decision)
        return history
    }

    @Test func everyRowIsTheSameAfterItWasRead() throws {
        let history = try Self.history()
        let block = history.block(0..<history.batches.count)
        for entry in Catalog.entries {
            let fold = entry.makeFold(.all), tables = entry.descriptor.tables
            var rows = tables.map { _ in RowBuffer() }
            _ = fold.prepare(block, in: Position(0)..<block.end)
            fold.fold(block, in: Position(0)..<block.end)
            fold.drain(into: &rows)
            let copies = try #require(Self.copies[entry.name])
            #expect(copies.count == tables.count)
            for (index, table) in tables.enumerated() {
                let written = rows[index]
                #expect(!written.isEmpty, "the history makes no row of \(table.name)")
                var read = RowBuffer(), filled = Set<Int>()
                for row in 0..<written.rowCount {
                    let fields = written.fields(ofRow: row)
                    #expect(fields.count == table.columns.count)
                    filled.formUnion(fields.indices.filter { fields[$0] != nil })
                    read.append(
                        written.bytes.withUnsafeBytes { bytes in
                            copies[index](
                                RowReader { column in
                                    fields[column].map { UnsafeRawBufferPointer(rebasing: bytes[$0]) }
                                })
                        })
                }
                #expect(read.bytes == written.bytes && read.offsets == written.offsets, "\(table.name)")
                let empty = table.columns.indices.filter { !filled.contains($0) }.map { table.columns[$0].name }
                #expect(empty.isEmpty, "always null in \(table.name)")
            }
        }
    }
}
