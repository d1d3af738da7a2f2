import CMosquitto
import Foundation
import Synchronization

/// A device, or a crowd of them, over one MQTT connection: publishes and counts what the broker acknowledged.
/// `@unchecked Sendable`: the client handle is libmosquitto's, which locks for itself in its threaded mode.
public final class TestPublisher: @unchecked Sendable {
    private let client: OpaquePointer  // struct mosquitto *
    private let answers = Answers()
    private let published = Mutex(0)

    /// What the library's thread uses. It must not retain the publisher, whose deinit joins that thread.
    private final class Answers: Sendable {
        let acknowledged = Mutex(0)
        let connackReceived = DispatchSemaphore(value: 0)
        let connackCode = Mutex<Int32>(-1)

        static func of(_ context: UnsafeMutableRawPointer) -> Answers {
            Unmanaged<Answers>.fromOpaque(context).takeUnretainedValue()
        }
    }

    public struct Options: Sendable {
        public var clientID = "publisher-" + String(UInt32.random(in: 0 ... .max), radix: 36)
        public var username: String?
        public var password: String?
        public var ca: String?
        /// For how long the broker keeps the session, in seconds; 0: it is a new one each time.
        public var sessionSeconds: UInt32 = 0
        public init() {}
    }

    /// Connects with MQTT 5.0 and waits for the CONNACK: libmosquitto sends some messages twice that are published
    /// before it.
    public init(port: Int, options: Options = Options()) throws {
        mosquitto_lib_init()
        guard let client = mosquitto_new(options.clientID, options.sessionSeconds == 0, nil) else {
            throw SystemError("mosquitto_new failed")
        }
        self.client = client
        mosquitto_int_option(client, MOSQ_OPT_PROTOCOL_VERSION, MQTT_PROTOCOL_V5)
        if let username = options.username { mosquitto_username_pw_set(client, username, options.password) }
        if let ca = options.ca { mosquitto_tls_set(client, ca, nil, nil, nil, nil) }
        mosquitto_user_data_set(client, Unmanaged.passUnretained(answers).toOpaque())
        mosquitto_publish_v5_callback_set(client) { _, context, _, reason, _ in
            guard reason < 128, let context else { return }
            Answers.of(context).acknowledged.withLock { $0 += 1 }
        }
        mosquitto_connect_callback_set(client) { _, context, code in
            guard let context else { return }
            Answers.of(context).connackCode.withLock { $0 = code }
            Answers.of(context).connackReceived.signal()
        }
        var list: OpaquePointer?
        defer { mosquitto_property_free_all(&list) }
        if options.sessionSeconds > 0 {
            mosquitto_property_add_int32(
                &list, Int32(MQTT_PROP_SESSION_EXPIRY_INTERVAL.rawValue), options.sessionSeconds)
        }
        let result = mosquitto_connect_bind_v5(client, "127.0.0.1", Int32(port), 60, nil, list)
        guard result == MOSQ_ERR_SUCCESS.rawValue, mosquitto_loop_start(client) == MOSQ_ERR_SUCCESS.rawValue else {
            throw SystemError("publisher: \(String(cString: mosquitto_strerror(result)))")
        }
        guard answers.connackReceived.wait(timeout: .now() + 20) == .success else {
            throw SystemError("publisher: no CONNACK")
        }
        let code = answers.connackCode.withLock { $0 }
        guard code == 0 else { throw SystemError("publisher: CONNACK code \(code)") }
    }

    deinit {
        mosquitto_disconnect(client)
        mosquitto_loop_stop(client, false)
        mosquitto_destroy(client)
    }

    /// MQTT 5 properties of one publish.
    public struct Properties: Sendable {
        public var contentType: String?
        public var responseTopic: String?
        public var correlationData: [UInt8]?
        public var userProperties: [(String, String)] = []
        public var messageExpirySeconds: UInt32?
        public var payloadIsText = false
        public init() {}
    }

    public func publish(
        _ topic: String, _ payload: some Sequence<UInt8>, qos: Int32 = 1, retain: Bool = false,
        properties: Properties = Properties()
    ) throws {
        var list: OpaquePointer?
        defer { mosquitto_property_free_all(&list) }
        if properties.payloadIsText { mosquitto_property_add_byte(&list, 1, 1) }
        if let seconds = properties.messageExpirySeconds { mosquitto_property_add_int32(&list, 2, seconds) }
        if let type = properties.contentType { mosquitto_property_add_string(&list, 3, type) }
        if let topic = properties.responseTopic { mosquitto_property_add_string(&list, 8, topic) }
        if let data = properties.correlationData { mosquitto_property_add_binary(&list, 9, data, UInt16(data.count)) }
        for (name, value) in properties.userProperties { mosquitto_property_add_string_pair(&list, 38, name, value) }
        let bytes = Array(payload)
        let result = mosquitto_publish_v5(client, nil, topic, Int32(bytes.count), bytes, qos, retain, list)
        guard result == MOSQ_ERR_SUCCESS.rawValue else {
            throw SystemError("publish: \(String(cString: mosquitto_strerror(result)))")
        }
        published.withLock { $0 += 1 }
    }

    public func publish(_ topic: String, _ payload: String, qos: Int32 = 1, retain: Bool = false) throws {
        try publish(topic, payload.utf8, qos: qos, retain: retain)
    }

    /// How many of the publishes the broker has taken (at QoS 0: how many were sent).
    public var acknowledged: Int { answers.acknowledged.withLock { $0 } }

    /// Waits until all are.
    public func flush() async throws {
        guard await eventually({ acknowledged == published.withLock { $0 } }) else {
            throw SystemError("the broker acknowledged \(acknowledged) of \(published.withLock { $0 }) publishes")
        }
    }
}
