/// Why there can be no publication, or why it ended early. The text says what to do.
public struct PublicationError: Error, Sendable, CustomStringConvertible {
    public enum Code: Sendable {
        /// The request is wrong, or refused.
        case usage
        /// It ended early: damage, removed events, a stop.
        case no
        /// The broker does not answer.
        case unreachable
    }
    public let code: Code
    public let description: String

    public init(_ code: Code, _ description: String) {
        self.code = code
        self.description = description
    }
}
