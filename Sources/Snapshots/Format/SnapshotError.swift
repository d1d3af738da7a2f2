/// What is wrong with a snapshot. The text says where, and what to do.
public struct SnapshotError: Error, Sendable, CustomStringConvertible {
    public enum Code: Sendable {
        /// Bytes are not what was written: it cannot be used, an older one can.
        case damaged
        /// No snapshot, of another log, or of a format that this program does not know.
        case foreign
        /// There is none that fits.
        case missing
        /// The operating system refused.
        case system
    }
    public let code: Code
    public let description: String

    public init(_ code: Code, _ description: String) {
        self.code = code
        self.description = description
    }
}
