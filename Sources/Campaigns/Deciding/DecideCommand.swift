import CampaignRules
import Deciding
import Decisions
import EventModel

/// A `campaign.targets/1` record names at most so many devices: a record must stay well below the log's limit.
public let targetsPerRecordMax = 5_000

extension CampaignState {
    public func decide(_ request: CommandRequest, now: Timestamp) -> Outcome<CampaignEvent, CommandAnswer> {
        let digest = request.idempotencyKey.map { _ in request.digest }
        if let key = request.idempotencyKey,
            let stored = answers.entry(for: .init(tenantID: request.tenantID, key: key), now: now)
        {
            if stored.digest == digest { return .repeated(stored.answer) }
            // On record without the key: the key's answer is the first command's.
            return .append([
                rejection(
                    request, digest: nil,
                    Refusal(.keyReused, idempotencyKeyReused))
            ])
        }
        do {
            return .append(try accept(request, self, digest))
        } catch {
            return .append([rejection(request, digest: digest, error)])
        }
    }

    public func answer(
        to request: CommandRequest, _ events: [CampaignEvent], at positions: Range<Position>
    ) -> CommandAnswer {
        precondition(!events.isEmpty && positions.lowerBound < positions.upperBound, "an answer needs an event")
        let last = Position(positions.upperBound.rawValue - 1)
        switch events[0] {
        case .firmwareAdded(let event): return .accepted(position: last, id: event.id, status: nil)
        case .groupCreated(let event): return .accepted(position: last, id: event.id, status: nil)
        case .groupMembers(let event): return .accepted(position: last, id: event.groupID, status: nil)
        case .groupDeleted(let event): return .accepted(position: last, id: event.groupID, status: nil)
        case .tenantConfigured: return .accepted(position: last, id: 0, status: nil)
        case .campaignCreated(let event): return .accepted(position: last, id: event.id, status: .created)
        case .statusChanged(_, let event):
            return .accepted(position: last, id: event.campaignID, status: CampaignStatus(rawValue: event.after))
        case .rejected(let event):
            return .rejected(
                position: last, code: event.code.flatMap(RejectionCode.init) ?? .invalidValue, reason: event.reason)
        default: preconditionFailure("\(events[0].schema) is no answer to a command")
        }
    }
}

struct Refusal: Error {
    let code: RejectionCode
    let reason: String

    init(_ code: RejectionCode, _ reason: String) {
        self.code = code
        self.reason = reason
    }
}

private func rejection(_ request: CommandRequest, digest: String?, _ refusal: Refusal) -> CampaignEvent {
    var event = CommandRejected(
        command: request.command.name, subject: request.command.subject,
        // A tenant that breaks the grammar stays out of the record: tables could not hold every text.
        tenantID: DeviceTopic.isID(request.tenantID) ? request.tenantID : "", actor: request.actor,
        reason: refusal.reason)
    event.code = refusal.code.rawValue
    if digest != nil {
        event.idempotencyKey = request.idempotencyKey
        event.requestDigest = digest
    }
    return .rejected(event)
}

private func accept(
    _ request: CommandRequest, _ state: CampaignState, _ digest: String?
) throws(Refusal) -> [CampaignEvent] {
    guard DeviceTopic.isID(request.tenantID) else {
        throw Refusal(.invalidValue, "the tenant id must be 1 to 128 characters of A-Z a-z 0-9 . _ : -")
    }
    switch request.command {
    case .addFirmware(let spec):
        try validate(spec)
        var event = FirmwareAdded(
            id: state.nextFirmwareID, tenantID: request.tenantID, version: spec.version, fileURL: spec.fileURL,
            actor: request.actor)
        event.description = spec.description
        event.fileSizeBytes = spec.fileSizeBytes
        event.checksumSHA256 = spec.checksumSHA256?.lowercased()
        event.deviceType = spec.deviceType
        event.idempotencyKey = request.idempotencyKey
        event.requestDigest = digest
        return [.firmwareAdded(event)]
    case .createGroup(let spec): return try createGroup(spec, request, state, digest)
    case .changeMembers(let id, let added, let removed):
        return try changeMembers(id, added, removed, request, state, digest)
    case .deleteGroup(let id):
        _ = try group(id, request, state)
        var event = GroupDeleted(groupID: id, tenantID: request.tenantID, actor: request.actor)
        event.idempotencyKey = request.idempotencyKey
        event.requestDigest = digest
        return [.groupDeleted(event)]
    case .configureTenant(let timeZone):
        try checkTimeZone(timeZone)
        var event = TenantConfigured(tenantID: request.tenantID, timeZone: timeZone, actor: request.actor)
        event.before = state.timeZones[request.tenantID]
        event.idempotencyKey = request.idempotencyKey
        event.requestDigest = digest
        return [.tenantConfigured(event)]
    case .createCampaign(let spec):
        return try create(spec, request, state, digest)
    case .start(let id):
        return [try transition(id, .start, nil, request, state, digest)]
    case .pause(let id, let reason):
        return [try transition(id, .pause, reason, request, state, digest)]
    case .resume(let id):
        return [try transition(id, .resume, nil, request, state, digest)]
    case .abort(let id, let reason):
        return [try transition(id, .abort, reason, request, state, digest)]
    case .delete(let id):
        return [try transition(id, .delete, nil, request, state, digest)]
    case .retryFailed(let id, let kinds):
        return [try retry(id, kinds, request, state, digest)]
    }
}

