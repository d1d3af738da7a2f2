import EventModel
import Foundation
import Ingest
import MQTT
import Synchronization
import TestSupport
import Testing

/// Acknowledged means durable, and nothing is lost or doubled at the seam of two connections.
@Suite(.serialized) struct DeliveryTests {
    @Test func messagesBecomeDurableAndAreAcknowledged() async throws {
        let broker = try MosquittoServer()
        let rig = try Rig(port: broker.port)
        try await rig.subscribed()
        let publisher = try TestPublisher(port: broker.port)
        for index in 0..<200 { try publisher.publish(device("d\(index % 7)"), "m\(index)") }
        try await publisher.flush()
        #expect(await eventually { rig.status.acknowledged == 200 })
        #expect(rig.log.payloads == (0..<200).map { "m\($0)" })
        let first = try #require(rig.log.messages.first)
        #expect(first.broker == "b1")
        #expect(first.topic == device("d0"))
        #expect(first.flags == RecordFlags(qos: 1))
        #expect(first.verdict == .accepted)
        let status = rig.status
        #expect(status.received == 200)
        #expect(status.verdicts[0] == 200)
        #expect(rig.service.deviceStatistics(tenant: "acme", device: "d3")?.accepted == 29)
        #expect(rig.service.deviceStatistics(tenant: "acme", device: "unheard-of") == nil)
        #expect(await rig.stop())
        #expect(rig.log.events(.connected).first?.protocolVersion == "5.0")
        #expect(rig.log.events(.disconnected).map(\.reason) == ["stopped"])
    }

    /// The stock library queues the acknowledgement before its callback: only our order of calls holds it back.
    @Test(arguments: [BrokerSettings.ProtocolPreference.v5, .v311])
    func nothingIsAcknowledgedBeforeItIsDurable(version: BrokerSettings.ProtocolPreference) async throws {
        let broker = try MosquittoServer(persistent: true)
        let log = MemoryLog()
        let first = try Rig(port: broker.port, log: log) { $0.protocolPreference = version }
        try await first.subscribed()
        log.mode = .blocked
        let publisher = try TestPublisher(port: broker.port)
        for index in 0..<50 { try publisher.publish(device("d"), "m\(index)") }
        try await publisher.flush()
        #expect(await eventually { log.waiting == 1 })
        // The disk fails under the batch: the process would end here.
        log.mode = .failed
        #expect(await eventually { first.fatal != nil })
        #expect(first.status.acknowledged == 0)
        #expect(log.payloads.isEmpty)

        let healed = MemoryLog()
        let second = try Rig(port: broker.port, log: healed) {
            $0.protocolPreference = version
            $0.adoptsSession = true
        }
        #expect(await eventually { second.status.acknowledged == 50 })
        #expect(healed.payloads == (0..<50).map { "m\($0)" })
        #expect(healed.messages.contains { $0.flags.contains(.duplicate) })
        await second.stop()
    }

    /// Seen from the other side of the wire: not one byte comes back while `append` has not returned.
    @Test(arguments: [false, true])
    func thePeerSeesNoAcknowledgementWhileAppendBlocks(tls: Bool) async throws {
        let log = MemoryLog()
        let early = Mutex<Bool?>(nil), late = Mutex<[UInt16]>([])
        let certificates = tls ? try TestCertificates(folder: makeTemporaryFolder("tls")) : nil
        let peer = try ScriptedBroker(certificates: certificates) { connection in
            guard let level = try connection.accept() else { return }
            // SUBSCRIBEs first, so that nothing else of the client's is on its way.
            var answered = 0
            while answered < 3, let packet = connection.receive() {
                try connection.send([0x90, 4, packet.body[0], packet.body[1], 0, 1])
                answered += 1
            }
            while log.commitCount < 3 { usleep(1_000) }
            log.mode = .blocked
            try connection.send(
                (1...20).flatMap {
                    ScriptedConnection.publishBytes(device("d"), Array("m\($0)".utf8), id: $0, level: level)
                })
            while log.waiting == 0 { usleep(1_000) }
            early.withLock { $0 = connection.hasInput(withinMilliseconds: 300) }
            log.mode = .working
            try connection.serve(level: level) { id in late.withLock { $0.append(id) } }
        }
        let rig = try Rig(port: peer.port, log: log) {
            if let certificates { $0.tls = .init(caFile: certificates.ca) }
        }
        #expect(await eventually { late.withLock { $0.count } == 20 })
        #expect(early.withLock { $0 } == false)
        #expect(late.withLock { $0 } == Array(1...20))
        await rig.stop()
    }

