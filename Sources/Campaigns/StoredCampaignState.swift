import EventModel
#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

extension CampaignState {
    /// Under which a snapshot keeps this fold.
    public static let storedName = "campaigns"
    /// Raised whenever the fold means something else: a state of another version is not gone on from.
    public static let storedVersion = 1

    /// The state as JSON, the same bytes for the same state.
    public func stored() throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return Array(try encoder.encode(StoredForm(self)))
    }

    /// - Throws: `CampaignLogError` when they are no state of this version.
    public init(stored: [UInt8]) throws {
        do {
            self = try JSONDecoder().decode(StoredForm.self, from: Data(stored)).state()
        } catch {
            throw CampaignLogError("the campaigns' state in the snapshot cannot be understood (\(error))")
        }
    }
}

/// The state in lists, in the order of their keys.
private struct StoredForm: Codable {
    struct Firmware: Codable {
        var id: Int64
        var tenant: String
        var version: String
    }
    struct Campaign: Codable {
        var id: Int64
        var tenant: String
        var name: String
        var firmware: Int64
        var total: Int64
        var status: CampaignStatus
        var key: Key?
    }
    struct Key: Codable {
        var tenant: String
        var key: String

        init(_ key: CampaignState.AnswerKey) { (tenant, self.key) = (key.tenantID, key.key) }
        var value: CampaignState.AnswerKey { CampaignState.AnswerKey(tenantID: tenant, key: key) }
    }
    struct Answer: Codable {
        var key: Key
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
        var key: Key
    }

    var firmware: [Firmware]
    var campaigns: [Campaign]
    var nextFirmware: Int64
    var nextCampaign: Int64
    var nextTarget: Int64
    var answers: [Answer]
    var expiries: [Expiry]

    init(_ state: CampaignState) {
        firmware = state.firmware.sorted { $0.key < $1.key }.map {
            Firmware(id: $0.key, tenant: $0.value.tenantID, version: $0.value.version)
        }
        campaigns = state.campaigns.sorted { $0.key < $1.key }.map { id, campaign in
            Campaign(
                id: id, tenant: campaign.tenantID, name: campaign.name, firmware: campaign.firmwareVersionID,
                total: campaign.totalDevices, status: campaign.status, key: campaign.createdBy.map(Key.init))
        }
        nextFirmware = state.nextFirmwareID
        nextCampaign = state.nextCampaignID
        nextTarget = state.nextTargetID
        answers = state.answers.sorted {
            ($0.key.tenantID, $0.key.key) < ($1.key.tenantID, $1.key.key)
        }.map { Self.answer($0.key, $0.value) }
        expiries = state.expiries.map { Expiry(at: $0.at.microseconds, key: Key($0.key)) }
    }

    private static func answer(_ key: CampaignState.AnswerKey, _ stored: CampaignState.StoredAnswer) -> Answer {
        let at = stored.at.microseconds
        switch stored.answer {
        case .accepted(let position, let id, let status):
            return Answer(
                key: Key(key), digest: stored.digest, at: at, position: position.rawValue, id: id, status: status)
        case .rejected(let position, let code, let reason):
            return Answer(
                key: Key(key), digest: stored.digest, at: at, position: position.rawValue, code: code.rawValue,
                reason: reason)
        }
    }

    func state() throws -> CampaignState {
        var state = CampaignState()
        for item in firmware {
            state.firmware[item.id] = CampaignState.Firmware(tenantID: item.tenant, version: item.version)
        }
        for item in campaigns {
            state.campaigns[item.id] = CampaignState.Campaign(
                tenantID: item.tenant, name: item.name, firmwareVersionID: item.firmware, totalDevices: item.total,
                status: item.status, createdBy: item.key?.value)
        }
        state.nextFirmwareID = nextFirmware
        state.nextCampaignID = nextCampaign
        state.nextTargetID = nextTarget
        for item in answers {
            let position = Position(item.position), answer: CommandAnswer
            if let text = item.code {
                guard let code = RejectionCode(rawValue: text) else {
                    throw CampaignLogError("a refusal has the code \(text)")
                }
                answer = .rejected(position: position, code: code, reason: item.reason ?? "")
            } else {
                answer = .accepted(position: position, id: item.id ?? 0, status: item.status)
            }
            state.answers[item.key.value] = CampaignState.StoredAnswer(
                digest: item.digest, at: Timestamp(microseconds: item.at), answer: answer)
        }
        state.expiries = expiries.map {
            CampaignState.Expiry(at: Timestamp(microseconds: $0.at), key: $0.key.value)
        }
        return state
    }
}