private func create(
    _ spec: CampaignSpec, _ request: CommandRequest, _ state: CampaignState, _ digest: String?
) throws(Refusal) -> [CampaignEvent] {
    var spec = spec
    if let id = spec.targetGroupID {
        let group = try group(id, request, state)
        if group.query == nil { spec.devices = group.list }
        guard !spec.devices.isEmpty else {
            throw Refusal(.invalidValue, "the group \(id) has no devices: there is nobody to update")
        }
    }
    spec.plan.timeZone = spec.timeZone ?? state.timeZones[request.tenantID] ?? "UTC"
    if spec.rolloutStrategy == "canary", spec.plan.stages.isEmpty { spec.plan.stages = CampaignPlan.Stage.defaults }
    try validate(spec)
    guard state.firmware[spec.firmwareVersionID]?.tenantID == request.tenantID else {
        throw Refusal(.notFound, "there is no firmware \(spec.firmwareVersionID) in this tenant")
    }
    var created = CampaignCreated(
        id: state.nextCampaignID, tenantID: request.tenantID, name: spec.name,
        firmwareVersionID: spec.firmwareVersionID, rolloutStrategy: spec.rolloutStrategy,
        totalDevices: Int64(spec.devices.count), actor: request.actor)
    created.targetGroupID = spec.targetGroupID
    created.rolloutRate = spec.rolloutRate
    created.abortThreshold = spec.abortThreshold
    created.plan = spec.plan
    created.idempotencyKey = request.idempotencyKey
    created.requestDigest = digest
    return [.campaignCreated(created)]
        + inRecords(spec.devices).map { start, devices in
            .campaignTargets(
                CampaignTargets(
                    campaignID: created.id, tenantID: request.tenantID,
                    firstID: state.nextTargetID.saturatingAdding(Int64(start)), devices: devices))
        }
}

/// In pieces that fit a record, each with where it begins.
private func inRecords(_ devices: [String]) -> [(Int, [String])] {
    stride(from: 0, to: devices.count, by: targetsPerRecordMax).map { start in
        (start, Array(devices[start..<min(start + targetsPerRecordMax, devices.count)]))
    }
}

private func createGroup(
    _ spec: GroupSpec, _ request: CommandRequest, _ state: CampaignState, _ digest: String?
) throws(Refusal) -> [CampaignEvent] {
    try validate(spec)
    var event = GroupCreated(
        id: state.nextGroupID, tenantID: request.tenantID, name: spec.name, actor: request.actor)
    event.description = spec.description
    event.query = spec.query
    event.idempotencyKey = request.idempotencyKey
    event.requestDigest = digest
    return [.groupCreated(event)]
        + inRecords(spec.devices ?? []).map { _, devices in
            var members = GroupMembers(groupID: event.id, tenantID: request.tenantID, actor: request.actor)
            members.added = devices
            return .groupMembers(members)
        }
}

