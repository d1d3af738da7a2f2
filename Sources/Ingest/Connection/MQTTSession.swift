import CMosquitto
import COpenSSL
import CPlatform
import EventModel
import Glibc
import MQTT

/// One connection attempt, on a client handle of its own: the next attempt begins with nothing left of this one, and a
/// certificate that was renewed meanwhile is read again. Belongs to its broker's thread.
///
/// The callbacks copy and return. Events (connected, subscribed…) go into the same inbox as the messages, so that the
/// log has them in the order in which they happened.
final class MQTTSession {
    private var client: OpaquePointer?  // struct mosquitto *; nil once hung up
    var handle: OpaquePointer {
        guard let client else { preconditionFailure("this session has hung up") }
        return client
    }
    private let settings: BrokerSettings
    private let payloadBytesMax: Int
    private let payloadBytesKept: Int
    private let broker: [UInt8]
    /// What a debug line of the library begins with when it tells of a PUBLISH; the DUP digit follows.
    private let publishLine: [UInt8]
    let isV5: Bool
    private let isDraining: Bool
    /// Topic of markers and probes; they are not recorded.
    private let handoverTopic: [UInt8]
    /// The handover in progress.
    var handover: Handover?
    /// The last probe has arrived.
    var hasProbe = false
    /// The marker has arrived: later messages go into `behind`.
    var isBehindMarker = false
    var behind = RecordBatch()
    /// Markers and probes received; not device traffic.
    var handoverMessages = 0
    /// The log's time.
    private let clock: @Sendable () -> Timestamp

    var inbox = RecordBatch()
    private var properties: [UInt8] = []
    private var duplicateFlag = false

    /// Grows with every PUBLISH that came, `$SYS` included: how the loop sees that a read made progress.
    private(set) var publishes = 0
    private(set) var received = 0
    private(set) var receivedBytes = 0
    private(set) var unacknowledged = 0
    private(set) var lastMessageAt: Timestamp?
    private(set) var droppedByBroker: UInt64?
    /// That was no retained message: the counter has moved since the subscription.
    private(set) var droppedHasMoved = false
    /// The broker sends a message of QoS 2. Its PUBREC is queued and must not leave.
    private(set) var hasQoS2 = false
    /// A message with DUP is in the inbox.
    var hasDuplicates = false
    /// A message that may be our own is in the inbox: on a command topic, or one that claims to be out of a log.
    var hasClaims = false

    private(set) var connack: Connack?
    /// Packet id of the last QoS 1 arrival.
    private(set) var lastPacketID: UInt16?
    /// Offset in `inbox` of the first message that came behind a SUBACK, until `takeResumeEnd`.
    var resumeEnd: Int?
    /// A SUBACK has come.
    private(set) var hasSuback = false
    /// UNSUBACKs that have come.
    private(set) var unsubacks = 0
    /// What the broker says it is, until `takeVersion`.
    private var version: String?
    private(set) var suback: (granted: [Int], isNew: Bool)?
    /// The library's error number, or from 128 on the broker's reason code (MQTT 5.0, 3.14.2.1). Nil: connected.
    private(set) var ended: Int?
    /// The last warning or error that the library logged: TLS failures tell their reason nowhere else.
    private(set) var lastLogLine: String?
    private var subscribeID: Int32 = -1

    /// QoS 1 messages since the session was resumed, while DUP still matters; 0 over MQTT 3.1.1.
    private var watched: Int?

    struct Connack {
        var reason: Int
        var sessionPresent: Bool
        /// Seconds that the broker keeps the session, where it says so: not what we asked for (MQTT 5.0, 3.2.2.3.2).
        var sessionExpirySeconds: UInt32?
    }

