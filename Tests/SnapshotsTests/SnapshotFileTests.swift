import EventLog
import EventModel
import Evidence
import Foundation
import Primitives
import Projections
import Testing

@testable import Snapshots

@Suite struct SnapshotFileTests {
    private let folder = Folder()

    private func contents(_ files: RowFiles) -> SnapshotContents {
        SnapshotContents(
            logID: LogID(high: 1, low: 2), end: files.end, lastTime: Timestamp(microseconds: 5_000_000),
            created: Timestamp(microseconds: 6_000_000), salt: 77,
            tables: files.tables.map { table in
                SnapshotContents.Table(projection: things, table: table) { try files.cursor(of: table.name) }
            },
            deciders: [DeciderState(name: "campaigns", version: 1, bytes: Array(repeating: 7, count: 200_000))])
    }

    private func rows(_ count: Int64) throws -> RowFiles {
        let files = RowFiles(things, folder: folder.path + "/scratch")
        var rows = [RowBuffer(), RowBuffer(), RowBuffer()]
        for n in 0..<count {
            rows[0].thing("t\(n % 7)", n, n % 3 == 0 ? nil : "text \(n)")
            rows[2].note(n, "note \(n)")
        }
        try files.commit(rows, to: 4710)
        return files
    }

    @discardableResult
    private func write(_ files: RowFiles) throws -> WrittenSnapshot {
        try SnapshotWriter.write(contents(files), folder: folder.path, fileSystem: PosixFileSystem())
    }

    @Test(arguments: [0, 1, 5_000] as [Int64])
    func whatIsWrittenIsRead(count: Int64) throws {
        let files = try rows(count), written = try write(files)
        #expect(written.path.hasSuffix("/00000000000000004711.snapshot"))
        let snapshot = try SnapshotFile(written.path)
        #expect(snapshot.end == Position(4711) && snapshot.logID == LogID(high: 1, low: 2))
        #expect(snapshot.description == written.description && snapshot.byteCount == written.byteCount)
        #expect(snapshot.holds(things))
        for (number, table) in files.tables.enumerated() {
            let cursor = try #require(snapshot.cursor(of: table))
            #expect(try lines(cursor, table) == files.lines(number))
        }
        #expect(try snapshot.check() == written.digest)
        let bytes = try Data(contentsOf: URL(fileURLWithPath: written.path))
        #expect(SHA256.digest(bytes) == written.digest, "the digest is the file's")
        #expect(try snapshot.state(ofDecider: "campaigns")?.bytes == Array(repeating: 7, count: 200_000))
        #expect(try snapshot.state(ofDecider: "nobody") == nil)
    }

    @Test func oneRowIsFoundByItsKey() throws {
        let files = try rows(5_000)
        let snapshot = try SnapshotFile(try write(files).path)
        for n in [0, 1, 2499, 4999, 5000, -1] as [Int64] {
            var key: [UInt8] = [], found: String?
            withUnsafeBytes(of: n.bigEndian) { SortKey.append($0, .int8, to: &key) }
            let isThere = try snapshot.find(key, in: files.tables[1]) { found = show($0, files.tables[1]) }
            #expect(isThere == (0..<5000).contains(n))
            #expect(found == (isThere ? "\(n)|note \(n)" : nil))
        }
    }

    /// Rows go on over a snapshot as if they had never been in a file.
    @Test(arguments: [64 << 20, 0])
    func rowsGoOnOverASnapshot(memoryBytesMax: Int) throws {
        let files = try rows(2_000)
        let snapshot = try SnapshotFile(try write(files).path)
        let over = RowFiles(things, folder: folder.path + "/over", base: snapshot, memoryBytesMax: memoryBytesMax)
        #expect(over.end == Position(4711))
        for step in 0..<3 as Range<Int64> {
            var rows = [RowBuffer(), RowBuffer(), RowBuffer()]
            rows[0].thing("t0", 0, "changed \(step)")
            rows[0].thing("t9", step, "new")
            rows[1].delta("t1", 1, 5)
            rows[2].note(10_000 + step, "later")
            for target in [files, over] { try target.commit(rows, to: UInt64(5_000 + step)) }
        }
        for table in 0..<2 { #expect(try over.lines(table) == files.lines(table)) }
    }

    @Test func anotherVersionIsNotABase() throws {
        let snapshot = try SnapshotFile(try write(try rows(10)).path)
        let newer = ProjectionDescriptor(name: "things", version: 4, tables: things.tables)
        #expect(!snapshot.holds(newer))
        #expect(RowFiles(newer, folder: folder.path, base: snapshot).end == Position(0))
        let wider = ProjectionDescriptor(
            name: "things", version: 3,
            tables: things.tables + [
                Table("more_v3", write: .insert, [.key("position", .int8)])
            ])
        #expect(!snapshot.holds(wider))
    }

    /// Whatever byte is damaged, nobody takes the file for whole, and what is read of it is right or refused.
    @Test func noByteChangesUnseen() throws {
        let files = try rows(120), written = try write(files)
        let good = try [UInt8](Data(contentsOf: URL(fileURLWithPath: written.path)))
        let expected = try (0..<2).map { try files.lines($0) }
        let path = folder.path + "/damaged.snapshot"
        for offset in stride(from: 0, to: good.count, by: good.count > 40_000 ? 131 : 17) {
            var bytes = good
            bytes[offset] ^= 0x10
            #expect(FileManager.default.createFile(atPath: path, contents: Data(bytes)))
            do {
                let snapshot = try SnapshotFile(path)
                for (number, table) in files.tables.enumerated() {
                    guard let cursor = snapshot.cursor(of: table) else { continue }
                    #expect(try lines(cursor, table) == expected[number])
                }
                _ = try snapshot.state(ofDecider: "campaigns")
                #expect(try snapshot.check() != written.digest, "byte \(offset)")
            } catch {
                #expect(error is SnapshotError, "byte \(offset): \(error)")
            }
        }
    }

    @Test func aFileThatWasCutOffIsNone() throws {
        let written = try write(try rows(300))
        let good = try Data(contentsOf: URL(fileURLWithPath: written.path))
        let path = folder.path + "/short.snapshot"
        for count in [0, 1, 63, 64, 127, 128, good.count / 2, good.count - 1] {
            #expect(FileManager.default.createFile(atPath: path, contents: good.prefix(count)))
            #expect(throws: SnapshotError.self) { try SnapshotFile(path) }
        }
    }
}
