// Replay: history, told again. All of it reads the log; only a rebuild writes, and only into tables.
//
//     Rebuild      tables folded beside the live ones, exchanged in one transaction, and the way back
//     Verifying    whether the live tables are what the log says
//     AsOf         rows as they stood at a moment, from the nearest snapshot and the events behind it
//     WhatIf       what a rule would have decided under another setting
//     Publishing   recorded messages for systems that missed them: to a broker, or into files
//     Auditing     what happened to a device or a campaign, why, and how others can check it

import EventLog
import EventModel

/// Why a replay cannot be done, or not be finished. The text says what to do.
public struct ReplayError: Error, Sendable, CustomStringConvertible {
    public enum Code: Sendable {
        /// The wish makes no sense, or is refused.
        case usage
        /// The answer is no: damage, events that are gone, a file that does not hold what it says.
        case no
        /// A broker does not answer.
        case unreachable
    }
    public let code: Code
    public let description: String

    public init(_ code: Code, _ description: String) {
        self.code = code
        self.description = description
    }
}
