import CampaignRules
import Deciding
import Decisions
import EventModel
import FoundationEssentials

extension CampaignState {
    public static let storedName = "campaigns"
    public static let storedVersion = 2

    public func stored() -> [UInt8] { eventJSON(StoredForm(self)) }

    public init(stored: [UInt8]) throws {
        do {
            self = try JSONDecoder().decode(StoredForm.self, from: Data(stored)).state()
        } catch {
            throw UnreadableDecision("the campaigns' state in the snapshot cannot be understood (\(error))")
        }
    }
}

/// The state in lists, in the order of their keys. What can be made again from them is left out.
private struct StoredForm: Codable {
    struct Firmware: Codable {
        var id: Int64
        var tenant: String
        var version: String
        var url: String
        var checksum: String?
    }
    struct Group: Codable {
        var id: Int64
        var tenant: String
        var name: String
        var query: GroupQuery?
        var members: [String]
        var turns: [Int64]
        var nextTurn: Int64
    }
    struct Answer: Codable {
        var key: IdempotencyLedger<CommandAnswer>.Key
        var digest: String?
        /// Microseconds since 1970.
        var at: Int64
        var position: UInt64
        var id: Int64?
        var status: CampaignStatus?
        /// What a refusal has.
        var code: String?
        var reason: String?
    }
    struct Expiry: Codable {
        var at: Int64
        var key: IdempotencyLedger<CommandAnswer>.Key
    }

    var firmware: [Firmware]
    var groups: [Group]
    var timeZones: [String: String]
    var campaigns: [StoredCampaign]
    var archived: [Int64: String]
    var nextFirmware: Int64
    var nextGroup: Int64
    var nextCampaign: Int64
    var nextTarget: Int64
    var answers: [Answer]
    var expiries: [Expiry]

    init(_ state: CampaignState) {
        firmware = state.firmware.sorted { $0.key < $1.key }.map {
            Firmware(
                id: $0.key, tenant: $0.value.tenantID, version: $0.value.version, url: $0.value.fileURL,
                checksum: $0.value.checksum)
        }
        groups = state.groups.sorted { $0.key < $1.key }.map { id, group in
            let members = group.members.sorted { $0.value < $1.value }
            return Group(
                id: id, tenant: group.tenantID, name: group.name, query: group.query, members: members.map(\.key),
                turns: members.map(\.value), nextTurn: group.nextTurn)
        }
        timeZones = state.timeZones
        campaigns = state.campaigns.sorted { $0.key < $1.key }.map { StoredCampaign($0.value) }
        archived = state.archived
        nextFirmware = state.nextFirmwareID
        nextGroup = state.nextGroupID
        nextCampaign = state.nextCampaignID
        nextTarget = state.nextTargetID
        answers = state.answers.entries.sorted {
            ($0.key.tenantID, $0.key.key) < ($1.key.tenantID, $1.key.key)
        }.map { Self.answer($0.key, $0.value) }
        expiries = state.answers.uses.map { Expiry(at: $0.at.microseconds, key: $0.key) }
    }

    private static func answer(
        _ key: IdempotencyLedger<CommandAnswer>.Key, _ stored: IdempotencyLedger<CommandAnswer>.Entry
    ) -> Answer {
        let at = stored.at.microseconds
        switch stored.answer {
        case .accepted(let position, let id, let status):
            return Answer(
                key: key, digest: stored.digest, at: at, position: position.rawValue, id: id, status: status)
        case .rejected(let position, let code, let reason):
            return Answer(
                key: key, digest: stored.digest, at: at, position: position.rawValue, code: code.rawValue,
                reason: reason)
        }
    }

    func state() throws -> CampaignState {
        var state = CampaignState()
        for item in firmware {
            state.firmware[item.id] = CampaignState.Firmware(
                tenantID: item.tenant, version: item.version, fileURL: item.url, checksum: item.checksum)
        }
        for item in groups {
            var group = CampaignState.Group(tenantID: item.tenant, name: item.name, query: item.query)
            for (member, turn) in zip(item.members, item.turns) { group.members[member] = turn }
            group.nextTurn = item.nextTurn
            state.groups[item.id] = group
        }
        state.timeZones = timeZones
        state.archived = archived
        for item in campaigns { state.take(item.campaign()) }
        state.nextFirmwareID = nextFirmware
        state.nextGroupID = nextGroup
        state.nextCampaignID = nextCampaign
        state.nextTargetID = nextTarget
        state.answers.restore(
            try Dictionary(answers.map { ($0.key, try Self.entry($0)) }) { $1 },
            uses: expiries.map { .init(at: Timestamp(storedMicroseconds: $0.at), key: $0.key) })
        return state
    }

    private static func entry(_ item: Answer) throws -> IdempotencyLedger<CommandAnswer>.Entry {
        let position = Position(item.position), answer: CommandAnswer
        if let text = item.code {
            guard let code = RejectionCode(rawValue: text) else {
                throw UnreadableDecision("a refusal has the code \(text)")
            }
            answer = .rejected(position: position, code: code, reason: item.reason ?? "")
        } else {
            answer = .accepted(position: position, id: item.id ?? 0, status: item.status)
        }
        return .init(digest: item.digest, at: Timestamp(storedMicroseconds: item.at), answer: answer)
    }
}

extension CampaignState {
    /// Takes up a campaign as it was, and what follows of its devices.
    fileprivate mutating func take(_ campaign: Campaign) {
        for index in campaign.targets.indices {
            let address = campaign.address(Int32(index))
            refs[address, default: []].append(TargetRef(campaign: campaign.id, index: Int32(index)))
            if campaign.targets[index].part.status.isInFlight, busy[address] == nil { busy[address] = campaign.id }
        }
        campaigns[campaign.id] = campaign
    }
}
