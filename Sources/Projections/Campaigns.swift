import Decoding
import EventModel

/// `campaigns`: firmware, campaigns, and what each device reported of its update.
///
/// The first terminal state that a device reports stands (SUCCESS or FAILED); reports behind it are counted as late and
/// change nothing else, so that a terminal state counts once however often, late or out of order it is reported.
/// Before it, the last report stands. A report that fits no target of its tenant's campaigns is kept as unmatched.
///
/// A device's row belongs to (campaign, device); a campaign's counts are sums over devices and are written as deltas.
final class CampaignFold: ProjectionFold {
    private struct Counts {
        var succeeded: Int64 = 0, failed: Int64 = 0, skipped: Int64 = 0
    }

    private let scope: FoldScope
    private let decoder: FactDecoder
    private var campaigns = KeyedTable<CampaignState>()
    private var devices = KeyedTable<CampaignDeviceState>()
    private var firmware = RowBuffer()
    private var unmatched = RowBuffer()
    private var deltas: [Int64: Counts] = [:]
    private var keyBytes: [UInt8] = []

    init(_ scope: FoldScope, _ decoder: FactDecoder) {
        self.scope = scope
        self.decoder = decoder
    }

    var descriptor: ProjectionDescriptor { CampaignTables.descriptor }
    var dirtyRowCount: Int {
        campaigns.dirty.count + devices.dirty.count + firmware.rowCount + unmatched.rowCount + deltas.count
    }

    var pendingByteCount: Int {
        campaigns.dirtyByteCount + devices.dirtyByteCount + firmware.bytes.count + unmatched.bytes.count
    }
    var stateByteCount: Int { campaigns.byteCount + devices.byteCount }

    // MARK: rows that must be known

    func prepare(_ block: EventBlock, in range: Range<Position>) -> [LoadRequest] {
        campaigns.beginRound(isStart: range.lowerBound == Position(0))
        devices.beginRound(isStart: range.lowerBound == Position(0))
        forEachOfOurs(block, in: range) { record, position in
            if let (topic, report) = report(in: record, at: position) {
                _ = touchCampaign(report.campaignID)
                _ = touchDevice(report.campaignID, record.topic[topic.device])
            } else if record.kind == .decision {
                switch decoder.decodeOwn(record) {
                case .campaignCreated(let event): _ = touchCampaign(event.id)
                case .campaignStatusChanged(_, let event): _ = touchCampaign(event.campaignID)
                case .campaignTargets(let event):
                    for device in event.devices where owns(event, device, position) {
                        _ = touchDevice(event.campaignID, device.utf8)
                    }
                default: break
                }
            }
        }
        let requests = [
            campaigns.takeUnknown(table: CampaignTables.campaigns, encodeKey: CampaignKey.encodeCampaign),
            devices.takeUnknown(table: CampaignTables.devices, encodeKey: CampaignKey.encodeDevice),
        ]
        return requests.compactMap { $0 }
    }

    private func forEachOfOurs(
        _ block: EventBlock, in range: Range<Position>, _ body: (RecordView, Position) -> Void
    ) {
        let scan = decoder.scan(block)
        for (index, mark) in scan.marks.enumerated()
        where mark.kind == .message(.otaStatus) || mark.kind == .decision {
            let position = block.base.advanced(by: index)
            if range.contains(position) { body(block.record(atOffset: Int(scan.offsets[index])), position) }
        }
    }

    private func touchCampaign(_ id: Int64) -> UInt32 {
        CampaignKey.make(id, [], into: &keyBytes)
        return keyBytes.withUnsafeBytes { campaigns.touch($0) }
    }

    private func touchDevice(_ campaign: Int64, _ device: some Collection<UInt8>) -> UInt32 {
        CampaignKey.make(campaign, device, into: &keyBytes)
        return keyBytes.withUnsafeBytes { devices.touch($0) }
    }

    func load(table: Int, row: RowReader) {
        guard let campaign = row.int8(0) else { return }
        switch table {
        case CampaignTables.campaigns:
            campaigns.states[Int(touchCampaign(campaign))].decode(row)
        case CampaignTables.devices:
            guard let device = row.bytes(1) else { return }
            devices.update(touchDevice(campaign, device)) { $0.decode(row, in: &$1) }
        default: break
        }
    }

    // MARK: folding

    func fold(_ block: EventBlock, in range: Range<Position>) {
        defer { precondition(!campaigns.hasUnknown && !devices.hasUnknown, "a block is prepared before it is folded") }
        forEachOfOurs(block, in: range) { record, position in
            if let (topic, report) = report(in: record, at: position) {
                apply(report, record, topic, position)
            } else if record.kind == .decision {
                apply(decoder.decodeOwn(record), record.receivedAt, position)
            }
        }
    }

