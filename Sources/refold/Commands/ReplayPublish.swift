import ArgumentParser
import EventLog
import EventModel
import Foundation
import MQTT
import Publishing
import Settings

struct ReplayPublish: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "publish", abstract: "Publish recorded messages again, for those who missed them.",
        discussion: """
            To a broker: at QoS 1, in the order of the log, below a prefix, with the user properties refold-log, \
            refold-position and refold-received-at (MQTT 5). It remembers how far it got: the same command goes on \
            there. --live publishes onto the topics that the messages came on; refold itself recognises them when they \
            come back, by the log, and does not record them twice. Into a file: one JSON object a line, gzip when the \
            name ends with .gz.
            Exit code 0: all is published; 1: stopped, or the log is damaged; 2: wrong usage or refused; 3: the broker \
            does not answer.
            """)
    @OptionGroup var data: DataOption
    @Option(
        parsing: .upToNextOption,
        help: "mqtt://[user[:password]@]host[:port], mqtts:// for TLS; or `ndjson FILE`, `cloudevents FILE`.")
    var to: [String]
    @Option(help: "The first position, or a time (RFC 3339): what was received at or after it.") var from: String?
    @Option(help: "The last position, or a time: what was received before it. Default: the log's end.")
    var until: String?
    @Option(help: "Only messages of this tenant.") var tenant: String?
    @Option(help: "Only messages of this device.") var device: String?
    @Option(help: "Only topics that this MQTT filter matches.") var topic: String?
    @Option(help: "Only messages with this verdict.") var verdict = Verdict.accepted.name
    @Option(help: "10x: ten times the original speed; max: as fast as --rate allows.") var speed = "max"
    @Option(help: "At most so many messages a second; 0: no limit. A broker drops what a slow subscriber leaves.")
    var rate = 1_000.0
    @Option(help: "In front of every topic. Default: replay/") var prefix: String?
    @Flag(help: "Onto the topics that the messages came on, which everybody listens to.") var live = false
    @Option(help: "File that remembers how far it got. Default: in DATA/publish, by what is published where.")
    var state: String?
    @Flag(help: "Publish everything again, whatever an earlier run has published.") var startOver = false
    @Flag(help: "Count what would be published; publish nothing.") var dryRun = false
    @Option(help: "Certificate authorities for mqtts://; the system's by default.") var caFile: String?
    @Option(help: "Client certificate.") var cert: String?
    @Option(help: "Client certificate's key.") var key: String?
    @Option(help: "File with the broker's password.") var passwordFile: String?
    @Option(help: "MQTT version: 5.0, 3.1.1 or auto.") var mqtt = "auto"
    @Option(help: "MQTT client id.") var clientID: String?
    @Flag(help: "Print JSON.") var json = false

    private enum Destination {
        case broker(BrokerAddress)
        case file(FilePublication.Format, String?)
    }

    func validate() throws {
        _ = (try destination(), try factor(), try moments(), try options(), try verdictValue())
        if case .broker = try destination(), from == nil {
            throw ValidationError("--from is missing: say from where on, even if it is 0")
        }
    }

    private func destination() throws -> Destination {
        let usage = "--to takes mqtt://host, `ndjson FILE` or `cloudevents FILE`"
        guard let first = to.first, to.count <= 2 else { throw ValidationError(usage) }
        if let format = FilePublication.Format(rawValue: first) {
            let file = to.count == 2 && to[1] != "-" ? to[1] : nil
            if file == nil, json { throw ValidationError("--json needs a file: standard output holds the events") }
            return .file(format, file)
        }
        guard to.count == 1, first.contains("://") else { throw ValidationError(usage) }
        guard let address = BrokerAddress(url: first) else {
            // It may hold a password: it is not repeated.
            throw ValidationError("--to: the broker must be mqtt://[user[:password]@]host[:port]")
        }
        return .broker(address)
    }

    /// Nil: as fast as it goes.
    private func factor() throws -> Double? {
        if speed == "max" { return nil }
        guard speed.hasSuffix("x"), let factor = Double(speed.dropLast()), (1e-6...1e9).contains(factor) else {
            throw ValidationError("--speed \(speed): must be max, or 0.000001x to 1000000000x, such as 10x")
        }
        return factor
    }

    private func moments() throws -> (from: PointInTime?, until: PointInTime?) {
        (try from.map { try PointInTime($0, flag: "--from") }, try until.map { try PointInTime($0, flag: "--until") })
    }

    private func verdictValue() throws -> Verdict {
        guard let value = Verdict(name: verdict.uppercased()) else {
            throw ValidationError(
                "--verdict \(verdict): must be one of \(Verdict.allCases.map(\.name).joined(separator: ", "))")
        }
        return value
    }

    private func options() throws -> PublishOptions {
        var options = PublishOptions()
        if live, let prefix, !prefix.isEmpty { throw ValidationError("--live is without a prefix: leave one out") }
        options.prefix = prefix ?? (live ? "" : options.prefix)
        options.isLive = live
        options.speed = try factor()
        guard rate >= 0, rate.isFinite else { throw ValidationError("--rate must be 0 or more") }
        options.rate = rate == 0 ? nil : rate
        guard let version = BrokerSettings.ProtocolPreference(rawValue: mqtt) else {
            throw ValidationError("--mqtt \(mqtt): must be 5.0, 3.1.1 or auto")
        }
        options.protocolPreference = version
        options.startsOver = startOver
        options.statePath = state ?? data.folder + "/publish/"
        options.isOpenEnded = until == nil
        return options
    }

    func run() throws {
        let log = try data.openLog()
        try replaying {
            let (from, until) = try moments()
            let durable = Position(log.durableCount)
            let begin = try from?.begin(in: log) ?? log.firstPosition
            let end = max(begin, min(durable, try until?.end(in: log) ?? durable))
            guard begin <= durable else {
                throw PublicationError(.usage, "--from \(begin) lies beyond the log's end (\(durable) events)")
            }
            let order = try PublishOrder(
                range: begin..<end, tenant: tenant, device: device, topic: topic, verdict: try verdictValue())
            if dryRun { return try count(log, order) }
            switch try destination() {
            case .broker(let address): try publish(log, order, to: try settings(address))
            case .file(let format, let path): try write(log, order, format, path)
            }
        }
    }

    private func settings(_ address: BrokerAddress) throws -> BrokerSettings {
        let tls = BrokerSettings.TLS(caFile: caFile, certFile: cert, keyFile: key)
        var settings = BrokerSettings(
            name: "publish", host: address.host, port: address.port,
            clientID: clientID ?? "refold-publish-" + String(UInt32.random(in: 0 ... .max), radix: 36),
            tls: address.tls ? tls : nil)
        settings.username = address.username
        settings.password = address.password
        if let passwordFile {
            guard let text = try? String(contentsOfFile: passwordFile, encoding: .utf8) else {
                throw PublicationError(.usage, "--password-file \(passwordFile) cannot be read")
            }
            settings.password = String(text.prefix { !$0.isNewline })
        }
        do {
            try settings.validate()
        } catch {
            throw PublicationError(.usage, error.description)
        }
        return settings
    }

    // MARK: to a broker

    private func publish(_ log: ReadOnlyLog, _ order: PublishOrder, to broker: BrokerSettings) throws {
        let options = try options()
        let publication = try Publication(log, order, to: broker, options)
        if live {
            printError(
                "publishing onto live topics at \(broker.address): every subscriber receives these messages "
                    + "as if devices sent them now; devices that subscribe to them, too. Refold recognises them by "
                    + "position and payload in log \(log.logID) and does not record them twice; other nodes' logs do")
        }
        if let at = publication.resumesAt, at < order.range.upperBound, !startOver {
            printError("an earlier run got to position \(at): going on there (--start-over publishes all again)")
        }
        let bar = json ? nil : ProgressBar("publishing")
        defer { bar?.clear() }
        let interrupt = InterruptFlag()
        defer { interrupt.end() }
        let total = order.range.upperBound.rawValue - order.range.lowerBound.rawValue
        let result = try publication.run(isStopping: { interrupt.isSet }, note: { printError($0) }) { now in
            bar?.show(now.next - min(now.next, order.range.lowerBound.rawValue), of: total, unit: "events")
        }
        bar?.clear()
        report(result, publication)
        if !result.isFinished { throw ExitCode(1) }
    }

    private func report(_ result: PublishResult, _ publication: Publication) {
        var object = Self.json(result.counts)
        object["published"] = result.published
        object["bytes"] = result.bytes
        object["unheard"] = result.withoutSubscribers
        object["sent_again"] = result.sentAgain
        object["next"] = result.next
        object["finished"] = result.isFinished
        object["was_done"] = result.wasDone
        object["seconds"] = (result.seconds * 1000).rounded() / 1000
        object["mqtt"] = result.protocolVersion
        object["state_file"] = publication.statePath
        guard !json else { return print(jsonLine(object)) }
        if result.wasDone {
            print("published before, up to position \(result.next); --start-over publishes it again")
            return
        }
        let rate = result.seconds > 0 ? Int(Double(result.published) / result.seconds) : 0
        print(
            "\(result.isFinished ? "published" : "stopped: published") \(result.published) messages, "
                + "\(byteCountText(result.bytes)) of payload, in \(String(format: "%.1f", result.seconds)) s "
                + "(\(rate) a second); the next position is \(result.next)")
        if result.withoutSubscribers > 0 { print("\(result.withoutSubscribers) of them had no subscriber") }
        if result.sentAgain > 0 { print("\(result.sentAgain) were sent again after a lost connection") }
        Self.printSkipped(result.counts)
    }

    // MARK: into a file

    private func write(
        _ log: ReadOnlyLog, _ order: PublishOrder, _ format: FilePublication.Format, _ path: String?
    ) throws {
        signal(SIGPIPE, SIG_IGN)
        let bar = path == nil || json ? nil : ProgressBar("writing")
        defer { bar?.clear() }
        let interrupt = InterruptFlag()
        defer { interrupt.end() }
        let total = order.range.upperBound.rawValue - order.range.lowerBound.rawValue
        let result = try FilePublication.run(log, order, format, path: path, isStopping: { interrupt.isSet }) {
            bar?.show($0, of: total, unit: "events")
        }
        bar?.clear()
        guard let path else { return }
        if json {
            var object = Self.json(result.counts)
            object["file"] = path
            object["file_bytes"] = result.fileBytes
            object["finished"] = true
            print(jsonLine(object))
        } else {
            print("wrote \(result.counts.messages) messages into \(path), \(byteCountText(result.fileBytes))")
            Self.printSkipped(result.counts)
        }
    }

    // MARK: counting

    private func count(_ log: ReadOnlyLog, _ order: PublishOrder) throws {
        let bar = json ? nil : ProgressBar("counting")
        let total = order.range.upperBound.rawValue - order.range.lowerBound.rawValue
        let (counts, devices) = try order.count(in: log) { bar?.show($0, of: total, unit: "events") }
        bar?.clear()
        let options = try options()
        var seconds = options.rate.map { Double(counts.messages) / $0 } ?? 0
        if let speed = options.speed, let first = counts.firstTime, let last = counts.lastTime {
            seconds = max(seconds, Double(last.microseconds - first.microseconds) / 1_000_000 / speed)
        }
        var object = Self.json(counts)
        object["devices"] = devices
        object["bytes"] = counts.bytes
        object["seconds_at_least"] = (seconds * 10).rounded() / 10
        object["from"] = order.range.lowerBound.rawValue
        object["end"] = order.range.upperBound.rawValue
        guard !json else { return print(jsonLine(object)) }
        print(
            "would publish \(counts.messages) messages of \(devices) devices, \(byteCountText(counts.bytes)) of "
                + "payload" + (counts.firstTime.map { ", received \($0) to \(counts.lastTime ?? $0)" } ?? ""))
        if seconds >= 1 { print("it would take at least \(Int(saturating: seconds.rounded(.up))) s") }
        Self.printSkipped(counts)
    }

    private static func json(_ counts: PublishCounts) -> [String: Any] {
        var object: [String: Any] = [
            "messages": counts.messages, "skipped_retained": counts.retained, "skipped_cut": counts.cut,
            "skipped_other_verdict": counts.otherVerdict, "skipped_not_kept": counts.notKept,
        ]
        object["first_position"] = counts.firstPosition
        object["last_position"] = counts.lastPosition
        object["first_time"] = counts.firstTime?.description
        object["last_time"] = counts.lastTime?.description
        return object
    }

    private static func printSkipped(_ counts: PublishCounts) {
        let skipped: [(UInt64, String)] = [
            (counts.retained, "were replayed by the broker as retained messages"),
            (counts.cut, "are cut: only their first bytes were kept"),
            (counts.otherVerdict, "have another verdict"),
            (counts.notKept, "were beyond a rate limit: their payloads are not kept"),
        ]
        for (count, why) in skipped where count > 0 { print("left out: \(count) \(why)") }
    }
}

/// Whether Ctrl-C or SIGTERM came. The second one ends the process as ever.
final class InterruptFlag: Sendable {
    /// Only ever written by the signal handler, which may do nothing else (signal-safety(7)).
    nonisolated(unsafe) private static let count = UnsafeMutablePointer<sig_atomic_t>.allocate(capacity: 1)

    init() {
        Self.count.initialize(to: 0)
        for number in [SIGINT, SIGTERM] {
            signal(number) { number in
                InterruptFlag.count.pointee = 1
                signal(number, SIG_DFL)
            }
        }
    }

    var isSet: Bool { Self.count.pointee != 0 }

    func end() { for number in [SIGINT, SIGTERM] { signal(number, SIG_DFL) } }
}
