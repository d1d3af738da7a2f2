import CMosquitto
import Synchronization
import Threading

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// Publishes one small retained message at QoS 1, again and again as it changes, on a broker connection of its own: it
/// neither waits for ingest nor holds it up. Only the newest value counts: what is superseded before it was sent is
/// not sent. A failure is counted, said, and tried again after a pause.
public final class RetainedPublisher: Sendable {
    public struct Status: Sendable, Equatable {
        /// Values that the broker has acknowledged.
        public internal(set) var published: UInt64 = 0
        public internal(set) var failures: UInt64 = 0
        public internal(set) var lastError: String?
    }

    private struct State {
        var waiting: [UInt8]?
        var isStopping = false
        var status = Status()
    }

    public let broker: String
    private let settings: BrokerSettings
    private let topic: String
    private let state = Mutex(State())
    private static let answerMilliseconds = 10_000
    private static let retryMillisecondsMax = 60_000

    /// - Parameter settings: of the broker; the client id must be nobody else's.
    public init(_ settings: BrokerSettings, topic: String) {
        self.settings = settings
        self.topic = topic
        broker = settings.name
        MQTTLibrary.load()
        startThread(name: "publish") { [self] in run() }
    }

    public var status: Status { state.withLock { $0.status } }

    /// Replaces what waits to be sent.
    public func publish(_ payload: [UInt8]) { state.withLock { $0.waiting = payload } }

    public func stop() { state.withLock { $0.isStopping = true } }

    private var isStopping: Bool { state.withLock { $0.isStopping } }

    private func run() {
        var link: PublisherLink?, retry = 500
        while !isStopping {
            guard let payload = state.withLock({ $0.waiting }) else {
                // Pings, and notices a connection that ended; the next value makes a new one.
                if let open = link, !open.serve(milliseconds: 200) { link = nil }
                if link == nil { usleep(200_000) }
                continue
            }
            do {
                let open = try link ?? PublisherLink(settings, milliseconds: Self.answerMilliseconds)
                link = open
                try open.publish(payload, topic: topic, milliseconds: Self.answerMilliseconds)
                state.withLock { state in
                    if state.waiting == payload { state.waiting = nil }
                    state.status.published += 1
                    state.status.lastError = nil
                }
                retry = 500
            } catch {
                link = nil
                state.withLock { state in
                    state.status.failures += 1
                    state.status.lastError = "\(error)"
                }
                var left = retry
                while left > 0, !isStopping {
                    usleep(100_000)
                    left -= 100
                }
                retry = min(retry * 2, Self.retryMillisecondsMax)
            }
        }
        link?.disconnect()
    }
}

private struct PublishError: Error, CustomStringConvertible {
    let description: String
}

/// One connection. Belongs to its publisher's thread.
private final class PublisherLink {
    private let client: OpaquePointer  // struct mosquitto *
    private var connack: Int?
    private var acknowledged: Int32?
    private var refusal: Int?
    private var ended: Int?

    init(_ settings: BrokerSettings, milliseconds: Int) throws(PublishError) {
        guard let client = mosquitto_new(settings.clientID, true, nil) else {
            throw PublishError(description: "out of memory for an MQTT client")
        }
        self.client = client
        mosquitto_user_data_set(client, Unmanaged.passUnretained(self).toOpaque())
        let isV5 = settings.protocolPreference == .v5
        mosquitto_int_option(client, MOSQ_OPT_PROTOCOL_VERSION, isV5 ? MQTT_PROTOCOL_V5 : MQTT_PROTOCOL_V311)
        mosquitto_int_option(client, MOSQ_OPT_TCP_NODELAY, 1)
        setCallbacks()
        if let username = settings.username { mosquitto_username_pw_set(client, username, settings.password) }
        if let tls = settings.tls, let problem = setMosquittoTLS(client, tls) {
            throw PublishError(description: problem)
        }
        let result = mosquitto_connect(client, settings.host, Int32(settings.port), Int32(settings.keepaliveSeconds))
        guard result == MOSQ_ERR_SUCCESS.rawValue else { throw failure(Int(result)) }
        try wait(milliseconds) { connack != nil }
        guard connack == 0 else {
            throw PublishError(description: String(cString: mosquitto_connack_string(Int32(connack ?? 0))))
        }
    }

