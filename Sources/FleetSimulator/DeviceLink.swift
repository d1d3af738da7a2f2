import CMosquitto
import Glibc
import Primitives

/// A publish whose acknowledgement is awaited: what the ledger will say of it.
struct Publish {
    var topic: String
    var digest: [UInt8]
    var device: Int
    var kind: MessageKind
    var seq: Int64
    var index: Int?
    var defect: Defect?
    var isDuplicate: Bool
    /// Number of the publish in this run: the order of what is left over at the end.
    var order: Int
    var sentAtMicros: Int64
}

/// What a link tells the engine. Called on the engine's thread, partly from within libmosquitto.
protocol LinkOwner: AnyObject {
    func link(_ link: DeviceLink, isSending message: FleetMessage) -> Publish
    func link(_ link: DeviceLink, acknowledged publish: Publish)
    /// The library would not take it: it never left.
    func link(_ link: DeviceLink, refused publish: Publish)
    func linkConnected(_ link: DeviceLink)
    func link(_ link: DeviceLink, ended reason: String, wasConnected: Bool, expected: Bool)
    func link(_ link: DeviceLink, received payload: UnsafeRawBufferPointer, on topic: String, retained: Bool)
}

/// One MQTT connection: a device of its own, or a share of a bench's devices.
///
/// The session is persistent (clean session off), so libmosquitto keeps what the broker has not acknowledged and sends
/// it again, marked DUP, when the connection is back (MQTT 3.1.1, 4.4). Nothing here is thread-safe.
final class DeviceLink {
    enum State: Equatable {
        /// Not connected; the next attempt is due at `retryAtMicros`.
        case down
        case connecting(deadlineMicros: Int64)
        case up
        /// A DISCONNECT is on its way, or the socket was cut on purpose.
        case leaving
        /// Never to come back.
        case ended
    }

    enum Item {
        case message(FleetMessage)
        case leave(orderly: Bool, offlineMicros: Int64)
        /// Ends the connection in order once everything before it is acknowledged.
        case hangUp(offlineMicros: Int64)
    }

    let index: Int
    let window: Int
    private let client: OpaquePointer  // struct mosquitto *
    private unowned let owner: any LinkOwner
    private(set) var state = State.down
    private(set) var retryAtMicros: Int64 = 0
    private var offlineMicros: Int64 = 0
    private var failures = 0
    private var waiting = ItemQueue()
    private(set) var inFlight: [UInt16: Publish] = [:]
    private let subscriptions: [String]
    private let identity: (certificate: String, key: String)?
    private let farewell: FleetMessage?
    /// What the broker's CONNACK said against us.
    private var refusal: String?
    /// The socket that the poller knows, and whether it was asked for room to write.
    private(set) var watched: (socket: CInt, writing: Bool)?

    static let backoffMicros: ClosedRange<Int64> = 200_000...5_000_000

    /// What a connection that is one device's own brings with it.
    struct Device {
        /// Published by the broker if the connection ends without DISCONNECT (QoS 1).
        var lastWill: (topic: String, payload: [UInt8])
        /// Published by the device before it leaves in order.
        var farewell: FleetMessage
        /// Where its commands arrive.
        var subscriptions: [String]
        /// Files of its own certificate and key.
        var identity: (certificate: String, key: String)?
    }

    init(
        index: Int, clientID: String, settings: FleetSettings, owner: any LinkOwner,
        device: Device?
    ) throws(FleetError) {
        self.index = index
        self.owner = owner
        (subscriptions, identity) = (device?.subscriptions ?? [], device?.identity)
        farewell = device?.farewell
        window = settings.windowSize
        guard let client = mosquitto_new(clientID, false, nil) else {
            throw .invalid("cannot make an MQTT client: \(String(cString: strerror(errno)))")
        }
        self.client = client
        mosquitto_user_data_set(client, Unmanaged.passUnretained(self).toOpaque())
        // The window is ours: without this the library would hold back behind 20 and hide it.
        mosquitto_max_inflight_messages_set(client, 0)
        // Devices that send now and then must not wait for Nagle and a delayed ACK (40 ms); at full speed they save
        // packets.
        mosquitto_int_option(client, MOSQ_OPT_TCP_NODELAY, settings.rate > 0 ? 1 : 0)
        if let username = settings.broker.username {
            mosquitto_username_pw_set(client, username, settings.broker.password)
        }
        if settings.broker.usesTLS {
            let result = mosquitto_tls_set(
                client, settings.caFile, settings.caFile == nil ? "/etc/ssl/certs" : nil,
                identity?.certificate ?? settings.certificateFile, identity?.key ?? settings.keyFile, nil)
            guard result == MOSQ_ERR_SUCCESS.rawValue else {
                throw .invalid("TLS files (--ca-file, --cert, --key): \(Self.text(result))")
            }
        }
        if let will = device?.lastWill {
            mosquitto_will_set(client, will.topic, CInt(will.payload.count), will.payload, 1, false)
        }
        setCallbacks()
    }

