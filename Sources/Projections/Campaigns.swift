import CampaignRules
import Decisions
import Decoding
import EventModel

/// `campaigns`: firmware, campaigns, and each device's part in them.
///
/// How a part changes, by the device's reports and by the engine's decisions, is the rule of `TargetProgress`, which
/// the engine follows too. A report that fits no target of its tenant's campaigns is kept as unmatched.
///
/// A device's row belongs to (campaign, device); a campaign's counts are sums over devices and are written as deltas,
/// and so is by how much they changed in a minute.
final class CampaignFold: ProjectionFold {
    private let scope: FoldScope
    private let decoder: FactDecoder
    private var campaigns = KeyedTable<CampaignRowState>()
    private var devices = KeyedTable<CampaignDeviceState>()
    private var firmware = RowBuffer()
    private var unmatched = RowBuffer()
    private var counts: [Int64: CampaignDeltas] = [:]
    private var progress: [CampaignMinute: (tenant: String, deltas: CampaignDeltas)] = [:]
    private var keyBytes: [UInt8] = []

    init(_ scope: FoldScope, _ decoder: FactDecoder) {
        self.scope = scope
        self.decoder = decoder
    }

    var descriptor: ProjectionDescriptor { CampaignTables.descriptor }
    var dirtyRowCount: Int {
        campaigns.dirty.count + devices.dirty.count + firmware.rowCount + unmatched.rowCount + counts.count
            + progress.count
    }

    var pendingByteCount: Int {
        campaigns.dirtyByteCount + devices.dirtyByteCount + firmware.bytes.count + unmatched.bytes.count
    }
    var stateByteCount: Int { campaigns.byteCount + devices.byteCount }

    // MARK: rows that must be known

    func prepare(_ block: EventBlock, in range: Range<Position>) -> [LoadRequest] {
        campaigns.beginRound(isStart: scope.startsEmpty(at: range.lowerBound))
        devices.beginRound(isStart: scope.startsEmpty(at: range.lowerBound))
        forEachOfOurs(block, in: range) { record, position in
            if let (topic, report) = report(in: record, at: position) {
                _ = touchCampaign(report.campaignID)
                _ = touchDevice(report.campaignID, record.topic[topic.device])
            } else if record.kind == .decision {
                switch decoder.decodeInternal(record).decision {
                case let event as CampaignCreated: _ = touchCampaign(event.id)
                case let event as CampaignStatusChanged: _ = touchCampaign(event.campaignID)
                case let event as CampaignStageBegun: _ = touchCampaign(event.campaignID)
                case let decision:
                    guard let named = Named(decision) else { return }
                    for device in named.devices where owns(named, device, position) {
                        _ = touchDevice(named.campaign, device.utf8)
                    }
                }
            }
        }
        let requests = [
            campaigns.takeUnknown(table: CampaignTables.campaigns),
            devices.takeUnknown(table: CampaignTables.devices),
        ]
        return requests.compactMap { $0 }
    }

