import Deciding
import EventLog
import EventModel
import Snapshots

extension DeciderFold {
    /// A decider, as snapshots keep it.
    static func of<D: Decider>(_ decider: D.Type) -> DeciderFold {
        DeciderFold(name: D.storedName, version: D.storedVersion) { stored, positions, source in
            guard let stored else { return try fromNothing(decider, positions, source).stored() }
            var state = try D(stored: stored)
            try state.fold(positions, of: source)
            return state.stored()
        }
    }

    private static func fromNothing<D: Decider>(
        _ decider: D.Type, _ positions: Range<Position>, _ source: any LogSource
    ) throws -> D {
        do {
            var state = D()
            try state.fold(positions, of: source)
            return state
        } catch let error as LogError where error.code == .beforeHorizon {
            guard var state = D.beginningUnknown(before: source.firstPosition) else { throw error }
            try state.fold(source.firstPosition..<positions.upperBound, of: source)
            return state
        }
    }
}

extension SnapshotFolder {
    /// The decider's state in the newest snapshot that has it whole.
    /// - Parameters:
    ///   - end: snapshots beyond it are not used.
    ///   - horizon: the log's first position. Beyond 0, `beginningUnknown` replaces a missing state from there.
    func newest<D: Decider>(
        _ decider: D.Type, atOrBefore end: Position = Position(.max), horizon: Position, report: (SnapshotError) -> Void
    ) -> DeciderSnapshot<D>? {
        do {
            return try withNewest(
                atOrBefore: end,
                where: { file in
                    file.description.deciders.contains { $0.name == D.storedName && $0.version == D.storedVersion }
                }, report: report
            ) { file in
                if let file, let state = try file.state(ofDecider: D.storedName) {
                    return DeciderSnapshot(state: try D(stored: state.bytes), end: file.end)
                }
                guard horizon > Position(0), let beginning = D.beginningUnknown(before: horizon) else { return nil }
                return DeciderSnapshot(state: beginning, end: horizon)
            }
        } catch {
            report((error as? SnapshotError) ?? SnapshotError(.system, "\(error)"))
            return nil
        }
    }
}
