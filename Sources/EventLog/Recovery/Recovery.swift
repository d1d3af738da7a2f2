import EventModel
import Evidence
import Glibc

/// What opening a log found, for the operator.
public struct OpenReport: Sendable {
    public internal(set) var logID: LogID
    /// There was no log in the folder.
    public internal(set) var isNew = false
    /// Events in the log, damaged ones included: the next position.
    public internal(set) var durableCount: UInt64 = 0
    public internal(set) var torn: TornTail?
    public internal(set) var corrupt: [CorruptRange] = []
}

/// A torn write: bytes behind the last whole commit, of an append that a crash interrupted before its acknowledgement.
public struct TornTail: Sendable, Equatable, CustomStringConvertible {
    public let segment: String
    public let bytes: Range<Int>
    /// Where a copy was put.
    public let savedAs: String

    public var description: String {
        "\(segment): bytes \(bytes.lowerBound)..<\(bytes.upperBound) held an append that was interrupted and never "
            + "acknowledged; cut off, a copy is in \(savedAs)"
    }
}

/// What a walk through the last segment says of its end.
struct TailScan {
    /// Position behind the last event, lost ones included.
    var end: Position
    /// Where the next block may be written; nil when the next block needs a new segment.
    var endOffset: Int?
    var lastTime: Timestamp?
    /// Where the last group commit begins. What lies before it was durable when it was written: it says so.
    var lastGroup: (offset: Int, base: Position)?
    /// What lies behind, is not all zero and was never acknowledged.
    var torn: Range<Int>?
    var corrupt: [CorruptRange] = []

    /// Walks a segment. `provenCount` events are known from elsewhere to have been durable.
    ///
    /// At the first thing that is neither a block nor the end, the rest of the segment is searched for blocks. When one
    /// of them was written after what is missing here was durable (its header says so), or `provenCount` says so, then
    /// this is corruption: the range is noted and the walk goes on behind it. Otherwise it is a torn write.
    static func scan(_ segment: Segment, provenCount: UInt64) throws(FileError) -> TailScan {
        let scanner = BlockScanner(file: segment.file, salt: segment.header.salt)
        var result = TailScan(end: segment.base, endOffset: scanner.offset)
        let size = try segment.file.byteCount()
        while true {
            let offset = scanner.offset
            var reason = "durable events are missing"
            switch try scanner.next() {
            case .block(let header, _) where header.base == result.end:
                if header.durableCount == header.base.rawValue { result.lastGroup = (offset, header.base) }
                result.end = header.end
                result.endOffset = scanner.offset
                result.lastTime = header.lastTime
                continue
            case .block(let header, _): reason = "expected position \(result.end), found \(header.base)"
            case .damaged(let what): reason = what
            case .end: break
            }
            let used = try usedEnd(segment.file, from: offset, size: size)
            let later = try laterBlocks(segment, from: offset, after: result.end)
            let proof = max(provenCount, later.durableCount)
            if proof <= result.end.rawValue {
                if used > offset { result.torn = offset..<used }
                return result
            }
            let goesOn = later.first?.base ?? Position(proof)
            result.corrupt.append(
                CorruptRange(
                    segment: segment.path, bytes: offset..<(later.first?.offset ?? max(used, offset)),
                    positions: result.end..<goesOn, reason: reason))
            result.end = goesOn
            guard let first = later.first else {
                result.endOffset = nil
                return result
            }
            scanner.seek(to: first.offset)
        }
    }

    /// The first valid block at or behind `offset` that lies past `position`, and the highest durable count in any.
    private static func laterBlocks(_ segment: Segment, from offset: Int, after position: Position) throws(FileError)
        -> (first: (base: Position, offset: Int)?, durableCount: UInt64)
    {
        let scanner = BlockScanner(file: segment.file, salt: segment.header.salt, offset: offset)
        var first: (base: Position, offset: Int)?
        var durableCount: UInt64 = 0
        while let header = try scanner.findHeader() {
            let found = scanner.offset
            guard header.base > position, case .block = try scanner.next() else {
                scanner.seek(to: found + LogFormat.alignment)
                continue
            }
            first = first ?? (header.base, found)
            durableCount = max(durableCount, header.durableCount)
        }
        return (first, durableCount)
    }

