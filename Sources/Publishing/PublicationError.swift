import Primitives

/// Why there can be no publication, or why it ended early. The text says what to do.
public typealias PublicationError = CodedError<PublicationErrorCode>

public enum PublicationErrorCode: Sendable {
    /// The request is wrong, or refused.
    case usage
    /// It ended early: damage, removed events, a stop.
    case no
    /// The broker does not answer.
    case unreachable
}
