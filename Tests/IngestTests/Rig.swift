import EventModel
import Foundation
import Ingest
import MQTT
import Synchronization
import TestSupport

/// An `IngestService` of one broker, with short waits, and what it said last before giving up.
final class Rig: Sendable {
    let service: IngestService
    let log: MemoryLog
    private let fatalText: FatalText
    var fatal: String? { fatalText.text.withLock { $0 } }

    init(
        port: Int, log: MemoryLog = MemoryLog(), gate: GateSettings = GateSettings(),
        certificates: CertificateCheck? = nil, logID: String? = nil, _ adjust: (inout BrokerSettings) -> Void = { _ in }
    ) throws {
        var settings = BrokerSettings(name: "b1", host: "127.0.0.1", port: port, clientID: "refold-test")
        settings.backoff.millisecondsMin = 5
        settings.backoff.millisecondsMax = 50
        adjust(&settings)
        self.log = log
        let fatalText = FatalText()
        self.fatalText = fatalText
        service = try IngestService(
            brokers: [settings], gate: gate, certificates: certificates, log: log, history: log, logID: logID,
            onFatal: { text in fatalText.text.withLock { $0 = text } })
        service.start()
    }

    private final class FatalText: Sendable { let text = Mutex<String?>(nil) }

    var status: BrokerStatus { service.statuses[0] }

    /// Waits until the broker has granted the subscription.
    func subscribed() async throws {
        guard await eventually({ status.subscribed }) else { throw SystemError("not subscribed: \(status)") }
    }

    @discardableResult
    func stop() async -> Bool { await service.stop(timeoutSeconds: 5) }
}

func device(_ name: String, _ rest: String = "telemetry") -> String { "tenant/acme/device/\(name)/\(rest)" }
