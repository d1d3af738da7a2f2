import EventModel

/// CREATED → RUNNING ⇄ PAUSED → ABORTED; CREATED may be aborted too.
public enum CampaignStatus: String, Sendable, CaseIterable, Codable {
    case created = "CREATED"
    case running = "RUNNING"
    case paused = "PAUSED"
    case completed = "COMPLETED"
    case aborted = "ABORTED"
}

/// The fold of the decider's own events, in log order. Pure: time is the events'.
public struct CampaignState: Sendable, Equatable {
    public struct Firmware: Sendable, Equatable {
        public let tenantID: String
        public let version: String
    }

    public struct Campaign: Sendable, Equatable {
        public let tenantID: String
        public let name: String
        public let firmwareVersionID: Int64
        public let totalDevices: Int64
        public internal(set) var status: CampaignStatus
        /// Under which its creation was answered: the positions of its targets belong to that answer.
        var createdBy: AnswerKey?
    }

    struct AnswerKey: Sendable, Hashable {
        let tenantID: String
        let key: String
    }

    struct StoredAnswer: Sendable, Equatable {
        let digest: String?
        let at: Timestamp
        var answer: CommandAnswer
    }

    struct Expiry: Sendable, Equatable {
        let at: Timestamp
        let key: AnswerKey
    }

    public internal(set) var firmware: [Int64: Firmware] = [:]
    public internal(set) var campaigns: [Int64: Campaign] = [:]
    public internal(set) var nextFirmwareID: Int64 = 1
    public internal(set) var nextCampaignID: Int64 = 1
    /// The next row id of `ota_device_status`.
    public internal(set) var nextTargetID: Int64 = 1
    var answers: [AnswerKey: StoredAnswer] = [:]
    var expiries: [Expiry] = []

    /// How long a key keeps its answer, in event time.
    public static let answerMicroseconds: Int64 = 24 * 3600 * 1_000_000
    /// Beyond this many the oldest are forgotten before their time: memory is bounded.
    public static let answersMax = 100_000

    public init() {}

    /// How many idempotency keys are remembered.
    public var answerCount: Int { answers.count }

    /// The answer given under this key, with the digest of the command it was given to; nil when none is in force.
    func answer(tenantID: String, key: String, now: Timestamp) -> StoredAnswer? {
        guard let stored = answers[AnswerKey(tenantID: tenantID, key: key)],
            now.microseconds - stored.at.microseconds < Self.answerMicroseconds
        else { return nil }
        return stored
    }

    /// Folds one event. Events that no rule of today would produce (an unknown campaign, a status that does not
    /// fit) are folded as they stand: the log is right, by definition.
    public mutating func apply(_ event: CampaignEvent, at position: Position, time: Timestamp) {
        expire(before: time)
        switch event {
        case .firmwareAdded(let event):
            firmware[event.id] = Firmware(tenantID: event.tenantID, version: event.version)
            nextFirmwareID = max(nextFirmwareID, event.id + 1)
            remember(event.tenantID, event.idempotencyKey, event.requestDigest, time,
                     .accepted(position: position, id: event.id, status: nil))
        case .campaignCreated(let event):
            campaigns[event.id] = Campaign(
                tenantID: event.tenantID, name: event.name, firmwareVersionID: event.firmwareVersionID,
                totalDevices: event.totalDevices, status: .created,
                createdBy: event.idempotencyKey.map { AnswerKey(tenantID: event.tenantID, key: $0) })
            nextCampaignID = max(nextCampaignID, event.id + 1)
            remember(event.tenantID, event.idempotencyKey, event.requestDigest, time,
                     .accepted(position: position, id: event.id, status: .created))
        case .campaignTargets(let event):
            nextTargetID = max(nextTargetID, event.firstID + Int64(event.devices.count))
            if let key = campaigns[event.campaignID]?.createdBy, answers[key] != nil {
                answers[key]?.answer = .accepted(position: position, id: event.campaignID, status: .created)
            }
        case .statusChanged(_, let event):
            let status = CampaignStatus(rawValue: event.after)
            if let status { campaigns[event.campaignID]?.status = status }
            remember(event.tenantID, event.idempotencyKey, event.requestDigest, time,
                     .accepted(position: position, id: event.campaignID, status: status))
        case .groupCreated, .groupMembers, .groupDeleted, .tenantConfigured, .stageBegun, .dispatched, .published,
            .devicesEnded: break
        case .rejected(let event):
            remember(event.tenantID, event.idempotencyKey, event.requestDigest, time, .rejected(
                position: position, code: event.code.flatMap(RejectionCode.init) ?? .invalidValue,
                reason: event.reason))
        }
    }

    private mutating func remember(
        _ tenantID: String, _ key: String?, _ digest: String?, _ time: Timestamp, _ answer: CommandAnswer
    ) {
        guard let key else { return }
        let answerKey = AnswerKey(tenantID: tenantID, key: key)
        answers[answerKey] = StoredAnswer(digest: digest, at: time, answer: answer)
        expiries.append(Expiry(at: time, key: answerKey))
    }

    private mutating func expire(before now: Timestamp) {
        var count = 0
        for expiry in expiries {
            guard now.microseconds - expiry.at.microseconds >= Self.answerMicroseconds
                || expiries.count - count >= Self.answersMax
            else { break }
            // A key that was used again after it expired has a later answer, which stays.
            if answers[expiry.key]?.at == expiry.at { answers[expiry.key] = nil }
            count += 1
        }
        if count > 0 { expiries.removeFirst(count) }
    }
}
