/// Why there can be no audit, or why it ended early. The text says what to do.
public struct AuditError: Error, Sendable, CustomStringConvertible {
    public enum Code: Sendable {
        /// The request is wrong.
        case usage
        /// The log or the bundle does not allow it: damage, removed events, nothing to prove.
        case no
    }
    public let code: Code
    public let description: String

    public init(_ code: Code, _ description: String) {
        self.code = code
        self.description = description
    }
}
