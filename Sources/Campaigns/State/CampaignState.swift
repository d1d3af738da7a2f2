import CampaignRules
import Deciding
import Decisions
import EventModel

/// CREATED → RUNNING ⇄ PAUSED → COMPLETED | ABORTED; CREATED may be aborted, or deleted.
public enum CampaignStatus: String, Sendable, CaseIterable, Codable {
    case created = "CREATED"
    case running = "RUNNING"
    case paused = "PAUSED"
    case completed = "COMPLETED"
    case aborted = "ABORTED"
}

/// The fold of the decider's own events, and of what devices report while a campaign is known, in log order. Pure: time
/// is the events'.
public struct CampaignState: Decider {
    struct Firmware: Sendable, Equatable {
        let tenantID: String
        let version: String
        let fileURL: String
        let checksum: String?
    }

    struct Group: Sendable, Equatable {
        let tenantID: String
        let name: String
        let query: GroupQuery?
        /// Of a list, each with its turn.
        var members: [String: Int64] = [:]
        var nextTurn: Int64 = 0

        var list: [String] { members.sorted { $0.value < $1.value }.map(\.key) }
    }

    /// One device in one campaign.
    struct TargetRef: Sendable, Equatable {
        let campaign: Int64
        let index: Int32
    }

    var firmware: [Int64: Firmware] = [:]
    var groups: [Int64: Group] = [:]
    var timeZones: [String: String] = [:]
    /// Those that are not deleted and did not end long ago.
    var campaigns: [Int64: Campaign] = [:]
    /// What is still known of those that ended long ago.
    var archived: [Int64: String] = [:]
    var nextFirmwareID: Int64 = 1
    var nextGroupID: Int64 = 1
    var nextCampaignID: Int64 = 1
    /// The next row id of `ota_device_status`.
    var nextTargetID: Int64 = 1
    var answers = IdempotencyLedger<CommandAnswer>(countMax: 100_000)
    /// Broker acknowledgements not yet recorded in the log: not part of the fold.
    var receipts = DeliveryReceipts()

    /// In which campaigns a device is; by `tenant/{t}/device/{d}`.
    var refs: [String: [TargetRef]] = [:]
    /// The campaign that a device is in flight for.
    var busy: [String: Int64] = [:]

    /// How long the devices of a campaign that has ended are remembered, so that those that failed can be tried again.
    public static let keptMicroseconds: Int64 = 24 * 3600 * 1_000_000

    public init() {}

    /// What the log alone gives, without acknowledgements that are not recorded in it.
    public var folded: CampaignState {
        var state = self
        state.receipts = DeliveryReceipts()
        return state
    }

    /// How many idempotency keys are remembered.
    public var answerCount: Int { answers.entries.count }

    /// How many campaigns are known with their devices.
    public var campaignCount: Int { campaigns.count }

    /// While a campaign is known.
    public var wantsMessages: Bool { !campaigns.isEmpty }
    /// In their order, so that the same log is decided in the same order.
    var campaignIDs: [Int64] { campaigns.keys.sorted() }

    // MARK: decisions

    public mutating func apply(_ event: CampaignEvent, at position: Position, time: Timestamp) {
        answers.expire(before: time)
        switch event {
        case .firmwareAdded(let event):
            firmware[event.id] = Firmware(
                tenantID: event.tenantID, version: event.version, fileURL: event.fileURL,
                checksum: event.checksumSHA256)
            nextFirmwareID = max(nextFirmwareID, event.id.saturatingAdding(1))
            remember(event, time, .accepted(position: position, id: event.id, status: nil))
        case .groupCreated(let event):
            groups[event.id] = Group(tenantID: event.tenantID, name: event.name, query: event.query)
            nextGroupID = max(nextGroupID, event.id.saturatingAdding(1))
            remember(event, time, .accepted(position: position, id: event.id, status: nil))
        case .groupMembers(let event): apply(event, at: position, time: time)
        case .groupDeleted(let event):
            groups[event.groupID] = nil
            remember(event, time, .accepted(position: position, id: event.groupID, status: nil))
        case .tenantConfigured(let event):
            timeZones[event.tenantID] = event.timeZone
            remember(event, time, .accepted(position: position, id: 0, status: nil))
        case .campaignCreated(let event):
            // Logs from before `campaign.archived/1`.
            for campaign in endedLongAgo(time) { archive(campaign.id) }
            if campaigns[event.id] == nil { campaigns[event.id] = Campaign(event) }
            nextCampaignID = max(nextCampaignID, event.id.saturatingAdding(1))
            remember(event, time, .accepted(position: position, id: event.id, status: .created))
        case .campaignTargets(let event): apply(event, at: position)
        case .statusChanged(let schema, let event):
            change(event, schema, at: position, time: time)
            remember(
                event, time,
                .accepted(
                    position: position, id: event.campaignID, status: CampaignStatus(rawValue: event.after)))
        case .stageBegun(let event):
            withCampaign(event.campaignID) {
                $0.stage = event.stage
                $0.stageEndedAt = nil
                $0.allowedBy = position
                $0.beginPace(at: time)
                $0.noteStage(time)
            }
        case .dispatched(let event): apply(event, at: position, time: time)
        case .published(let event):
            receipts.forget(event)
            withCampaign(event.campaignID) { campaign in
                for batch in event.batches { campaign.publish(batch, time: time) }
            }
        case .devicesEnded(let event): apply(event, at: position, time: time)
        case .archived(let event):
            if campaigns[event.campaignID]?.mayBeArchived ?? false { archive(event.campaignID) }
        case .rejected(let event):
            remember(
                event, time,
                .rejected(
                    position: position, code: event.code.flatMap(RejectionCode.init) ?? .invalidValue,
                    reason: event.reason))
        }
    }