    /// What counts as a device's report: accepted, not replayed by the broker, and of this fold's keys.
    private func report(in record: RecordView, at position: Position) -> (DeviceTopic, OTAReport)? {
        guard let topic = Self.reportTopic(of: record) else { return nil }
        let device = UnsafeRawBufferPointer(rebasing: record.topic[topic.address])
        guard scope.mayInclude(device: device, at: position),
            case .otaStatus(let report) = decoder.decode(record, topic: topic),
            scope.includes(device: device, campaign: CampaignKey.name(report.campaignID), at: position)
        else { return nil }
        return (topic, report)
    }

    private static func reportTopic(of record: RecordView) -> DeviceTopic? {
        guard record.kind == .message, record.verdict == .accepted, !record.flags.contains(.retained),
            let topic = DeviceTopic(record.topic), topic.topicClass == .otaStatus
        else { return nil }
        return topic
    }

    func keys(of record: RecordView) -> [FoldKey] {
        if let topic = Self.reportTopic(of: record) {
            guard case .otaStatus(let report) = decoder.decode(record, topic: topic) else { return [] }
            return [FoldKey(CampaignKey.name(report.campaignID)), FoldKey(record.topic[topic.address])]
        }
        guard record.kind == .decision else { return [] }
        switch decoder.decodeOwn(record) {
        case .firmwareAdded(let event): return [FoldKey(Self.name(ofFirmware: event.id))]
        case .campaignCreated(let event): return [FoldKey(CampaignKey.name(event.id))]
        case .campaignStatusChanged(_, let event): return [FoldKey(CampaignKey.name(event.campaignID))]
        case .campaignTargets(let event):
            let devices = Set(event.devices.map { FoldKey.device(tenant: event.tenantID, device: $0) })
            return [FoldKey(CampaignKey.name(event.campaignID))] + devices.sorted()
        default: return []
        }
    }

    private func apply(_ report: OTAReport, _ record: RecordView, _ topic: DeviceTopic, _ position: Position) {
        let tenant = record.topic[topic.tenant]
        let known = campaigns.states[Int(touchCampaign(report.campaignID))]
        let campaign = known.createdPosition < position ? known.created : nil
        let id = touchDevice(report.campaignID, record.topic[topic.device])
        let reason: String? =
            if let campaign {
                if !campaign.tenantID.utf8.elementsEqual(tenant) { "OTHER_TENANT" }
                else if !devices.states[Int(id)].isTarget { "NOT_A_TARGET" }
                else { nil }
            } else { "UNKNOWN_CAMPAIGN" }
        if let reason {
            appendUnmatched(report, record, topic, position, reason)
        } else {
            var ended = false
            devices.update(id) { ended = Self.apply(report, record.receivedAt, position, to: &$0, in: &$1) }
            devices.markDirty(id)
            if ended { count(report) }
        }
    }

    /// Says whether the report ended the device's attempt.
    private static func apply(
        _ report: OTAReport, _ at: Timestamp, _ position: Position, to device: inout CampaignDeviceState,
        in arena: inout ByteArena
    ) -> Bool {
        device.reportCount += 1
        device.lastReportAt = Moment(at)
        device.lastPosition = position
        guard !device.status.isTerminal else {
            device.lateReportCount += 1
            return false
        }
        if device.status == .pending { device.startedAt = Moment(at) }
        device.status = CampaignDeviceState.Status(report.status)
        if let progress = report.progress { device.progress = progress }
        if let error = report.error { arena.put(error, in: &device.error) } else { arena.free(&device.error) }
        if report.status.isTerminal { device.completedAt = Moment(at) }
        return report.status.isTerminal
    }

    private func count(_ report: OTAReport) {
        var counts = deltas[report.campaignID] ?? Counts()
        if report.status == .success { counts.succeeded += 1 } else { counts.failed += 1 }
        deltas[report.campaignID] = counts
    }

    private func appendUnmatched(
        _ report: OTAReport, _ record: RecordView, _ topic: DeviceTopic, _ position: Position, _ reason: String
    ) {
        unmatched.beginRow(fieldCount: 7)
        unmatched.position(position)
        unmatched.text(record.topic[topic.tenant])
        unmatched.text(record.topic[topic.device])
        unmatched.int8(report.campaignID)
        unmatched.text(report.status.rawValue)
        unmatched.text(reason)
        unmatched.timestamptz(record.receivedAt)
    }