    /// Packets wait decrypted inside OpenSSL while `poll` says that the socket is empty. The library goes on by itself
    /// until its wake-up socketpair is full (after some hundred acknowledgements): from then on every call stops after
    /// one packet, and a packet that is no PUBLISH ends the run.
    @Test func manyPublishesInOneTLSRecordAreReadAtOnce() async throws {
        let certificates = try TestCertificates(folder: makeTemporaryFolder("tls"))
        let slowest = Mutex(Duration.zero), acknowledged = Mutex(0)
        let peer = try ScriptedBroker(certificates: certificates) { connection in
            guard let level = try connection.accept() else { return }
            for round in 0..<20 {
                var record: [UInt8] = []
                for id in UInt16(1)...120 {
                    record += ScriptedConnection.publishBytes(device("d"), Array("m\(id)".utf8), id: id, level: level)
                    if id % 10 == 0 { record += [0xD0, 0] }
                }
                precondition(record.count < 16_000, "one TLS record holds 16 KiB")
                let begun = ContinuousClock.now
                try connection.send(record)
                // Nothing more is sent before all is acknowledged: only what OpenSSL holds can bring the loop on.
                while acknowledged.withLock({ $0 }) < (round + 1) * 120, let packet = connection.receive() {
                    if packet.header == 0x40 { acknowledged.withLock { $0 += 1 } }
                }
                slowest.withLock { $0 = max($0, ContinuousClock.now - begun) }
            }
            while connection.receive() != nil {}
        }
        let rig = try Rig(port: peer.port) {
            $0.tls = .init(caFile: certificates.ca)
            $0.batchMessagesMax = 50
        }
        #expect(await eventually { rig.status.acknowledged == 2_400 })
        #expect(slowest.withLock { $0 } < .milliseconds(450), "the loop waited although packets were there")
        #expect(rig.log.messages.count == 2_400)
        await rig.stop()
    }

    /// One resumed session in which every case of the rule comes.
    @Test(arguments: [false, true])
    func theSeamDropsWhatIsInTheLogAndNothingElse(restarted: Bool) async throws {
        let acknowledged = Mutex<[[UInt16]]>([])
        let peer = try ScriptedBroker { connection in
            guard let level = try connection.accept(sessionPresent: connection.number > 0) else { return }
            acknowledged.withLock { $0.append([]) }
            func send(_ text: String, _ id: UInt16, _ duplicate: Bool) throws {
                try connection.send(
                    ScriptedConnection.publishBytes(
                        device("d"), Array(text.utf8), id: id, duplicate: duplicate, level: level))
            }
            if connection.number == 0 {
                for id in UInt16(1)...5 { try send("m\(id)", id, false) }
            } else {
                try send("m4", 4, true)  // in the log: dropped
                try send("lost", 9, true)  // never came through: kept
                try send("m5", 5, true)  // in the log, and the one before did not end the window: dropped
                try send("other", 3, true)  // same packet id, other payload: kept
                try send("m2", 2, false)  // without DUP: kept
                try send("m1", 7, true)  // same payload, other packet id: kept
            }
            let wanted = connection.number == 0 ? 5 : 6
            try connection.serve(level: level) { id in
                let count = acknowledged.withLock {
                    $0[$0.count - 1].append(id); return $0[$0.count - 1].count
                }
                if count == wanted, connection.number == 0, !restarted { throw SystemError("hang up") }
            }
        }
        let log = MemoryLog()
        var rig = try Rig(port: peer.port, log: log)
        if restarted {
            #expect(await eventually { rig.status.acknowledged == 5 })
            await rig.stop()
            rig = try Rig(port: peer.port, log: log)
        }
        #expect(await eventually { acknowledged.withLock { $0.count > 1 && $0[1].count == 6 } })
        #expect(log.payloads == ["m1", "m2", "m3", "m4", "m5", "lost", "other", "m2", "m1"])
        #expect(acknowledged.withLock { $0[1] } == [4, 9, 5, 3, 2, 7])
        #expect(rig.status.duplicatesSuppressed == 2)
        await rig.stop()
    }