    /// - Parameters:
    ///   - isDraining: the session is that of an earlier client id, and its messages are marked so.
    ///   - endsSession: the session of this client id ends with the connection.
    init?(
        _ settings: BrokerSettings, gate: GateSettings, isV5: Bool, clock: @escaping @Sendable () -> Timestamp,
        inbox: consuming RecordBatch, isDraining: Bool = false, endsSession: Bool = false, logID: String? = nil
    ) {
        guard let handle = mosquitto_new(settings.clientID, endsSession, nil) else { return nil }
        client = handle
        self.settings = settings
        self.isV5 = isV5
        self.isDraining = isDraining
        handoverTopic = logID.map { Array(Handover.topic(logID: $0).utf8) } ?? []
        self.clock = clock
        self.inbox = inbox
        payloadBytesMax = gate.payloadBytesMax
        payloadBytesKept = min(gate.payloadBytesKept, gate.payloadBytesMax)
        broker = Array(settings.name.utf8)
        publishLine = Array("Client \(settings.clientID) received PUBLISH (d".utf8)
        mosquitto_user_data_set(handle, Unmanaged.passUnretained(self).toOpaque())
        // Nothing may be written before `write`: that is what makes an acknowledgement wait for the disk.
        mosquitto_threaded_set(handle, true)
        mosquitto_int_option(handle, MOSQ_OPT_PROTOCOL_VERSION, isV5 ? MQTT_PROTOCOL_V5 : MQTT_PROTOCOL_V311)
        mosquitto_int_option(handle, MOSQ_OPT_RECEIVE_MAXIMUM, Int32(settings.receiveMaximum))
        mosquitto_int_option(handle, MOSQ_OPT_TCP_NODELAY, 1)
        setCallbacks()
        watchLog(true)
    }

    deinit { hangUp() }

    var isHungUp: Bool { client == nil }

    /// Closes the socket at once, without a DISCONNECT and without what is queued. Nothing else may be called then.
    func hangUp() {
        if let client { mosquitto_destroy(client) }
        client = nil
    }

    // MARK: connecting

    /// Starts to connect. Resolves the host name, which may block; the rest does not, unless `blocking`.
    /// - Returns: nil, or what is wrong.
    func connect(blocking: Bool) -> String? {
        if let username = settings.username {
            mosquitto_username_pw_set(handle, username, settings.password)
        }
        if let tls = settings.tls, let text = setMosquittoTLS(handle, tls) { return text }
        let host = settings.host, port = Int32(settings.port), keepalive = Int32(settings.keepaliveSeconds)
        var list: OpaquePointer?
        defer { mosquitto_property_free_all(&list) }
        if isV5 {
            mosquitto_property_add_int32(
                &list, Int32(MQTT_PROP_SESSION_EXPIRY_INTERVAL.rawValue), settings.sessionExpirySeconds)
            mosquitto_property_add_int16(&list, Int32(MQTT_PROP_RECEIVE_MAXIMUM.rawValue), settings.receiveMaximum)
            mosquitto_property_add_int32(&list, Int32(MQTT_PROP_MAXIMUM_PACKET_SIZE.rawValue), 1 << 20)
        }
        let result: Int32
        if blocking {
            result = mosquitto_connect_bind_v5(handle, host, port, keepalive, nil, list)
        } else {
            // There is no asynchronous connect that takes properties. This call stores them and then refuses the
            // missing host; the connect after it uses what is stored. A test pins it: without them, no session.
            if isV5 { mosquitto_connect_bind_v5(handle, nil, port, keepalive, nil, list) }
            result = mosquitto_connect_async(handle, host, port, keepalive)
        }
        return result == MOSQ_ERR_SUCCESS.rawValue ? nil : describe(Int(result))
    }

    func subscribe(_ filters: [String]) -> String? {
        // Retain Handling 1: retained messages only for a subscription that is new. Retain As Published off.
        let options = isV5 ? Int32(MQTT_SUB_OPT_SEND_RETAIN_NEW.rawValue) : 0
        return withCStrings(filters) {
            mosquitto_subscribe_multiple(handle, &subscribeID, Int32(filters.count), $0, 1, options, nil)
        }
    }

    func unsubscribe(_ filters: [String]) -> String? {
        withCStrings(filters) { mosquitto_unsubscribe_multiple(handle, nil, Int32(filters.count), $0, nil) }
    }

    private func withCStrings(
        _ texts: [String], _ body: (UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) -> Int32
    ) -> String? {
        var pointers = texts.map { strdup($0) }
        defer { pointers.forEach { free($0) } }
        let result = pointers.withUnsafeMutableBufferPointer { body($0.baseAddress) }
        return result == MOSQ_ERR_SUCCESS.rawValue ? nil : describe(Int(result))
    }

    static let droppedTopic = "$SYS/broker/publish/messages/dropped"
    static let versionTopic = "$SYS/broker/version"

