import EventModel

extension SegmentCatalog {
    /// About how many bytes of the files hold events at and behind a position: whole files, and of the one that holds
    /// the position its share by events.
    func usedBytes(from position: Position, durableCount: UInt64) throws(LogError) -> UInt64 {
        try summaries(durableCount: durableCount).reduce(0) { sum, segment in
            guard segment.end > position, segment.end > segment.base else { return sum }
            let events = Double(segment.end.rawValue - segment.base.rawValue)
            let behind = Double(segment.end.rawValue - max(segment.base, position).rawValue)
            return sum + UInt64(Double(segment.usedBytes) * behind / events)
        }
    }
}

extension FileLog {
    /// See `SegmentCatalog.usedBytes`: how much the log has grown since a position.
    public func usedBytes(from position: Position) throws(LogError) -> UInt64 {
        try catalog.usedBytes(from: position, durableCount: durableCount)
    }

    /// Names the log for ever.
    public var logID: LogID {
        guard let logID = catalog.logID else { preconditionFailure("an open log has a segment, and that an id") }
        return logID
    }
}
