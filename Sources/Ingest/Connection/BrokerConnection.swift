import CMosquitto
import EventLog
import EventModel
import Glibc
import MQTT
import Primitives
import Synchronization
import Threading

/// One broker, one thread. The loop, round and round:
///
///     poll → read until nothing is left or the batch is full → gate → append (returns when durable)
///          → write (acknowledgements leave now) → keepalive
///
/// Invariant: `MQTTSession.write` is never called while a message is in the inbox that is not durable.
///
/// `@unchecked Sendable`: `status` and `drains` are behind mutexes, flags are atomic; all else is touched by the
/// connection's own thread only, which `start` begins once.
final class BrokerConnection: @unchecked Sendable {
    let settings: BrokerSettings
    let gate: Gate
    let status: Mutex<BrokerStatus>
    let log: any LogWriter
    let history: (any LogSource)?
    let logID: String?
    let notify: @Sendable (IngestNotice) -> Void
    let onFatal: @Sendable (String) -> Void
    /// The connection for which this one empties the session of an earlier client id; its status counts for both.
    let parent: BrokerConnection?
    private let stopping = Atomic<Bool>(false)
    private let finished = Atomic<Bool>(false)
    /// Whether the thread still goes round its loop.
    let heart = Heartbeat()
    private let wakeUp: Int32
    /// Sessions of earlier client ids that are being emptied.
    let drains = Mutex<[SessionDrain]>([])
    /// The broker's sessions of ours, by client id, as the log has them.
    let sessions = Mutex<[String: SessionHistory.Session]>([:])
    /// What the broker called itself in an earlier process.
    let versionInLog = Mutex<String?>(nil)
    /// The work of a drain.
    let drain: SessionDrain?

    // The thread's own, from here on.
    var outgoing = RecordBatch()
    var keeper: SessionKeeper
    /// What recognises our own messages; nil without a log to compare with.
    let echoes: (replays: ReplayEcho, commands: CommandEcho)?
    /// It was reported that the log cannot be read back for them.
    var saysOwnUnreadable = false
    var backoff: ReconnectBackoff
    var usesV5: Bool
    /// The broker does not speak MQTT 5.
    var refusesV5 = false
    /// The broker has accepted a CONNECT of MQTT 5 since the start.
    var acceptedV5 = false
    /// Hang-ups on our CONNECT in a row.
    var connectHangUps = 0
    var isHistoryRead = false
    var historyRetryAt: Int64 = 0
    /// Since when nothing was read, as the process began.
    var awaySince: Timestamp?
    var hasStartedDrains = false
    /// The log's length at the last `session_state`.
    var stateWrittenAt: UInt64 = 0
    /// Connections in a row that ended soon after they were accepted.
    var earlyEnds = 0
    /// The subscription waits until the sessions of earlier client ids have caught up.
    var awaitsDrains = false
    /// The handover to which appended records are reported.
    var handingOver: Handover?
    var rate = RateEstimate()
    var absence = AbsenceCredit()
    /// Messages have come since the last round.
    var hasArrivals = false
    private var spareInbox = RecordBatch()
    /// The last attempt did not get through to the broker: try its other addresses, one after the other.
    var triesAllAddresses = false

    init(
        _ settings: BrokerSettings, gate: Gate, log: any LogWriter, history: (any LogSource)?, logID: String?,
        parent: BrokerConnection? = nil, drain: SessionDrain? = nil,
        notify: @escaping @Sendable (IngestNotice) -> Void, onFatal: @escaping @Sendable (String) -> Void
    ) {
        self.settings = settings
        self.gate = gate
        self.log = log
        self.history = history
        self.logID = logID
        self.parent = parent
        self.drain = drain
        if let history, let logID {
            echoes = (ReplayEcho(history: history, logID: logID), CommandEcho(history: history, logID: logID))
        } else {
            echoes = nil
        }
        self.notify = notify
        self.onFatal = onFatal
        status = Mutex(BrokerStatus(settings))
        keeper = SessionKeeper(
            broker: settings.name, clientID: settings.clientID, history: history,
            // No other log makes client ids of this log's id.
            adopts: settings.adoptsSession || logID.map { settings.clientID.hasSuffix($0.prefix(12)) } ?? false)
        backoff = ReconnectBackoff(settings.backoff)
        usesV5 = settings.protocolPreference != .v311
        // Without one (no descriptors left) a stop is noticed at the end of the poll, 1 s later.
        wakeUp = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
    }

    deinit { if wakeUp >= 0 { close(wakeUp) } }

    func start() {
        startThread(name: "mqtt-\(settings.name)") { [self] in
            run()
            heart.rest()
            status.withLock { $0.state = .stopped }
            drain?.release()
            finished.store(true, ordering: .releasing)
        }
    }