    private mutating func apply(_ event: GroupMembers, at position: Position, time: Timestamp) {
        if var group = groups.removeValue(forKey: event.groupID) {
            for device in event.removed ?? [] { group.members[device] = nil }
            for device in event.added ?? [] where group.members[device] == nil {
                group.members[device] = group.nextTurn
                group.nextTurn += 1
            }
            groups[event.groupID] = group
        }
        remember(event, time, .accepted(position: position, id: event.groupID, status: nil))
    }

    private mutating func apply(_ event: CampaignTargets, at position: Position) {
        nextTargetID = max(nextTargetID, event.firstID.saturatingAdding(Int64(event.devices.count)))
        guard let before = campaigns[event.campaignID]?.targets.count else { return }
        campaigns[event.campaignID]?.add(event.devices, at: position)
        for index in before..<(campaigns[event.campaignID]?.targets.count ?? before) {
            let address = campaigns[event.campaignID]!.address(Int32(index))
            refs[address, default: []].append(TargetRef(campaign: event.campaignID, index: Int32(index)))
        }
        if let key = campaigns[event.campaignID]?.createdBy {
            answers.amend(key, .accepted(position: position, id: event.campaignID, status: .created))
        }
    }

    private mutating func change(
        _ event: CampaignStatusChanged, _ schema: CampaignSchema, at position: Position, time: Timestamp
    ) {
        if schema == .campaignDeleted { return forget(event.campaignID) }
        guard let status = CampaignStatus(rawValue: event.after) else { return }
        withCampaign(event.campaignID) { campaign in
            let before = campaign.status
            campaign.status = status
            switch schema {
            case .campaignStarted:
                campaign.startedAt = time
                campaign.begin(position, time)
                campaign.rebuildQueues()
            case .campaignPaused: campaign.wasPausedByEngine = event.actor == EngineActor.name
            case .campaignResumed:
                if campaign.wasPausedByEngine { campaign.forgetResults() }
                campaign.wasPausedByEngine = false
                campaign.begin(position, time)
            case .campaignRetried:
                if before == .completed { campaign.startedAt = time }
                campaign.endedAt = nil
                campaign.forgetResults()
                campaign.begin(position, time)
                campaign.retryFailed(event.kinds.map { Set($0.compactMap(OTAFailureKind.init)) }, at: time)
            case .campaignAborted, .campaignCompleted:
                campaign.endedAt = time
                campaign.forgetRetries()
            default: break
            }
        }
    }

    private mutating func apply(_ event: CampaignDispatched, at position: Position, time: Timestamp) {
        guard campaigns[event.campaignID] != nil else { return }
        for (device, seen) in zip(event.devices, event.seen) {
            guard let index = campaigns[event.campaignID]?.indexes[device] else { continue }
            let before = campaigns[event.campaignID]!.dispatch(index, seen: Position(seen), at: position, time: time)
            moved(event.campaignID, index, before)
        }
        withCampaign(event.campaignID) {
            $0.paceFrom = Int64(storedMicroseconds: event.paceFrom)
            $0.paceCount = max(0, event.paceCount)
        }
    }

