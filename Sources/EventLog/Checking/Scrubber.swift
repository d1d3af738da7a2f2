import EventModel
import Synchronization

/// Reads the log again and again, slowly, so that a disk that forgets is found out while there is still a backup.
///
/// A plain object with a synchronous step: its owner calls `step` from one thread, as often as the rate allows. It
/// goes through everything that is durable except the file that is being written, in pieces of whole blocks, and
/// begins anew behind the last. Its findings are of the last pass and of the one that is running.
public final class Scrubber: Sendable {
    public struct Status: Sendable, Equatable {
        /// The next position that it will read.
        public internal(set) var position: Position
        /// Times that it has read everything.
        public internal(set) var passes: UInt64 = 0
        /// Bytes read since it was made.
        public internal(set) var bytes: UInt64 = 0
        /// What it found that nobody has signed for, in the order of the log.
        public internal(set) var damages: [LogDamage] = []
        /// Why it could not go on reading, at the last step.
        public internal(set) var lastError: String?
    }

    private struct State {
        var status: Status
        /// What this pass found.
        var found: [LogDamage] = []
    }

    private let log: FileLog
    private let state: Mutex<State>
    /// What is kept of a badly damaged log: beyond this there is no more to be learned.
    static let damagesMax = 1000

    public init(log: FileLog) {
        self.log = log
        state = Mutex(State(status: Status(position: log.firstPosition)))
    }

    public var status: Status { state.withLock { $0.status } }

    /// Reads about `byteCount` bytes on; returns how many it read. 0: there is nothing to read at the moment.
    public func step(byteCount: Int) -> Int {
        let (from, limit) = (max(status.position, log.firstPosition), log.rolledEnd)
        guard log.firstPosition < limit else { return 0 }
        guard from < limit else {
            endPass()
            return 0
        }
        do {
            let piece = try log.verifyPiece(from: from, to: limit, byteCount: byteCount)
            state.withLock { state in
                state.status.bytes += UInt64(piece.bytes)
                state.status.position = piece.end
                state.status.lastError = nil
                for damage in piece.damages
                where damage.accepted == nil && state.found.count < Self.damagesMax
                    && !state.found.contains(where: { $0.range == damage.range })
                {
                    state.found.append(damage)
                }
                // Known at once; what an earlier pass found stays until this one has been there and found it mended.
                state.status.damages = state.status.damages.filter { old in
                    old.range.positions.lowerBound >= piece.end
                        || state.found.contains { $0.range == old.range }
                }
                for damage in state.found where !state.status.damages.contains(where: { $0.range == damage.range }) {
                    state.status.damages.append(damage)
                }
            }
            if piece.end >= limit { endPass() }
            return piece.bytes
        } catch {
            state.withLock { $0.status.lastError = error.description }
            return 0
        }
    }

    /// Forgets what was signed for meanwhile.
    public func forgetAccepted() {
        let losses = log.acceptedLosses
        state.withLock { state in
            func isOpen(_ damage: LogDamage) -> Bool {
                !losses.contains { $0.positions.contains(damage.range.positions.lowerBound) } || damage.lostEvents == 0
            }
            state.status.damages.removeAll { !isOpen($0) }
            state.found.removeAll { !isOpen($0) }
        }
    }

    private func endPass() {
        state.withLock { state in
            state.status.passes += 1
            state.status.position = log.firstPosition
            state.status.damages = state.found
            state.found = []
        }
    }
}

extension FileLog {
    /// Position behind the last event of the files that are not written any more.
    var rolledEnd: Position { catalog.bases.last ?? Position(0) }

    /// Verifies from `from` on, up to `to`, until about `byteCount` bytes were read; whole blocks. `end` is where the
    /// next piece begins.
    func verifyPiece(
        from: Position, to limit: Position, byteCount: Int
    ) throws(LogError) -> (damages: [LogDamage], end: Position, bytes: Int) {
        var end = limit
        // As many blocks as the budget allows, by their headers alone; a damaged one ends the piece behind it.
        let around = catalog.bases(around: from)
        if let base = around.containing, let segment = try? catalog.segment(base: base) {
            let behind = try system { () throws(FileError) in
                try segment.position(behind: byteCount, from: from, durableCount: limit.rawValue)
            }
            end = min(limit, behind ?? around.next ?? limit)
        } else {
            end = min(limit, around.next ?? limit)
        }
        if end <= from { end = min(limit, max(from.next, around.next ?? limit)) }
        let report = try verify(from..<end)
        return (report.damages, end, Int(report.bytes))
    }
}

extension Segment {
    /// The position of the first block that begins `byteCount` bytes or more behind the one that holds `from`; nil when
    /// the file ends before.
    fileprivate func position(
        behind byteCount: Int, from: Position, durableCount: UInt64
    ) throws(FileError) -> Position? {
        let start = try offset(before: from, durableCount: durableCount)
        let scanner = BlockScanner(file: file, salt: header.salt, offset: start)
        scanner.seek(to: LogFormat.aligned(start + byteCount))
        while let found = try scanner.findHeader() {
            if found.base > from { return found.base }
            scanner.seek(to: scanner.offset + found.bytesOnDisk)
        }
        return nil
    }
}
