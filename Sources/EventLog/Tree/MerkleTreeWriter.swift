import EventModel
import Evidence
import Synchronization
import Threading

/// How the log's tree stands, for the operator.
public struct TreeStatus: Sendable {
    public enum State: Sendable, Equatable {
        /// Behind the log, and coming nearer: after a start, the events that are not sealed yet are hashed again.
        case catchingUp
        case current
        /// It stands before damage, and goes on when the damage is repaired or given up.
        case stopped(String)
        /// Nothing is signed: the log contradicts an earlier checkpoint. An operator must investigate.
        case refused(String)
    }
    public internal(set) var state = State.catchingUp
    /// Events that are in the tree.
    public internal(set) var size: UInt64 = 0
    /// Of the last checkpoint, and when it was signed; nil when none was, or nobody signs.
    public internal(set) var checkpointSize: UInt64?
    public internal(set) var checkpointAt: Timestamp?
    /// Checkpoints signed since the start, and what the disk said when the last could not be kept.
    public internal(set) var signed: UInt64 = 0
    public internal(set) var lastError: String?
}

/// Grows the log's tree behind the writer and signs it. It reads what is durable like any reader, so that nothing is
/// signed that could be lost; it holds up nobody.
///
/// Rules:
/// - A checkpoint is signed every second while events come, at each seal and at the end; never twice for one size.
/// - Before the first one, the tree is compared with the stored checkpoint. When it differs, nothing is signed and
///   nothing stored is overwritten: a log must not sign two histories (C2SP tlog-checkpoint, Signatures).
/// - A checkpoint is on disk before anybody is told of it.
/// `@unchecked Sendable`: `step` is one thread's; what others ask for lies in `shared`.
final class MerkleTreeWriter: LogWork, @unchecked Sendable {
    /// What `section` answers.
    enum Section {
        case ready(TreeSection)
        /// The tree has not come so far.
        case notYet
        /// It will not come so far: leaves were lost before they were hashed, or it stands before damage.
        case none
    }

    private struct Shared {
        var grower: TreeGrower?
        /// The tree up to the last sealed segment's end, and where it went on behind lost leaves.
        var anchors: [CompactRange] = []
        var status = TreeStatus()
        var note: SignedNote?
        /// The stored checkpoint, until the tree has been compared with it.
        var unchecked: Checkpoint?
        /// It cannot go on until an operator gives up what is damaged.
        var isBeforeDamage = false
        var isClosing = false

        /// Nothing is signed by a tree that disagrees with what was signed, or may.
        var maySign: Bool {
            if case .refused = status.state { false } else { unchecked == nil }
        }
    }

    private let catalog: SegmentCatalog
    private let queue: CommitQueue
    private let options: FileLogOptions
    private let file: CheckpointFile
    private let signing: Result<SigningKey, LogError>?
    private let shared = Monitor(Shared())
    /// The log's lock is kept until the last checkpoint is written.
    private var lock: LockFile?
    private var leaves: LeafReader?
    private var signedSize: UInt64 = 0
    private var signedAtMicros: Int64 = .min

    private static let signEveryMicros: Int64 = 1_000_000
    /// A pause that gathers commits: each wake-up costs the writer.
    private static let pauseMilliseconds = 200
    private static let lostAtOnce = 4096
    /// Before damage it looks again so often: an operator may have given it up.
    private static let retryMilliseconds = 1000

    init(
        catalog: SegmentCatalog, queue: CommitQueue, options: FileLogOptions, signing: Result<SigningKey, LogError>?,
        lock: LockFile
    ) {
        self.catalog = catalog
        self.queue = queue
        self.options = options
        self.lock = lock
        file = CheckpointFile(directory: catalog.directory, fileSystem: options.fileSystem)
        self.signing = signing
    }

    var status: TreeStatus { shared.withLock { $0.status } }
    /// The last checkpoint that is stored and agreed with.
    var checkpoint: SignedNote? { shared.withLock { $0.note } }