    /// Mosquitto's count of dropped messages and its version. Other brokers refuse or never publish them.
    func subscribeToBrokerTopics() {
        mosquitto_subscribe(handle, nil, Self.droppedTopic, 0)
        mosquitto_subscribe(handle, nil, Self.versionTopic, 0)
    }

    func takeVersion() -> String? {
        defer { version = nil }
        return version
    }

    func takeResumeEnd() -> Int? {
        defer { resumeEnd = nil }
        return resumeEnd
    }

    func takeSuback() -> [Int]? {
        guard let suback, suback.isNew else { return nil }
        self.suback = (suback.granted, false)
        return suback.granted
    }

    // MARK: the loop's steps

    var socket: Int32 { mosquitto_socket(handle) }
    var wantsWrite: Bool { mosquitto_want_write(handle) }

    /// The next `write` sends the CONNECT: under TLS the handshake is over.
    var isReadyForConnect: Bool {
        guard settings.tls != nil else { return true }
        return mosquitto_ssl_get(handle).map { SSL_is_init_finished(OpaquePointer($0)) == 1 } ?? false
    }

    /// Decrypted packets that wait inside OpenSSL, where `poll` does not see them.
    var pendingBytes: Int {
        guard settings.tls != nil, let ssl = mosquitto_ssl_get(handle) else { return 0 }
        return Int(SSL_pending(OpaquePointer(ssl)))
    }

    /// Reads one packet, or a little more under TLS. False: the connection has ended.
    func read() -> Bool { note(refold_guarded_read(mosquitto_loop_read, handle)) }

    /// Sends what is queued, acknowledgements included: only when all that came is durable.
    /// Passes 1 as the number of packets, as larger numbers only cost (the library sends the whole queue anyway).
    func write() -> Bool {
        let isBurst = unacknowledged > 1
        var cork: Int32 = 1
        let size = socklen_t(MemoryLayout<Int32>.size)
        // Each PUBACK is a write of 4 bytes: corked, they leave in full segments, and the last one waits for nobody
        // because Nagle's algorithm is off (measured without: 45 ms a batch).
        if isBurst { setsockopt(socket, Int32(IPPROTO_TCP), TCP_CORK, &cork, size) }
        let isAlive = note(mosquitto_loop_write(handle, 1))
        if isBurst, isAlive {
            cork = 0
            setsockopt(socket, Int32(IPPROTO_TCP), TCP_CORK, &cork, size)
        }
        return isAlive
    }

    /// Pings when it is time to.
    func tick() -> Bool { note(mosquitto_loop_misc(handle)) }

    /// Sends DISCONNECT and waits up to 2 s until the broker has read everything. The broker keeps the session unless
    /// `endsSession` (MQTT 5.0, 3.14.2.2.2; without effect on 3.1.1).
    func sendDisconnect(endsSession: Bool = false) {
        var list: OpaquePointer?
        defer { mosquitto_property_free_all(&list) }
        if endsSession, isV5 {
            mosquitto_property_add_int32(&list, Int32(MQTT_PROP_SESSION_EXPIRY_INTERVAL.rawValue), 0)
        }
        // The library closes its descriptor behind the DISCONNECT. A socket that is closed with unread input resets the
        // connection (RFC 1122, 4.2.2.13), and the broker loses acknowledgements that it has not read yet.
        let copy = wantsWrite ? -1 : fcntl(socket, F_DUPFD_CLOEXEC, 0)
        mosquitto_disconnect_v5(handle, 0, list)
        mosquitto_loop_write(handle, 1)
        guard copy >= 0 else { return }
        discardUntilClosed(copy, milliseconds: 2_000)
        close(copy)
    }

