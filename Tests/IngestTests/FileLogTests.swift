import EventLog
import EventModel
import Foundation
import Ingest
import MQTT
import Synchronization
import TestSupport
import Testing

/// The same on the log's own files, closed and opened again in between.
@Suite(.serialized) struct FileLogTests {
    @Test func theSeamIsReadBackFromFiles() async throws {
        // By connection: there is one a round, unless the client had to connect again.
        let acknowledged = Mutex([Int: Int]())
        let peer = try ScriptedBroker { connection in
            guard let level = try connection.accept(sessionPresent: connection.number > 0) else { return }
            for id in UInt16(1)...300 {
                // The second time all come again, and one that never came through.
                let text = connection.number > 0 && id == 150 ? "lost" : "m\(id)"
                try connection.send(
                    ScriptedConnection.publishBytes(
                        device("d\(id % 5)"), Array(text.utf8), id: id + 1_000, duplicate: connection.number > 0,
                        level: level))
            }
            try connection.serve(level: level) { _ in acknowledged.withLock { $0[connection.number, default: 0] += 1 } }
        }
        let folder = try makeTemporaryFolder("log")
        for round in 0..<2 {
            let log = try FileLog.open(directory: folder)
            let service = try IngestService(
                brokers: [BrokerSettings(name: "b", host: "127.0.0.1", port: peer.port, clientID: "c")], log: log,
                history: log, onFatal: { Issue.record("fatal: \($0)") })
            service.start()
            #expect(await eventually { acknowledged.withLock { $0[round] } == 300 })
            #expect(service.statuses[0].duplicatesSuppressed == (round == 0 ? 0 : 299))
            #expect(await service.stop())
            log.close()
        }
        let log = try FileLog.open(directory: folder)
        var texts: [String] = []
        let reader = try log.reader(from: Position(0)), block = EventBlock()
        while try reader.read(into: block, atLeast: 1 << 20) {
            block.forEach { record, _ in
                if record.kind == .message { texts.append(String(decoding: record.payload, as: UTF8.self)) }
            }
        }
        log.close()
        #expect(texts == (1...300).map { "m\($0)" } + ["lost"])
    }
}
