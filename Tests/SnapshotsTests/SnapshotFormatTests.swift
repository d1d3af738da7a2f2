import EventLog
import EventModel
import Foundation
import Projections
import Testing

@testable import Snapshots

/// `schemas/snapshot-format.md` and the code say the same.
@Suite struct SnapshotFormatTests {
    /// The bytes of the page's examples, in order.
    private func examples() throws -> [[UInt8]] {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let page = try String(contentsOf: root.appendingPathComponent("schemas/snapshot-format.md"), encoding: .utf8)
        let text = try #require(page.components(separatedBy: "## Example").last)
        var examples: [[UInt8]] = [], isIn = false
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            let bytes = line.split(separator: " ").compactMap { $0.count == 2 ? UInt8($0, radix: 16) : nil }
            guard line.hasPrefix("    "), !bytes.isEmpty else {
                isIn = false
                continue
            }
            if !isIn { examples.append([]) }
            isIn = true
            examples[examples.count - 1] += bytes
        }
        return examples
    }

    @Test func theHeaderIsThePages() throws {
        let bytes = try examples()[0]
        let header = try bytes.withUnsafeBytes { try SnapshotHeader($0, path: "the page") }
        let expected = SnapshotHeader(
            logID: LogID(high: 1, low: 2), end: Position(4711), created: Timestamp(microseconds: 6_000_000), salt: 77)
        #expect(header == expected && expected.encoded() == bytes)
    }

    @Test func theBlockIsThePages() throws {
        let bytes = try examples()[1], folder = Folder(), path = folder.path + "/block"
        #expect(FileManager.default.createFile(atPath: path, contents: Data(bytes)))
        let file = try PosixFileSystem().open(path, create: false, writable: false)
        let place = BlockPlace(offset: 0, byteCount: bytes.count, rows: 1, firstKey: [])
        let table = StoredTable(name: "t", columns: [.key("n", .int8), .value("t", .text)])
        let reader = BlockReader(file: file, salt: 77, path: path)
        let cursor = BlockCursor(SortedRows(table: table, reader: reader, section: 1, places: [place]))
        #expect(try lines(cursor, table) == ["7|hi"])
        #expect(cursor.key == [0x80, 0, 0, 0, 0, 0, 0, 7])
        let other = BlockReader(file: file, salt: 78, path: path)
        #expect(throws: SnapshotError.self) { try other.rows(place, section: 1) }
        #expect(throws: SnapshotError.self) { try reader.rows(place, section: 2) }
    }

    @Test func namesAreEnds() {
        #expect(SnapshotFormat.name(Position(4711)) == "00000000000000004711.snapshot")
        #expect(SnapshotFormat.end(name: "00000000000000004711.snapshot") == Position(4711))
        for name in ["4711.snapshot", "0000000000000000471x.snapshot", "00000000000000004711.snapshot.tmp", "scratch"] {
            #expect(SnapshotFormat.end(name: name) == nil)
        }
    }

    @Test func keysSortAsRowsDo() {
        func key(_ text: String, _ number: Int64) -> [UInt8] {
            var key: [UInt8] = []
            Array(text.utf8).withUnsafeBytes { SortKey.append($0, .text, to: &key) }
            withUnsafeBytes(of: number.bigEndian) { SortKey.append($0, .int8, to: &key) }
            return key
        }
        let sorted: [(String, Int64)] = [
            ("", 0), ("a", .min), ("a", -1), ("a", 0), ("a", .max), ("a\0", 5), ("a\u{1}", 5), ("ab", -9), ("b", 0),
        ]
        for (a, b) in zip(sorted, sorted.dropFirst()) {
            #expect(SortKey.precedes(key(a.0, a.1), key(b.0, b.1)), "\(a) \(b)")
        }
    }
}
