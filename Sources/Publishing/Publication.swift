import CMosquitto
import EventLog
import EventModel
import FoundationEssentials
import Glibc
import MQTT
import Primitives

// Publishing: recorded messages, published again for systems that missed them.
//
//     PublishOrder        which messages
//     Publication         to a broker, at QoS 1, resumable
//     FilePublication     into files: CloudEvents or JSON lines, gzip or not
//
// Invariants. Messages are published in the order of the log. After a lost connection, everything from the first
// unacknowledged message on is published again. Nothing is published on its original topic without `isLive`.

/// How messages are published.
public struct PublishOptions: Sendable {
    /// In front of every topic. Empty: onto the topics that they came on, which needs `isLive`.
    public var prefix = "replay/"
    public var isLive = false
    /// Times the original speed; nil: as fast as it goes.
    public var speed: Double?
    /// Messages a second; nil: no limit.
    public var rate: Double?
    /// Unacknowledged messages at most.
    public var window = 1_000
    /// For how long to try again when the broker does not answer.
    public var patienceSeconds = 60.0
    public var protocolPreference = BrokerSettings.ProtocolPreference.automatic
    /// Publish everything again, whatever was published before.
    public var startsOver = false
    /// Where it is remembered how far it got; nil: nowhere. A folder when it ends with a slash.
    public var statePath: String?
    /// The order's end was not said: what comes later belongs to it, too.
    public var isOpenEnded = false

    public init() {}
}

public struct PublishResult: Sendable, Equatable {
    /// Of this run: acknowledged by the broker.
    public var published: UInt64 = 0
    public var bytes: UInt64 = 0
    /// The broker had nobody to give them to (MQTT 5.0, 3.4.2.1: No matching subscribers).
    public var withoutSubscribers: UInt64 = 0
    /// Sent again after a connection that ended: subscribers may have them twice.
    public var sentAgain: UInt64 = 0
    /// Where this run began, and where the next would.
    public var from: UInt64 = 0
    public var next: UInt64 = 0
    public var isFinished = false
    /// Nothing was left to do: an earlier run had done it.
    public var wasDone = false
    public var seconds = 0.0
    public var protocolVersion = ""
    public var counts = PublishCounts()
}

/// Publishes recorded messages at QoS 1, in the order of the log over one connection, so in order per device; when the
/// connection ends, everything from the first unacknowledged message on is sent again. Belongs to one thread.
public final class Publication {
    private let log: ReadOnlyLog
    private let order: PublishOrder
    private let broker: BrokerSettings
    private let options: PublishOptions
    private let logID: String
    private let stateFile: PublishStateFile?
    private let stateOrder: PublishState.Order

    private let reader: PublishReader
    private let start: Position
    private var isV5: Bool
    /// Read and not yet sent, from `nextWaiting` on.
    private var waiting: [PublishedMessage] = []
    private var nextWaiting = 0
    /// Sent, in their order; the first is not acknowledged.
    private var sent: ContiguousArray<Sent> = []
    private var firstSent = 0
    private var sentBytes = 0
    private var indices: [Int32: Int] = [:]
    private var isAtEnd = false
    private var result = PublishResult()
    private var before: UInt64 = 0
    private let prefix: [CChar]

    private struct Sent {
        let message: PublishedMessage
        var isAcknowledged = false
    }
    private static let sentBytesMax = 16 << 20
    private static let saveMicros: Int64 = 1_000_000

