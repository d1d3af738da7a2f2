import EventLog
import EventModel
import Testing
@testable import Deciding

@Suite struct DecisionWriterTests {
    private func batch() -> RecordBatch {
        var batch = RecordBatch()
        batch.append(kind: .decision, schema: "x/1", receivedAt: Timestamp(microseconds: 1), json: Array("{}".utf8))
        return batch
    }

    @Test func anAppendIsRefusedWhereItsSubjectHasChanged() throws {
        let log = ScratchLog(), writer = DecisionWriter(log)
        var batch = batch()
        _ = try writer.append(&batch, about: ["x"], ifUnchangedSince: Position(0))
        #expect(throws: AppendConflict.self) {
            try writer.append(&batch, about: ["y", "x"], ifUnchangedSince: Position(0))
        }
        #expect(log.durableCount == 1, "nothing is appended")
        _ = try writer.append(&batch, about: ["y"], ifUnchangedSince: Position(0))
        _ = try writer.append(&batch, about: ["x"], ifUnchangedSince: Position(1))
        #expect(!writer.isUnchanged("x", since: Position(2)) && writer.isUnchanged("x", since: Position(3)))
    }

    /// Forgotten, a subject must not pass for unchanged.
    @Test func anEvictedSubjectConflictsUntilTheDeciderHasCaughtUp() throws {
        let log = ScratchLog(), writer = DecisionWriter(log, subjectsMax: 8)
        var batch = batch()
        for number in 0..<100 {
            _ = try writer.append(&batch, about: ["s\(number)"], ifUnchangedSince: Position(UInt64(number)))
        }
        for number in 0..<100 {
            let end = Position(UInt64(number))
            #expect(throws: AppendConflict.self) {
                try writer.append(&batch, about: ["s\(number)"], ifUnchangedSince: end)
            }
        }
        _ = try writer.append(&batch, about: ["s0"], ifUnchangedSince: Position(100))
    }
}
