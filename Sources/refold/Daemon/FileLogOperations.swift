import ControlAPI
import EventLog
import EventModel
import Logging
import Projecting
import Threading

/// What operators do to the log itself, through the API.
struct FileLogOperations: LogOperations {
    let log: FileLog
    let projectors: [Projector]
    let logger: Logger

    func checkpoint() async -> String? { log.checkpoint.map { String(decoding: $0.bytes, as: UTF8.self) } }

    func losses() async -> [LossRow] { log.acceptedLosses.map(LossRow.init) }

    func acceptLosses(_ request: LossRequest) async throws -> [LossRow] {
        let ranges = request.ranges.map { Position($0.lowerBound)..<Position($0.upperBound + 1) }
        let accepted = try await onOwnThread("repair") { [log] in
            try log.acceptLosses(in: ranges, operatorName: request.operatorName, reason: request.reason)
        }
        for loss in accepted {
            logger.warning(
                "positions \(loss.event.from) to \(loss.event.to) were given up",
                metadata: [
                    "operator": "\(loss.event.operatorName)", "reason": "\(loss.event.reason)",
                    "damage": "\(loss.event.damage)",
                ])
        }
        for projector in projectors { projector.retryNow() }
        return accepted.map(LossRow.init)
    }
}
