import ArgumentParser
import EventModel
import FleetSimulator
import Foundation
import Synchronization

struct Simulate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "simulate",
        abstract: "Devices that behave like devices, over real MQTT at QoS 1.",
        discussion: """
            Each device has a connection of its own with its last will, announces itself, sends telemetry and answers \
            OTA commands. The same seed gives the same topics and payloads, apart from the payloads' time.
            Exit code 0 done, 2 wrong usage, 3 the broker is unreachable or stopped acknowledging.
            """)

    @Option(
        name: .customLong("broker-url"),
        help: "mqtt://[user[:password]@]host[:port], mqtts:// for TLS. Default: REFOLD_BROKER_URL.")
    var brokerURL: String?
    @Option(help: "Number of devices.") var devices = 200
    @Option(help: "Number of tenants that the devices belong to.") var tenants = 2
    @Option(help: "Messages a second over all devices; 0: as fast as the broker acknowledges.") var rate = 100.0
    @Option(help: "Messages to publish; births, farewells and OTA reports come on top.") var count: Int?
    @Option(help: "Seconds to run, instead of --count. Without either: until Ctrl-C.") var duration: Double?
    @Option(help: "Seed of everything that is drawn.") var seed: UInt64 = 1
    @Option(help: "File that gets one JSON line a publish: topic, sha256, acknowledged.") var ledger: String?
    @Option(help: "Weights by kind: telemetry, heartbeat, shadow, ack, ota, other.")
    var mix = "telemetry=84,heartbeat=10,shadow=3,ack=2,other=1"
    @Option(help: "Share of messages that are sent twice.") var duplicates = 0.0
    @Option(help: "Share of messages with a time of up to an hour ago.") var late = 0.0
    @Option(help: "Share of messages that change places with the device's next.") var outOfOrder = 0.0
    @Option(help: "Share of messages that are malformed, in all the ways there are.") var malformed = 0.0
    @Option(help: "Share of messages after which the device leaves for up to two seconds.") var churn = 0.0
    @Option(help: "Share of the leaving devices that go without a word.") var ungraceful = 0.5
    @OptionGroup(title: "Updates") var ota: OTAOptions
    @Option(help: "Share this many connections, without births, wills and commands: for rate benches only.")
    var connections: Int?
    @Option(help: "Publishes that a connection may have unacknowledged; 16, or 256 when shared.") var window: Int?
    @Option(help: "First payload time (RFC 3339); the others follow from it and the rate.") var startTime: String?
    @Option(help: "MQTT client ids are PREFIX-<tenant>-<device>.") var clientPrefix = "sim"
    @Option(help: "Certificate authorities for mqtts://; the system's by default.") var caFile: String?
    @Option(help: "Client certificate.") var cert: String?
    @Option(help: "Client certificate's key.") var key: String?
    @Option(
        help: """
            Folder with DEVICE.pem and DEVICE.key of each device, as `refold cert issue --out` writes them. Devices \
            connect with them and renew them over MQTT.
            """)
    var identities: String?
    @Flag(help: "The summary as one JSON object.") var json = false

    func run() async throws {
        let simulator = try makeSimulator()
        let interrupt = InterruptSignals { simulator.stop() }
        let progress = Task { if !json, isatty(STDERR_FILENO) == 1 { await showProgress(of: simulator) } }
        defer {
            progress.cancel()
            interrupt.end()
        }
        do {
            let statistics = try await simulator.run()
            progress.cancel()
            print(json ? Self.jsonSummary(statistics) : Self.summary(statistics))
            guard statistics.unacknowledged == 0 || interrupt.hasFired else {
                printError("\(statistics.unacknowledged) publishes stayed unacknowledged: is the broker still there?")
                throw ExitCode(3)
            }
        } catch let error as FleetError {
            throw exit(with: error)
        }
    }

    private func makeSimulator() throws -> FleetSimulator {
        do {
            return try FleetSimulator(settings())
        } catch {
            throw exit(with: error)
        }
    }

    func settings() throws(FleetError) -> FleetSettings {
        let environment = ProcessInfo.processInfo.environment
        guard let url = brokerURL ?? environment["REFOLD_BROKER_URL"] ?? environment["MQTT_BROKER_URL"] else {
            throw .invalid("--broker-url is missing, and REFOLD_BROKER_URL is not set")
        }
        var settings = FleetSettings(broker: try BrokerURL(parsing: url))
        settings.shape.devices = devices
        settings.shape.tenants = min(tenants, max(devices, 1))
        settings.shape.mix = try MessageMix(parsing: mix)
        settings.shape.duplicates = duplicates
        settings.shape.late = late
        settings.shape.outOfOrder = outOfOrder
        settings.shape.malformed = malformed
        settings.shape.churn = churn
        settings.shape.ungraceful = ungraceful
        settings.shape.ota = try ota.behaviour()
        settings.otaLedgerPath = ota.otaLedger
        settings.seed = seed
        settings.rate = rate
        guard count == nil || duration == nil else { throw .invalid("--count and --duration exclude each other") }
        settings.extent = count.map { .messages($0) } ?? duration.map { .seconds($0) } ?? .endless
        settings.connections = connections
        settings.window = window
        settings.ledgerPath = ledger
        settings.clientPrefix = clientPrefix
        settings.caFile = caFile
        settings.certificateFile = cert
        settings.keyFile = key
        settings.identityFolder = identities
        if let startTime {
            guard let time = Timestamp(rfc3339: startTime) else {
                throw .invalid("--start-time: \"\(startTime)\" is not RFC 3339, e.g. 2026-01-31T12:00:00Z")
            }
            settings.startTime = time
        }
        return settings
    }

    private func exit(with error: FleetError) -> ExitCode {
        printError(error.description)
        if case .unreachable = error { return ExitCode(3) }
        return ExitCode(2)
    }

    private func showProgress(of simulator: FleetSimulator) async {
        while !Task.isCancelled {
            try? await Task.sleep(for: .milliseconds(500))
            let now = simulator.statistics
            let line = "\r\(now.published) published, \(now.acknowledged) acknowledged, \(now.connected) connected   "
            printToStandardError(line)
        }
        printToStandardError("\r\u{1B}[K")
    }

    static func summary(_ statistics: FleetStatistics) -> String {
        """
        published     \(statistics.published) (\(statistics.generated) drawn, \(statistics.onTheSide) on the side)
        acknowledged  \(statistics.acknowledged), \(statistics.unacknowledged) not
        rate          \(Int(statistics.acknowledgedPerSecond)) acknowledged a second over \(fixed(statistics.seconds)) s
        latency       p50 \(millis(statistics.ackMicrosP50)) ms, p99 \(millis(statistics.ackMicrosP99)) ms to the PUBACK
        malformed     \(statistics.malformed)
        duplicates    \(statistics.duplicates)
        connections   \(statistics.connectionsMade) made, \(statistics.connectionsLost) lost, \
        \(statistics.ungracefulLeaves) left without a word
        commands      \(statistics.commands), \(statistics.repeatedCommands) of them again
        certificates  \(statistics.certificatesInstalled) renewed
        """
    }

    static func jsonSummary(_ statistics: FleetStatistics) -> String {
        let fields: [(String, String)] = [
            ("published", "\(statistics.published)"), ("acknowledged", "\(statistics.acknowledged)"),
            ("unacknowledged", "\(statistics.unacknowledged)"), ("generated", "\(statistics.generated)"),
            ("on_the_side", "\(statistics.onTheSide)"), ("malformed", "\(statistics.malformed)"),
            ("duplicates", "\(statistics.duplicates)"), ("seconds", fixed(statistics.seconds)),
            ("acknowledged_per_second", fixed(statistics.acknowledgedPerSecond)),
            ("ack_p50_ms", millis(statistics.ackMicrosP50)), ("ack_p99_ms", millis(statistics.ackMicrosP99)),
            ("connections_made", "\(statistics.connectionsMade)"),
            ("connections_lost", "\(statistics.connectionsLost)"),
            ("ungraceful_leaves", "\(statistics.ungracefulLeaves)"), ("commands", "\(statistics.commands)"),
            ("repeated_commands", "\(statistics.repeatedCommands)"),
            ("certificates_installed", "\(statistics.certificatesInstalled)"),
        ]
        return "{" + fields.map { "\"\($0.0)\": \($0.1)" }.joined(separator: ", ") + "}"
    }

    private static func fixed(_ value: Double) -> String { String(format: "%.2f", value) }
    private static func millis(_ micros: Int64) -> String { String(format: "%.3f", Double(micros) / 1000) }
}