    private func apply(_ fact: OwnFact, _ at: Timestamp, _ position: Position) {
        switch fact {
        case .firmwareAdded(let event):
            if scope.includes(Self.name(ofFirmware: event.id), at: position) { append(event, at) }
        case .campaignCreated(let event):
            guard takesIn(event.id, position) else { return }
            let id = touchCampaign(event.id)
            guard campaigns.states[Int(id)].created == nil else { return }
            var state = CampaignState()
            state.created = event
            state.status = "CREATED"
            state.createdAt = Moment(at)
            state.lastPosition = position
            state.createdPosition = position
            campaigns.states[Int(id)] = state
            if writes(event.id, position) { campaigns.markDirty(id) }
        case .campaignTargets(let event): add(event, at, position)
        case .campaignStatusChanged(let schema, let event):
            guard takesIn(event.campaignID, position) else { return }
            let id = touchCampaign(event.campaignID)
            guard campaigns.states[Int(id)].created != nil else { return }
            campaigns.states[Int(id)].status = event.after
            campaigns.states[Int(id)].lastPosition = position
            if schema == .campaignStarted, campaigns.states[Int(id)].startedAt.value == nil {
                campaigns.states[Int(id)].startedAt = Moment(at)
            }
            if schema == .campaignAborted { campaigns.states[Int(id)].completedAt = Moment(at) }
            if writes(event.campaignID, position) { campaigns.markDirty(id) }
        default: break
        }
    }

    private func add(_ event: CampaignTargets, _ at: Timestamp, _ position: Position) {
        let tenant = Array(event.tenantID.utf8)
        for (offset, device) in event.devices.enumerated() where owns(event, device, position) {
            let id = touchDevice(event.campaignID, device.utf8)
            guard !devices.states[Int(id)].isTarget else { continue }
            var state = CampaignDeviceState()
            state.isTarget = true
            state.id = event.firstID + Int64(offset)
            state.createdAt = Moment(at)
            state.lastPosition = position
            tenant.withUnsafeBytes { devices.arena.put($0, in: &state.tenant) }
            devices.states[Int(id)] = state
            devices.markDirty(id)
        }
    }

    /// Whether this fold writes a campaign's own row.
    private func writes(_ campaign: Int64, _ position: Position) -> Bool {
        scope.includes(CampaignKey.name(campaign), at: position)
    }
    private func takesIn(_ campaign: Int64, _ position: Position) -> Bool {
        scope.takesIn(campaign: CampaignKey.name(campaign), at: position)
    }
    private func owns(_ targets: CampaignTargets, _ device: String, _ position: Position) -> Bool {
        if scope.isAll { return true }
        return FoldKey.device(tenant: targets.tenantID, device: device).bytes.withUnsafeBytes {
            scope.includes(device: $0, campaign: CampaignKey.name(targets.campaignID), at: position)
        }
    }
    private static func name(ofFirmware id: Int64) -> String { "firmware/\(id)" }

    private func append(_ event: FirmwareAdded, _ at: Timestamp) {
        firmware.beginRow(fieldCount: 10)
        firmware.int8(event.id)
        firmware.text(event.tenantID)
        firmware.text(event.version)
        firmware.optional(event.description) { $0.text($1) }
        firmware.text(event.fileURL)
        firmware.optional(event.fileSizeBytes) { $0.int8($1) }
        firmware.optional(event.checksumSHA256) { $0.text($1) }
        firmware.optional(event.deviceType) { $0.text($1) }
        firmware.timestamptz(at)
        firmware.text(event.actor)
    }

    // MARK: rows out

    func drain(into rows: inout [RowBuffer]) {
        rows[CampaignTables.firmware].append(firmware)
        firmware.removeAll()
        campaigns.drain { id, table in
            table.states[Int(id)].encode(into: &rows[CampaignTables.campaigns])
        }
        for (campaign, counts) in deltas.sorted(by: { $0.key < $1.key }) {
            rows[CampaignTables.deltas].beginRow(fieldCount: 4)
            rows[CampaignTables.deltas].int8(campaign)
            rows[CampaignTables.deltas].int8(counts.succeeded)
            rows[CampaignTables.deltas].int8(counts.failed)
            rows[CampaignTables.deltas].int8(counts.skipped)
        }
        deltas.removeAll(keepingCapacity: true)
        devices.drain { id, table in
            table.states[Int(id)].encode(key: table.key(id), in: table.arena, into: &rows[CampaignTables.devices])
        }
        rows[CampaignTables.unmatched].append(unmatched)
        unmatched.removeAll()
    }

    func shrink(toBytes byteCount: Int) {
        campaigns.shrink(toBytes: byteCount / 4)
        devices.shrink(toBytes: byteCount - byteCount / 4)
    }
}
