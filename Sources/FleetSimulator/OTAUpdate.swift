import Foundation

/// A command on `…/ota` (`{"campaign_id", "firmware_url", "version", "checksum", "action", "command_id"}`).
struct OTACommand {
    var campaignID: Int64
    var version: String
    /// Absent from commands of systems that number none.
    var commandID: Int64?

    /// Nil when the payload is no update command: a device ignores what it does not understand.
    init?(_ payload: UnsafeRawBufferPointer) {
        struct Fields: Decodable {
            var campaign_id: Int64
            var version: String
            var action: String?
            var command_id: Int64?
        }
        guard let fields = try? JSONDecoder().decode(Fields.self, from: Data(payload)),
            fields.action ?? "update" == "update"
        else { return nil }
        campaignID = fields.campaign_id
        version = fields.version
        commandID = fields.command_id
    }
}

/// How far a device has come with a command.
struct OTAUpdate {
    enum Stage: String {
        case downloading = "DOWNLOADING", installing = "INSTALLING", success = "SUCCESS", failed = "FAILED"

        var progress: Int {
            switch self {
            case .downloading: 10
            case .installing: 70
            case .success: 100
            case .failed: 70
            }
        }
        var isFinal: Bool { self == .success || self == .failed }
    }

    let command: OTACommand
    let fate: OTAFate
    /// Tells it from the device's earlier ones.
    let number: Int
    /// The device does not say which command it is about.
    let isAnonymous: Bool
    var stage = Stage.downloading

    /// False: it goes no further.
    mutating func advance() -> Bool {
        switch stage {
        case .downloading:
            if fate == .stalls { return false }
            stage = .installing
        case .installing: stage = fate == .fails ? .failed : .success
        case .success, .failed: return false
        }
        return true
    }
}
