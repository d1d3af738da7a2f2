import ArgumentParser
import EventModel
import Foundation
import Ingest
import Primitives

/// The gate alone, on one core: nanoseconds a message with and without a look-up of certificates, and what these need.
struct GateBench: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "gate", abstract: "Judge messages from memory.")
    @Option(help: "Devices with a certificate, which send in random order.") var devices = 10_000
    @Option(help: "Batches of 4,096 messages in a run.") var batches = 250
    @Option(help: "Runs of each, alternating; the median is printed.") var rounds = 9

    func run() throws {
        let before = residentBytes()
        let check = CertificateCheck(refuses: true)
        let clock = ContinuousClock(), begin = clock.now
        check.load(Self.certificates(devices))
        let milliseconds = begin.duration(to: clock.now) / .milliseconds(1)
        let bytes = residentBytes() - before
        let plain = Gate(Self.settings), checking = Gate(Self.settings, certificates: check)
        let messages = filled()
        var times: [[Double]] = [[], []]
        for round in 0...rounds {
            for (index, gate) in [plain, checking].enumerated() {
                let nanoseconds = judge(messages, by: gate)
                // The first run fills the gates' own tables.
                if round > 0 { times[index].append(nanoseconds) }
            }
        }
        let medians = times.map { $0.sorted()[$0.count / 2] }
        print(
            """
            {"plain_ns": \(medians[0]), "certificates_ns": \(medians[1]), "cost_ns": \(medians[1] - medians[0]), \
            "bytes_a_device": \(Double(bytes) / Double(devices)), "load_ms": \(milliseconds)}
            """)
    }

    private static var settings: GateSettings {
        var settings = GateSettings()
        settings.messagesPerSecond = 1_000_000
        settings.burst = 10_000_000
        settings.devicesTrackedMax = 4_000_000
        return settings
    }

    /// Of the devices that `bench/limits/flood.c` publishes for.
    static func certificates(_ count: Int) -> LiveCertificates {
        var live = LiveCertificates()
        for device in 0..<count {
            live.set(tenantID: "t\(device % 2)", deviceID: name(device), [0...Int64(UInt32.max)])
        }
        return live
    }

    private static func name(_ device: Int) -> String {
        let digits = String(device)
        return "dev-" + String(repeating: "0", count: max(0, 6 - digits.count)) + digits
    }

    private func filled() -> [RecordBatch] {
        var random = SeededRandom(seed: 2)
        return (0..<64).map { _ in
            var batch = RecordBatch()
            for _ in 0..<4_096 {
                let device = random.below(devices)
                Array("tenant/t\(device % 2)/device/\(Self.name(device))/telemetry".utf8).withUnsafeBytes { topic in
                    let none = UnsafeRawBufferPointer(start: nil, count: 0)
                    batch.append(
                        kind: .message, verdict: .accepted, flags: RecordFlags(qos: 1),
                        receivedAt: Timestamp(microseconds: 1_800_000_000_000_000), packetID: 1, broker: none,
                        topic: topic, properties: none, payload: topic)
                }
            }
            return batch
        }
    }

    private func judge(_ messages: [RecordBatch], by gate: Gate) -> Double {
        var outgoing = RecordBatch(), filter: RedeliveryFilter?, accepted: UInt64 = 0
        let clock = ContinuousClock(), begin = clock.now
        for index in 0..<batches {
            let tally = gate.examine(
                messages[index % messages.count], filter: &filter, steadyMicros: Int64(index), into: &outgoing)
            gate.endJudging()
            accepted += tally.verdicts[Int(Verdict.accepted.rawValue)]
        }
        let seconds = begin.duration(to: clock.now) / .seconds(1)
        precondition(accepted == UInt64(batches * 4_096), "the gate refused messages")
        return seconds * 1e9 / Double(accepted)
    }
}

/// proc(5): the second field of statm, in pages.
private func residentBytes() -> Int {
    let text = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8)) ?? ""
    let fields = text.split(separator: " ")
    return (fields.count > 1 ? Int(fields[1]) ?? 0 : 0) * Int(sysconf(Int32(_SC_PAGESIZE)))
}