    /// Packet ids of an earlier session mean nothing: the same id, topic and payload is another message there.
    @Test func aNewSessionEndsTheWindow() async throws {
        let peer = try ScriptedBroker { connection in
            guard let level = try connection.accept(sessionPresent: connection.number == 2) else { return }
            if connection.number != 1 {
                try connection.send(
                    ScriptedConnection.publishBytes(
                        device("d"), Array("same".utf8), id: 1, duplicate: connection.number == 2, level: level))
            }
            try connection.serve(level: level) { _ in if connection.number == 0 { throw SystemError("hang up") } }
        }
        let log = MemoryLog()
        let rig = try Rig(port: peer.port, log: log)
        #expect(await eventually { log.events(.sessionLost).count == 1 })
        #expect(rig.status.has(.sessionLost))
        await rig.stop()
        let next = try Rig(port: peer.port, log: log)
        #expect(await eventually { next.status.acknowledged == 1 })
        #expect(log.payloads == ["same", "same"])
        await next.stop()
    }

    @Test func aRateLimitedRedeliveryIsRecognised() async throws {
        let peer = try ScriptedBroker { connection in
            guard let level = try connection.accept(sessionPresent: connection.number > 0) else { return }
            for id in UInt16(1)...3 {
                try connection.send(
                    ScriptedConnection.publishBytes(
                        device("d"), Array("m\(id)".utf8), id: id + 10, duplicate: connection.number > 0, level: level))
            }
            var count = 0
            try connection.serve(level: level) { _ in
                count += 1
                if count == 3, connection.number == 0 { throw SystemError("hang up") }
            }
        }
        var gate = GateSettings()
        gate.messagesPerSecond = 0.001
        gate.burst = 1
        let rig = try Rig(port: peer.port, gate: gate)
        #expect(await eventually { rig.status.duplicatesSuppressed == 3 })
        #expect(rig.log.payloads == ["m1"])
        #expect(rig.status.verdicts[Int(Verdict.rateLimited.rawValue)] == 2)
        await rig.stop()
    }

    @Test func aFullDiskHoldsAndResumesByItself() async throws {
        let broker = try MosquittoServer(persistent: true)
        let log = MemoryLog()
        let rig = try Rig(port: broker.port, log: log)
        try await rig.subscribed()
        let publisher = try TestPublisher(port: broker.port)
        log.mode = .full
        for index in 0..<30 { try publisher.publish(device("d"), "m\(index)") }
        try await publisher.flush()
        #expect(await eventually { rig.status.state == .held })
        #expect(!rig.status.connected)
        #expect(rig.status.lastError == "no space left in the test's log")
        #expect(rig.status.has(.diskFull))
        #expect(rig.status.acknowledged == 0)
        log.mode = .working
        #expect(await eventually { rig.status.acknowledged >= 30 })
        #expect(log.payloads == (0..<30).map { "m\($0)" })
        #expect(log.events(.disconnected).first?.reason == "held")
        #expect(rig.status.alarms.isEmpty)
        await rig.stop()
    }

    @Test func anOrderlyStopAcknowledgesWhatIsInHand() async throws {
        let broker = try MosquittoServer(persistent: true)
        let log = MemoryLog()
        let rig = try Rig(port: broker.port, log: log)
        try await rig.subscribed()
        log.mode = .blocked
        let publisher = try TestPublisher(port: broker.port)
        for index in 0..<20 { try publisher.publish(device("d"), "m\(index)") }
        try await publisher.flush()
        #expect(await eventually { log.waiting == 1 })
        async let stopped = rig.stop()
        try await Task.sleep(for: .milliseconds(20))
        log.mode = .working
        #expect(await stopped)
        let inHand = log.payloads.count
        #expect(rig.status.acknowledged == UInt64(inHand))
        #expect(rig.status.state == .stopped)
        let next = try Rig(port: broker.port, log: log)
        #expect(await eventually { log.payloads.count == 20 })
        #expect(log.payloads == (0..<20).map { "m\($0)" })
        #expect(next.status.duplicatesSuppressed == 0, "what was durable had been acknowledged")
        await next.stop()
    }

    @Test func aBurstComesThroughInOrder() async throws {
        let broker = try MosquittoServer()
        let rig = try Rig(port: broker.port)
        try await rig.subscribed()
        let publisher = try TestPublisher(port: broker.port)
        for index in 0..<5_000 { try publisher.publish(device("d\(index % 50)"), "m\(index)") }
        try await publisher.flush()
        #expect(await eventually { rig.status.acknowledged == 5_000 })
        #expect(rig.log.payloads == (0..<5_000).map { "m\($0)" })
        await rig.stop()
    }
}
