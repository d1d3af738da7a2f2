import CMosquitto
import EventLog
import EventModel
import Synchronization
import Threading

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// One broker, one thread. The loop, round and round:
///
///     poll → read until nothing is left or the batch is full → gate → append (returns when durable)
///          → write (acknowledgements leave now) → keepalive
///
/// Invariant: `MQTTSession.write` is never called while a message is in the inbox that is not durable.
///
/// `@unchecked Sendable`: `status` is behind a mutex and the stop flag is atomic; all else is touched by the
/// connection's own thread only, which `start` begins once.
final class BrokerConnection: @unchecked Sendable {
    let settings: BrokerSettings
    let gate: Gate
    let status: Mutex<BrokerStatus>
    let log: any LogWriter
    let history: (any LogSource)?
    let notify: @Sendable (IngestNotice) -> Void
    private let onFatal: @Sendable (String) -> Void
    private let stopping = Atomic<Bool>(false)
    private let finished = Atomic<Bool>(false)
    private let wakeUp: Int32
    /// Whether the thread still goes round its loop: `poll` beats.
    let heart = Heartbeat()

    // The thread's own, from here on.
    var outgoing = RecordBatch()
    let hasher = SHA256()
    var seam: SeamWindow?
    /// What recognises our own messages; nil without a log to compare with.
    let echoes: (replays: ReplayEcho, commands: CommandEcho)?
    /// It was said that the log cannot be read back for them.
    var saysOwnUnreadable = false
    var backoff: Backoff
    var usesV5: Bool
    /// The broker has said that it does not speak MQTT 5: no need to ask again.
    private var refusesV5 = false
    /// The broker has accepted a CONNECT of ours since the start.
    private var hasConnected = false
    /// Hang-ups on our CONNECT in a row.
    private var connectHangUps = 0
    /// The broker has, or should have, a session of ours. Nil: the log must be asked.
    var expectsSession: Bool?
    /// What the broker's session is subscribed to, as far as we know.
    var subscribedFilters: [String]?
    var hasBeenConnected = false
    /// Connections in a row that ended as soon as they were made.
    var quickDrops = 0
    var rate = RateEstimate()
    private var spareInbox = RecordBatch()
    /// The last attempt did not get through to the broker: try its other addresses, one after the other.
    private var triesAllAddresses = false

    init(
        _ settings: BrokerSettings, gate: Gate, log: any LogWriter, history: (any LogSource)?, logID: String?,
        notify: @escaping @Sendable (IngestNotice) -> Void, onFatal: @escaping @Sendable (String) -> Void
    ) {
        self.settings = settings
        self.gate = gate
        self.log = log
        self.history = history
        if let history, let logID {
            echoes = (ReplayEcho(history: history, logID: logID), CommandEcho(history: history, logID: logID))
        } else {
            echoes = nil
        }
        self.notify = notify
        self.onFatal = onFatal
        status = Mutex(BrokerStatus(settings))
        backoff = Backoff(settings.backoff)
        usesV5 = settings.protocolPreference != .v311
        wakeUp = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
        precondition(wakeUp >= 0, "cannot make an eventfd: \(String(cString: strerror(errno)))")
    }

    deinit { close(wakeUp) }

    func start() {
        startThread(name: "mqtt-\(settings.name)") { [self] in
            run()
            heart.rest()
            status.withLock { $0.state = .stopped }
            finished.store(true, ordering: .releasing)
        }
    }

    /// Asks the thread to finish: what is in hand becomes durable and is acknowledged, nothing else.
    func requestStop() {
        stopping.store(true, ordering: .releasing)
        var one: UInt64 = 1
        Glibc.write(wakeUp, &one, 8)
    }

    var isFinished: Bool { finished.load(ordering: .acquiring) }
    var isStopping: Bool { stopping.load(ordering: .relaxed) }

    /// Why a connection ended.
    enum Ending {
        case stopped
        /// The connection, or the attempt at one, failed. `code` as in `MQTTSession.ended`.
        case lost(reason: String, code: Int?)
        /// No space on disk: what is in the session's inbox is neither durable nor acknowledged.
        case held(String)
        case fatal(String)
    }