    deinit { mosquitto_destroy(client) }

    func publish(_ payload: [UInt8], topic: String, milliseconds: Int) throws(PublishError) {
        var id: Int32 = 0
        (acknowledged, refusal) = (nil, nil)
        let result = mosquitto_publish_v5(client, &id, topic, Int32(payload.count), payload, 1, true, nil)
        guard result == MOSQ_ERR_SUCCESS.rawValue else { throw failure(Int(result)) }
        try wait(milliseconds) { acknowledged == id }
        if let refusal, refusal >= 128 {
            throw PublishError(description: String(cString: mosquitto_reason_string(Int32(refusal))))
        }
    }

    /// False: the connection has ended.
    func serve(milliseconds: Int) -> Bool {
        step(milliseconds)
        return ended == nil
    }

    func disconnect() {
        mosquitto_disconnect(client)
        mosquitto_loop_write(client, 1)
    }

    private func wait(_ milliseconds: Int, until isDone: () -> Bool) throws(PublishError) {
        let deadline = ContinuousClock.now + .milliseconds(milliseconds)
        while !isDone() {
            if let ended { throw failure(ended) }
            guard ContinuousClock.now < deadline else { throw PublishError(description: "the broker does not answer") }
            step(100)
        }
    }

    /// `poll`, never libmosquitto's own loop: that uses `select`, which ends at 1,024 descriptors.
    private func step(_ milliseconds: Int) {
        let socket = mosquitto_socket(client)
        guard socket >= 0 else {
            ended = ended ?? Int(MOSQ_ERR_CONN_LOST.rawValue)
            return
        }
        var wanted = Int16(POLLIN)
        if mosquitto_want_write(client) { wanted |= Int16(POLLOUT) }
        var descriptor = pollfd(fd: socket, events: wanted, revents: 0)
        let ready = poll(&descriptor, 1, Int32(milliseconds))
        if ready > 0, descriptor.revents & Int16(POLLOUT) != 0 { note(mosquitto_loop_write(client, 1)) }
        if ready > 0, descriptor.revents & ~Int16(POLLOUT) != 0 { note(mosquitto_loop_read(client, 1)) }
        note(mosquitto_loop_misc(client))
    }

    private func note(_ result: Int32) {
        if result != MOSQ_ERR_SUCCESS.rawValue, ended == nil { ended = Int(result) }
    }

    private func failure(_ code: Int) -> PublishError {
        let text = code == Int(MOSQ_ERR_ERRNO.rawValue) ? strerror(errno) : UnsafeMutablePointer(
            mutating: mosquitto_strerror(Int32(code)))
        return PublishError(description: text.map { String(cString: $0) } ?? "error \(code)")
    }

    private static func of(_ context: UnsafeMutableRawPointer?) -> PublisherLink {
        Unmanaged<PublisherLink>.fromOpaque(context!).takeUnretainedValue()
    }

    private func setCallbacks() {
        mosquitto_connect_v5_callback_set(client) { _, context, reason, _, _ in
            PublisherLink.of(context).connack = Int(reason)
        }
        mosquitto_disconnect_v5_callback_set(client) { _, context, reason, _ in
            let link = PublisherLink.of(context)
            link.ended = link.ended ?? Int(reason == 0 ? Int32(MOSQ_ERR_CONN_LOST.rawValue) : reason)
        }
        mosquitto_publish_v5_callback_set(client) { _, context, id, reason, _ in
            let link = PublisherLink.of(context)
            link.acknowledged = id
            link.refusal = Int(reason)
        }
    }
}
