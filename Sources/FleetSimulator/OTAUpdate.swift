import Foundation

/// A command on `…/ota` (`{"campaign_id", "firmware_url", "version", "checksum", "action"}`) and how far it has come.
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

    var campaignID: Int64
    var version: String
    var commandID: Int64?
    var stage = Stage.downloading

    /// Nil when the payload is no update command: a device ignores what it does not understand.
    init?(command payload: UnsafeRawBufferPointer) {
        struct Command: Decodable {
            var campaign_id: Int64
            var version: String
            var action: String?
            var command_id: Int64?
        }
        guard let command = try? JSONDecoder().decode(Command.self, from: Data(payload)),
            command.action ?? "update" == "update"
        else { return nil }
        campaignID = command.campaign_id
        version = command.version
        commandID = command.command_id
    }

    mutating func advance(failing: Bool) {
        switch stage {
        case .downloading: stage = .installing
        case .installing: stage = failing ? .failed : .success
        case .success, .failed: break
        }
    }
}