/// What devices make of update commands.
struct OTAOptions: ParsableArguments {
    @Option(help: "Share of updates that fail.") var otaFailures = 0.05
    @Option(help: "Share of updates of which the device says nothing.") var otaSilent = 0.0
    @Option(help: "Share of updates that the device refuses (commands/ack).") var otaRefusing = 0.0
    @Option(help: "Share of updates that stop after DOWNLOADING.") var otaStalling = 0.0
    @Option(help: "Share of updates whose version never shows in the shadow.") var otaUnverified = 0.0
    @Option(help: "Share of updates that are rolled back after the version has shown.") var otaRollbacks = 0.0
    @Option(help: "VERSION or VERSION=SHARE: updates to it fail, all or a share. Any number of times.")
    var otaBadBuild: [String] = []
    @Option(help: "Share of devices that leave the command_id out of their reports.") var otaAnonymous = 0.0
    @Option(help: "Seconds between the reports of an update.") var otaStep = 1.0
    @Option(help: "Seconds that a device is away after SUCCESS, before its new version shows.") var otaRestart = 0.0
    @Option(help: "Share of devices that are away.") var offline = 0.0
    @Option(help: "Seconds until those come; without it they never do.") var offlineSeconds: Double?
    @Option(help: "File that gets one JSON line a command and a report: the devices' side of campaigns.")
    var otaLedger: String?

