import CMosquitto
import Decisions
import EventModel
import Glibc
import Ingest
import MQTT
import Synchronization
import Threading

/// One broker, one thread, one connection that stays. The loop, round and round:
///
///     take what is ready → publish → serve the socket → settle what was answered → report it
///
/// `send` and `withdraw` come from other threads and wake it up.
final class BrokerOutbox: Sendable {
    private struct State {
        var queue = CommandQueue()
        var status: CommandPublisher.Status
        /// Why a command was refused; nil when none is any more.
        var refusal: String?
    }

    private let settings: BrokerSettings
    private let options: CommandPublisher.Options
    private let logID: String
    private let notify: @Sendable (IngestNotice) -> Void
    private let report: @Sendable ([Delivery]) -> Void
    private let state: Mutex<State>
    private let stopping = Atomic<Bool>(false)
    private let finished = Atomic<Bool>(false)
    private let wakeUp: Int32

    init(
        _ settings: BrokerSettings, logID: String, options: CommandPublisher.Options,
        notify: @escaping @Sendable (IngestNotice) -> Void, report: @escaping @Sendable ([Delivery]) -> Void
    ) {
        self.settings = settings
        self.options = options
        self.logID = logID
        self.notify = notify
        self.report = report
        state = Mutex(State(status: .init(broker: settings.name)))
        wakeUp = makeEventDescriptor()
    }

    deinit { close(wakeUp) }

    func start() {
        startThread(name: "cmd-\(settings.name)") { [self] in
            run()
            finished.store(true, ordering: .releasing)
        }
    }

    var isFinished: Bool { finished.load(ordering: .acquiring) }

    var status: CommandPublisher.Status {
        state.withLock { state in
            var status = state.status
            status.waiting = state.queue.waitingCount
            status.sent = state.queue.sentCount
            status.refused = state.queue.refusedLineCount
            status.lastError = status.lastError ?? state.refusal
            return status
        }
    }

    func send(_ commands: [Delivery]) {
        state.withLock { state in
            for command in commands { state.queue.add(command) }
        }
        wake()
    }

    func withdraw(subject: String) { state.withLock { $0.queue.withdraw(subject: subject) } }

    func requestStop() {
        stopping.store(true, ordering: .releasing)
        wake()
    }

    private var isStopping: Bool { stopping.load(ordering: .acquiring) }

    private func wake() {
        var one: UInt64 = 1
        _ = write(wakeUp, &one, 8)
    }

    // MARK: the thread

    private func run() {
        var backoff = ReconnectBackoff(settings.backoff), isV5 = settings.protocolPreference != .v311, hangUps = 0
        var bisection = HangupBisection(), retry = Retry(options)
        while !isStopping {
            let begun = ContinuousClock.now
            do throws(PublishLink.Failure) {
                let link = try PublishLink(
                    settings, isV5: isV5, window: options.window, milliseconds: options.answerMilliseconds)
                hangUps = 0
                connected(link)
                try serve(link, &bisection, &retry)
                link.disconnect()
                return ended(nil, &bisection, &retry)
            } catch {
                ended(error, &bisection, &retry)
                // A broker that restarts hangs up on a CONNECT too: only the third time in a row means the version.
                if error.isVersion { hangUps += 1 }
                if error.isVersion, error.isRefusal || hangUps >= 3, settings.protocolPreference == .automatic {
                    isV5 = false
                    continue
                }
            }
            backoff.connectionLasted(milliseconds: Int((ContinuousClock.now - begun) / .milliseconds(1)))
            // Mosquitto 2.0.11 hangs up after each publish that it refuses: what was answered is settled, and the next
            // attempt need not wait.
            if bisection.takeProgress() {
                backoff = ReconnectBackoff(settings.backoff)
            } else {
                wait(milliseconds: backoff.next())
            }
        }
    }

    private func connected(_ link: PublishLink) {
        let isFirst = state.withLock { state in
            state.status.isConnected = true
            state.status.protocolVersion = link.isV5 ? "5.0" : "3.1.1"
            state.status.lastError = nil
            state.status.connections += 1
            return state.status.connections == 1
        }
        if isFirst { say(.info, "connected to send commands (MQTT \(link.isV5 ? "5.0" : "3.1.1"))") }
    }