    private func forEachOfOurs(
        _ block: EventBlock, in range: Range<Position>, _ body: (RecordView, Position) -> Void
    ) {
        let scan = decoder.scan(block)
        for index in 0..<scan.marks.count {
            let kind = scan.marks[index].kind
            guard kind == .message(.otaStatus) || kind == .decision else { continue }
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
        if table == CampaignTables.campaigns { campaigns.load(row) } else { devices.load(row) }
    }

    // MARK: folding

    func fold(_ block: EventBlock, in range: Range<Position>) {
        defer { precondition(!campaigns.hasUnknown && !devices.hasUnknown, "a block is prepared before it is folded") }
        forEachOfOurs(block, in: range) { record, position in
            if let (topic, report) = report(in: record, at: position) {
                apply(report, record, topic, position)
            } else if record.kind == .decision {
                apply(decoder.decodeInternal(record).decision, record, position)
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
        switch decoder.decodeInternal(record).decision {
        case let event as FirmwareAdded: return [FoldKey(Self.name(ofFirmware: event.id))]
        case let event as CampaignCreated: return [FoldKey(CampaignKey.name(event.id))]
        case let event as CampaignStatusChanged: return [FoldKey(CampaignKey.name(event.campaignID))]
        case let event as CampaignStageBegun: return [FoldKey(CampaignKey.name(event.campaignID))]
        case let decision:
            guard let named = Named(decision) else { return [] }
            let devices = Set(named.devices.map { FoldKey.device(tenant: named.tenant, device: $0) })
            return [FoldKey(CampaignKey.name(named.campaign))] + devices.sorted()
        }
    }

    // MARK: what devices report

    private func apply(_ report: OTAReport, _ record: RecordView, _ topic: DeviceTopic, _ position: Position) {
        let tenant = record.topic[topic.tenant]
        let campaign = campaigns.states[Int(touchCampaign(report.campaignID))].created(asOf: position)
        let id = touchDevice(report.campaignID, record.topic[topic.device])
        let reason: String? =
            if let campaign {
                if !campaign.tenantID.utf8.elementsEqual(tenant) {
                    "OTHER_TENANT"
                } else if !devices.states[Int(id)].isTarget {
                    "NOT_A_TARGET"
                } else {
                    nil
                }
            } else { "UNKNOWN_CAMPAIGN" }
        guard let campaign, reason == nil else {
            return appendUnmatched(report, record, topic, position, reason ?? "UNKNOWN_CAMPAIGN")
        }
        let verifies = campaign.plan?.verify != nil
        let effect = devices.update(id) {
            Self.apply(report, verifies: verifies, record.receivedAt, position, to: &$0, in: &$1)
        }
        devices.markDirty(id)
        guard case .changed(let before) = effect else { return }
        let after = devices.states[Int(id)].part.status
        if before.count != after.count {
            count(campaign.id, campaign.tenantID, record.receivedAt) { $0.move(from: before, to: after) }
        }
    }

    private static func apply(
        _ report: OTAReport, verifies: Bool, _ at: Timestamp, _ position: Position,
        to device: inout CampaignDeviceState, in arena: inout ByteArena
    ) -> TargetProgress.Effect {
        device.reportCount += 1
        device.lastReportAt = OptionalTime(at)
        let effect = device.part.apply(
            TargetProgress.Report(report.status), command: report.commandID.map { Position($0) }, verifies: verifies,
            at: position)
        guard case .changed = effect else {
            device.lateReportCount += 1
            return effect
        }
        if device.startedAt.value == nil { device.startedAt = OptionalTime(at) }
        if device.acknowledgedAt.value == nil { device.acknowledgedAt = OptionalTime(at) }
        if let progress = report.progress { device.progress = progress < 0 ? -1 : progress }
        if let error = report.error { arena.put(error, in: &device.error) } else { arena.free(&device.error) }
        arena.free(&device.skipKind)
        device.setEnd(at, position)
        return effect
    }

    /// Adds to a campaign's counts, and to those of the minute.
    private func count(
        _ campaign: Int64, _ tenant: String, _ at: Timestamp, _ change: (inout CampaignDeltas) -> Void
    ) {
        var deltas = CampaignDeltas()
        change(&deltas)
        guard deltas != CampaignDeltas() else { return }
        counts[campaign, default: CampaignDeltas()] += deltas
        let isSeen = deltas.dispatched != 0 || deltas.succeeded != 0 || deltas.failed != 0 || deltas.skipped != 0
        if isSeen {
            progress[CampaignMinute(campaign, at: at), default: (tenant, CampaignDeltas())].deltas += deltas
        }
    }

    private func appendUnmatched(
        _ report: OTAReport, _ record: RecordView, _ topic: DeviceTopic, _ position: Position, _ reason: String
    ) {
        unmatched.append(
            UnmatchedReportRow(
                position: position, tenant: Bytes(rebasing: record.topic[topic.tenant]),
                device: Bytes(rebasing: record.topic[topic.device]), campaign: report.campaignID,
                status: report.status, reason: reason, at: OptionalTime(record.receivedAt)))
    }

    private func apply(_ decision: (any Decision)?, _ record: RecordView, _ position: Position) {
        let at = record.receivedAt
        switch decision {
        case let event as FirmwareAdded:
            if scope.includes(Self.name(ofFirmware: event.id), at: position) {
                firmware.append(FirmwareRow(event: event, createdAt: OptionalTime(at)))
            }
        case let event as CampaignCreated:
            guard takesIn(event.id, position) else { return }
            let id = touchCampaign(event.id)
            guard !campaigns.states[Int(id)].isCreated else { return }
            campaigns.states[Int(id)] = CampaignRowState(event, at, position)
            campaigns.states[Int(id)].plan = jsonMember("plan", of: record.payload).map { Array($0) }
            if writes(event.id, position) { campaigns.markDirty(id) }
        case let event as CampaignTargets: add(event, at, position)
        case let event as CampaignStatusChanged:
            guard takesIn(event.campaignID, position), let schema = CampaignSchema(rawValue: record.topicString)
            else { return }
            let id = touchCampaign(event.campaignID)
            guard campaigns.states[Int(id)].takes(position) else { return }
            campaigns.states[Int(id)].apply(schema, event, at, position)
            if writes(event.campaignID, position) { campaigns.markDirty(id) }
        case let event as CampaignStageBegun:
            guard takesIn(event.campaignID, position) else { return }
            let id = touchCampaign(event.campaignID)
            guard campaigns.states[Int(id)].takes(position) else { return }
            campaigns.states[Int(id)].apply(event, at, position)
            if writes(event.campaignID, position) { campaigns.markDirty(id) }
        case let event as CampaignDispatched:
            decide(Named(event), event.seen, at, position) { device, seen, arena in
                device.dispatch(seen: seen, at, position, in: &arena)
            }
        case let event as CampaignDevicesEnded:
            guard let status = OTADeviceStatus(rawValue: event.status) else { return }
            let kind = event.kind.flatMap(OTAFailureKind.init)
            decide(Named(event), event.seen, at, position) { device, seen, arena in
                device.end(as: status, kind: kind, event, seen: seen, at, position, in: &arena)
            }
        default: break
        }
    }

    /// What was decided about devices, each by itself: void for those of which a later event is known.
    private func decide(
        _ named: Named, _ seen: [UInt64], _ at: Timestamp, _ position: Position,
        _ body: (inout CampaignDeviceState, Position, inout ByteArena) -> TargetProgress.Effect
    ) {
        var deltas = CampaignDeltas()
        for (index, device) in named.devices.enumerated() where owns(named, device, position) {
            let id = touchDevice(named.campaign, device.utf8)
            guard index < seen.count, devices.states[Int(id)].isTarget else { continue }
            let effect = devices.update(id) { body(&$0, Position(seen[index]), &$1) }
            guard case .changed(let before) = effect else {
                deltas.void += 1
                continue
            }
            devices.markDirty(id)
            let part = devices.states[Int(id)].part
            deltas.move(from: before, to: part.status)
            if part.command == position { deltas.dispatched += 1 }
        }
        count(named.campaign, named.tenant, at) { $0 += deltas }
    }

    private func add(_ event: CampaignTargets, _ at: Timestamp, _ position: Position) {
        let named = Named(event)
        for (offset, device) in event.devices.enumerated() where owns(named, device, position) {
            let id = touchDevice(event.campaignID, device.utf8)
            guard !devices.states[Int(id)].isTarget else { continue }
            var state = CampaignDeviceState()
            state.isTarget = true
            state.part = TargetProgress(targetedAt: position)
            state.id = event.firstID + Int64(offset)
            state.createdAt = OptionalTime(at)
            devices.arena.put(event.tenantID, in: &state.tenant)
            devices.states[Int(id)] = state
            devices.markDirty(id)
        }
    }

    /// The devices that a decision names.
    private struct Named {
        let campaign: Int64
        let tenant: String
        let devices: [String]

        init(_ event: CampaignTargets) {
            (campaign, tenant, devices) = (event.campaignID, event.tenantID, event.devices)
        }
        init(_ event: CampaignDispatched) {
            (campaign, tenant, devices) = (event.campaignID, event.tenantID, event.devices)
        }
        init(_ event: CampaignDevicesEnded) {
            (campaign, tenant, devices) = (event.campaignID, event.tenantID, event.devices)
        }
        /// Nil for decisions that name none.
        init?(_ decision: (any Decision)?) {
            switch decision {
            case let event as CampaignTargets: self.init(event)
            case let event as CampaignDispatched: self.init(event)
            case let event as CampaignDevicesEnded: self.init(event)
            default: return nil
            }
        }
    }

    /// Whether this fold writes a campaign's own row.
    private func writes(_ campaign: Int64, _ position: Position) -> Bool {
        scope.includes(CampaignKey.name(campaign), at: position)
    }
    private func takesIn(_ campaign: Int64, _ position: Position) -> Bool {
        scope.takesIn(campaign: CampaignKey.name(campaign), at: position)
    }
    private func owns(_ named: Named, _ device: String, _ position: Position) -> Bool {
        if scope.isAll { return true }
        return FoldKey.device(tenant: named.tenant, device: device).bytes.withUnsafeBytes {
            scope.includes(device: $0, campaign: CampaignKey.name(named.campaign), at: position)
        }
    }
    private static func name(ofFirmware id: Int64) -> String { "firmware/\(id)" }

    // MARK: rows out

    func drain(into rows: inout [RowBuffer]) {
        rows[CampaignTables.firmware].append(firmware)
        firmware.removeAll()
        campaigns.drain(into: &rows[CampaignTables.campaigns])
        for (campaign, deltas) in counts.sorted(by: { $0.key < $1.key }) {
            rows[CampaignTables.counts].append(CampaignCountsRow(campaign: campaign, deltas: deltas))
        }
        counts.removeAll(keepingCapacity: true)
        for (minute, sums) in progress.sorted(by: { $0.key < $1.key }) {
            rows[CampaignTables.progress].append(
                CampaignProgressRow(at: minute, tenant: sums.tenant, deltas: sums.deltas))
        }
        progress.removeAll(keepingCapacity: true)
        devices.drain(into: &rows[CampaignTables.devices])
        rows[CampaignTables.unmatched].append(unmatched)
        unmatched.removeAll()
    }

    func shrink(toBytes byteCount: Int) {
        campaigns.shrink(toBytes: byteCount / 4)
        devices.shrink(toBytes: byteCount - byteCount / 4)
    }
}

extension TargetProgress.Report {
    fileprivate init(_ status: OTAReport.Status) {
        switch status {
        case .downloading: self = .downloading
        case .installing: self = .installing
        case .success: self = .success
        case .failed: self = .failed
        }
    }
}

extension CampaignRowState {
    fileprivate init(_ event: CampaignCreated, _ at: Timestamp, _ position: Position) {
        self.init()
        isCreated = true
        created = event
        status = "CREATED"
        createdAt = OptionalTime(at)
        statusAt = createdAt
        statusBy = event.actor
        lastPosition = position
        createdPosition = position
    }

    fileprivate mutating func apply(
        _ schema: CampaignSchema, _ event: CampaignStatusChanged, _ at: Timestamp, _ position: Position
    ) {
        status = event.after
        statusAt = OptionalTime(at)
        statusBy = event.actor
        statusCode = event.code
        statusReason = event.reason
        statusCause = event.cause.map { Int64(clamping: $0) }
        lastPosition = position
        switch schema {
        case .campaignStarted where startedAt.value == nil: startedAt = OptionalTime(at)
        case .campaignAborted, .campaignCompleted: completedAt = OptionalTime(at)
        case .campaignRetried: completedAt = OptionalTime()
        case .campaignDeleted: deletedPosition = position
        default: break
        }
    }

    fileprivate mutating func apply(_ event: CampaignStageBegun, _ at: Timestamp, _ position: Position) {
        stage = Int64(event.stage)
        stageDevicesMax = event.devicesMax
        stageBegunAt = OptionalTime(at)
        lastPosition = position
    }
}

extension CampaignDeviceState {
    fileprivate mutating func dispatch(
        seen: Position, _ at: Timestamp, _ position: Position, in arena: inout ByteArena
    ) -> TargetProgress.Effect {
        let effect = part.dispatch(seen: seen, at: position)
        guard case .changed = effect else { return effect }
        if startedAt.value == nil { startedAt = OptionalTime(at) }
        dispatchedAt = OptionalTime(at)
        acknowledgedAt = OptionalTime()
        progress = -1
        arena.free(&error)
        arena.free(&skipKind)
        setEnd(at, position)
        return effect
    }

    fileprivate mutating func end(
        as status: OTADeviceStatus, kind: OTAFailureKind?, _ event: CampaignDevicesEnded, seen: Position,
        _ at: Timestamp, _ position: Position, in arena: inout ByteArena
    ) -> TargetProgress.Effect {
        let effect = part.end(as: status, kind: kind, seen: seen, at: position)
        guard case .changed = effect else { return effect }
        switch status.count {
        case .failed: if let reason = event.reason { arena.put(reason, in: &error) }
        case .skipped: if let kind = event.kind { arena.put(kind, in: &skipKind) }
        default: break
        }
        setEnd(at, position)
        return effect
    }

    fileprivate mutating func setEnd(_ at: Timestamp, _ position: Position) {
        completedAt = part.status.hasEnded ? OptionalTime(at) : OptionalTime()
        endedPosition = part.status.hasEnded ? position : nil
    }
}