    /// Reads and drops what still comes, until the other end closes.
    private func discardUntilClosed(_ socket: Int32, milliseconds: Int) {
        shutdown(socket, Int32(SHUT_WR))
        let deadline = ContinuousClock.now + .milliseconds(milliseconds)
        var bytes = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = recv(socket, &bytes, bytes.count, Int32(MSG_DONTWAIT))
            if count == 0 { return }
            if count < 0 {
                guard errno == EAGAIN || errno == EINTR else { return }
                var wanted = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
                _ = poll(&wanted, 1, 50)
            }
            if ContinuousClock.now >= deadline { return }
        }
    }

    func takeAcknowledged() -> Int {
        defer { unacknowledged = 0 }
        return unacknowledged
    }

    func takeReceived() -> (messages: Int, bytes: Int) {
        defer { (received, receivedBytes) = (0, 0) }
        return (received, receivedBytes)
    }

    private func note(_ result: Int32) -> Bool {
        if result != MOSQ_ERR_SUCCESS.rawValue, ended == nil { ended = Int(result) }
        return ended == nil
    }

    /// An error number of the library, or a reason code of the broker, in words.
    func describe(_ code: Int) -> String {
        switch code {
        case Int(MOSQ_ERR_ERRNO.rawValue): return String(cString: strerror(errno))
        case Int(MOSQ_ERR_EAI.rawValue): return "the host name `\(settings.host)` cannot be resolved"
        case Int(MOSQ_ERR_CONN_LOST.rawValue): return "the broker closed the connection"
        case 128...: return "\(String(cString: mosquitto_reason_string(Int32(code)))) (0x\(String(code, radix: 16)))"
        default: break
        }
        let text = String(cString: mosquitto_strerror(Int32(code)))
        let isTLS = code == Int(MOSQ_ERR_TLS.rawValue) || code == Int(MOSQ_ERR_TLS_HANDSHAKE.rawValue)
        guard isTLS else { return text }
        let advice =
            "Check that the port speaks TLS, that ca_file is the broker's authority, that its certificate "
            + "names this host and has not expired"
        return [text, lastLogLine, advice].compactMap(\.self).joined(separator: " ")
    }

    /// Why a CONNACK refuses, in words.
    func refusalText(_ reason: Int) -> String {
        guard reason < 128 else { return describe(reason) + "." }
        return String(cString: mosquitto_connack_string(Int32(reason)))
    }

    // MARK: Callbacks

    private static func of(_ context: UnsafeMutableRawPointer?) -> MQTTSession {
        Unmanaged<MQTTSession>.fromOpaque(context!).takeUnretainedValue()
    }

    private func setCallbacks() {
        mosquitto_connect_v5_callback_set(handle) { _, context, reason, flags, properties in
            var connack = Connack(reason: Int(reason), sessionPresent: flags & 1 == 1)
            var seconds: UInt32 = 0
            let identifier = Int32(MQTT_PROP_SESSION_EXPIRY_INTERVAL.rawValue)
            if mosquitto_property_read_int32(properties, identifier, &seconds, false) != nil {
                connack.sessionExpirySeconds = seconds
            }
            MQTTSession.of(context).connected(connack)
        }
        mosquitto_disconnect_v5_callback_set(handle) { _, context, reason, _ in
            let session = MQTTSession.of(context)
            if session.ended == nil { session.ended = Int(reason) }
        }
        mosquitto_subscribe_v5_callback_set(handle) { _, context, id, count, granted, _ in
            let session = MQTTSession.of(context)
            if !session.hasSuback { session.resumeEnd = session.inbox.byteCount }
            session.hasSuback = true
            guard id == session.subscribeID, let granted, count > 0 else { return }
            session.suback = ((0..<Int(count)).map { Int(granted[$0]) }, true)
        }
        mosquitto_unsubscribe_v5_callback_set(handle) { _, context, _, _ in
            MQTTSession.of(context).unsubacks += 1
        }
        mosquitto_message_v5_callback_set(handle) { _, context, message, properties in
            guard let message else { return }
            MQTTSession.of(context).arrived(message.pointee, properties)
        }
    }

    /// The DUP flag shows in no callback but in the debug line just before the message's. That line costs about a
    /// microsecond, so it is watched only while connecting and while redelivered messages may come: in a resumed
    /// session, and over MQTT 3.1.1 always (`LateCopies`).
    private func watchLog(_ on: Bool) {
        guard on else { return mosquitto_log_callback_set(handle, nil) }
        mosquitto_log_callback_set(handle) { _, context, level, text in
            guard let text else { return }
            MQTTSession.of(context).logged(Int(level), text)
        }
    }

    private func logged(_ level: Int, _ text: UnsafePointer<CChar>) {
        if level == Int(MOSQ_LOG_DEBUG) {
            let isPublish = publishLine.withUnsafeBytes { strncmp(text, $0.baseAddress!, $0.count) == 0 }
            guard isPublish else { return }
            // "d0, q1, …"
            duplicateFlag = text[publishLine.count] == CChar(UInt8(ascii: "1"))
            if strncmp(text + publishLine.count + 1, ", q2", 4) == 0 { hasQoS2 = true }
        } else if level == Int(MOSQ_LOG_ERR) || level == Int(MOSQ_LOG_WARNING) {
            lastLogLine = String(cString: text)
        }
    }

    private func connected(_ connack: Connack) {
        self.connack = connack
        watched = (connack.sessionPresent || !isV5) && connack.reason == 0 ? 0 : nil
        watchLog(watched != nil)
    }

    /// The message callback. Not private: tests count its allocations.
    @inline(__always)
    func arrived(_ message: mosquitto_message, _ list: OpaquePointer?) {
        publishes += 1
        guard let name = message.topic else { return }
        if message.qos == 1 { lastPacketID = UInt16(truncatingIfNeeded: message.mid) }
        let topic = UnsafeRawBufferPointer(start: name, count: strlen(name))
        if name[0] == CChar(UInt8(ascii: "$")), takesBrokerTopic(topic, message) { return }
        if topic.count == handoverTopic.count, topic.elementsEqual(handoverTopic), takesHandover(message) { return }
        let length = Int(message.payloadlen)
        let kept = length > payloadBytesMax ? payloadBytesKept : length
        var flags = RecordFlags(qos: UInt8(message.qos))
        if message.retain { flags.insert(.retained) }
        if length > payloadBytesMax { flags.insert(.truncated) }
        if isDraining { flags.insert(.drained) }
        if watched != nil, watch(message) { flags.insert(.duplicate) }
        encodeProperties(list, into: &properties)
        if !hasClaims {
            hasClaims =
                CommandEcho.isCandidate(topic)
                || !properties.isEmpty && properties.withUnsafeBytes { ReplayEcho.isMarked($0) }
        }
        let now = clock(), payload = UnsafeRawBufferPointer(start: message.payload, count: kept)
        if isBehindMarker {
            append(message, topic, payload, flags, now, to: &behind)
        } else {
            append(message, topic, payload, flags, now, to: &inbox)
        }
        received += 1
        receivedBytes += topic.count + length
        if message.qos == 1 { unacknowledged += 1 }
        lastMessageAt = now
    }

    /// Not a local function of `arrived`: without optimisation that allocates its captured variables for each message.
    @inline(__always)
    private func append(
        _ message: mosquitto_message, _ topic: UnsafeRawBufferPointer, _ payload: UnsafeRawBufferPointer,
        _ flags: RecordFlags, _ now: Timestamp, to batch: inout RecordBatch
    ) {
        broker.withUnsafeBytes { broker in
            properties.withUnsafeBytes { properties in
                batch.append(
                    kind: .message, verdict: .accepted, flags: flags, receivedAt: now,
                    packetID: UInt16(truncatingIfNeeded: message.mid), broker: broker, topic: topic,
                    properties: properties, payload: payload, originalPayloadLength: Int(message.payloadlen))
            }
        }
    }

    /// A message about the broker itself, which is not recorded.
    private func takesBrokerTopic(_ topic: UnsafeRawBufferPointer, _ message: mosquitto_message) -> Bool {
        let text = UnsafeRawBufferPointer(start: message.payload, count: Int(message.payloadlen))
        if topic.elementsEqual(Self.droppedTopic.utf8) {
            droppedByBroker = UInt64(String(decoding: text, as: UTF8.self))
            droppedHasMoved = !message.retain
        } else if topic.elementsEqual(Self.versionTopic.utf8) {
            version = String(decoding: text.prefix(200), as: UTF8.self)
        } else {
            return false
        }
        return true
    }

    /// Whether DUP was set. Ends the watch after as many messages as there are packet ids: by then everything that was
    /// in flight at the resume has come again (MQTT 5.0, 4.4).
    private func watch(_ message: mosquitto_message) -> Bool {
        guard message.qos == 1, let count = watched else { return false }
        watched = isV5 ? count + 1 : 0
        if count >= UInt16.max {
            watched = nil
            watchLog(false)
        }
        if duplicateFlag { hasDuplicates = true }
        return duplicateFlag
    }
}
