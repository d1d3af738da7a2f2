import ArgumentParser
import Auditing
import EventLog
import EventModel
import Publishing

extension PointInTime {
    /// - Throws: `ValidationError` naming `flag`.
    init(_ text: String, flag: String) throws {
        guard let point = Self(text) else {
            throw ValidationError("\(flag) \(text): must be a position or a time such as 2026-11-21T08:00:00Z")
        }
        self = point
    }

    /// As a beginning: the position itself, or the first event received at or after the time.
    func begin(in log: ReadOnlyLog) throws -> Position {
        switch self {
        case .position(let position): Position(position)
        case .time(let time): try log.position(atOrAfter: time)
        }
    }

    /// As an end, exclusive: behind the position, or the first event received at or after the time.
    func end(in log: ReadOnlyLog) throws -> Position {
        switch self {
        case .position(let position): position == .max ? Position(position) : Position(position).next
        case .time(let time): try log.position(atOrAfter: time)
        }
    }
}

extension AuditError {
    /// Prints the error; the code says what kind it is.
    var exit: ExitCode { ExitCode(code == .usage ? 2 : 1, printing: description) }
}

extension PublicationError {
    /// Prints the error; the code says what kind it is.
    var exit: ExitCode {
        switch code {
        case .usage: ExitCode(2, printing: description)
        case .no: ExitCode(1, printing: description)
        case .unreachable: ExitCode(3, printing: description)
        }
    }
}

/// Errors of a replay become exit codes.
func replaying(_ body: () throws -> Void) throws {
    do {
        try body()
    } catch let error as LogError {
        throw error.exit
    } catch let error as AuditError {
        throw error.exit
    } catch let error as PublicationError {
        throw error.exit
    }
}