    /// What was sent and not answered waits again.
    private func ended(
        _ failure: PublishLink.Failure?, _ bisection: inout HangupBisection, _ retry: inout Retry
    ) {
        let isNews = state.withLock { state in
            let isNews = state.status.isConnected || state.status.lastError != failure?.text
            if state.status.isConnected { bisection.connectionEnded(unanswered: state.queue.sentCount) }
            state.status.isConnected = false
            state.status.lastError = failure?.text
            if bisection.isSure, failure != nil {
                // The connection ends whenever this one is sent: it is refused in all but words.
                state.status.refusals += 1
                for device in state.queue.sentDevices { state.queue.refuse(device) }
                bisection.refused()
                retry.schedule()
            }
            state.queue.connectionLost()
            return isNews
        }
        guard let failure, isNews, !bisection.hasProgress else { return }
        say(.warning, "commands wait: \(settings.address): \(failure.text)")
    }

    /// Until the connection ends, or we are to stop and everything sent is answered.
    private func serve(
        _ link: PublishLink, _ bisection: inout HangupBisection, _ retry: inout Retry
    ) throws(PublishLink.Failure) {
        var underWay: [Int32: Delivery] = [:]
        var taken = AckBuffer(), stopAt: ContinuousClock.Instant?
        defer { taken.report(report) }
        while true {
            if isStopping {
                stopAt = stopAt ?? .now + .seconds(1)
                if underWay.isEmpty || stopAt! < .now { return }
            } else {
                try fill(link, &underWay, &retry, windowMax: bisection.window(options.window))
            }
            let pause = underWay.isEmpty ? retry.milliseconds(atMost: 1_000) : taken.pause
            try link.serve(milliseconds: pause, wakeUp: wakeUp)
            var count: UInt64 = 0
            _ = read(wakeUp, &count, 8)
            settle(link.takeAcknowledged(), &underWay, &taken, &retry, &bisection)
            if taken.isDue(options) || underWay.isEmpty { taken.report(report) }
        }
    }

    private func fill(
        _ link: PublishLink, _ underWay: inout [Int32: Delivery], _ retry: inout Retry, windowMax: Int
    ) throws(PublishLink.Failure) {
        let room = windowMax - underWay.count
        guard room > 0 else { return }
        let isRetryDue = retry.takeDue()
        let commands = state.withLock { state in
            if isRetryDue { state.queue.retry(options.retriesMax) }
            var commands: [Delivery] = []
            while commands.count < room, let command = state.queue.next() { commands.append(command) }
            return commands
        }
        for command in commands {
            do throws(PublishLink.Failure) {
                underWay[try send(command, over: link)] = command
            } catch {
                guard error.isRefusal else { throw error }
                refused(command, error.text, &retry)
            }
        }
    }

    /// Returns its packet id.
    private func send(_ command: Delivery, over link: PublishLink) throws(PublishLink.Failure) -> Int32 {
        var properties: OpaquePointer?
        defer { mosquitto_property_free_all(&properties) }
        if link.isV5 {
            let user = Int32(MQTT_PROP_USER_PROPERTY.rawValue)
            mosquitto_property_add_string_pair(&properties, user, "\(ReplayMark.log)", logID)
            mosquitto_property_add_string_pair(&properties, user, "\(ReplayMark.position)", "\(command.id)")
        }
        return try link.send(
            command.topic.utf8.map { CChar(bitPattern: $0) } + [0], command.payload, retain: command.isRetained,
            properties: properties)
    }

    private func settle(
        _ answers: [(id: Int32, reason: Int)], _ underWay: inout [Int32: Delivery], _ taken: inout AckBuffer,
        _ retry: inout Retry, _ bisection: inout HangupBisection
    ) {
        guard !answers.isEmpty else { return }
        var refusals: [(Delivery, Int)] = []
        state.withLock { state in
            for (id, reason) in answers {
                guard let command = underWay.removeValue(forKey: id) else { continue }
                bisection.answered()
                guard reason < 128 else {
                    refusals.append((command, reason))
                    continue
                }
                if state.queue.acknowledge(.init(command)) {
                    // It was refused before: the others may have been let in, too.
                    state.queue.retry(.max)
                    retry = Retry(options)
                }
                state.status.acknowledged += 1
                if reason == 0x10 { state.status.withoutSubscribers += 1 }
                if !command.isRemoval { taken.commands.append(command) }
            }
            if state.queue.refusedLineCount == 0, refusals.isEmpty { state.refusal = nil }
        }
        for (command, reason) in refusals { refused(command, PublishLink.text(ofReason: reason), &retry) }
    }