private func changeMembers(
    _ id: Int64, _ added: [String], _ removed: [String], _ request: CommandRequest, _ state: CampaignState,
    _ digest: String?
) throws(Refusal) -> [CampaignEvent] {
    let group = try group(id, request, state)
    guard group.query == nil else {
        throw Refusal(.invalidValue, "the group \(id) is a query: its members are what it finds")
    }
    guard !added.isEmpty || !removed.isEmpty else { throw Refusal(.invalidValue, "add or remove must name a device") }
    try checkDevices(added, "add")
    try checkDevices(removed, "remove")
    var events: [CampaignEvent] = []
    func append(_ change: (inout GroupMembers) -> Void) {
        var event = GroupMembers(groupID: id, tenantID: request.tenantID, actor: request.actor)
        change(&event)
        // One answer for all of them: that of the last.
        event.idempotencyKey = request.idempotencyKey
        event.requestDigest = digest
        events.append(.groupMembers(event))
    }
    for (_, devices) in inRecords(removed) { append { $0.removed = devices } }
    for (_, devices) in inRecords(added) { append { $0.added = devices } }
    return events
}

private func group(
    _ id: Int64, _ request: CommandRequest, _ state: CampaignState
) throws(Refusal) -> CampaignState.Group {
    guard let group = state.groups[id], group.tenantID == request.tenantID else {
        throw Refusal(.notFound, "there is no group \(id) in this tenant")
    }
    return group
}

private func retry(
    _ id: Int64, _ kinds: [OTAFailureKind]?, _ request: CommandRequest, _ state: CampaignState, _ digest: String?
) throws(Refusal) -> CampaignEvent {
    if state.archived[id] == request.tenantID {
        throw Refusal(
            .illegalTransition,
            "campaign \(id) ended more than a day ago: create a new campaign with the devices that failed")
    }
    guard let status = state.campaigns[id]?.status, state.campaigns[id]?.tenantID == request.tenantID else {
        throw Refusal(.notFound, "there is no campaign \(id) in this tenant")
    }
    guard [.running, .paused, .completed].contains(status) else {
        throw Refusal(
            .illegalTransition,
            "campaign \(id) is \(status.rawValue) and failed devices can be tried again only when RUNNING or PAUSED "
                + "or COMPLETED")
    }
    guard state.campaigns[id]?.hasFailed(kinds.map { Set($0) }) ?? false else {
        throw Refusal(.illegalTransition, "no device of campaign \(id) has failed so")
    }
    var event = CampaignStatusChanged(
        campaignID: id, tenantID: request.tenantID, before: status.rawValue,
        after: (status == .completed ? .running : status).rawValue, actor: request.actor)
    event.kinds = kinds?.map(\.rawValue)
    event.idempotencyKey = request.idempotencyKey
    event.requestDigest = digest
    return .statusChanged(.campaignRetried, event)
}

/// The commands that move a campaign, each with the statuses it moves from and the one it moves to.
struct Transition: Sendable {
    let verb: String
    let from: [CampaignStatus]
    let to: CampaignStatus
    let schema: CampaignSchema

    static let start = Transition(verb: "started", from: [.created], to: .running, schema: .campaignStarted)
    static let pause = Transition(verb: "paused", from: [.running], to: .paused, schema: .campaignPaused)
    static let resume = Transition(verb: "resumed", from: [.paused], to: .running, schema: .campaignResumed)
    static let abort = Transition(
        verb: "aborted", from: [.created, .running, .paused], to: .aborted, schema: .campaignAborted)
    static let delete = Transition(verb: "deleted", from: [.created], to: .created, schema: .campaignDeleted)
}

private func transition(
    _ id: Int64, _ transition: Transition, _ reason: String?, _ request: CommandRequest, _ state: CampaignState,
    _ digest: String?
) throws(Refusal) -> CampaignEvent {
    if state.archived[id] == request.tenantID {
        throw Refusal(
            .illegalTransition,
            "campaign \(id) has ended and can be \(transition.verb) no more")
    }
    guard let status = state.campaigns[id]?.status, state.campaigns[id]?.tenantID == request.tenantID else {
        throw Refusal(.notFound, "there is no campaign \(id) in this tenant")
    }
    guard transition.from.contains(status) else {
        let allowed = transition.from.map(\.rawValue).joined(separator: " or ")
        throw Refusal(
            .illegalTransition,
            "campaign \(id) is \(status.rawValue) and can be \(transition.verb) only when \(allowed)")
    }
    if let reason { try checkText(reason, "reason", max: 1_000) }
    var event = CampaignStatusChanged(
        campaignID: id, tenantID: request.tenantID, before: status.rawValue, after: transition.to.rawValue,
        actor: request.actor)
    event.reason = reason
    event.idempotencyKey = request.idempotencyKey
    event.requestDigest = digest
    return .statusChanged(transition.schema, event)
}