    /// Asks the thread to finish: what is in hand becomes durable and is acknowledged, nothing else.
    func requestStop() {
        stopping.store(true, ordering: .releasing)
        var one: UInt64 = 1
        if wakeUp >= 0 { Glibc.write(wakeUp, &one, 8) }
        for drain in drains.withLock({ $0 }) { drain.connection?.requestStop() }
    }

    var isFinished: Bool {
        finished.load(ordering: .acquiring)
            && drains.withLock { $0 }.allSatisfy { $0.connection?.isFinished ?? true }
    }
    var isSubscribed: Bool { status.withLock { $0.isSubscribed } }
    var isStopping: Bool { stopping.load(ordering: .relaxed) }

    /// A copy for other threads.
    var currentStatus: BrokerStatus {
        var copy = status.withLock { $0 }
        copy.overdueSeconds = heart.overdueSeconds
        return copy
    }

    /// Changes the status that is shown: this connection's, or that of the one for which it empties a session.
    func count(_ change: (inout BrokerStatus) -> Void) { (parent ?? self).status.withLock { change(&$0) } }

    /// Why a connection ended.
    enum Ending {
        case stopped
        /// The connection, or the attempt at one, failed. `code` as in `MQTTSession.ended`.
        case lost(reason: String, code: Int?)
        /// No space on disk: what is in the session's inbox is neither durable nor acknowledged.
        case held(String)
        /// The broker's session is not this log's. Nothing is read, acknowledged or tried again.
        case unknownSession
        case fatal(String)
    }

    private func run() {
        heart.beat(within: Self.slowSeconds)
        if drain == nil {
            say(
                .info,
                "the broker drops messages beyond its queue limit while Refold is disconnected "
                    + "(1,000 messages by default: Mosquitto max_queued_messages, EMQX max_mqueue_len)")
        }
        awaitCertificates()
        readHistory()
        while !isStopping {
            if isStateDue, case .fatal(let text)? = recordState() { return onFatal(text) }
            let session = MQTTSession(
                settings, gate: gate.settings, isV5: usesV5, clock: { [log] in log.now() }, inbox: takeInbox(),
                isDraining: drain != nil, logID: logID)
            guard let session else {
                say(.error, "cannot create an MQTT client: out of memory or descriptors; trying again")
                wait(milliseconds: 1_000)
                continue
            }
            let begun = SystemTime.bootMicroseconds()
            status.withLock { $0.state = .connecting }
            var ending = connectAndServe(session), hasEnded = false
            if case .lost(let reason, let code) = ending {
                hasEnded = true
                ending = recordEnd(session, reason: reason, code: code) ?? ending
            }
            if case .held(let text) = ending { ending = hold(session, text, hasEnded: hasEnded) }
            keeper.disconnected(lastPacketID: session.lastPacketID)
            handingOver?.close()
            handingOver = nil
            let milliseconds = Int(clamping: (SystemTime.bootMicroseconds() - begun) / 1_000)
            switch ending {
            case .stopped: if drain?.isFinished == true { return }
            case .fatal(let text):
                status.withLock { $0.lastError = text }
                return onFatal(text)
            case .unknownSession:
                session.hangUp()
                return refuseForGood()
            case .held: break
            case .lost(let reason, let code):
                wait(milliseconds: pause(session, reason: reason, code: code, lasted: milliseconds))
            }
            spareInbox = session.inbox
            status.withLock { $0.reconnects += 1 }
        }
    }

    /// Messages wait at the broker until it is known which devices have certificates.
    private func awaitCertificates() {
        guard let certificates = gate.certificates else { return }
        while !isStopping, !certificates.isReady {
            status.withLock { $0.lastError = "the certificates in the log are being read (certificates.enforce)" }
            wait(milliseconds: 20)
        }
        status.withLock { $0.lastError = nil }
    }

    private func takeInbox() -> RecordBatch {
        var inbox = RecordBatch()
        swap(&inbox, &spareInbox)
        inbox.removeAll()
        return inbox
    }

    func serve(_ session: MQTTSession) -> Ending {
        let stableAt = SystemTime.bootMicroseconds() + Int64(settings.backoff.stableMilliseconds) * 1_000
        var isFull = false, isStable = false
        while true {
            if isStopping { return finish(session) }
            if !isStable, SystemTime.bootMicroseconds() >= stableAt {
                isStable = true
                noteStable()
            }
            // More may be there already where `poll` does not see it: behind a full batch, or behind the CONNACK.
            let isMore = isFull || session.pendingBytes > 0
            let ready = poll(session.socket, write: session.wantsWrite, milliseconds: isMore ? 0 : 1_000)
            noteRound()
            if !isMore, ready.read, rate.isDense(lingerMicros: settings.lingerMicros) {
                usleep(UInt32(settings.lingerMicros))
            }
            let isAlive = !(ready.read || isMore) || readAvailable(session, &isFull)
            if let ending = commit(session) { return ending }
            // Only now may the acknowledgements of what was read leave.
            guard isAlive, session.write() else {
                let code = session.ended ?? 0
                return .lost(reason: session.describe(code), code: code)
            }
            acknowledged(session)
            if let ending = noteAnswers(session) { return ending }
            retryHistory()
            _ = session.tick()
        }
    }