    private mutating func apply(_ event: CampaignDevicesEnded, at position: Position, time: Timestamp) {
        guard campaigns[event.campaignID] != nil, let status = OTADeviceStatus(rawValue: event.status) else { return }
        let kind = event.kind.flatMap(OTAFailureKind.init)
        for (device, seen) in zip(event.devices, event.seen) {
            guard let index = campaigns[event.campaignID]?.indexes[device] else { continue }
            let before = campaigns[event.campaignID]!.end(
                index, as: status, kind: kind, seen: Position(seen), at: position, time: time)
            moved(event.campaignID, index, before)
        }
    }

    private mutating func remember(_ event: some Decision, _ time: Timestamp, _ answer: CommandAnswer) {
        let envelope = event.envelope
        guard let key = envelope.idempotencyKey else { return }
        answers.remember(
            .init(tenantID: envelope.tenantID, key: key),
            .init(digest: envelope.requestDigest, at: time, answer: answer))
    }

    mutating func withCampaign(_ id: Int64, _ body: (inout Campaign) -> Void) {
        guard let at = campaigns.index(forKey: id) else { return }
        body(&campaigns.values[at])
    }

    // MARK: one campaign a device

    /// A device's part has changed: it may have become free for another campaign, or no longer be.
    mutating func moved(_ campaign: Int64, _ index: Int32, _ before: OTADeviceStatus?) {
        guard let before, let target = campaigns[campaign]?.targets[Int(index)] else { return }
        let isInFlight = target.part.status.isInFlight
        guard before.isInFlight != isInFlight else { return }
        let address = campaigns[campaign]!.address(index)
        if isInFlight {
            if busy[address] == nil { busy[address] = campaign }
        } else if busy[address] == campaign {
            release(address)
        }
    }

    /// Gives a device to whoever else has it in flight, or else lets all who wait for it queue.
    private mutating func release(_ address: String) {
        let others = refs[address] ?? []
        busy[address] =
            others.first { ref in
                campaigns[ref.campaign]?.targets[Int(ref.index)].part.status.isInFlight ?? false
            }?.campaign
        guard busy[address] == nil else { return }
        for ref in others where campaigns[ref.campaign]?.status != .created {
            withCampaign(ref.campaign) { $0.queue(ref.index) }
        }
    }

    // MARK: what is known no longer

    private mutating func forget(_ id: Int64) {
        guard let campaign = campaigns.removeValue(forKey: id) else { return }
        for index in campaign.targets.indices {
            let address = campaign.address(Int32(index))
            refs[address]?.removeAll { $0.campaign == id }
            if refs[address]?.isEmpty ?? false { refs[address] = nil }
            if busy[address] == id { release(address) }
        }
    }

    func endedLongAgo(_ now: Timestamp) -> [Campaign] {
        campaigns.values.filter { $0.archiveTime.map { $0 <= now } ?? false }.sorted { $0.id < $1.id }
    }

    /// From now on it is remembered by name only.
    private mutating func archive(_ id: Int64) {
        archived[id] = campaigns[id]?.tenantID
        forget(id)
    }
}

extension Campaign {
    var mayBeArchived: Bool { hasEnded && counts.open == 0 }

    /// When it is to leave memory; nil: not yet known. A day after its last device ended, so that a removal of its
    /// retained command is repeated over a restart.
    var archiveTime: Timestamp? {
        guard mayBeArchived, let endedAt else { return nil }
        return max(endedAt, deviceEndedAt ?? endedAt).moved(by: CampaignState.keptMicroseconds)
    }

    /// It may send, from now on.
    mutating func begin(_ position: Position, _ time: Timestamp) {
        allowedBy = position
        beginPace(at: time)
    }

    /// The next device is due when it would have been, but not before `time`.
    mutating func beginPace(at time: Timestamp) {
        paceFrom = max(time.microseconds, paceCount == 0 ? time.microseconds : dueMicroseconds(paceCount))
        paceCount = 0
    }

    mutating func forgetRetries() {
        guard retryCount > 0 else { return }
        for index in targets.indices { targets[index].retryAt = nil }
        retryCount = 0
    }

    mutating func retryFailed(_ kinds: Set<OTAFailureKind>?, at time: Timestamp) {
        for index in targets.indices {
            let part = targets[index].part
            guard part.status.count == .failed, kinds.map({ $0.contains(part.kind ?? .install) }) ?? true
            else { continue }
            retry(Int32(index), at: time.microseconds)
        }
        noteStage(time)
    }
}