    private func run() {
        while !isStopping {
            guard let session = MQTTSession(settings, gate: gate.settings, isV5: usesV5, inbox: takeInbox()) else {
                return onFatal("broker `\(settings.name)`: out of memory for an MQTT client")
            }
            let begun = monotonicMicros()
            status.withLock { $0.state = .connecting }
            var ending = connectAndServe(session), hasEnded = false
            if case .lost(let reason, let code) = ending {
                hasEnded = true
                ending = recordEnd(session, reason: reason, code: code) ?? ending
            }
            if case .held(let text) = ending { ending = hold(session, text, hasEnded: hasEnded) }
            let milliseconds = Int(monotonicMicros() - begun) / 1_000
            switch ending {
            case .stopped: break
            case .fatal(let text):
                status.withLock { $0.lastError = text }
                return onFatal(text)
            case .held: break
            case .lost(let reason, let code):
                wait(milliseconds: pause(session, reason: reason, code: code, lasted: milliseconds))
            }
            spareInbox = session.inbox
            status.withLock { $0.reconnects += 1 }
        }
    }

    private func takeInbox() -> RecordBatch {
        var inbox = RecordBatch()
        swap(&inbox, &spareInbox)
        inbox.removeAll()
        return inbox
    }

    private func connectAndServe(_ session: MQTTSession) -> Ending {
        defer { seam = nil }
        // Names are resolved, perhaps all addresses tried (connect(2) gives up on each after about two minutes), and
        // the log is read back, perhaps from the archive.
        heart.beat(within: Self.slowSeconds)
        if let text = session.connect(blocking: triesAllAddresses) {
            triesAllAddresses.toggle()
            return .lost(reason: "cannot connect to \(settings.address): \(text)", code: nil)
        }
        if let ending = awaitConnack(session) { return ending }
        triesAllAddresses = false
        heart.beat(within: Self.slowSeconds)
        hasConnected = true
        connectHangUps = 0
        defer { usesV5 = settings.protocolPreference != .v311 && !refusesV5 }
        return greet(session) ?? serve(session)
    }

    /// Until the broker has accepted us. Nothing can be in the inbox before that.
    private func awaitConnack(_ session: MQTTSession) -> Ending? {
        let deadline = monotonicMicros() + 30_000_000
        var isThrough = false
        while session.connack == nil, monotonicMicros() < deadline {
            if isStopping { return .stopped }
            // Until TCP is through, only "writable" tells; a handshake says itself whether it wants to write.
            let ready = poll(session.socket, write: !isThrough || session.wantsWrite, milliseconds: 50)
            if ready.write, !isThrough { isThrough = isConnected(session.socket) }
            if ready.read, let text = socketFailure(session.socket) {
                if !isThrough { triesAllAddresses.toggle() }
                return .lost(reason: "cannot connect to \(settings.address): \(text)", code: nil)
            }
            if ready.read, !session.read() { break }
            if session.connack == nil, isThrough || ready.write, !session.write() { break }
            if !session.tick() { break }
        }
        if let connack = session.connack {
            return connack.reason == 0 ? nil : refused(session, connack.reason)
        }
        guard let code = session.ended else {
            return .lost(reason: "\(settings.address) does not answer the CONNECT", code: nil)
        }
        if !isThrough {
            triesAllAddresses.toggle()
        } else if code != Int(MOSQ_ERR_TLS.rawValue), settings.protocolPreference == .automatic {
            // It hung up on our CONNECT: perhaps it knows the other version only. Not so when it has taken ours before;
            // and a proxy whose broker is restarting hangs up too: only the third time in a row.
            connectHangUps += 1
            if !hasConnected, connectHangUps % 3 == 0 { usesV5.toggle() }
        }
        return .lost(reason: "cannot connect to \(settings.address): \(session.describe(code))", code: code)
    }

    private func refused(_ session: MQTTSession, _ reason: Int) -> Ending {
        if session.isV5, reason == 0x84 || reason == 1, settings.protocolPreference == .automatic {
            refusesV5 = true
            usesV5 = false
        }
        let advice = switch reason {
        case 4, 5, 0x86, 0x87: " Check the user name and password."
        case 2, 0x85: " Check the client id."
        default: ""
        }
        let text = "\(settings.address) refuses the connection: \(session.refusalText(reason))\(advice)"
        return .lost(reason: text, code: reason)
    }

