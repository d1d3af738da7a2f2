import EventModel
import FleetSimulator
import Foundation
import Logging
import Synchronization

/// `refold run --demo`: a simulated fleet beside the daemon, and a screen or log lines that show what happens.
struct Demo {
    let daemon: Daemon
    let devices: Int
    let rate: Double
    let startedAt: ContinuousClock.Instant
    let notes: RecentNotes?
    let logger: Logger

    func run(until signals: Signals) async {
        let fleet = Task { await simulate() }
        let shown = Task { await show() }
        await signals.wait()
        shown.cancel()
        fleet.cancel()
        _ = await (shown.value, fleet.value)
    }

    private func simulate() async {
        do {
            let broker = daemon.services.brokers[0]
            var url = try BrokerURL(parsing: "mqtt://\(broker.address)")
            (url.username, url.password) = (broker.username, broker.password)
            var settings = FleetSettings(broker: url)
            settings.shape.devices = devices
            settings.shape.tenants = min(2, devices)
            settings.rate = rate
            settings.extent = .endless
            settings.shape.malformed = 0.002
            // Another run must not repeat the last one's numbers: the log's end is as good a seed as any.
            settings.seed = daemon.log.durableCount &+ 1
            let fleet = try FleetSimulator(settings)
            await withTaskCancellationHandler {
                _ = try? await fleet.run()
            } onCancel: {
                fleet.stop()
            }
        } catch {
            logger.error("the simulated fleet cannot start: \(error)")
        }
    }

    private func show() async {
        if notes == nil { for (label, command) in hints { logger.info("\(label): \(command)") } }
        var screen = LiveScreen()
        var rounds = 0, previous: (received: UInt64, at: ContinuousClock.Instant)?
        if notes != nil { LiveScreen.open() }
        defer { if notes != nil { LiveScreen.close() } }
        while !Task.isCancelled {
            let contents = await contents(), now = ContinuousClock.now
            if notes != nil {
                screen.draw(contents, at: now)
            } else if rounds % 10 == 0 {
                let seconds = previous.map { Double((now - $0.at) / .milliseconds(1)) / 1000 } ?? 0
                let rate = previous.map { Double(contents.received &- $0.received) / max(seconds, 0.001) } ?? 0
                previous = (contents.received, now)
                let lag = contents.projections.map(\.lagEvents).max() ?? 0
                logger.info(
                    "\(contents.state): \(Int(saturating: rate)) messages/s, \(contents.durable) durable, lag \(lag)",
                    metadata: ["position": "\(contents.durable)"])
            }
            rounds += 1
            try? await Task.sleep(for: .seconds(1))
        }
    }

    private var hints: [(String, String)] {
        let program = CommandLine.arguments[0], data = daemon.settings.data
        var hints = [
            ("status", "\(program) status --data \(data)"),
            ("watch", "\(program) log tail --data \(data)"),
            ("API", "http://\(daemon.apiAddress)/api/v1/status"),
        ]
        if let postgres = daemon.services.postgres {
            hints.insert(("tables", postgres.psqlCommand), at: 0)
        }
        if let mosquitto = daemon.services.mosquitto {
            hints.append(("publish", mosquitto.publishCommand + " -t TOPIC -m TEXT"))
        }
        return hints
    }

    private func contents() async -> ScreenContents {
        let status = await daemon.reporter.status(), brokers = daemon.ingest.statuses
        var contents = ScreenContents()
        contents.state = status.state.rawValue
        contents.uptimeSeconds = Int((ContinuousClock.now - startedAt) / .seconds(1))
        contents.received = brokers.reduce(0) { $0 + $1.received }
        contents.acknowledged = brokers.reduce(0) { $0 + $1.acknowledged }
        contents.durable = status.log.durable
        contents.segments = status.log.segments
        contents.logBytes = status.log.bytes
        contents.projections = status.projections.map {
            .init(
                name: $0.name, position: $0.position.map { Int64(clamping: $0) } ?? -1, lagEvents: $0.lagEvents,
                lagSeconds: $0.lagSeconds,
                state: $0.state, lastError: $0.lastError)
        }
        contents.brokers = brokers.map { broker in
            let session = broker.sessionPresent ? ", session resumed" : ", new session"
            let detail = broker.connected ? session : ": \(broker.lastError ?? "connecting")"
            return .init(name: broker.name, address: broker.address, connected: broker.connected, detail: detail)
        }
        contents.databaseConnected = status.database.connected
        contents.databaseError = status.database.lastError
        if status.database.connected, let counts = try? await daemon.queries.use({ try await $0.fleetCounts() }) {
            contents.devices = (counts.online, counts.stale, counts.offline)
            contents.deadLetters = counts.deadLetters
        }
        contents.notes = notes?.lines ?? []
        contents.hints = hints
        return contents
    }
}

/// The last few warnings and errors, for the screen.
final class RecentNotes: Sendable {
    private let kept = Mutex<[String]>([])
    var lines: [String] { kept.withLock { $0 } }

    func add(_ line: String) {
        kept.withLock {
            $0.append(line)
            if $0.count > 4 { $0.removeFirst() }
        }
    }
}