    // MARK: steps

    func step() -> LogWorkStep {
        do {
            if leaves == nil { try begin() }
            let (lost, new) = try leaves?.read() ?? (0, [])
            if lost > 0, try pass(lost) { return .worked }
            if new.isEmpty { return try rest() }
            add(new)
            try sign()
            return .worked
        } catch {
            return fail(error)
        }
    }

    func wait() {
        let (size, isStopped) = shared.withLock { shared in
            if case .stopped = shared.status.state { (shared.status.size, true) } else { (shared.status.size, false) }
        }
        let pause = isStopped ? Self.retryMilliseconds : Self.pauseMilliseconds
        let isClosing = shared.wait(atMostMilliseconds: pause) { $0.isClosing ? true : nil }
        if isClosing ?? false { return }
        var limit = 60_000
        if signing != nil, size > signedSize, signedAtMicros != .min {
            let due = signedAtMicros + Self.signEveryMicros - options.clock.steadyMicroseconds()
            limit = Int(max(1, min(Self.signEveryMicros, due) / 1000 + 1))
        }
        _ = queue.waitForDurable(beyond: size, timeoutMilliseconds: limit) { [shared] in
            shared.withLock { $0.isClosing }
        }
    }

    /// No more than what is durable now is taken into the tree; then it is signed for the last time.
    func close() {
        shared.withLock { $0.isClosing = true }
        shared.wakeAll()
        queue.wakeReaders()
    }

    /// Nothing new to read.
    private func rest() throws -> LogWorkStep {
        let (closing, ahead) = shared.withLock { shared in
            if let stored = shared.unchecked { return (shared.isClosing, Optional(stored.size)) }
            if case .refused = shared.status.state {} else { shared.status.state = .current }
            return (shared.isClosing, nil)
        }
        if let ahead {
            refuse(
                "the log ends at \(queue.durableCount), but a checkpoint of \(ahead) events was signed: it was "
                    + "rolled back")
        }
        try sign(now: closing)
        if closing { finish() }
        return closing ? .finished : .idle
    }

    private func fail(_ error: any Error) -> LogWorkStep {
        let text = (error as? LogError)?.description ?? (error as? FileError)?.description ?? "\(error)"
        leaves = nil
        let closing = shared.withLock { shared in
            if case .refused = shared.status.state {
            } else if error is FileError {
                shared.status.lastError = text
            } else {
                shared.status.state = .stopped(text)
                shared.isBeforeDamage = (error as? LogError)?.code == .corrupt
            }
            return shared.isClosing
        }
        if closing { finish() }
        return closing ? .finished : .idle
    }

    private func finish() { lock = nil }

    private func refuse(_ reason: String) {
        shared.withLock { shared in
            shared.unchecked = nil
            shared.note = nil
            shared.status.state = .refused(reason)
        }
    }

    // MARK: beginning

    private func begin() throws {
        if shared.withLock({ $0.grower }) == nil {
            let tree = try sealedTree()
            // First what was signed: once the tree grows, it is too late to find out that it must not be signed.
            try readStored(tree)
            shared.withLock {
                $0.grower = TreeGrower(behind: tree)
                $0.anchors = [tree]
                $0.status.size = tree.upper
            }
        }
        let next = Position(shared.withLock { $0.grower?.size ?? 0 })
        leaves = LeafReader(
            FileLogReader(catalog: catalog, position: next) { [queue] in queue.durableCount }, from: next)
    }

    /// The tree of all that is sealed without a gap, from the newest footer that can be read.
    private func sealedTree() throws(LogError) -> CompactRange {
        let bases = catalog.bases
        for base in bases.reversed() {
            do throws(LogError) {
                if let section = try catalog.segment(base: base).treeSection() { return section.through }
            } catch {
                guard error.code == .corrupt else { throw error }
            }
        }
        guard let first = bases.first, first.rawValue > 0 else { return CompactRange() }
        throw LogError(.corrupt, "no footer says what the tree was before position \(first): it cannot be signed")
    }

