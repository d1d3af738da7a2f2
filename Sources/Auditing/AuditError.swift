import Primitives

/// Why there can be no audit, or why it ended early. The text says what to do.
public typealias AuditError = CodedError<AuditErrorCode>

public enum AuditErrorCode: Sendable {
    /// The request is wrong.
    case usage
    /// The log or the bundle does not allow it: damage, removed events, nothing to prove.
    case no
}