    deinit { mosquitto_destroy(client) }

    private func setCallbacks() {
        mosquitto_connect_with_flags_callback_set(client) { _, context, code, flags in
            DeviceLink.from(context).connected(code: code, sessionPresent: flags & 1 == 1)
        }
        mosquitto_publish_callback_set(client) { _, context, packetID in
            DeviceLink.from(context).acknowledged(UInt16(truncatingIfNeeded: packetID))
        }
        mosquitto_message_callback_set(client) { _, context, message in
            guard let message else { return }
            let link = DeviceLink.from(context)
            let payload = UnsafeRawBufferPointer(start: message.pointee.payload, count: Int(message.pointee.payloadlen))
            link.owner.link(
                link, received: payload, on: message.pointee.topic.map { String(cString: $0) } ?? "",
                retained: message.pointee.retain)
        }
    }

    private static func from(_ context: UnsafeMutableRawPointer?) -> DeviceLink {
        Unmanaged<DeviceLink>.fromOpaque(context!).takeUnretainedValue()
    }

    static func text(_ result: CInt) -> String {
        result == MOSQ_ERR_ERRNO.rawValue
            ? String(cString: strerror(errno)) : String(cString: mosquitto_strerror(result))
    }

    /// What was published and not acknowledged.
    var leftOver: [Publish] { inFlight.values.sorted { $0.order < $1.order } }
}

// Connecting and ending
extension DeviceLink {
    /// Begins an attempt. Failures come back through `ended`.
    func connect(_ settings: FleetSettings, now: Int64) {
        state = .connecting(deadlineMicros: now + Int64(settings.connectTimeoutSeconds * 1e6))
        watched = nil
        let result = mosquitto_connect_async(
            client, settings.broker.host, CInt(settings.broker.port), CInt(settings.keepAliveSeconds))
        if result != MOSQ_ERR_SUCCESS.rawValue { lost(Self.text(result)) }
    }

    private func connected(code: CInt, sessionPresent: Bool) {
        guard code == 0 else {
            refusal = String(cString: mosquitto_connack_string(code))
            return
        }
        guard case .connecting = state else { return }
        state = .up
        failures = 0
        if !sessionPresent { for topic in subscriptions { mosquitto_subscribe(client, nil, topic, 1) } }
        owner.linkConnected(self)
        pump()
    }

    private func lost(_ reason: String) {
        if state == .ended { return }
        let expected = state == .leaving
        let wasConnected = expected || state == .up
        watched = nil
        if expected {
            retryAtMicros = offlineMicros == .max ? .max : SystemTime.monotonicMicroseconds() + offlineMicros
        } else {
            let delay = min(Self.backoffMicros.upperBound, Self.backoffMicros.lowerBound << min(failures, 8))
            // Spread by index: five thousand devices must not come back in the same millisecond.
            retryAtMicros = SystemTime.monotonicMicroseconds() + delay / 2 + (delay / 2) * Int64(index % 97) / 96
            failures += 1
        }
        state = expected && offlineMicros == .max ? .ended : .down
        let text = refusal ?? reason
        refusal = nil
        owner.link(self, ended: text, wasConnected: wasConnected, expected: expected)
    }

    /// Makes no attempt before then.
    func stayAway(untilMicros: Int64) { retryAtMicros = untilMicros }

    /// Gives up an attempt that has taken too long.
    func abandonAttempt() {
        if mosquitto_socket(client) >= 0 { shutdown(mosquitto_socket(client), CInt(SHUT_RDWR)) }
        lost("no answer in time")
    }

    /// Never to connect again; what waits is dropped.
    func end() {
        waiting = ItemQueue()
        state = .ended
    }

    /// Drops what has not been handed to the library.
    func discardWaiting() { waiting = ItemQueue() }

