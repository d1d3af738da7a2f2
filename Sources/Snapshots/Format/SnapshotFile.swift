import EventLog
import EventModel
import Evidence
import FoundationEssentials
import Primitives
import Projecting
import Projections

/// A snapshot that can be read: rows of every projection and the folds of the deciders at one position.
/// Safe to use from any thread.
public final class SnapshotFile: Sendable {
    public let path: String
    public let logID: LogID
    /// So many events are folded: the state behind event `end - 1`.
    public let end: Position
    public let created: Timestamp
    public let byteCount: Int
    public let description: SnapshotDescription
    private let file: any LogFile
    private let blocks: BlockReader
    private let sections: [[BlockPlace]]

    /// Opens a snapshot and checks all of it that says where the rest is; blocks are checked as they are read.
    /// - Throws: `SnapshotError`: `.damaged`, `.foreign`, `.system`.
    public init(_ path: String, fileSystem: any LogFileSystem = PosixFileSystem()) throws {
        self.path = path
        do {
            file = try fileSystem.open(path, create: false, writable: false)
            byteCount = try file.byteCount()
        } catch {
            throw SnapshotError(.system, "\(error)")
        }
        let page = SnapshotFormat.pageBytes, size = byteCount
        let header = try Self.read(file, 0, page, path).withUnsafeBytes { try SnapshotHeader($0, path: path) }
        guard size >= 2 * page,
            let trailer = try Self.read(file, size - page, page, path).withUnsafeBytes({
                SnapshotTrailer($0, fileBytes: size)
            }), trailer.end == header.end
        else { throw SnapshotError(.damaged, "\(path): its end is damaged, or it was cut off") }
        let index = try Self.read(file, trailer.index.offset, trailer.index.byteCount, path)
        let json = try Self.read(file, trailer.description.offset, trailer.description.byteCount, path)
        guard index.withUnsafeBytes({ SnapshotFormat.crc($0) }) == trailer.index.crc,
            json.withUnsafeBytes({ SnapshotFormat.crc($0) }) == trailer.description.crc,
            let description = try? JSONDecoder().decode(SnapshotDescription.self, from: Data(json)),
            description.end == header.end.rawValue, description.logID == header.logID.description,
            description.tables.allSatisfy({ $0.stored != nil }),
            let sections = SnapshotIndex.decode(
                index, sections: description.tables.count + description.deciders.count,
                limit: trailer.index.offset)
        else { throw SnapshotError(.damaged, "\(path): its index or its description is damaged") }
        logID = header.logID
        end = header.end
        created = header.created
        self.description = description
        self.sections = sections
        blocks = BlockReader(file: file, salt: header.salt, path: path)
    }

    private static func read(_ file: any LogFile, _ offset: Int, _ count: Int, _ path: String) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let found = try bytes.withUnsafeMutableBytes { try file.read(into: $0, at: offset) }
        guard found == count else { throw SnapshotError(.damaged, "\(path) has only \(found) bytes from \(offset) on") }
        return bytes
    }

    // MARK: what is in it

    /// Whether it has the rows of this version of a projection.
    public func holds(_ projection: ProjectionDescriptor) -> Bool {
        projection.storedTables.allSatisfy { table in
            description.tables.contains {
                $0.projection == projection.name && $0.version == projection.version && $0.stored == table
            }
        }
    }

    /// Nil when it has none of this form.
    func rows(of table: StoredTable) -> SortedRows? {
        guard let number = description.tables.firstIndex(where: { $0.stored == table }) else { return nil }
        return SortedRows(table: table, reader: blocks, section: UInt32(number), places: sections[number])
    }

    /// The rows of a table in the order of their keys, from a key on (`SortKey`); nil when it has no such table.
    public func cursor(of table: StoredTable, from key: [UInt8]? = nil) -> (any RowCursor)? {
        rows(of: table).map { BlockCursor($0, from: key) }
    }

    /// Calls `body` with the row of a key (`SortKey`); false when there is none.
    public func find(_ key: [UInt8], in table: StoredTable, _ body: (UnsafeRawBufferPointer) -> Void) throws -> Bool {
        guard let rows = rows(of: table), let (block, index) = try RowFinder(rows).find(key) else { return false }
        block.row(index, body)
        return true
    }

    /// A decider's fold; nil when it has none.
    public func state(ofDecider name: String) throws -> DeciderState? {
        guard let number = description.deciders.firstIndex(where: { $0.name == name }) else { return nil }
        let decider = description.deciders[number], section = description.tables.count + number
        var bytes: [UInt8] = []
        for place in sections[section] { bytes += try blocks.raw(place, section: UInt32(section)) }
        guard bytes.count == decider.bytes, SHA256.digest(bytes).description == decider.sha256 else {
            throw SnapshotError(.damaged, "\(path): the fold of \(name) is not what was written")
        }
        return DeciderState(name: name, version: decider.version, bytes: bytes)
    }

    // MARK: checking

    /// Reads all of it: every block, the order of the rows, every digest. Returns the SHA-256 of the file.
    /// - Throws: `SnapshotError` at the first thing that is wrong.
    public func check() throws -> TreeHash {
        for table in description.tables {
            guard let stored = table.stored, let rows = rows(of: stored) else { continue }
            var digest = TableDigest(stored), count = 0
            let cursor = BlockCursor(rows)
            while try cursor.next() {
                cursor.withRow { digest.add($0) }
                count += 1
            }
            guard count == table.rows, digest.finish().description == table.digest else {
                throw SnapshotError(.damaged, "\(path): the rows of \(table.name) are not those that were written")
            }
        }
        for decider in description.deciders { _ = try state(ofDecider: decider.name) }
        return try digest()
    }

    /// The SHA-256 of the file, as `sha256sum` says it.
    public func digest() throws -> TreeHash {
        var running = SHA256.Stream(), offset = 0
        var room = [UInt8](repeating: 0, count: 1 << 20)
        while offset < byteCount {
            let count = try room.withUnsafeMutableBytes { try file.read(into: $0, at: offset) }
            guard count > 0 else { break }
            room.withUnsafeBytes { running.update(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
            offset += count
        }
        return running.finish()
    }
}