    /// - Throws: `.usage` when the wish is refused; `LogError`.
    public init(
        _ log: ReadOnlyLog, _ order: PublishOrder, to broker: BrokerSettings, _ options: PublishOptions
    ) throws {
        self.log = log
        self.order = order
        self.broker = broker
        self.options = options
        logID = log.logID.description
        isV5 = options.protocolPreference != .v311
        prefix = options.prefix.utf8.map { CChar(bitPattern: $0) }
        try Self.check(log, order, options)
        let stateOrder = PublishState.Order(
            log: logID, to: broker.address, prefix: options.prefix, from: order.range.lowerBound.rawValue,
            end: options.isOpenEnded ? nil : order.range.upperBound.rawValue, tenant: order.tenant,
            device: order.device, topic: order.topic, verdict: order.verdict.name)
        self.stateOrder = stateOrder
        if let path = options.statePath {
            let file = path.hasSuffix("/") ? path + PublishStateFile.name(of: stateOrder) : path
            stateFile = try PublishStateFile(path: file, order: stateOrder)
        } else {
            stateFile = nil
        }
        var start = order.range.lowerBound
        if let state = stateFile?.state, !options.startsOver {
            start = max(start, Position(state.next))
            before = state.published
        }
        self.start = start
        reader = try PublishReader(log, order, from: start)
        result.from = start.rawValue
        result.next = start.rawValue
    }

    /// The position at which an earlier run of the same order stopped; nil when there was none.
    public var resumesAt: Position? { before > 0 || start > order.range.lowerBound ? start : nil }
    public var statePath: String? { stateFile?.path }

    private static func check(_ log: ReadOnlyLog, _ order: PublishOrder, _ options: PublishOptions) throws {
        let prefix = options.prefix
        guard !prefix.utf8.contains(where: { [0, 0x23, 0x2B].contains($0) }) else {
            throw PublicationError(.usage, "the prefix \(prefix) must hold neither + nor #")
        }
        guard prefix.isEmpty || prefix.hasSuffix("/") else {
            throw PublicationError(
                .usage, "the prefix \(prefix) must end with a slash, so that it is a level of its own")
        }
        guard prefix.isEmpty else {
            if options.isLive { throw PublicationError(.usage, "--live means without a prefix: leave --prefix out") }
            return
        }
        guard options.isLive else {
            throw PublicationError(
                .usage,
                "without a prefix, messages go onto the topics that devices and their systems "
                    + "use now: say --live if that is what you want")
        }
        guard order.verdict == .accepted else {
            throw PublicationError(
                .usage,
                "--live publishes accepted messages only: what the gate refused, commands of "
                    + "strangers among it, belongs on no device's topic")
        }
        guard options.protocolPreference != .v311 else {
            throw PublicationError(
                .usage,
                "--live needs MQTT 5: over 3.1.1 nothing tells what is published from what "
                    + "devices send, and we would record it again")
        }
        guard order.range.isEmpty || order.range.lowerBound >= log.firstPosition else {
            throw PublicationError(
                .usage,
                "--live needs the events on this disk, which begins at position "
                    + "\(log.firstPosition): what comes back is recognised by them")
        }
        for (name, version) in try Self.connectionVersions(log) where version == "3.1.1" {
            throw PublicationError(
                .usage,
                "--live is refused: this log's connection to the broker `\(name)` is MQTT "
                    + "3.1.1, which brings no properties, so that what comes back would be recorded again")
        }
    }

    /// The MQTT version that each of the log's brokers was last connected with.
    private static func connectionVersions(_ log: ReadOnlyLog) throws -> [(name: String, version: String)] {
        var versions: [String: String] = [:]
        let reader = log.events(
            .schema(BrokerEvent.Schema.connected.rawValue), in: Position(0)..<Position(log.durableCount))
        while try reader.read({ record, _ in
            let event = try? record.decoded(BrokerEvent.self)
            versions[record.brokerString] = event?.protocolVersion
        }) {}
        return versions.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    }

    /// Publishes until all is acknowledged, or `isStopping`.
    /// - Parameter progress: called a few times a second, with the result so far.
    /// - Throws: `.unreachable`, `.usage` (the broker refuses), `LogError`. What was acknowledged is remembered.
    public func run(
        isStopping: () -> Bool = { false }, note: (String) -> Void = { _ in },
        progress: (PublishResult) -> Void = { _ in }
    ) throws -> PublishResult {
        let begun = SystemTime.monotonicMicroseconds()
        if let state = stateFile?.state, !options.startsOver, start >= order.range.upperBound {
            result.wasDone = true
            result.isFinished = true
            result.next = state.next
            return result
        }
        defer { result.seconds = Double(SystemTime.monotonicMicroseconds() - begun) / 1_000_000 }
        do {
            try work(isStopping, note, progress)
        } catch {
            do {
                try save()
            } catch {
                note("how far it got cannot be remembered, the next run repeats more: \(error)")
            }
            throw error
        }
        result.isFinished = isAtEnd && pendingCount == 0
        try save()
        result.counts = reader.counts
        result.seconds = Double(SystemTime.monotonicMicroseconds() - begun) / 1_000_000
        return result
    }

