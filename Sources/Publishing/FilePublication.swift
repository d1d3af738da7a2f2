import EventLog
import EventModel

/// Writes recorded messages into a file, one JSON object a line, in the order of the log.
public enum FilePublication {
    public enum Format: String, Sendable, CaseIterable {
        /// As `refold log cat --json` prints them.
        case ndjson
        /// CloudEvents 1.0.2 in the JSON event format.
        case cloudevents
    }

    public struct Result: Sendable, Equatable {
        public var counts = PublishCounts()
        /// Bytes of the file.
        public var fileBytes: UInt64 = 0
    }

    /// - Parameters:
    ///   - path: gzip when it ends with `.gz`; nil: standard output.
    ///   - progress: called with the events that were looked at.
    /// - Throws: `.usage` when the file cannot be written, `LogError`; then there is no file.
    public static func run(
        _ log: ReadOnlyLog, _ order: PublishOrder, _ format: Format, path: String?,
        isStopping: () -> Bool = { false }, progress: (UInt64) -> Void = { _ in }
    ) throws -> Result {
        let reader = try PublishReader(log, order, from: order.range.lowerBound)
        let file = try OutputFile(path), logID = log.logID.description
        var failure: (any Error)?
        while try reader.read({ record, position in
            guard failure == nil else { return }
            do {
                try file.append { output in
                    switch format {
                    case .ndjson: EventJSON.append(record, position, to: &output)
                    case .cloudevents: CloudEvent.append(record, position, logID: logID, to: &output)
                    }
                    output.append(0x0A)
                }
            } catch {
                failure = error
            }
        }) {
            if let failure { throw failure }
            if isStopping() { throw PublicationError(.no, "stopped before the end: no file was written") }
            progress(reader.position.rawValue - order.range.lowerBound.rawValue)
        }
        if let failure { throw failure }
        try file.finish()
        return Result(counts: reader.counts, fileBytes: file.bytesWritten)
    }
}