    private func refused(_ command: Delivery, _ reason: String, _ retry: inout Retry) {
        let text = "the broker refuses a command on \(command.topic): \(reason). It must let us publish there"
        let isFirst = state.withLock { state in
            state.queue.refuse(.init(command))
            state.status.refusals += 1
            defer { state.refusal = text }
            return state.refusal == nil
        }
        retry.schedule()
        if isFirst { say(.error, text) }
    }

    private func wait(milliseconds: Int) {
        let deadline = ContinuousClock.now + .milliseconds(milliseconds)
        while !isStopping {
            let left = (deadline - .now) / .milliseconds(1)
            guard left > 0 else { return }
            var descriptor = pollfd(fd: wakeUp, events: Int16(POLLIN), revents: 0), count: UInt64 = 0
            _ = poll(&descriptor, 1, Int32(min(left + 1, 1_000)))
            _ = read(wakeUp, &count, 8)
        }
    }

    private func say(_ level: IngestNotice.Level, _ text: String) {
        notify(IngestNotice(level: level, broker: settings.name, text: text))
    }
}

/// Acknowledgements that were not reported yet.
private struct AckBuffer {
    var commands: [Delivery] = []
    private var last = ContinuousClock.now

    /// How long to wait for more, in milliseconds.
    var pause: Int { commands.isEmpty ? 100 : 5 }

    func isDue(_ options: CommandPublisher.Options) -> Bool {
        commands.count >= options.reportCountMax
            || !commands.isEmpty && ContinuousClock.now - last >= .milliseconds(options.reportMilliseconds)
    }

    mutating func report(_ body: ([Delivery]) -> Void) {
        last = .now
        guard !commands.isEmpty else { return }
        body(commands)
        commands.removeAll(keepingCapacity: true)
    }
}

/// When the refused ones go again.
private struct Retry {
    private let options: CommandPublisher.Options
    private var dueAt: ContinuousClock.Instant?
    private var pause: Int

    init(_ options: CommandPublisher.Options) {
        self.options = options
        pause = options.refusedMillisecondsMin
    }

    mutating func schedule() {
        guard dueAt == nil else { return }
        dueAt = .now + .milliseconds(pause)
        pause = min(pause * 2, options.refusedMillisecondsMax)
    }

    mutating func takeDue() -> Bool {
        guard let dueAt, dueAt <= .now else { return false }
        self.dueAt = nil
        return true
    }

    func milliseconds(atMost limit: Int) -> Int {
        guard let dueAt else { return limit }
        return min(limit, max(1, Int((dueAt - .now) / .milliseconds(1)) + 1))
    }
}

/// Some brokers end the connection instead of refusing a publish. When connections end one after the other with
/// nothing answered, what was under way goes one by one, until it is found whose sending ends it.
private struct HangupBisection {
    private var losses = 0
    /// Commands that are to go one at a time.
    private var careful = 0
    private(set) var hasProgress = false
    private(set) var isSure = false

    func window(_ window: Int) -> Int { careful > 0 ? 1 : window }

    mutating func answered() {
        hasProgress = true
        losses = 0
        if careful > 0 { careful -= 1 }
    }

    mutating func connectionEnded(unanswered: Int) {
        guard unanswered > 0 else { return }
        losses += 1
        isSure = careful > 0 && unanswered == 1 && losses >= 3
        if !isSure, losses >= 3, careful == 0 {
            careful = unanswered
            losses = 0
        }
    }

    /// Whether anything was answered since the last time.
    mutating func takeProgress() -> Bool {
        defer { hasProgress = false }
        return hasProgress
    }

    mutating func refused() {
        isSure = false
        losses = 0
        if careful > 0 { careful -= 1 }
    }
}
