import EventModel

extension SegmentCatalog {
    /// About how many bytes of the files hold events at and behind a position: whole files, and of the one that holds
    /// the position its share by events. Looks only at those files.
    func usedBytes(from position: Position, durableCount: UInt64) throws(LogError) -> UInt64 {
        var sum: UInt64 = 0
        for base in bases(from: position) {
            guard let segment = try segmentIfPresent(base: base) else { continue }
            let used = UInt64(try system { () throws(FileError) in try segment.usedBytes() })
            let end = segment.trailer?.end ?? bases(around: base).next ?? Position(max(durableCount, base.rawValue))
            if base >= position {
                sum += used
            } else if end > position {
                let share = Double(end.rawValue - position.rawValue) / Double(end.rawValue - base.rawValue)
                sum += UInt64(Double(used) * share)
            }
        }
        return sum
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
