import EventModel
import FoundationEssentials
import Synchronization

/// Runs an operator's command on a segment file; throws a text when it fails.
/// Called on the stepping thread of the archiver or reader; may take minutes.
public typealias SegmentCommand = @Sendable (_ path: String, _ name: String) throws -> Void

/// Gives every sealed segment to the operator's `archive_command`, in the order of the log, each until it is done:
/// PostgreSQL's contract. The command may see a segment twice (a crash between its end and our note of it): it must
/// then succeed when what it has is the same, and fail when it is not.
///
/// A plain object with a synchronous step. What was archived is known by one position, in the file `archived`.
public final class Archiver: Sendable {
    static let fileName = "archived"

    public struct Status: Sendable, Equatable {
        /// Everything below is archived.
        public internal(set) var through = Position(0)
        /// Segments archived since the start.
        public internal(set) var archived: UInt64 = 0
        /// Failed attempts since the start, and in a row.
        public internal(set) var failures: UInt64 = 0
        public internal(set) var failuresInARow = 0
        /// Why the last attempt failed; nil when it succeeded.
        public internal(set) var lastError: String?
        /// Sealed segments that wait, and for how many seconds the first of them does.
        public internal(set) var waiting = 0
        public internal(set) var waitingSeconds = 0.0

        /// Somebody should look: the disk fills with what cannot be removed.
        public var isBehind: Bool { failuresInARow >= 3 || waitingSeconds > Archiver.behindSeconds }
    }

    private struct State {
        var status = Status()
        var retryAt: Int64 = .min
        var retryMicros: Int64 = 0
        var firstWaitingSince: (base: Position, at: Int64)?
    }

    /// A segment that waits longer than this is an alarm.
    public static let behindSeconds = 300.0
    private static let retryMicrosMax: Int64 = 60_000_000
    private let log: FileLog
    private let command: SegmentCommand
    private let state: Mutex<State>

    /// - Throws: `LogError` when it cannot be read how far the archive reaches.
    public init(log: FileLog, command: @escaping SegmentCommand) throws(LogError) {
        self.log = log
        self.command = command
        var state = State()
        state.status.through = try Self.through(log.catalog)
        self.state = Mutex(state)
    }

    public var status: Status { state.withLock { $0.status } }

    /// How far the log in a folder was archived.
    static func through(_ catalog: SegmentCatalog) throws(LogError) -> Position {
        let lines = try system { () throws(FileError) in try KeptFile(fileName, catalog).lines() }
        guard let line = lines.last else { return Position(0) }
        guard let note = try? JSONDecoder().decode(Note.self, from: Data(line)) else {
            throw LogError(
                .corrupt,
                "\(catalog.directory)/\(fileName) cannot be read: delete it to have all segments "
                    + "archived again")
        }
        return Position(note.through)
    }

    private struct Note: Codable {
        var through: UInt64
        var segment: String
        var at: String
    }

    /// Archives the next segment that waits. False when none does, or it is not time yet to try again.
    public func step() -> Bool {
        let now = log.options.clock.steadyMicroseconds()
        let through = status.through
        let next = log.catalog.sealed(from: through, limit: 1).first
        let waiting = next == nil ? 0 : max(1, log.catalog.sealedCount(from: through))
        let isDue = state.withLock { state in
            state.status.waiting = waiting
            guard let first = next else {
                state.firstWaitingSince = nil
                state.status.waitingSeconds = 0
                return false
            }
            if state.firstWaitingSince?.base != first.base { state.firstWaitingSince = (first.base, now) }
            state.status.waitingSeconds = Double(now - (state.firstWaitingSince?.at ?? now)) / 1e6
            return now >= state.retryAt
        }
        guard isDue, let first = next, let end = first.trailer?.end else { return false }
        do {
            try command(first.path, first.name)
            let note = Note(through: end.rawValue, segment: first.name, at: log.options.clock.now().description)
            let encoder = JSONEncoder()
            encoder.outputFormatting = .sortedKeys
            try KeptFile(Self.fileName, log.catalog).replace(Array(try encoder.encode(note)) + [UInt8(ascii: "\n")])
            state.withLock { state in
                state.status.through = end
                state.status.archived += 1
                state.status.failuresInARow = 0
                state.status.lastError = nil
                state.status.waiting -= 1
                state.retryMicros = 0
                state.retryAt = .min
                state.firstWaitingSince = nil
            }
            return true
        } catch {
            state.withLock { state in
                state.status.failures += 1
                state.status.failuresInARow += 1
                state.status.lastError = "\(first.name): \(error)"
                state.retryMicros = min(max(1_000_000, 2 * state.retryMicros), Self.retryMicrosMax)
                state.retryAt = log.options.clock.steadyMicroseconds() + state.retryMicros
            }
            return false
        }
    }
}

extension SegmentCatalog {
    /// The sealed segments from the one that holds `position` on, up to the first that is not sealed, in order; at most
    /// `limit`. Each is opened.
    func sealed(from position: Position, limit: Int = .max) -> [Segment] {
        var found: [Segment] = []
        for base in bases(from: position).prefix(limit) {
            guard let segment = try? segmentIfPresent(base: base), segment.trailer != nil else { break }
            found.append(segment)
        }
        return found
    }
}