    /// Reads until nothing is left, the batch is full, or half a second is over. False: the connection has ended; what
    /// was read still counts.
    func readAvailable(_ session: MQTTSession, _ isFull: inout Bool) -> Bool {
        isFull = false
        let deadline = SystemTime.bootMicroseconds() + 500_000
        while true {
            // Packets without a message (PINGRESP) fill no batch.
            if SystemTime.bootMicroseconds() >= deadline {
                isFull = true
                return true
            }
            let before = session.publishes
            guard session.read() else { return false }
            if session.inbox.count + session.behind.count >= settings.batchMessagesMax
                || session.inbox.byteCount + session.behind.byteCount >= settings.batchBytesMax
            {
                isFull = true
                return true
            }
            // A read that brought a message is worth another one: asking `poll` each time would cost as much.
            // Where it brought none, poll decides, and under TLS what OpenSSL has decrypted already.
            if session.publishes != before || session.pendingBytes > 0 { continue }
            if !poll(session.socket, write: false, milliseconds: 0).read { return true }
        }
    }

    /// Before the messages of a round are put through the gate.
    func noteRound() {
        absence.round(at: SystemTime.bootMicroseconds(), hasInput: hasArrivals, gate)
        hasArrivals = false
    }

    func acknowledged(_ session: MQTTSession) {
        guard session.unacknowledged > 0, !session.wantsWrite else { return }
        let count = UInt64(session.takeAcknowledged())
        self.count { $0.acknowledged += count }
    }

    /// Orderly end: nothing is read any more; what is durable is acknowledged; the session stays with the broker.
    private func finish(_ session: MQTTSession) -> Ending {
        flush(session)
        session.sendDisconnect()
        return recordEnd(session, reason: "stopped", code: nil) ?? .stopped
    }

    /// Sends what is queued, for two seconds at most. A stop does not interrupt it.
    func flush(_ session: MQTTSession) {
        let deadline = SystemTime.bootMicroseconds() + 2_000_000
        while session.wantsWrite, SystemTime.bootMicroseconds() < deadline {
            var socket = pollfd(fd: session.socket, events: Int16(POLLOUT), revents: 0)
            _ = Glibc.poll(&socket, 1, 50)
            guard session.write() else { break }
        }
        acknowledged(session)
    }

    // MARK: Waiting

    /// A round includes an append, which returns when it is durable.
    private static let roundSeconds = 60
    /// A host name is resolved, perhaps all addresses are tried (connect(2) gives up on each after about two minutes),
    /// and the log is read back.
    static let slowSeconds = 600

    /// Waits for the socket, for at most so long, or until `requestStop`.
    func poll(_ socket: Int32, write: Bool, milliseconds: Int32) -> (read: Bool, write: Bool) {
        heart.beat(within: Self.roundSeconds)
        let events = Int16(POLLIN) | (write ? Int16(POLLOUT) : 0)
        var descriptors = (
            pollfd(fd: socket, events: events, revents: 0), pollfd(fd: wakeUp, events: Int16(POLLIN), revents: 0)
        )
        let count = withUnsafeMutableBytes(of: &descriptors) {
            Glibc.poll($0.assumingMemoryBound(to: pollfd.self).baseAddress, 2, milliseconds)
        }
        guard count > 0 else { return (false, false) }
        let events_ = Int32(descriptors.0.revents)
        // Errors and hang-ups are for `read` to find out about.
        return (events_ & (POLLIN | POLLERR | POLLHUP | POLLNVAL) != 0, events_ & POLLOUT != 0)
    }

    func wait(milliseconds: Int) {
        let deadline = SystemTime.bootMicroseconds() + Int64(milliseconds) * 1_000
        while !isStopping {
            let left = deadline - SystemTime.bootMicroseconds()
            guard left > 0 else { return }
            _ = poll(-1, write: false, milliseconds: Int32(clamping: min(left / 1_000 + 1, 500)))
        }
    }
}

/// How dense the traffic is: a moving average over about 50 ms.
struct RateEstimate {
    private var perMicro = 0.0
    private var last: Int64 = 0

    mutating func record(_ count: Int, at micros: Int64) {
        let elapsed = Double(max(1, micros - last))
        last = micros
        perMicro += (Double(count) / elapsed - perMicro) * min(1, elapsed / 50_000)
    }

    /// Waiting so long brings several messages: then one commit and one wake-up for them is cheaper than one each.
    func isDense(lingerMicros: Int) -> Bool { perMicro * Double(lingerMicros) >= 2 }
}