    private func readStored(_ sealed: CompactRange) throws(LogError) {
        guard case .success(let key)? = signing else {
            if case .failure(let error)? = signing { refuse(error.description) }
            return
        }
        guard let bytes = try file.read() else { return }
        do {
            let note = try SignedNote(parsing: bytes)
            let stored = try note.checkpoint(verifiedBy: key.verifier)
            signedSize = stored.size
            shared.withLock { shared in
                shared.unchecked = stored
                shared.note = note
                shared.status.checkpointSize = stored.size
            }
            if stored.size <= sealed.upper {
                let tree = try LogTree(catalog: catalog, durableCount: queue.durableCount)
                compare(stored, root: try tree.root(of: stored.size))
            }
        } catch {
            refuse("the stored checkpoint \(catalog.directory)/\(CheckpointFile.name) is not to be believed: \(error)")
        }
    }

    private func compare(_ stored: Checkpoint, root: TreeHash) {
        if root == stored.root {
            shared.withLock { $0.unchecked = nil }
        } else {
            refuse("the log's first \(stored.size) events are not those that the stored checkpoint was signed for")
        }
    }

    // MARK: growing

    private func add(_ new: [TreeHash]) {
        var rest = new[...]
        let (size, unchecked) = shared.withLock { ($0.status.size, $0.unchecked) }
        if let unchecked, unchecked.size > size {
            let until = rest.prefix(Int(clamping: unchecked.size - size))
            grow(until)
            rest = rest.dropFirst(until.count)
            if size + UInt64(until.count) == unchecked.size {
                compare(unchecked, root: shared.withLock { $0.grower?.tree.root } ?? .emptyRoot)
            }
        }
        grow(rest)
    }

    private func grow(_ leaves: ArraySlice<TreeHash>) {
        shared.withLock { shared in
            for leaf in leaves { shared.grower?.append(leaf) }
            shared.status.size = shared.grower?.size ?? 0
            if case .stopped = shared.status.state { shared.status.state = .catchingUp }
            shared.isBeforeDamage = false
        }
    }

    /// Events that an operator gave up lie here. When they were signed for, the tree goes on behind what was signed;
    /// otherwise they get the leaf of lost events. True when it went on elsewhere than behind them.
    private func pass(_ lost: UInt64) throws -> Bool {
        let (size, unchecked) = shared.withLock { ($0.status.size, $0.unchecked) }
        if let unchecked, unchecked.size > size, let tree = file.frontier(of: unchecked) {
            shared.withLock { shared in
                shared.unchecked = nil
                shared.grower?.skip(to: tree)
                shared.anchors.append(tree)
                shared.status.size = tree.upper
            }
            leaves = nil
            return true
        }
        for start in stride(from: size, to: size + lost, by: Self.lostAtOnce) {
            add((start..<min(start + UInt64(Self.lostAtOnce), size + lost)).map { LeafHasher.lostLeaf(Position($0)) })
        }
        return false
    }

    // MARK: signing

    /// Signs when it is time, or there is nothing to wait for.
    private func sign(now isLast: Bool = false) throws {
        guard case .success(let key)? = signing else { return }
        let (size, maySign) = shared.withLock { ($0.status.size, $0.maySign) }
        let time = options.clock.steadyMicroseconds()
        guard maySign, size > signedSize,
            isLast || signedAtMicros == .min || time - signedAtMicros >= Self.signEveryMicros
        else { return }
        precondition(size <= queue.durableCount, "only what is durable is signed")
        signedAtMicros = time
        guard let tree = shared.withLock({ $0.grower?.tree }) else { return }
        let note = try Checkpoint(origin: key.verifier.name, size: size, root: tree.root).signed(with: key)
        try file.write(note, tree: tree)
        signedSize = size
        let at = options.clock.now()
        shared.withLock { shared in
            shared.note = note
            shared.status.checkpointSize = size
            shared.status.checkpointAt = at
            shared.status.signed += 1
            shared.status.lastError = nil
        }
        options.onCheckpoint?(note)
    }

