import MQTT

/// A short exchange with a broker over MQTT 3.1.1 or 5.0: connect, perhaps a few messages at QoS 0, disconnect. Not
/// over libmosquitto, which connects without a time limit, reports no TLS alert and takes certificates from files only.
final class MQTTExchange {
    struct Packet: Equatable {
        /// Type and flags (MQTT 5.0, 2.1.1).
        let header: UInt8
        let body: [UInt8]
    }

    let socket: BrokerSocket
    private let isV5: Bool
    /// Nobody sends longer packets here; a peer that announces one is no broker of ours.
    private static let packetBytesMax = 1 << 20
    static let stringBytesMax = 65_535

    /// Opens the connection, up to the end of the TLS handshake.
    init(_ settings: BrokerSettings, identity: ClientIdentity? = nil, deadline: Deadline) throws(ExchangeError) {
        socket = try BrokerSocket(settings, identity: identity, deadline: deadline)
        isV5 = settings.protocolPreference == .v5
    }

    var deadline: Deadline {
        get { socket.deadline }
        set { socket.deadline = newValue }
    }

    /// Sends CONNECT with a clean session (3.1.1) or clean start and no session expiry (5.0).
    /// - Returns: the code of the CONNACK; 0 is success.
    func connect(clientID: String, username: String?, password: String?) throws(ExchangeError) -> UInt8 {
        let strings = [clientID] + [username, password].compactMap(\.self)
        guard strings.allSatisfy({ $0.utf8.count <= Self.stringBytesMax }) else {
            throw .unreachable("a client id, username or password exceeds 65,535 bytes")
        }
        var flags: UInt8 = 0x02
        if username != nil { flags |= 0x80 }
        if password != nil { flags |= 0x40 }
        var body = Self.string("MQTT") + [isV5 ? 5 : 4, flags, 0, 30]
        if isV5 { body.append(0) }
        try socket.send(Self.packet(0x10, body + strings.flatMap(Self.string)))
        let answer = try receive()
        guard answer.header == 0x20, answer.body.count >= 2 else { throw unexpected(answer, "CONNACK") }
        return answer.body[1]
    }

    func subscribe(_ filter: String) throws(ExchangeError) {
        try socket.send(Self.packet(0x82, [0, 1] + (isV5 ? [0] : []) + Self.string(filter) + [0]))
        let answer = try receive()
        guard answer.header == 0x90, let code = answer.body.last else { throw unexpected(answer, "SUBACK") }
        guard code < 0x80 else { throw .unreachable("the broker refused the subscription to \(filter)") }
    }

    func publish(_ topic: String, _ payload: [UInt8]) throws(ExchangeError) {
        try socket.send(Self.packet(0x30, Self.string(topic) + (isV5 ? [0] : []) + payload))
    }

    /// The payload of the next message at QoS 0.
    func receiveMessage() throws(ExchangeError) -> [UInt8] {
        let packet = try receive()
        guard packet.header & 0xFE == 0x30, packet.body.count >= 2 else { throw unexpected(packet, "message") }
        var rest = packet.body.dropFirst(2 + (Int(packet.body[0]) << 8 | Int(packet.body[1])))
        if isV5 {
            var length = 0, shift = 0
            while let byte = rest.popFirst() {
                length |= Int(byte & 0x7F) << shift
                shift += 7
                if byte < 0x80 || shift > 21 { break }
            }
            rest = rest.dropFirst(length)
        }
        return Array(rest)
    }

    /// An orderly end: no will is published.
    func disconnect() {
        try? socket.send([0xE0, 0])
        socket.finish()
    }

    // MARK: Packets

    func receive() throws(ExchangeError) -> Packet {
        let header = try socket.receive(1)[0]
        var length = 0, shift = 0
        while true {
            let byte = try socket.receive(1)[0]
            length |= Int(byte & 0x7F) << shift
            shift += 7
            if byte < 0x80 { break }
            guard shift <= 21 else { throw .unreachable("the peer does not speak MQTT: invalid packet length") }
        }
        guard length <= Self.packetBytesMax else { throw .unreachable("the peer sends a packet of \(length) bytes") }
        return Packet(header: header, body: try socket.receive(length))
    }

    private func unexpected(_ packet: Packet, _ wanted: String) -> ExchangeError {
        // A DISCONNECT of MQTT 5.0 has a reason.
        let reason = packet.header == 0xE0 ? ", reason code \(packet.body.first ?? 0)" : ""
        return .unreachable("the peer sent MQTT packet type \(packet.header >> 4)\(reason) instead of a \(wanted)")
    }

    static func string(_ text: String) -> [UInt8] {
        let bytes = Array(text.utf8.prefix(stringBytesMax))
        return [UInt8(bytes.count >> 8), UInt8(bytes.count & 0xFF)] + bytes
    }

    static func packet(_ header: UInt8, _ body: [UInt8]) -> [UInt8] {
        var packet = [header], length = body.count
        repeat {
            packet.append(UInt8(length & 0x7F) | (length > 0x7F ? 0x80 : 0))
            length >>= 7
        } while length > 0
        return packet + body
    }
}