    private var pendingCount: Int { sent.count - firstSent + waiting.count - nextWaiting }

    private func work(
        _ isStopping: () -> Bool, _ note: (String) -> Void, _ progress: (PublishResult) -> Void
    ) throws {
        var link: PublishLink?, saved = SystemTime.monotonicMicroseconds(), shown = saved
        var pace = PublishPace(speed: options.speed, rate: options.rate)
        while true {
            if isStopping() { break }
            do throws(PublishLink.Failure) {
                if link == nil {
                    guard try fetch() else { break }
                    guard let made = try connect(isStopping, note) else { break }
                    link = made
                    try sendAgain(made)
                    pace = PublishPace(speed: options.speed, rate: options.rate)
                }
                guard let link else { continue }
                let wait = try fill(link, &pace)
                guard let wait else { break }
                try link.serve(milliseconds: wait)
                try settle(link)
            } catch {
                guard !error.isRefusal else { throw PublicationError(.usage, "\(broker.address): \(error.text)") }
                if let fetchError { throw fetchError }
                note("\(broker.address): \(error.text); trying again")
                link = nil
            }
            let now = SystemTime.monotonicMicroseconds()
            if now - saved >= Self.saveMicros {
                try save()
                saved = now
            }
            if now - shown >= 200_000 {
                progress(result)
                shown = now
            }
        }
        if let link { farewell(link) }
    }

    /// What the log threw while a link was being served.
    private var fetchError: (any Error)?

    /// Whether a message waits to be sent, or to be acknowledged. Reads on in the log when none waits.
    private func fetch() throws(PublishLink.Failure) -> Bool {
        do {
            while nextWaiting == waiting.count, !isAtEnd {
                waiting.removeAll(keepingCapacity: true)
                nextWaiting = 0
                isAtEnd = try !reader.read { waiting.append(PublishedMessage($0, $1, prefix: prefix)) }
            }
        } catch {
            fetchError = error
            throw PublishLink.Failure(text: "\(error)")
        }
        return pendingCount > 0
    }

    /// Sends what may leave now. Returns the milliseconds to wait for the socket; nil when all is done.
    private func fill(_ link: PublishLink, _ pace: inout PublishPace) throws(PublishLink.Failure) -> Int? {
        while sent.count - firstSent < options.window, sentBytes < Self.sentBytesMax {
            guard try fetch() else { return nil }
            guard nextWaiting < waiting.count else { return 100 }
            let message = waiting[nextWaiting]
            let micros = pace.wait(for: message.receivedAt, now: SystemTime.monotonicMicroseconds())
            guard micros == 0 else { return Int(min(100, max(1, micros / 1_000))) }
            nextWaiting += 1
            sentBytes += message.byteCount
            sent.append(Sent(message: message))
            indices[try send(message, over: link)] = sent.count - 1
        }
        return 100
    }

    /// Everything that was sent and is not known to have arrived, in its order.
    private func sendAgain(_ link: PublishLink) throws(PublishLink.Failure) {
        indices.removeAll(keepingCapacity: true)
        for index in firstSent..<sent.count {
            result.sentAgain += 1
            sent[index].isAcknowledged = false
            indices[try send(sent[index].message, over: link)] = index
        }
    }

    /// Returns its packet id.
    private func send(_ message: PublishedMessage, over link: PublishLink) throws(PublishLink.Failure) -> Int32 {
        var list = link.isV5 ? message.mqttProperties(logID: logID) : nil
        defer { mosquitto_property_free_all(&list) }
        do throws(PublishLink.Failure) {
            return try link.send(message.topic, message.payload, properties: list)
        } catch {
            guard error.isRefusal else { throw error }
            throw PublishLink.Failure(
                text: error.text + " (the message at position \(message.position))", isRefusal: true)
        }
    }

