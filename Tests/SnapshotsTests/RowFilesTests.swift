import EventModel
import Foundation
import Primitives
import Projecting
import ProjectionTestSupport
import Projections
import Testing

@testable import Snapshots

@Suite struct RowFilesTests {
    /// The same cases that PostgreSQL is put to, all in memory, and with every row in a file at once.
    @Test(arguments: StoreCase.allCases, [64 << 20, 0])
    func obeysTheRulesOfStores(_ store: StoreCase, memoryBytesMax: Int) throws {
        let folder = Folder()
        let files = RowFiles(StoreCase.projection(), folder: folder.path, memoryBytesMax: memoryBytesMax)
        #expect(try store.problem(files) == nil)
    }

    @Test func rowsComeInTheOrderOfTheirKeys() throws {
        let folder = Folder(), files = RowFiles(things, folder: folder.path)
        var rows = [RowBuffer(), RowBuffer(), RowBuffer()]
        let keys: [(String, Int64)] = [
            ("b", 1), ("a", -5), ("ab", 0), ("a", 300), ("", 9), ("a", .min), ("a\u{1}", 1), ("é", 2), ("a", 7),
        ]
        for (tenant, n) in keys { rows[0].thing(tenant, n, nil) }
        try files.commit(rows, to: 0)
        let found = try files.lines(0).map { $0.split(separator: "|", omittingEmptySubsequences: false) }
        #expect(
            found.map { "\($0[0]) \($0[1])" } == [
                " 9", "a \(Int64.min)", "a -5", "a 7", "a 300", "a\u{1} 1", "ab 0", "b 1", "é 2",
            ])
    }

    /// A store on files, with any bound on memory, holds what one in memory does.
    @Test(arguments: 1...6)
    func anyBoundOnMemoryGivesTheSameRows(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let folder = Folder()
        let bounds = [64 << 20, 4_000, 20_000, 0]
        let all = bounds.map { RowFiles(things, folder: folder.path + "/\($0)", memoryBytesMax: $0) }
        var model: [String: String] = [:], deltas: [String: Int64] = [:], position: UInt64 = 0
        for _ in 0..<60 {
            var rows = [RowBuffer(), RowBuffer(), RowBuffer()], seen: Set<String> = []
            for _ in 0..<Int.random(in: 0..<40, using: &random) {
                let tenant = "t\(Int.random(in: 0..<4, using: &random))"
                let n = Int64.random(in: -20..<60, using: &random)
                let text = String(repeating: "x", count: Int.random(in: 0..<50, using: &random))
                guard seen.insert("\(tenant)|\(n)").inserted else { continue }
                rows[0].thing(tenant, n, text)
                model["\(tenant)|\(n)"] = text
            }
            for key in model.keys.sorted() where Int.random(in: 0..<9, using: &random) == 0 {
                let parts = key.split(separator: "|")
                rows[1].delta(String(parts[0]), Int64(parts[1])!, 3)
                deltas[key, default: 0] += 3
            }
            for offset in 0..<Int64.random(in: 0..<5, using: &random) {
                rows[2].note(Int64(position) + offset, "note \(offset)")
            }
            position += 10
            for files in all { try files.commit(rows, to: position) }
        }
        let expected = Set(
            model.map { key, text in
                "\(key)|\(text)|{\"n\": \(key.split(separator: "|")[1])}|\(deltas[key] ?? 0)"
            })
        let first = try all[0].lines(0), notes = try all[0].lines(1)
        #expect(Set(first) == expected && first.count == expected.count)
        for files in all {
            #expect(try files.lines(0) == first)
            #expect(try files.lines(1) == notes)
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path + "/0").isEmpty, "no file has a name")
    }

    @Test func aCursorBeginsAtAKey() throws {
        let folder = Folder(), files = RowFiles(things, folder: folder.path, memoryBytesMax: 0)
        var rows = [RowBuffer(), RowBuffer(), RowBuffer()]
        for n in 0..<5_000 as Range<Int64> { rows[0].thing(n % 2 == 0 ? "even" : "odd", n, "a text that takes room") }
        try files.commit(rows, to: 0)
        var key: [UInt8] = []
        Array("odd".utf8).withUnsafeBytes { SortKey.append($0, .text, to: &key) }
        let cursor = try files.cursor(of: "things_v3", from: key)
        #expect(try lines(cursor, files.tables[0]).count == 2_500)
    }
}