    // MARK: for the sealer

    /// What the footer of the segment [base, end) says of the tree. From the sealer's thread.
    func section(base: Position, end: Position) throws -> Section {
        let (grower, anchors, maySign, unchecked) = shared.withLock {
            ($0.grower, $0.anchors, $0.maySign, $0.unchecked)
        }
        // Nor before the tree is known to be that of the stored checkpoint: a footer is written once, and signed. But
        // damage must not keep all that comes behind it from being packed.
        guard let grower, grower.size >= end.rawValue, unchecked == nil else {
            return shared.withLock { $0.isBeforeDamage } ? .none : .notYet
        }
        let before: CompactRange
        if let known = anchors.first(where: { $0.upper == base.rawValue }) {
            before = known
        } else {
            before = try LogTree(catalog: catalog, durableCount: queue.durableCount).range(0, base.rawValue)
        }
        var rows = grower.rows(from: base.rawValue, to: end.rawValue)
        var through: CompactRange?
        if let rows {
            // From the newest tree that is known, over whole tiles, and the leaves of the last one.
            let from = anchors.last { $0.upper > base.rawValue && $0.upper <= end.rawValue } ?? before
            through = try join(from, rows.first ?? [], firstRow: base.rawValue >> 8, to: end.rawValue)
        } else {
            (rows, through) = try derive(behind: before, to: end)
        }
        guard let rows, let through else { return .none }
        var note: [UInt8] = []
        if maySign, case .success(let key)? = signing {
            note = try Checkpoint(origin: key.verifier.name, size: end.rawValue, root: through.root)
                .signed(with: key).bytes
        }
        return .ready(TreeSection(before: before, through: through, rows: rows, checkpoint: note))
    }

    /// The tree of a segment that lies before what is kept here: one whose footer must be made again.
    private func derive(behind before: CompactRange, to end: Position) throws -> ([[TreeHash]]?, CompactRange?) {
        var again = TreeGrower(behind: before)
        let base = Position(before.upper)
        let leaves = LeafReader(FileLogReader(catalog: catalog, position: base) { end.rawValue }, from: base)
        while again.size < end.rawValue {
            let (lost, new) = try leaves.read()
            guard lost == 0, !new.isEmpty else { return (nil, nil) }
            for leaf in new where again.size < end.rawValue { again.append(leaf) }
        }
        return (again.rows(from: base.rawValue, to: end.rawValue), again.tree)
    }

    /// The footer with this section is durable: what it keeps need not be kept here.
    func sealed(_ section: TreeSection) {
        shared.withLock { shared in
            shared.grower?.drop(before: section.end.rawValue)
            shared.anchors.removeAll { $0.upper < section.end.rawValue }
            shared.anchors.insert(section.through, at: 0)
        }
    }

    private func join(
        _ tree: CompactRange, _ row: [TreeHash], firstRow: UInt64, to end: UInt64
    ) throws -> CompactRange? {
        var range = tree
        let tiles = (tree.upper >> 8)..<(end >> 8)
        if !tiles.isEmpty {
            // The tile that `tree` ends in is in the row as a whole.
            guard
                let whole = CompactRange(
                    lower: 0, upper: tree.upper & ~255, hashes: tree.nodes.filter { $0.level >= 8 }.map(\.hash))
            else { return nil }
            range = whole
            for tile in tiles {
                let hash = row[Int(tile - firstRow)]
                guard hash != .unknown else { return nil }
                range.append(CompactRange.Node(start: tile << 8, level: 8, hash: hash)) { _ in }
            }
        }
        guard range.upper < end else { return range }
        range.append(try LogTree(catalog: catalog, durableCount: queue.durableCount).range(range.upper, end))
        return range
    }
}
