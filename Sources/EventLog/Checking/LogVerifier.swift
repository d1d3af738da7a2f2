import EventModel
import Evidence

/// Something that is wrong in the log, and all that can be said of it.
public struct LogDamage: Sendable, Equatable {
    /// File, bytes, positions (none, when no event is lost by it) and what was found.
    public let range: CorruptRange
    /// Received-at of the last event before and of the first event behind it, where they are known.
    public internal(set) var before: Timestamp?
    public internal(set) var after: Timestamp?
    /// `tenant/{t}/device/{d}` of lost events, as far as they can be made out.
    public internal(set) var devices: [String] = []
    /// Those are all that had events there.
    public internal(set) var devicesAreComplete = false
    /// The operator's signature, when the positions were given up.
    public internal(set) var accepted: AcceptedLoss?

    /// Events that cannot be read any more.
    public var lostEvents: UInt64 { range.positions.upperBound.rawValue - range.positions.lowerBound.rawValue }
}

/// What `refold log verify` found.
public struct VerifyReport: Sendable {
    public internal(set) var positions: Range<Position>
    public internal(set) var segments = 0
    public internal(set) var blocks = 0
    public internal(set) var events: UInt64 = 0
    public internal(set) var bytes: UInt64 = 0
    public internal(set) var damages: [LogDamage] = []
    /// Events whose leaves were derived again (`deep`), and whether the stored checkpoint was compared with them.
    public internal(set) var treeEvents: UInt64 = 0
    public internal(set) var hasComparedCheckpoint = false

    /// Nothing is wrong but what an operator has signed for.
    public var isSound: Bool { damages.allSatisfy { $0.accepted != nil } }
    /// What `repair --accept-loss` would give up: damage that cost events and that nobody signed for.
    public var unaccepted: [LogDamage] { damages.filter { $0.accepted == nil && $0.lostEvents > 0 } }
}

/// Reads a stretch of the log from beginning to end and checks it: file headers, block headers, checksums, padding,
/// that positions follow each other and that times decrease only where an era begins. `deep` also decodes every record.
/// Changes nothing, and works beside a writer.
public struct LogVerifier {
    public struct Options: Sendable {
        public var deep = false
        /// The log's public key: with it, signatures of checkpoints are checked too.
        public var key: VerifierKey?
        /// Called every few megabytes with how many of how many bytes were read.
        public var progress: (@Sendable (_ done: UInt64, _ of: UInt64) -> Void)?
        public init() {}
    }

    private let catalog: SegmentCatalog
    private let options: Options
    private var report: VerifyReport
    private let durableCount: UInt64
    private let isLive: Bool
    /// Derives the Merkle tree again; only when every record is decoded.
    private var tree: TreeChecker?
    private let block = EventBlock()
    private var lastTime: Timestamp?
    private var beginsEra = false
    /// Damages from here on still lack the time behind them.
    private var openDamages = 0
    private var bytesTotal: UInt64 = 0
    private var bytesShown: UInt64 = 0
    private static let progressBytes: UInt64 = 8 << 20

    init(
        catalog: SegmentCatalog, positions: Range<Position>, durableCount: UInt64, isLive: Bool, options: Options
    ) {
        self.catalog = catalog
        self.options = options
        self.durableCount = durableCount
        self.isLive = isLive
        report = VerifyReport(positions: positions)
    }

    mutating func run() throws(LogError) -> VerifyReport {
        bytesTotal = try countBytes()
        if options.deep {
            tree = try TreeChecker(catalog: catalog, key: options.key, durableCount: durableCount, isLive: isLive)
        }
        let walker = LogWalker(catalog: catalog, from: report.positions.lowerBound, to: report.positions.upperBound)
        var current: Segment?
        try walker.run { (step) throws(LogError) in
            switch step {
            case .segment(let segment, _):
                current = segment
                report.segments += 1
                report.bytes += UInt64(SegmentHeader.byteCount)
            case .block(let header, let offset, let stored):
                check(header, offset, stored, current)
            case .damage(let range, let segment):
                add(range, segment)
            case .segmentEnd(let segment, let offset):
                try checkTail(of: segment, from: offset)
            }
        }
        addTreeFindings()
        for index in report.damages.indices where report.damages[index].lostEvents > 0 {
            report.damages[index].accepted = try catalog.losses.covering(
                report.damages[index].range.positions, catalog, durableCount: durableCount)
        }
        options.progress?(bytesTotal, bytesTotal)
        return report
    }

