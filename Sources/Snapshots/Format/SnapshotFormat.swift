import CChecksum
import EventLog
import EventModel
import Projections

// The bytes of a snapshot, version 1: header, blocks, index, description, trailer. `schemas/snapshot-format.md` is the
// specification; SnapshotFormatTests holds both to it.

enum SnapshotFormat {
    static let version: UInt32 = 1
    static let suffix = ".snapshot"
    static let temporarySuffix = ".tmp"
    static let headerMagic: UInt64 = 0x504E_5344_4C4F_4652  // "RFOLDSNP"
    static let trailerMagic: UInt64 = 0x454E_5344_4C4F_4652  // "RFOLDSNE"
    static let pageBytes = 64
    /// More is never allocated for index or description, whatever a trailer claims.
    static let partBytesMax = 256 << 20

    /// `00000000000000004711.snapshot`: the number of events in it.
    static func name(_ end: Position) -> String {
        let digits = String(end.rawValue)
        return String(repeating: "0", count: 20 - digits.utf8.count) + digits + suffix
    }

    /// The end that a snapshot's name says; nil when it is not a snapshot's name.
    static func end(name: String) -> Position? {
        guard name.utf8.count == 20 + suffix.utf8.count, name.hasSuffix(suffix),
            name.utf8.prefix(20).allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }), let end = UInt64(name.prefix(20))
        else { return nil }
        return Position(end)
    }

    static func crc(_ bytes: UnsafeRawBufferPointer) -> UInt32 { refold_crc32c(0, bytes.baseAddress, bytes.count) }
}

/// The first 64 bytes.
struct SnapshotHeader: Equatable {
    var logID: LogID
    /// So many events are folded.
    var end: Position
    var created: Timestamp
    /// Begins the checksum of every block.
    var salt: UInt32

    func encoded() -> [UInt8] {
        var page = Page(SnapshotFormat.headerMagic)
        page.put(SnapshotFormat.version, 8)
        page.put(UInt32(SnapshotFormat.pageBytes), 12)
        page.put(logID.high.byteSwapped, 16)
        page.put(logID.low.byteSwapped, 24)
        page.put(end.rawValue, 32)
        page.put(created.microseconds, 40)
        page.put(salt, 48)
        return page.finished()
    }
}

extension SnapshotHeader {
    init(_ bytes: UnsafeRawBufferPointer, path: String) throws {
        guard bytes.count == SnapshotFormat.pageBytes, Page.get(bytes, 0) == SnapshotFormat.headerMagic else {
            throw SnapshotError(.foreign, "\(path) is no snapshot of Refold's")
        }
        guard Page.isWhole(bytes) else {
            throw SnapshotError(.damaged, "\(path): its header is damaged")
        }
        let version: UInt32 = Page.get(bytes, 8)
        guard version == SnapshotFormat.version else {
            throw SnapshotError(
                .foreign,
                "\(path) has format \(version), this program knows "
                    + "\(SnapshotFormat.version): use a newer program, or another snapshot")
        }
        logID = LogID(
            high: Page.get(bytes, 16, as: UInt64.self).byteSwapped,
            low: Page.get(bytes, 24, as: UInt64.self).byteSwapped)
        end = Position(Page.get(bytes, 32))
        created = Timestamp(storedMicroseconds: Page.get(bytes, 40))
        salt = Page.get(bytes, 48)
    }
}

/// The last 64 bytes: without them a file is no snapshot.
struct SnapshotTrailer: Equatable {
    var end: Position
    var index: (offset: Int, byteCount: Int, crc: UInt32)
    var description: (offset: Int, byteCount: Int, crc: UInt32)

    func encoded() -> [UInt8] {
        var page = Page(SnapshotFormat.trailerMagic)
        page.put(end.rawValue, 8)
        page.put(UInt64(index.offset), 16)
        page.put(UInt32(index.byteCount), 24)
        page.put(index.crc, 28)
        page.put(UInt64(description.offset), 32)
        page.put(UInt32(description.byteCount), 40)
        page.put(description.crc, 44)
        return page.finished()
    }

    /// Nil when these are no trailer's bytes, or of another file.
    init?(_ bytes: UnsafeRawBufferPointer, fileBytes: Int) {
        guard bytes.count == SnapshotFormat.pageBytes, Page.get(bytes, 0) == SnapshotFormat.trailerMagic,
            Page.isWhole(bytes)
        else { return nil }
        end = Position(Page.get(bytes, 8))
        func part(_ offset: Int) -> (offset: Int, byteCount: Int, crc: UInt32)? {
            let start: UInt64 = Page.get(bytes, offset), count: UInt32 = Page.get(bytes, offset + 8)
            let limit = fileBytes - SnapshotFormat.pageBytes
            guard count <= SnapshotFormat.partBytesMax, start <= UInt64(limit), Int(start) + Int(count) <= limit
            else { return nil }
            return (Int(start), Int(count), Page.get(bytes, offset + 12))
        }
        guard let index = part(16), let description = part(32) else { return nil }
        (self.index, self.description) = (index, description)
    }