    /// Serves the socket. Register it with the poller afterwards.
    func serve(readable: Bool, writable: Bool) {
        var result: CInt = 0
        if writable { result = mosquitto_loop_write(client, 1) }
        if result == 0, readable { result = mosquitto_loop_read(client, 1) }
        if result != 0 || mosquitto_socket(client) < 0 { ended(result) }
    }

    /// Pings and the library's other timers; about once a second.
    func keepAlive() {
        guard state == .up || state == .leaving else { return }
        let result = mosquitto_loop_misc(client)
        if result != 0 { ended(result) }
    }

    private func ended(_ result: CInt) {
        if state == .down || state == .ended { return }
        lost(result == 0 ? "connection closed" : Self.text(result))
    }

    /// Tells the poller what this link waits for now.
    func register(with poller: Poller) {
        let socket = mosquitto_socket(client)
        guard socket >= 0, state != .down, state != .ended else { return }
        let writing = mosquitto_want_write(client)
        if let watched, watched.socket == socket {
            if watched.writing == writing { return }
            poller.watch(socket, token: index, writing: writing, isNew: false)
        } else {
            poller.watch(socket, token: index, writing: writing, isNew: true)
        }
        watched = (socket, writing)
    }

    private func leave(offlineMicros: Int64) {
        state = .leaving
        self.offlineMicros = offlineMicros
    }
}

// Publishing
extension DeviceLink {
    func enqueue(_ item: Item) {
        waiting.append(item)
        if state == .up { pump() }
    }

    /// Before everything that waits: a birth.
    func enqueueFirst(_ item: Item) { waiting.prepend(item) }

    /// Publishes what the window lets through. Order within the link is kept.
    func pump() {
        while state == .up, inFlight.count < window, let item = waiting.popFirst() {
            switch item {
            case .message(let message): send(message)
            case .leave(orderly: false, let offlineMicros):
                leave(offlineMicros: offlineMicros)
                shutdown(mosquitto_socket(client), CInt(SHUT_RDWR))
            case .leave(orderly: true, let offlineMicros):
                waiting.prepend(.hangUp(offlineMicros: offlineMicros))
                if let farewell { waiting.prepend(.message(farewell)) }
            case .hangUp(let offlineMicros):
                guard inFlight.isEmpty else {
                    waiting.prepend(item)
                    return
                }
                leave(offlineMicros: offlineMicros)
                mosquitto_disconnect(client)
                // Outside of its callbacks the library has closed the socket by now, and no event will tell.
                if mosquitto_socket(client) < 0 { lost("disconnected") }
            }
        }
    }

    private func send(_ message: FleetMessage) {
        let publish = owner.link(self, isSending: message)
        var packetID: CInt = 0
        let result = mosquitto_publish(
            client, &packetID, message.topic, CInt(message.payload.count), message.payload, 1, false)
        // With a broken connection the library has queued the message all the same and sends it after the reconnect;
        // the loop notices the loss by itself. What it refuses outright never left and stays unacknowledged.
        let refused = [
            MOSQ_ERR_INVAL, MOSQ_ERR_NOMEM, MOSQ_ERR_PAYLOAD_SIZE, MOSQ_ERR_MALFORMED_UTF8,
            MOSQ_ERR_OVERSIZE_PACKET, MOSQ_ERR_QOS_NOT_SUPPORTED,
        ].contains { $0.rawValue == result }
        if refused {
            owner.link(self, refused: publish)
        } else {
            inFlight[UInt16(truncatingIfNeeded: packetID)] = publish
        }
    }

    private func acknowledged(_ packetID: UInt16) {
        guard let publish = inFlight.removeValue(forKey: packetID) else { return }
        owner.link(self, acknowledged: publish)
        pump()
    }
}

/// A first-in, first-out queue that also takes back; appending and taking are constant time on average.
struct ItemQueue {
    private var items: [DeviceLink.Item?] = []
    private var head = 0

    var count: Int { items.count - head }
    var isEmpty: Bool { head == items.count }

    mutating func append(_ item: DeviceLink.Item) { items.append(item) }

    mutating func prepend(_ item: DeviceLink.Item) {
        if head > 0 {
            head -= 1
            items[head] = item
        } else {
            items.insert(item, at: 0)
        }
    }

    mutating func popFirst() -> DeviceLink.Item? {
        guard head < items.count else { return nil }
        defer {
            items[head] = nil
            head += 1
            if head == items.count || head > 4096 {
                items.removeFirst(head)
                head = 0
            }
        }
        return items[head]
    }
}