    /// The end of the last page behind `offset` that is not all zero.
    private static func usedEnd(_ file: any LogFile, from offset: Int, size: Int) throws(FileError) -> Int {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: LogFormat.alignment)
        defer { buffer.deallocate() }
        var end = offset, cursor = offset
        while cursor < size {
            let count = try file.read(into: buffer, at: cursor)
            if count == 0 { break }
            var page = 0
            while page < count {
                let next = min(page + LogFormat.alignment, count)
                if !LogFormat.isZero(UnsafeRawBufferPointer(rebasing: buffer[page..<next])) { end = cursor + next }
                page = next
            }
            cursor += count
        }
        return end
    }
}

/// Brings the log on disk into a state in which it can be appended to. The caller holds the lock.
struct Recovery {
    let directory: String
    let fileSystem: any LogFileSystem
    let catalog: SegmentCatalog
    let random: @Sendable () -> UInt64
    var signer: (@Sendable (LogID) throws(LogError) -> SigningKey)?

    struct Result {
        var report: OpenReport
        /// The segment to go on in, and where; nil when the next commit needs a new one.
        var active: (segment: Segment, offset: Int)?
        var lastTime: Timestamp?
        var durableFile: DurableFile
        /// Who signs for this log, or why nobody can; nil when nobody is asked to.
        var signing: Swift.Result<SigningKey, LogError>?
    }

    func run() throws(LogError) -> Result {
        try catalog.refresh()
        let bases = catalog.bases
        guard let last = bases.last else { return try startNew() }
        let segment = try Segment.open(
            LogFormat.segmentName(last), in: directory, logID: nil, fileSystem: fileSystem, writable: true)
        let logID = segment.header.logID
        catalog.add(segment)
        var report = OpenReport(logID: logID)
        for (base, next) in zip(bases, bases.dropFirst()) {
            do throws(LogError) {
                let older = try catalog.segment(base: base)
                // A sealed one was synced before it was sealed; and what its footer says, its blocks say too.
                guard older.trailer == nil else { continue }
                try system { () throws(FileError) in try older.file.synchronize() }
            } catch  where error.code == .corrupt {
                // Old events cannot be read, new ones can be written.
                report.corrupt.append(
                    CorruptRange(
                        segment: directory + "/" + LogFormat.segmentName(base), bytes: 0..<SegmentHeader.byteCount,
                        positions: base..<next, reason: "the header is damaged"))
            }
        }
        try PackedSegments(directory: directory, fileSystem: fileSystem, catalog: catalog).settle()
        // What the kernel holds and never wrote must be on disk before anything is built on it.
        try system { () throws(FileError) in
            try segment.file.synchronize()
            try fileSystem.synchronizeDirectory(directory)
        }
        let durable = try system { () throws(FileError) in
            try DurableFile.create(path("durable"), logID: logID, fileSystem: fileSystem)
        }
        let signing = signing(for: logID)
        // What was signed for was durable, too.
        let proven = max(durable.countBefore ?? 0, try signedSize(signing))
        let scan = try system { () throws(FileError) in try tail(of: segment, provenCount: proven) }
        report.corrupt += scan.corrupt
        var lastTime = scan.lastTime
        // When the last segment is new, its base says that everything before it was durable.
        if let base = catalog.bases(before: last), lastTime == nil,
            report.corrupt.last?.positions.upperBound != last
        {
            let before = try catalog.segment(base: base)
            let scan = try system { () throws(FileError) in
                try tail(of: before, provenCount: segment.base.rawValue)
            }
            report.corrupt += scan.corrupt
            lastTime = scan.lastTime
            guard scan.end == segment.base else {
                throw LogError(
                    .corrupt,
                    "\(before.path) reaches up to position \(scan.end), but the next segment "
                        + "begins at \(segment.base): one of them is not of this log's history; restore both from one "
                        + "backup")
            }
        }
        if let torn = scan.torn { report.torn = try cutOff(torn, of: segment) }
        try writeAgain(scan, of: segment, provenCount: proven)
        report.durableCount = scan.end.rawValue
        // Commits go on in a live segment only: acknowledgements rely on its pages.
        let offset = segment.state == .live ? scan.endOffset : nil
        return Result(
            report: report, active: offset.map { (segment, $0) }, lastTime: lastTime, durableFile: durable.file,
            signing: signing)
    }

