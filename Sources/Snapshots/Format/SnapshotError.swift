import Primitives

/// What is wrong with a snapshot. The text says where, and what to do.
public typealias SnapshotError = CodedError<SnapshotErrorCode>

public enum SnapshotErrorCode: Sendable {
    /// Bytes are not what was written: it cannot be used, an older one can.
    case damaged
    /// No snapshot, of another log, or of a format that this program does not know.
    case foreign
    /// There is none that fits.
    case missing
    /// The operating system refused.
    case system
}
