import EventModel
import Foundation
import Synchronization
import TestSupport
import Testing
@testable import Ingest

/// Brokers that send what no broker should. Nothing of it may end the process, be acknowledged before it is recorded,
/// or leave a subscription that looks good and is not.
@Suite struct HostileBrokerTests {
    /// Properties on which libmosquitto 2.0.11 asserts, in a PUBLISH and in a CONNACK.
    @Test(arguments: [false, true])
    func anUnknownPropertyEndsTheConnectionAndNotTheProcess(inConnack: Bool) async throws {
        let topic = Array(device("d").utf8)
        let publish: [UInt8] = [0, UInt8(topic.count)] + topic + [0, 5, 2, 0x7E, 1] + Array("{}".utf8)
        let peer = try ScriptedBroker { connection in
            guard connection.number == 0 else {
                guard let level = try connection.accept() else { return }
                return try connection.serve(level: level)
            }
            guard inConnack else {
                _ = try connection.accept()
                try connection.send([0x32, UInt8(publish.count)] + publish)
                while connection.receive() != nil {}
                return
            }
            _ = connection.receiveConnect()
            try connection.send([0x20, 5, 0, 0, 2, 0x7E, 1])
            while connection.receive() != nil {}
        }
        let rig = try Rig(port: peer.port) { $0.protocolPreference = .v5 }
        try await rig.subscribed()
        #expect(rig.fatal == nil)
        #expect(rig.log.messages.isEmpty)
        await rig.stop()
    }

    /// PUBREC would take the message from the broker before it is on disk.
    @Test func aMessageOfQoS2IsNotAcknowledged() async throws {
        let answers = Mutex<[UInt8]>([])
        let topic = Array(device("d").utf8)
        let peer = try ScriptedBroker { connection in
            guard let level = try connection.accept(sessionPresent: true) else { return }
            var body = [0, UInt8(topic.count)] + topic + [0, 9]
            if level == 5 { body.append(0) }
            try connection.send([0x34, UInt8(body.count + 2)] + body + Array("{}".utf8))
            while let packet = connection.receive() { answers.withLock { $0.append(packet.header & 0xF0) } }
        }
        let rig = try Rig(port: peer.port) { $0.adoptsSession = true }
        #expect(await eventually { rig.status.lastError?.contains("QoS 2") == true })
        #expect(await eventually { rig.status.reconnects >= 2 })
        await rig.stop()
        #expect(!answers.withLock { $0 }.contains(0x50), "no PUBREC")
        #expect(rig.log.messages.isEmpty)
    }

    /// NATS acknowledges such publishes and redelivers them for ever: they must not hold up what comes behind them.
    @Test(arguments: [4, 5] as [UInt8])
    func topicsThatAreNoTextAreRecordedAsBad(level: UInt8) async throws {
        let topics: [[UInt8]] = [
            Array("tenant/a/device/x".utf8) + [0xFF] + Array("/telemetry".utf8), [0xC0, 0x80],
            Array("tenant/a/device/x".utf8) + [0] + Array("/telemetry".utf8), Array("tenant/a/device/x/".utf8) + [0xFE],
            Array("tenant/a/device/\u{1}/telemetry".utf8), Array("tenant/a/device/\u{85}x/telemetry".utf8),
        ]
        let acknowledged = Mutex<[UInt16]>([])
        let peer = try ScriptedBroker { connection in
            guard let level = try connection.accept() else { return }
            for (index, topic) in topics.enumerated() {
                let body = [0, UInt8(topic.count)] + topic + [0, UInt8(index + 1)] + (level == 5 ? [0] : [])
                try connection.send([0x32, UInt8(body.count + 2)] + body + Array("{}".utf8))
            }
            try connection.send(ScriptedConnection.publishBytes(device("d"), Array("{}".utf8), id: 99, level: level))
            try connection.serve(level: level) { id in acknowledged.withLock { $0.append(id) } }
        }
        let rig = try Rig(port: peer.port) { $0.protocolPreference = level == 4 ? .v311 : .v5 }
        #expect(await eventually { acknowledged.withLock { $0 } == [1, 2, 3, 4, 5, 6, 99] })
        #expect(rig.log.messages.map(\.verdict) == Array(repeating: .badTopicFormat, count: 6) + [.accepted])
        #expect(rig.status.reconnects == 0)
        await rig.stop()
    }

    /// One code a filter (MQTT 5.0, 3.9.3).
    @Test(arguments: [0, 2, 200])
    func aSubackWithAnotherNumberOfCodesIsARefusal(count: Int) async throws {
        let peer = try ScriptedBroker { connection in
            guard let level = try connection.accept() else { return }
            while let packet = connection.receive() {
                guard packet.header & 0xF0 == 0x80 else { continue }
                let body = Array(packet.body[0..<2]) + (level == 5 ? [0] : []) + Array(repeating: 1, count: count)
                let length =
                    body.count < 128
                    ? [UInt8(body.count)] : [UInt8(body.count & 127 | 128), UInt8(body.count >> 7)]
                try connection.send([0x90] + length + body)
            }
        }
        let rig = try Rig(port: peer.port)
        #expect(await eventually { rig.status.has(.subscriptionRefused) || rig.status.reconnects > 0 })
        #expect(!rig.status.subscribed)
        await rig.stop()
    }

    /// PINGRESPs without an end leave time for messages, and for a stop.
    @Test func packetsWithoutMessagesDoNotHoldMessagesUp() async throws {
        let isOver = Atomic<Bool>(false)
        let peer = try ScriptedBroker { connection in
            guard let level = try connection.accept() else { return }
            let flood = [UInt8](repeating: 0, count: 32_768).enumerated().map { $0.offset % 2 == 0 ? 0xD0 : UInt8(0) }
            while let packet = connection.receive(), packet.header & 0xF0 != 0x80 {}
            try connection.send(ScriptedConnection.publishBytes(device("d"), Array("{}".utf8), id: 1, level: level))
            while !isOver.load(ordering: .relaxed) { try connection.send(flood) }
        }
        let rig = try Rig(port: peer.port)
        #expect(await eventually { rig.log.messages.count == 1 })
        #expect(await rig.stop())
        isOver.store(true, ordering: .relaxed)
    }
}