    private func signing(for logID: LogID) -> Swift.Result<SigningKey, LogError>? {
        guard let signer else { return nil }
        do throws(LogError) {
            return .success(try signer(logID))
        } catch {
            return .failure(error)
        }
    }

    /// The size of the stored checkpoint when this log's own key signed it, else 0.
    private func signedSize(_ signing: Swift.Result<SigningKey, LogError>?) throws(LogError) -> UInt64 {
        guard case .success(let key)? = signing,
            let bytes = try CheckpointFile(directory: directory, fileSystem: fileSystem).read(),
            let checkpoint = try? SignedNote(parsing: bytes).checkpoint(verifiedBy: key.verifier)
        else { return 0 }
        return checkpoint.size
    }

    /// Walks the blocks of a segment that may end anywhere; a sealed one says where it ends.
    private func tail(of segment: Segment, provenCount: UInt64) throws(FileError) -> TailScan {
        guard let trailer = segment.trailer else { return try TailScan.scan(segment, provenCount: provenCount) }
        var scan = TailScan(end: trailer.end, endOffset: nil, lastTime: trailer.lastTime)
        if provenCount > trailer.end.rawValue {
            scan.corrupt.append(
                CorruptRange(
                    segment: segment.path, bytes: trailer.footerOffset..<trailer.footerOffset,
                    positions: trailer.end..<Position(provenCount), reason: "no file holds them"))
            scan.end = Position(provenCount)
        }
        return scan
    }

    private func startNew() throws(LogError) -> Result {
        let durable = try system { () throws(FileError) in
            try DurableFile.openReadOnly(path("durable"), fileSystem: fileSystem)
        }
        if let durable, durable.count > 0 {
            throw LogError(
                .corrupt,
                "\(directory) has no segments, but its file `durable` says that there were "
                    + "\(durable.count) events: restore the segments, or delete the folder to begin a new log")
        }
        let logID = LogID(high: random(), low: random())
        let created = try system { () throws(FileError) in
            try DurableFile.create(path("durable"), logID: logID, fileSystem: fileSystem)
        }
        return Result(
            report: OpenReport(logID: logID, isNew: true), active: nil, lastTime: nil, durableFile: created.file,
            signing: signing(for: logID))
    }

    /// Writes the last group again, unless it is known to be durable: see `LogFile.writeAgain`.
    private func writeAgain(_ scan: TailScan, of segment: Segment, provenCount: UInt64) throws(LogError) {
        guard segment.state == .live, let group = scan.lastGroup, let end = scan.endOffset, group.offset < end,
            scan.end.rawValue > max(provenCount, group.base.rawValue), !LogFault.isPlanted(.unprovenTailKept)
        else { return }
        do {
            try segment.file.writeAgain(group.offset..<end)
        } catch  where error.isDiskFull {
            // Only where the file system does not write in place.
            try system { () throws(FileError) in try fileSystem.remove(path(Reserve.name)) }
            try system { () throws(FileError) in try segment.file.writeAgain(group.offset..<end) }
        } catch {
            throw LogError(.system, error.description)
        }
    }

