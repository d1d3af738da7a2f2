import EventModel

extension ReadOnlyLog {
    /// Positions before the first that is here, of which nothing says that they were removed on purpose: the file
    /// `removed` names each segment that retention took away. Nil when the log begins where it
    /// should.
    public func missingBeginning() throws(LogError) -> Range<Position>? {
        let first = firstPosition
        guard first > Position(0) else { return nil }
        let removed = try removedSegments().map(\.end).filter { $0 <= first.rawValue }.max() ?? 0
        return removed < first.rawValue ? Position(removed)..<first : nil
    }

    /// What an operator is told of it.
    public static func describe(missing: Range<Position>, in directory: String) -> LogError {
        LogError(
            .corrupt,
            "\(directory) begins at position \(missing.upperBound): the files that held positions "
                + "\(missing.lowerBound)..<\(missing.upperBound) are missing, and nothing says that they were removed "
                + "on purpose. Restore them from a backup")
    }
}
