import EventLog
import EventModel
import Evidence
import Primitives
import Projecting
import Projections

/// What goes into a snapshot.
struct SnapshotContents {
    struct Table {
        var projection: ProjectionDescriptor
        var table: StoredTable
        /// Its rows in the order of their keys.
        var cursor: () throws -> any RowCursor
    }

    var logID: LogID
    /// So many events are folded.
    var end: Position
    var lastTime: Timestamp?
    var created: Timestamp
    var salt: UInt32
    var tables: [Table]
    var deciders: [DeciderState]
}

/// A decider's fold at a position, as bytes that only it understands.
public struct DeciderState: Sendable, Equatable {
    public var name: String
    /// Raised whenever the bytes mean something else: of another version they are not used.
    public var version: Int
    public var bytes: [UInt8]
}

/// What was written.
struct WrittenSnapshot {
    var path: String
    var byteCount: Int
    /// SHA-256 of the file.
    var digest: TreeHash
    var description: SnapshotDescription
}

enum SnapshotWriter {
    /// Whole and durable under its name, or not there: written under another name, synced, renamed, the folder synced.
    static func write(
        _ contents: SnapshotContents, folder: String, fileSystem: any LogFileSystem
    ) throws -> WrittenSnapshot {
        try fileSystem.makeDirectory(folder)
        let path = folder + "/" + SnapshotFormat.name(contents.end)
        let temporary = path + SnapshotFormat.temporarySuffix
        do {
            let (bytes, digest, description) = try write(contents, temporary, fileSystem)
            try fileSystem.makeReadOnly(temporary)
            try fileSystem.rename(temporary, to: path)
            try fileSystem.synchronizeDirectory(folder)
            return WrittenSnapshot(path: path, byteCount: bytes, digest: digest, description: description)
        } catch {
            try? fileSystem.remove(temporary)
            throw error
        }
    }

    private static func write(
        _ contents: SnapshotContents, _ path: String, _ fileSystem: any LogFileSystem
    ) throws -> (byteCount: Int, digest: TreeHash, description: SnapshotDescription) {
        let file = try fileSystem.open(path, create: true, writable: true)
        let hash = HashBox()
        let writer = BlockWriter(file: file, at: 0, salt: contents.salt) { hash.running.update($0) }
        try writer.write(
            SnapshotHeader(
                logID: contents.logID, end: contents.end, created: contents.created, salt: contents.salt
            ).encoded())
        var description = SnapshotDescription(
            logID: contents.logID.description, end: contents.end.rawValue, lastTime: contents.lastTime?.description,
            created: contents.created.description, tables: [], deciders: [])
        var sections: [[BlockPlace]] = []
        for table in contents.tables {
            let (places, digest) = try write(table, UInt32(sections.count), writer)
            sections.append(places)
            description.tables.append(
                SnapshotDescription.Table(
                    projection: table.projection.name, version: table.projection.version, name: table.table.name,
                    columns: table.table.columns.map { .init(name: $0.name, type: $0.type.rawValue) },
                    keys: table.table.keyCount, rows: places.reduce(0) { $0 + $1.rows }, blocks: places.count,
                    digest: digest))
        }
        for decider in contents.deciders {
            let places = try write(decider, UInt32(sections.count), writer)
            sections.append(places)
            description.deciders.append(
                SnapshotDescription.Decider(
                    name: decider.name, version: decider.version, bytes: decider.bytes.count, blocks: places.count,
                    sha256: SHA256.digest(decider.bytes).description))
        }
        try end(contents.end, sections, description, writer)
        try file.synchronize()
        return (writer.offset, hash.running.finish(), description)
    }

    private static func write(
        _ table: SnapshotContents.Table, _ section: UInt32, _ writer: BlockWriter
    ) throws -> (places: [BlockPlace], digest: String) {
        let blocks = TableWriter(writer, section: section)
        var digest = TableDigest(table.table)
        let cursor = try table.cursor()
        while try cursor.next() {
            try cursor.withRow { row in
                digest.add(row)
                try blocks.append(row, key: cursor.key)
            }
        }
        return (try blocks.finish(), digest.finish().description)
    }

    private static func write(
        _ decider: DeciderState, _ section: UInt32, _ writer: BlockWriter
    ) throws -> [BlockPlace] {
        try stride(from: 0, to: decider.bytes.count, by: TableWriter.blockBytes).map { start in
            let piece = decider.bytes[start..<min(start + TableWriter.blockBytes, decider.bytes.count)]
            return try writer.write(Array(piece), rows: 0, section: section, firstKey: [])
        }
    }

    private static func end(
        _ end: Position, _ sections: [[BlockPlace]], _ description: SnapshotDescription, _ writer: BlockWriter
    ) throws {
        func part(_ bytes: [UInt8]) throws -> (offset: Int, byteCount: Int, crc: UInt32) {
            let offset = writer.offset
            try writer.write(bytes)
            return (offset, bytes.count, bytes.withUnsafeBytes { SnapshotFormat.crc($0) })
        }
        let index = try part(SnapshotIndex.encode(sections))
        let json = try part(eventJSON(description))
        try writer.write(SnapshotTrailer(end: end, index: index, description: json).encoded())
        try writer.flush()
    }
}

/// So that a closure and its maker share it.
private final class HashBox {
    var running = SHA256.Stream()
}