    func behaviour() throws(FleetError) -> OTABehaviour {
        var behaviour = OTABehaviour()
        behaviour.failures = otaFailures
        behaviour.silent = otaSilent
        behaviour.refusing = otaRefusing
        behaviour.stalling = otaStalling
        behaviour.unverified = otaUnverified
        behaviour.rollbacks = otaRollbacks
        behaviour.anonymous = otaAnonymous
        behaviour.offline = offline
        behaviour.offlineSeconds = offlineSeconds
        behaviour.restartSeconds = otaRestart
        behaviour.stepSeconds = otaStep
        for text in otaBadBuild {
            let parts = text.split(separator: "=", maxSplits: 1).map(String.init)
            guard let version = parts.first, let share = parts.count == 2 ? Double(parts[1]) : 1 else {
                throw .invalid("--ota-bad-build: \"\(text)\" is not VERSION or VERSION=SHARE")
            }
            behaviour.badBuilds[version] = share
        }
        return behaviour
    }
}

/// SIGINT and SIGTERM as a call, the first time; the second time they end the process as ever.
private final class InterruptSignals {
    private var sources: [any DispatchSourceSignal] = []
    private let fired = Mutex(false)

    var hasFired: Bool { fired.withLock { $0 } }

    init(_ action: @escaping @Sendable () -> Void) {
        for number in [SIGINT, SIGTERM] {
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler {
                self.fired.withLock { $0 = true }
                signal(number, SIG_DFL)
                action()
            }
            source.resume()
            sources.append(source)
        }
    }

    func end() { for source in sources { source.cancel() } }
}