    /// In a handshake the library takes a refused or closed connection for one that is not ready yet (2.0.11:
    /// `SSL_ERROR_SYSCALL` is no error to it) and would wait for ever.
    private func socketFailure(_ socket: Int32) -> String? {
        guard settings.tls != nil, socket >= 0 else { return nil }
        var code: Int32 = 0, length = socklen_t(MemoryLayout<Int32>.size), byte: UInt8 = 0
        if getsockopt(socket, SOL_SOCKET, SO_ERROR, &code, &length) == 0, code != 0 {
            return String(cString: strerror(code))
        }
        let isClosed = recv(socket, &byte, 1, Int32(MSG_PEEK | MSG_DONTWAIT)) == 0
        return isClosed ? "the connection was closed during the TLS handshake" : nil
    }

    private func isConnected(_ socket: Int32) -> Bool {
        var address = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        return withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getpeername(socket, $0, &length) == 0 }
        }
    }

    private func serve(_ session: MQTTSession) -> Ending {
        let stableAt = monotonicMicros() + Int64(settings.backoff.stableMilliseconds) * 1_000
        var isFull = false, isStable = false
        while true {
            if isStopping { return finish(session) }
            if !isStable, monotonicMicros() >= stableAt {
                isStable = true
                noteStable()
            }
            // More may be there already where `poll` does not see it: behind a full batch, or behind the CONNACK.
            let isMore = isFull || session.pendingBytes > 0
            let ready = poll(session.socket, write: session.wantsWrite, milliseconds: isMore ? 0 : 500)
            if !isMore, ready.read, rate.isDense(lingerMicros: settings.lingerMicros) {
                usleep(UInt32(settings.lingerMicros))
            }
            let isAlive = !(ready.read || isMore) || drain(session, &isFull)
            if let ending = commit(session) { return ending }
            // Only now may the acknowledgements of what was read leave.
            guard isAlive, session.write() else {
                let code = session.ended ?? 0
                return .lost(reason: session.describe(code), code: code)
            }
            acknowledged(session)
            if let ending = handleSuback(session) { return ending }
            _ = session.tick()
        }
    }

    /// Reads until nothing is left or the batch is full. False: the connection has ended; what was read still counts.
    private func drain(_ session: MQTTSession, _ isFull: inout Bool) -> Bool {
        isFull = false
        while true {
            let before = session.publishes
            guard session.read() else { return false }
            if session.inbox.count >= settings.batchMessagesMax || session.inbox.byteCount >= settings.batchBytesMax {
                isFull = true
                return true
            }
            // A read that brought a message is worth another one: asking `poll` each time would cost as much.
            // Where it brought none, poll decides, and under TLS what OpenSSL has decrypted already.
            if session.publishes != before || session.pendingBytes > 0 { continue }
            if !poll(session.socket, write: false, milliseconds: 0).read { return true }
        }
    }

    func acknowledged(_ session: MQTTSession) {
        guard session.unacknowledged > 0, !session.wantsWrite else { return }
        let count = UInt64(session.takeAcknowledged())
        status.withLock { $0.acknowledged += count }
    }

    /// Orderly end: nothing is read any more; what is durable is acknowledged; the session stays with the broker.
    private func finish(_ session: MQTTSession) -> Ending {
        let deadline = monotonicMicros() + 2_000_000
        while session.wantsWrite, monotonicMicros() < deadline {
            _ = poll(session.socket, write: true, milliseconds: 50)
            guard session.write() else { break }
        }
        acknowledged(session)
        session.sendDisconnect()
        return recordEnd(session, reason: "stopped", code: nil) ?? .stopped
    }

    // MARK: waiting

    /// A round includes an append, which returns when it is durable.
    private static let roundSeconds = 60
    private static let slowSeconds = 600

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
        let deadline = monotonicMicros() + Int64(milliseconds) * 1_000
        while !isStopping {
            let left = deadline - monotonicMicros()
            guard left > 0 else { return }
            _ = poll(-1, write: false, milliseconds: Int32(clamping: left / 1_000 + 1))
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
