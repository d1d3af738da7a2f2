import Deciding
import EventLog
import EventModel
import Foundation
import Testing
@testable import Campaigns

/// Two deciders over one log, each in a thread of its own.
@Suite struct RacingTests {
    static let commandsPerDecider = 200

    /// The ids of the firmware that two deciders add at once, in the order of the log.
    private func race(_ writers: [DecisionWriter], _ log: FileLog) async throws -> [Int64] {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for (number, writer) in writers.enumerated() {
                let decider = DeciderService<CampaignState>(
                    writer: writer, source: log, clock: { Timestamp(microseconds: 1_800_000_000_000_000) })
                group.addTask {
                    for index in 0..<Self.commandsPerDecider {
                        let answer = try await decider.execute(
                            CommandRequest(
                                tenantID: "t", actor: "op",
                                command: .addFirmware(
                                    FirmwareSpec(version: "\(number).\(index)", fileURL: "https://h/f"))))
                        guard case .accepted = answer else { throw UnreadableDecision("\(answer)") }
                    }
                }
            }
            try await group.waitForAll()
        }
        var ids: [Int64] = []
        let reader = try log.reader(from: Position(0)), block = EventBlock()
        while try reader.read(into: block, atLeast: 1 << 20) {
            try block.forEach { record, position in
                if case .firmwareAdded(let event)? = try CampaignEvent(record, at: position) { ids.append(event.id) }
            }
        }
        return ids
    }

    private func withLog(_ body: (FileLog) async throws -> Void) async throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "race-\(UUID())")
        defer { try? FileManager.default.removeItem(at: folder) }
        let log = try FileLog.open(directory: folder.path)
        defer { log.close() }
        try await body(log)
    }

    @Test func theSecondOfTwoDecisionsAboutOneSubjectIsMadeAgain() async throws {
        try await withLog { log in
            let writer = DecisionWriter(log), ids = try await race([writer, writer], log)
            #expect(ids == (1...Int64(2 * Self.commandsPerDecider)).map { $0 })
        }
    }

    /// The planted bug: two writers know nothing of each other.
    @Test func withoutTheConditionTwoDecisionsCollide() async throws {
        var hasCollided = false
        for _ in 0..<20 where !hasCollided {
            try await withLog { log in
                let ids = try await race([DecisionWriter(log), DecisionWriter(log)], log)
                hasCollided = Set(ids).count < ids.count
            }
        }
        #expect(hasCollided, "the race above cannot fail")
    }
}