    private func settle(_ link: PublishLink) throws(PublishLink.Failure) {
        for (id, reason) in link.takeAcknowledged() {
            guard reason < 128 else {
                throw PublishLink.Failure(
                    text: "it refuses a message (\(PublishLink.text(ofReason: reason))): may we publish below "
                        + "\(options.prefix.isEmpty ? "these topics" : options.prefix)?", isRefusal: true)
            }
            guard let index = indices.removeValue(forKey: id) else { continue }
            sent[index].isAcknowledged = true
            if reason == 0x10 { result.withoutSubscribers += 1 }
        }
        while firstSent < sent.count, sent[firstSent].isAcknowledged {
            let message = sent[firstSent].message
            sentBytes -= message.byteCount
            result.published += 1
            result.bytes += UInt64(message.payload.count)
            firstSent += 1
        }
        if firstSent == sent.count || firstSent > 4_096 {
            sent.removeFirst(firstSent)
            for (id, index) in indices { indices[id] = index - firstSent }
            firstSent = 0
        }
    }

    /// Waits a little for the acknowledgements that are due, so that less is sent twice.
    private func farewell(_ link: PublishLink) {
        let deadline = SystemTime.monotonicMicroseconds() + 2_000_000
        do throws(PublishLink.Failure) {
            while firstSent < sent.count, SystemTime.monotonicMicroseconds() < deadline {
                try link.serve(milliseconds: 50)
                try settle(link)
            }
        } catch {
            return
        }
        link.disconnect()
    }

    /// Nil: `isStopping`.
    private func connect(_ isStopping: () -> Bool, _ note: (String) -> Void) throws(PublishLink.Failure)
        -> PublishLink?
    {
        let deadline = SystemTime.monotonicMicroseconds() + Int64(options.patienceSeconds * 1_000_000)
        var pause: UInt32 = 200_000, said = "", hangUps = 0
        while !isStopping() {
            do throws(PublishLink.Failure) {
                let link = try PublishLink(broker, isV5: isV5, window: options.window, milliseconds: 10_000)
                result.protocolVersion = isV5 ? "5.0" : "3.1.1"
                return link
            } catch {
                // A broker that restarts hangs up too: only the third time in a row.
                if error.isVersion { hangUps += 1 }
                if error.isVersion, error.isRefusal || hangUps >= 3, options.protocolPreference == .automatic,
                    !options.isLive
                {
                    isV5 = false
                    note("\(broker.address) does not speak MQTT 5: original times and positions are not sent along")
                    continue
                }
                if error.isVersion, options.isLive, error.isRefusal {
                    throw PublishLink.Failure(
                        text: "it does not speak MQTT 5, and over 3.1.1 what is published live could not be told from "
                            + "what devices send", isRefusal: true)
                }
                if error.isRefusal { throw error }
                guard SystemTime.monotonicMicroseconds() < deadline else {
                    fetchError = PublicationError(
                        .unreachable,
                        "\(broker.address) does not answer (\(error.text)). What "
                            + "was published is remembered: the same command goes on there")
                    throw error
                }
                if error.text != said { note("\(broker.address): \(error.text); trying again") }
                said = error.text
                usleep(pause)
                pause = min(pause * 2, 5_000_000)
            }
        }
        return nil
    }

    private func save() throws(PublicationError) {
        result.next =
            firstSent < sent.count
            ? sent[firstSent].message.position.rawValue
            : nextWaiting < waiting.count
                ? waiting[nextWaiting].position.rawValue
                : min(reader.position, order.range.upperBound).rawValue
        try stateFile?.save(
            PublishState(
                order: stateOrder, next: result.next, published: before + result.published,
                end: order.range.upperBound.rawValue, isFinished: isAtEnd && pendingCount == 0,
                updatedAt: now().description))
    }
}

private func now() -> Timestamp { Timestamp(microseconds: SystemTime.wallMicroseconds()) }