    init(
        end: Position, index: (offset: Int, byteCount: Int, crc: UInt32),
        description: (offset: Int, byteCount: Int, crc: UInt32)
    ) {
        (self.end, self.index, self.description) = (end, index, description)
    }

    static func == (a: Self, b: Self) -> Bool {
        a.end == b.end && a.index == b.index && a.description == b.description
    }
}

/// 64 bytes, little-endian, with their CRC32C in the last four.
private struct Page {
    private var bytes = [UInt8](repeating: 0, count: SnapshotFormat.pageBytes)

    init(_ magic: UInt64) { put(magic, 0) }

    mutating func put<T: FixedWidthInteger>(_ value: T, _ offset: Int) {
        bytes.withUnsafeMutableBytes { $0.storeBytes(of: value.littleEndian, toByteOffset: offset, as: T.self) }
    }

    mutating func finished() -> [UInt8] {
        put(bytes.withUnsafeBytes { SnapshotFormat.crc(UnsafeRawBufferPointer(rebasing: $0.dropLast(4))) }, 60)
        return bytes
    }

    static func get<T: FixedWidthInteger>(_ bytes: UnsafeRawBufferPointer, _ offset: Int, as: T.Type = T.self) -> T {
        T(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: T.self))
    }

    static func isWhole(_ bytes: UnsafeRawBufferPointer) -> Bool {
        SnapshotFormat.crc(UnsafeRawBufferPointer(rebasing: bytes.dropLast(4))) == get(bytes, 60)
    }
}

/// What a snapshot holds: its description, JSON in the file.
public struct SnapshotDescription: Codable, Sendable, Equatable {
    public var logID: String
    public var end: UInt64
    /// Received-at of the last event folded.
    public var lastTime: String?
    public var created: String
    public var tables: [Table]
    public var deciders: [Decider]

    public struct Table: Codable, Sendable, Equatable {
        public var projection: String
        public var version: Int
        public var name: String
        public var columns: [Column]
        /// So many of the first columns are the key.
        public var keys: Int
        public var rows: Int
        public var blocks: Int
        /// `TableDigest` of its rows.
        public var digest: String

        var stored: StoredTable? {
            let types = columns.compactMap { ColumnType(rawValue: $0.type) }
            guard types.count == columns.count, keys <= columns.count else { return nil }
            let stored: [Projections.Column] = zip(columns, types).enumerated().map { index, column in
                index < keys ? .key(column.0.name, column.1) : .value(column.0.name, column.1)
            }
            return StoredTable(name: name, columns: stored)
        }
    }

    public struct Column: Codable, Sendable, Equatable {
        public var name: String
        /// As in SQL.
        public var type: String
    }

    /// A decider's fold.
    public struct Decider: Codable, Sendable, Equatable {
        public var name: String
        public var version: Int
        public var bytes: Int
        public var blocks: Int
        public var sha256: String
    }

    enum CodingKeys: String, CodingKey {
        case logID = "log_id", end, lastTime = "last_time", created, tables, deciders
    }
}

/// The places of all blocks, as they stand in the file: per section a count, per block offset, length, rows, first key.
enum SnapshotIndex {
    static func encode(_ sections: [[BlockPlace]]) -> [UInt8] {
        var bytes: [UInt8] = []
        func put<T: FixedWidthInteger>(_ value: T) {
            withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
        }
        for places in sections {
            put(UInt32(places.count))
            for place in places {
                put(UInt64(place.offset))
                put(UInt32(place.byteCount))
                put(UInt32(place.rows))
                put(UInt32(place.firstKey.count))
                bytes.append(contentsOf: place.firstKey)
            }
        }
        return bytes
    }

    /// Nil unless they are exactly so many sections, with blocks within `limit` bytes.
    static func decode(_ bytes: [UInt8], sections count: Int, limit: Int) -> [[BlockPlace]]? {
        bytes.withUnsafeBytes { bytes in
            var offset = 0
            func get<T: FixedWidthInteger>(_ type: T.Type) -> T? {
                guard bytes.count - offset >= MemoryLayout<T>.size else { return nil }
                defer { offset += MemoryLayout<T>.size }
                return T(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: T.self))
            }
            var sections: [[BlockPlace]] = []
            for _ in 0..<count {
                guard let blocks = get(UInt32.self), Int(blocks) <= bytes.count / 20 else { return nil }
                var places: [BlockPlace] = []
                places.reserveCapacity(Int(blocks))
                for _ in 0..<blocks {
                    guard let start = get(UInt64.self), let length = get(UInt32.self), let rows = get(UInt32.self),
                        let keyBytes = get(UInt32.self), Int(keyBytes) <= bytes.count - offset,
                        start <= UInt64(limit), Int(start) + Int(length) <= limit,
                        Int(length) >= BlockHead.byteCount
                    else { return nil }
                    let key = Array(bytes[offset..<(offset + Int(keyBytes))])
                    offset += Int(keyBytes)
                    places.append(
                        BlockPlace(
                            offset: Int(start), byteCount: Int(length), rows: Int(rows), firstKey: key))
                }
                sections.append(places)
            }
            return offset == bytes.count ? sections : nil
        }
    }
}
