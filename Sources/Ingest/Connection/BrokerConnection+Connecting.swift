import CMosquitto
import EventModel
import Glibc
import Primitives

// From the first packet to the CONNACK.

extension BrokerConnection {
    func connectAndServe(_ session: MQTTSession) -> Ending {
        heart.beat(within: Self.slowSeconds)
        if let text = session.connect(blocking: triesAllAddresses) {
            triesAllAddresses.toggle()
            return .lost(reason: "cannot connect to \(settings.address): \(text)", code: nil)
        }
        if let ending = awaitConnack(session) { return ending }
        triesAllAddresses = false
        heart.beat(within: Self.slowSeconds)
        // The next attempt offers the version that the broker has just accepted.
        if session.isV5 { acceptedV5 = true }
        connectHangUps = 0
        if let drain { return greetOldSession(session, drain) ?? serve(session, drain) }
        return greet(session) ?? serve(session)
    }

    /// Until the broker has accepted us. Nothing can be in the inbox before that but the event of the attempt.
    private func awaitConnack(_ session: MQTTSession) -> Ending? {
        let deadline = SystemTime.bootMicroseconds() + 30_000_000
        var isThrough = false, mayHaveSent = false
        defer { if session.connack == nil, mayHaveSent { keeper.wentUnanswered() } }
        while session.connack == nil, SystemTime.bootMicroseconds() < deadline {
            if isStopping { return .stopped }
            // Until TCP is through, only "writable" tells; a handshake says itself whether it wants to write.
            let ready = poll(session.socket, write: !isThrough || session.wantsWrite, milliseconds: 50)
            if ready.write, !isThrough { isThrough = isConnected(session.socket) }
            if ready.read, let text = socketFailure(session.socket) {
                if !isThrough { triesAllAddresses.toggle() }
                return .lost(reason: "cannot connect to \(settings.address): \(text)", code: nil)
            }
            if ready.read, !session.read() { break }
            if session.connack == nil, isThrough || ready.write {
                if isThrough, session.isReadyForConnect, !mayHaveSent {
                    if let ending = recordAttempt(session) { return ending }
                    mayHaveSent = true
                }
                if !session.write() { break }
            }
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
            // It hung up on our CONNECT: perhaps it knows the other version only (RabbitMQ 3.10 does that to 5.0). Not
            // so when it has accepted 5.0 before; and a proxy whose broker is restarting hangs up too: only the third
            // time in a row.
            connectHangUps += 1
            if !acceptedV5, !refusesV5, connectHangUps % 3 == 0 { usesV5.toggle() }
        }
        return .lost(reason: "cannot connect to \(settings.address): \(session.describe(code))", code: nil)
    }

    /// Makes the event of the attempt durable before the CONNECT leaves.
    private func recordAttempt(_ session: MQTTSession) -> Ending? {
        guard var event = keeper.willConnect() else { return nil }
        event.address = settings.address
        write(drain == nil ? .connecting : .draining, event, to: session)
        return commit(session)
    }

    private func refused(_ session: MQTTSession, _ reason: Int) -> Ending {
        if session.isV5, reason == 0x84 || reason == 1, settings.protocolPreference == .automatic {
            refusesV5 = true
            usesV5 = false
        }
        let advice =
            switch reason {
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
}