    private mutating func check(
        _ header: BlockHeader, _ offset: Int, _ stored: UnsafeRawBufferPointer, _ segment: Segment?
    ) {
        report.blocks += 1
        report.events += UInt64(header.count)
        report.bytes += UInt64(header.bytesOnDisk)
        // An era begins with a segment; that its first event says so is checked with the records.
        beginsEra = lastTime.map { header.firstTime < $0 && header.base == segment?.base } ?? false
        if let lastTime, header.firstTime < lastTime, !beginsEra {
            note("received-at steps back from \(lastTime) to \(header.firstTime)", header, offset, segment)
        }
        if openDamages < report.damages.count { closeDamages(at: header.firstTime) }
        lastTime = beginsEra ? header.lastTime : max(header.lastTime, lastTime ?? header.lastTime)
        if options.deep { checkRecords(header, offset, stored, segment) }
        if report.bytes - bytesShown >= Self.progressBytes {
            bytesShown = report.bytes
            options.progress?(min(report.bytes, bytesTotal), bytesTotal)
        }
    }

    private mutating func checkRecords(
        _ header: BlockHeader, _ offset: Int, _ stored: UnsafeRawBufferPointer, _ segment: Segment?
    ) {
        block.removeAll(at: header.base)
        guard FileLogReader.decode(header, stored, into: block) else {
            // Its checksum is right: it was written so. No reader can read it.
            report.events -= UInt64(header.count)
            add(
                CorruptRange(
                    segment: segment?.path ?? "", bytes: offset..<(offset + header.bytesOnDisk),
                    positions: header.base..<header.end, reason: "the records cannot be decoded"), segment)
            return
        }
        tree?.add(block)
        var time = header.firstTime, isOrdered = block.firstTime == header.firstTime
        var isClockStepped = false
        block.forEach { record, position in
            if record.receivedAt < time { isOrdered = false }
            time = record.receivedAt
            if position == header.base { isClockStepped = record.topicString == LogSchema.clockStepped.rawValue }
        }
        if beginsEra, !isClockStepped {
            note("received-at steps back to \(header.firstTime) without a record of it", header, offset, segment)
        }
        if !isOrdered || time != header.lastTime {
            note("the records' times are not those of the block's header, or decrease", header, offset, segment)
        }
    }

    private mutating func addTreeFindings() {
        guard let tree else { return }
        tree.finish()
        report.treeEvents = tree.events
        report.hasComparedCheckpoint = tree.hasComparedCheckpoint
        for finding in tree.findings {
            let at = finding.positions
            add(
                CorruptRange(
                    segment: finding.file, bytes: 0..<0, positions: at.lowerBound..<at.lowerBound,
                    reason: at.isEmpty
                        ? finding.reason
                        : "positions \(at.lowerBound) to \(at.upperBound.rawValue - 1): "
                            + finding.reason), nil)
        }
    }

    /// Something is wrong with a block whose events can be read.
    private mutating func note(_ reason: String, _ header: BlockHeader, _ offset: Int, _ segment: Segment?) {
        add(
            CorruptRange(
                segment: segment?.path ?? "", bytes: offset..<(offset + header.bytesOnDisk),
                positions: header.base..<header.base, reason: reason), segment)
    }

    private mutating func add(_ range: CorruptRange, _ segment: Segment?) {
        var damage = LogDamage(range: range)
        damage.before = lastTime
        if let segment, !range.positions.isEmpty {
            let known = segment.devices(of: range.positions, limit: Salvage.devicesMax)
            damage.devices = known ?? Salvage.devices(in: range, of: segment)
            damage.devicesAreComplete = known.map { $0.count < Salvage.devicesMax } ?? false
        }
        report.damages.append(damage)
    }

