import Decoding
import Primitives
import Projecting
import Testing

@testable import Projections

/// The memory under the folds, against a dictionary that does the same.
@Suite struct MemoryTests {
    @Test(arguments: 1...6)
    func anArenaKeepsWhatWasPut(seed: Int) {
        var random = SeededRandom(seed: UInt64(seed)), arena = ByteArena()
        var refs: [ByteRef?] = Array(repeating: nil, count: 60), expected: [[UInt8]] = Array(repeating: [], count: 60)
        for step in 0..<3000 {
            let place = Int.random(in: 0..<60, using: &random)
            if Int.random(in: 0..<6, using: &random) == 0, var ref = refs[place] {
                arena.free(&ref)
                refs[place] = nil
                continue
            }
            // Mostly short, now and then longer than a chunk of the arena.
            let scale = [8, 40, 200, 5000, 100_000, 3_000_000][
                min(5, step % 97 == 0 ? 5 : Int.random(in: 0..<5, using: &random))]
            let bytes = [UInt8](
                repeating: UInt8.random(in: 0...255, using: &random),
                count: Int.random(in: 0...scale, using: &random))
            var ref = refs[place] ?? ByteRef()
            bytes.withUnsafeBytes { arena.put($0, in: &ref) }
            refs[place] = ref
            expected[place] = bytes
        }
        for (place, ref) in refs.enumerated() {
            guard let ref else { continue }
            let isSame = arena.bytes(ref).elementsEqual(expected[place])
            #expect(isSame, "place \(place), seed \(seed)")
        }
    }

    private struct Counter: RowState {
        static let table = Table("counters", write: .upsert, Self.self)

        var count: Int64 = 0
        var name = ByteRef(), note = ByteRef()

        mutating func columns(_ row: inout some RowVisitor, _ key: inout Bytes, _ arena: inout ByteArena) {
            row.key("id", &key)
            row.value("count", &count)
            row.text("name", &name, &arena)
            row.unstored(&note, &arena)
        }
    }

    @Test func aTableFindsItsRowsAndForgetsThoseLongestNotTouched() {
        var table = KeyedTable<Counter>()
        table.beginRound(isStart: true)
        func touch(_ number: Int) -> UInt32 { Array("key \(number)".utf8).withUnsafeBytes { table.touch($0) } }
        for round in 0..<3 {
            table.beginRound(isStart: false)
            for number in stride(from: 0, to: 20_000, by: round == 2 ? 10 : 1) {
                let id = touch(number)
                let isNew = table.update(id) { state, arena in
                    state.count += 1
                    Array("name of \(number)".utf8).withUnsafeBytes { arena.put($0, in: &state.name) }
                    Array("note on \(number)".utf8).withUnsafeBytes { arena.put($0, in: &state.note) }
                    return state.count == 1
                }
                #expect(isNew == (round == 0))
                table.markDirty(id)
            }
            var rows = RowBuffer()
            table.drain(into: &rows)
            let keys = (0..<rows.rowCount).map { row in Array(rows.bytes[rows.fields(ofRow: row)[0]!]) }
            let isInOrder = zip(keys, keys.dropFirst()).allSatisfy { $0.lexicographicallyPrecedes($1) }
            #expect(isInOrder && keys.count == (round == 2 ? 2000 : 20_000))
        }
        let all = (table.count, table.hasUnknown)
        #expect(all == (20_000, false))
        let before = table.byteCount
        table.shrink(toBytes: before)
        let untouched = table.count
        #expect(untouched == 20_000, "nothing to do")
        table.shrink(toBytes: before / 4)
        let left = table.count
        #expect(left == 2000, "those of the last round")
        table.beginRound(isStart: false)
        let kept = touch(10)
        let state = table.states[Int(kept)]
        let name = String(decoding: table.arena.bytes(state.name), as: UTF8.self), known = !table.hasUnknown
        let note = String(decoding: table.arena.bytes(state.note), as: UTF8.self)
        #expect(state.count == 3 && name == "name of 10" && note == "note on 10" && known)
        _ = touch(11)
        let asked = table.hasUnknown
        #expect(asked, "a row that was forgotten must be asked for")
    }
}
