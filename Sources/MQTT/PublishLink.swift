import CMosquitto
import CPlatform
import Glibc

/// One connection to a broker that is published to at QoS 1, with a session of its own that ends with it. Belongs to
/// one thread. What the broker has not acknowledged when it ends is for its owner to send again, on the next one.
package final class PublishLink {
    private let client: OpaquePointer  // struct mosquitto *
    package let isV5: Bool
    private var connack: Int?
    private var ended: Int?
    /// Packet ids that were acknowledged since the last `takeAcknowledged`, with the reason code, 0 under 3.1.1.
    private var acknowledged: [(id: Int32, reason: Int)] = []

    package struct Failure: Error, CustomStringConvertible {
        package let text: String
        /// The broker answered and refuses, or the message itself cannot be sent: to try again would not help.
        package var isRefusal = false
        /// It does not speak the version that was offered.
        package var isVersion = false
        package var description: String { text }

        package init(text: String, isRefusal: Bool = false, isVersion: Bool = false) {
            self.text = text
            self.isRefusal = isRefusal
            self.isVersion = isVersion
        }
    }

    /// Connects and waits until the broker has accepted.
    /// - Parameters:
    ///   - window: unacknowledged messages at most; the library queues what is beyond the broker's own limit.
    ///   - milliseconds: how long its answer may take.
    package init(_ settings: BrokerSettings, isV5: Bool, window: Int, milliseconds: Int) throws(Failure) {
        MQTTLibrary.load()
        guard let client = mosquitto_new(settings.clientID, true, nil) else {
            throw Failure(text: "out of memory for an MQTT client")
        }
        self.client = client
        self.isV5 = isV5
        mosquitto_user_data_set(client, Unmanaged.passUnretained(self).toOpaque())
        mosquitto_int_option(client, MOSQ_OPT_PROTOCOL_VERSION, isV5 ? MQTT_PROTOCOL_V5 : MQTT_PROTOCOL_V311)
        mosquitto_int_option(client, MOSQ_OPT_TCP_NODELAY, 1)
        // The library queues what is beyond the broker's Receive Maximum, in order.
        if isV5 {
            mosquitto_int_option(client, MOSQ_OPT_SEND_MAXIMUM, Int32(window))
        } else {
            mosquitto_max_inflight_messages_set(client, UInt32(window))
        }
        setCallbacks()
        if let username = settings.username { mosquitto_username_pw_set(client, username, settings.password) }
        if let tls = settings.tls, let problem = setMosquittoTLS(client, tls) {
            throw Failure(text: problem, isRefusal: true)
        }
        let result = mosquitto_connect(client, settings.host, Int32(settings.port), Int32(settings.keepaliveSeconds))
        guard result == MOSQ_ERR_SUCCESS.rawValue else { throw failure(Int(result)) }
        let deadline = ContinuousClock.now + .milliseconds(milliseconds)
        while connack == nil {
            if let ended { throw failure(ended) }
            guard ContinuousClock.now < deadline else { throw Failure(text: "it does not answer the CONNECT") }
            step(milliseconds: 100)
        }
        guard let connack, connack == 0 else { throw refusal(connack ?? 0) }
    }

    deinit { mosquitto_destroy(client) }

    /// Hands a message over; it leaves at once or during the next steps. Returns its packet id.
    /// - Parameters:
    ///   - topic: with a zero byte at the end.
    ///   - properties: a list of the library's, for MQTT 5 only; it stays the caller's.
    package func send(
        _ topic: [CChar], _ payload: [UInt8], retain: Bool = false, properties: OpaquePointer? = nil
    ) throws(Failure) -> Int32 {
        var id: Int32 = 0
        let result = mosquitto_publish_v5(
            client, &id, topic, Int32(payload.count), payload, 1, retain, isV5 ? properties : nil)
        guard result == MOSQ_ERR_SUCCESS.rawValue else { throw failure(Int(result)) }
        return id
    }

    package func takeAcknowledged() -> [(id: Int32, reason: Int)] {
        defer { acknowledged.removeAll(keepingCapacity: true) }
        return acknowledged
    }

    /// Waits at most so long for the socket, then sends, reads and pings. Throws when the connection has ended and all
    /// that was answered before has been taken.
    /// - Parameter wakeUp: a descriptor that ends the wait when it can be read.
    package func serve(milliseconds: Int, wakeUp: Int32 = -1) throws(Failure) {
        step(milliseconds: milliseconds, wakeUp: wakeUp)
        if let ended, acknowledged.isEmpty { throw failure(ended) }
    }

    package func disconnect() {
        mosquitto_disconnect(client)
        mosquitto_loop_write(client, 1)
    }

    /// `poll`, never libmosquitto's own loop: that uses `select`, which ends at 1,024 descriptors.
    private func step(milliseconds: Int, wakeUp: Int32 = -1) {
        let socket = mosquitto_socket(client)
        guard socket >= 0 else {
            ended = ended ?? Int(MOSQ_ERR_CONN_LOST.rawValue)
            return
        }
        var wanted = Int16(POLLIN)
        if mosquitto_want_write(client) { wanted |= Int16(POLLOUT) }
        var descriptors = (
            pollfd(fd: socket, events: wanted, revents: 0), pollfd(fd: wakeUp, events: Int16(POLLIN), revents: 0)
        )
        _ = withUnsafeMutableBytes(of: &descriptors) {
            poll($0.assumingMemoryBound(to: pollfd.self).baseAddress, 2, Int32(milliseconds))
        }
        let events = descriptors.0.revents
        if events & Int16(POLLOUT) != 0 { note(mosquitto_loop_write(client, 1)) }
        if events & ~Int16(POLLOUT) != 0 {
            // A call reads one packet. Where one brought an acknowledgement there may be more, under TLS also where
            // poll does not see them.
            var before = -1
            while ended == nil, before != acknowledged.count {
                before = acknowledged.count
                note(refold_guarded_read(mosquitto_loop_read, client))
            }
        }
        note(mosquitto_loop_misc(client))
    }

    private func note(_ result: Int32) {
        if result != MOSQ_ERR_SUCCESS.rawValue, ended == nil { ended = Int(result) }
    }

    private func failure(_ code: Int) -> Failure {
        switch code {
        case Int(MOSQ_ERR_ERRNO.rawValue): return Failure(text: String(cString: strerror(errno)))
        // A broker that does not know our version may just hang up on the CONNECT.
        case Int(MOSQ_ERR_CONN_LOST.rawValue):
            return Failure(text: "the broker closed the connection", isVersion: connack == nil && isV5)
        case 128...: return Failure(text: String(cString: mosquitto_reason_string(Int32(code))))
        default: break
        }
        let isWrong = [
            MOSQ_ERR_INVAL, MOSQ_ERR_MALFORMED_UTF8, MOSQ_ERR_TLS, MOSQ_ERR_OVERSIZE_PACKET, MOSQ_ERR_PAYLOAD_SIZE,
        ].contains { Int($0.rawValue) == code }
        return Failure(text: String(cString: mosquitto_strerror(Int32(code))), isRefusal: isWrong)
    }

    private func refusal(_ reason: Int) -> Failure {
        let text = String(
            cString: reason < 128
                ? mosquitto_connack_string(Int32(reason)) : mosquitto_reason_string(Int32(reason)))
        // 1 and 0x84: unacceptable protocol version. 3, 0x88 and 0x89: unavailable, busy: later perhaps.
        return Failure(
            text: "it refuses the connection: \(text)", isRefusal: ![3, 0x88, 0x89].contains(reason),
            isVersion: isV5 && (reason == 1 || reason == 0x84))
    }

    package static func text(ofReason reason: Int) -> String { String(cString: mosquitto_reason_string(Int32(reason))) }

    private static func of(_ context: UnsafeMutableRawPointer?) -> PublishLink {
        Unmanaged<PublishLink>.fromOpaque(context!).takeUnretainedValue()
    }

    private func setCallbacks() {
        mosquitto_connect_v5_callback_set(client) { _, context, reason, _, _ in
            PublishLink.of(context).connack = Int(reason)
        }
        mosquitto_disconnect_v5_callback_set(client) { _, context, reason, _ in
            let link = PublishLink.of(context)
            link.ended = link.ended ?? Int(reason == 0 ? Int32(MOSQ_ERR_CONN_LOST.rawValue) : reason)
        }
        mosquitto_publish_v5_callback_set(client) { _, context, id, reason, _ in
            PublishLink.of(context).acknowledged.append((id, Int(reason)))
        }
    }
}