    private func cutOff(_ range: Range<Int>, of segment: Segment) throws(LogError) -> TornTail {
        let folder = path("torn")
        let name = "\(folder)/\(segment.name.dropLast(4))-\(range.lowerBound).bytes"
        do {
            try save(range, of: segment, folder: folder, as: name)
        } catch  where error.isDiskFull {
            try system { () throws(FileError) in try fileSystem.remove(path(Reserve.name)) }
            try system { () throws(FileError) in try save(range, of: segment, folder: folder, as: name) }
        } catch {
            throw LogError(.system, error.description)
        }
        try system { () throws(FileError) in
            let size = try segment.file.byteCount()
            try segment.file.truncate(range.lowerBound)
            do throws(FileError) {
                try segment.file.allocate(size)
            } catch  where error.isDiskFull {
                // Then the segment is full earlier.
            }
            try segment.file.synchronize()
        }
        return TornTail(segment: segment.path, bytes: range, savedAs: name)
    }

    private func save(_ range: Range<Int>, of segment: Segment, folder: String, as name: String) throws(FileError) {
        try fileSystem.makeDirectory(folder)
        let copy = try fileSystem.open(name, create: true, writable: true)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: LogFormat.alignment)
        defer { buffer.deallocate() }
        var offset = range.lowerBound
        while offset < range.upperBound {
            let piece = UnsafeMutableRawBufferPointer(rebasing: buffer[..<min(buffer.count, range.upperBound - offset)])
            let count = try segment.file.read(into: piece, at: offset)
            guard count > 0 else { break }
            try copy.write(UnsafeRawBufferPointer(rebasing: piece[..<count]), at: offset - range.lowerBound)
            offset += count
        }
        try copy.synchronize()
        try fileSystem.synchronizeDirectory(folder)
        try fileSystem.synchronizeDirectory(directory)
    }

    private func path(_ name: String) -> String { directory + "/" + name }
}

extension LogFile {
    /// Writes a part of the file with the bytes that it has, and syncs it. An fdatasync that failed before this start
    /// leaves pages that are in memory only and that the kernel calls clean: they read well now, no sync brings them to
    /// the disk, and the next power failure takes them from under what was built on them (PostgreSQL's "fsyncgate",
    /// 2018; Rebello and others, "Can Applications Recover from fsync Failures?", 2020).
    func writeAgain(_ range: Range<Int>) throws(FileError) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: LogFormat.alignment)
        defer { buffer.deallocate() }
        var offset = range.lowerBound
        while offset < range.upperBound {
            let piece = UnsafeMutableRawBufferPointer(rebasing: buffer[..<min(buffer.count, range.upperBound - offset)])
            let count = try read(into: piece, at: offset)
            guard count > 0 else { break }
            try write(UnsafeRawBufferPointer(rebasing: piece[..<count]), at: offset)
            offset += count
        }
        try synchronize()
    }
}

/// A file that takes up space for nothing, so that a full disk can still be started on.
enum Reserve {
    static let name = "reserve"
    static let byteCount = 1 << 20

    /// Makes the file when there is room for it; without it the log works all the same.
    static func fill(_ directory: String, _ fileSystem: any LogFileSystem) {
        let path = directory + "/" + name
        if let file = try? fileSystem.open(path, create: false, writable: false),
            (try? file.byteCount()) == byteCount
        {
            return
        }
        do {
            let file = try fileSystem.open(path, create: true, writable: true)
            try file.allocate(byteCount)
        } catch {
            try? fileSystem.remove(path)
        }
    }
}

extension FileError {
    /// There is no room now, and may be later: full, over quota, or at the process's limit on file sizes.
    /// Never so for an fsync, where nobody knows what was lost.
    var isDiskFull: Bool {
        operation != "fdatasync" && operation != "fsync" && (code == ENOSPC || code == EDQUOT || code == EFBIG)
    }

    /// The process or the machine has no file descriptor left for an open: nothing was done, and later there may be.
    var isOutOfDescriptors: Bool { operation == "open" && (code == EMFILE || code == ENFILE) }

    /// There is no file of that name.
    var isMissing: Bool { code == ENOENT }
}