    private mutating func closeDamages(at time: Timestamp) {
        for index in openDamages..<report.damages.count where report.damages[index].range.positions.isEmpty == false {
            report.damages[index].after = time
        }
        openDamages = report.damages.count
    }

    /// Behind the last block of a file that is no longer written lies nothing.
    private mutating func checkTail(of segment: Segment, from offset: Int) throws(LogError) {
        // Behind what a growing segment is known to hold lies what is still in live ones; behind a sealed one's blocks
        // lies its footer.
        let isFooter = try system { () throws(FileError) in try segment.hasFooterFrame(at: offset) }
        guard segment.state != .growing || isFooter else { return }
        if segment.trailer?.footerOffset == offset {
            let problem = try system { () throws(FileError) in try segment.footerProblem() }
            guard let problem, let end = segment.trailer?.end else { return }
            return add(
                CorruptRange(
                    segment: segment.path, bytes: problem.bytes, positions: end..<end, reason: problem.reason), nil)
        }
        guard let next = catalog.bases(around: segment.base).next, report.positions.upperBound >= next else { return }
        let scanner = BlockScanner(file: segment.file, salt: segment.header.salt, offset: offset)
        let size = try system { () throws(FileError) in try segment.file.byteCount() }
        let rest = try system { () throws(FileError) in try scanner.nonZeroEnd() }
        guard rest > offset else { return }
        add(
            CorruptRange(
                segment: segment.path, bytes: offset..<min(rest, size), positions: next..<next,
                reason: isFooter ? "the footer's last page is damaged" : "there are bytes behind the last block"), nil)
    }

    private func countBytes() throws(LogError) -> UInt64 {
        var total: UInt64 = 0
        let bases = catalog.bases
        for (index, base) in bases.enumerated() {
            let end = index + 1 < bases.count ? bases[index + 1] : Position(.max)
            guard end > report.positions.lowerBound, base < report.positions.upperBound else { continue }
            total += UInt64(
                (try? catalog.fileSystem.byteCount(
                    catalog.directory + "/" + LogFormat.segmentName(base))) ?? 0)
        }
        return total
    }
}

extension FileLog {
    /// Checks events that are durable now, all of them by default. Blocks; for a thread of one's own.
    /// - Throws: `LogError` when it cannot go on looking; what is wrong with the log is in the report.
    public func verify(
        _ positions: Range<Position>? = nil, options: LogVerifier.Options = .init()
    ) throws(LogError) -> VerifyReport {
        try catalog.verify(positions, durableCount: durableCount, isLive: true, options: options)
    }

    /// What operators have given up, in the order in which they did.
    public var acceptedLosses: [AcceptedLoss] { catalog.losses.known(catalog, durableCount: durableCount) }
}

extension ReadOnlyLog {
    /// See `FileLog.verify`.
    public func verify(
        _ positions: Range<Position>? = nil, options: LogVerifier.Options = .init()
    ) throws(LogError) -> VerifyReport {
        let durable = durableCount
        return try catalog.verify(positions, durableCount: durable, isLive: isWriterUp, options: options)
    }

    /// See `FileLog.acceptedLosses`.
    public var acceptedLosses: [AcceptedLoss] { catalog.losses.known(catalog, durableCount: durableCount) }
}

extension SegmentCatalog {
    fileprivate func verify(
        _ positions: Range<Position>?, durableCount: UInt64, isLive: Bool, options: LogVerifier.Options
    ) throws(LogError) -> VerifyReport {
        try refresh()
        let first = bases.first ?? Position(0), end = Position(durableCount)
        let wanted = positions.map { $0.clamped(to: first..<max(first, end)) } ?? first..<max(first, end)
        var verifier = LogVerifier(
            catalog: self, positions: wanted, durableCount: durableCount, isLive: isLive, options: options)
        return try verifier.run()
    }
}
