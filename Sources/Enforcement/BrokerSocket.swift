import COpenSSL
import MQTT
import Threading

import Glibc

/// Why an exchange with a broker ended early.
enum ExchangeError: Error, Equatable {
    /// No connection, a closed one, or a peer that does not speak the protocol.
    case unreachable(String)
    /// The broker's certificate was not accepted.
    case untrusted(String)
    /// A fatal TLS alert from the broker (RFC 8446, 6.2).
    case alert(UInt8)
    case timedOut

    var text: String {
        switch self {
        case .unreachable(let reason): reason
        case .untrusted(let reason): "the broker's certificate is not trusted: \(reason)"
        case .alert(let code): "the broker refused the TLS connection: \(TLSAlert.name(code)) (alert \(code))"
        case .timedOut: "the broker did not answer in time"
        }
    }
}

enum TLSAlert {
    static let certificateRevoked: UInt8 = 44
    static func name(_ code: UInt8) -> String { String(cString: SSL_alert_desc_string_long(Int32(code))) }
}

/// A point in time after which an exchange is given up.
struct Deadline {
    private(set) var end: ContinuousClock.Instant

    init(in duration: Duration) { end = .now + duration }

    /// Rounded up; 0 when it is over.
    var milliseconds: Int32 {
        let (seconds, attoseconds) = (end - .now).components
        guard seconds >= 0, attoseconds >= 0 else { return 0 }
        return Int32(
            clamping: min(seconds, 1_000_000) * 1000 + (attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000)
    }
}

/// A TCP or TLS connection to a broker. Every call returns or throws by the deadline. Belongs to one thread.
///
/// OpenSSL reads and writes memory, and this class the socket: a write that fails must not hide the alert that the
/// broker sent before it closed the connection. Under TLS 1.3 that alert arrives after the handshake.
final class BrokerSocket {
    private let descriptor: Int32
    private var tls: OpaquePointer?  // SSL *
    private var received: OpaquePointer?, written: OpaquePointer?  // BIO *; freed with `tls`
    private var verifies = false
    var deadline: Deadline
    private var receivedCount = 0
    private var sendError: String?
    /// More than any exchange of this module needs.
    private static let receivedBytesMax = 8 << 20

    init(_ settings: BrokerSettings, identity: ClientIdentity?, deadline: Deadline) throws(ExchangeError) {
        self.deadline = deadline
        var context: OpaquePointer?  // SSL_CTX *
        defer { SSL_CTX_free(context) }
        if let tls = settings.tls {
            do throws(TLSContextError) {
                context = try TLSContext.make(tls, identity: identity)
            } catch {
                throw .unreachable(error.description)
            }
        }
        descriptor = try TCP.connect(host: settings.host, port: settings.port, deadline: deadline)
        if let context { try handshake(context, settings) }
    }

    deinit {
        SSL_free(tls)
        close(descriptor)
    }

    private func handshake(_ context: OpaquePointer, _ settings: BrokerSettings) throws(ExchangeError) {
        guard let tls = SSL_new(context), let received = BIO_new(BIO_s_mem()), let written = BIO_new(BIO_s_mem())
        else { throw .unreachable("out of memory for a TLS connection") }
        (self.tls, self.received, self.written) = (tls, received, written)
        SSL_set_bio(tls, received, written)
        verifies = settings.tls?.verify ?? true
        let isAddress = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls), settings.host) == 1
        if !isAddress {
            // RFC 6066, 3: no address in SNI.
            var host = Array(settings.host.utf8CString)
            SSL_ctrl(tls, SSL_CTRL_SET_TLSEXT_HOSTNAME, Int(TLSEXT_NAMETYPE_host_name), &host)
            guard SSL_set1_host(tls, settings.host) == 1 else { throw .unreachable("invalid host name") }
        }
        _ = try run { SSL_connect(tls) }
    }

    /// Sends all bytes.
    func send(_ bytes: [UInt8]) throws(ExchangeError) {
        guard let tls else {
            bytes.withUnsafeBytes { transmit($0) }
            return
        }
        // Memory takes all of it in one call.
        _ = try run { SSL_write(tls, bytes, Int32(bytes.count)) }
    }

    /// Exactly so many bytes. At most 1 MiB: a peer's length is checked before.
    func receive(_ count: Int) throws(ExchangeError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count), filled = 0
        while filled < count {
            let missing = count - filled
            if let tls {
                let start = filled
                let got = try run {
                    bytes.withUnsafeMutableBytes { SSL_read(tls, $0.baseAddress! + start, Int32(missing)) }
                }
                filled += Int(got)
            } else {
                let piece = try read(missing)
                bytes.replaceSubrange(filled..<(filled + piece.count), with: piece)
                filled += piece.count
            }
        }
        return bytes
    }

    /// Tells the peer that the end is intended. What fails here changes nothing.
    func finish() {
        guard let tls else { return }
        ERR_clear_error()
        SSL_shutdown(tls)
        transmitWritten()
    }

    // MARK: TLS

    private func run(_ call: () -> Int32) throws(ExchangeError) -> Int32 {
        while true {
            ERR_clear_error()
            let result = call()
            let error = SSL_get_error(tls, result)
            // On success there may be something to send too, e.g. the end of the handshake.
            transmitWritten()
            if result > 0 { return result }
            switch error {
            case SSL_ERROR_WANT_READ:
                let bytes = try read(16 << 10)
                BIO_write(received, bytes, Int32(bytes.count))
            case SSL_ERROR_ZERO_RETURN: throw .unreachable("the broker closed the connection")
            default: throw failure()
            }
        }
    }

    /// From OpenSSL's error queue, oldest first.
    private func failure() -> ExchangeError {
        var reason: String?
        while case let code = ERR_get_error(), code != 0 {
            if ERR_GET_LIB(code) == ERR_LIB_SSL, ERR_GET_REASON(code) > SSL_AD_REASON_OFFSET,
                let alert = UInt8(exactly: ERR_GET_REASON(code) - SSL_AD_REASON_OFFSET)
            {
                return .alert(alert)
            }
            if reason == nil, let text = ERR_reason_error_string(code) { reason = String(cString: text) }
        }
        let verified = SSL_get_verify_result(tls)
        if verifies, verified != Int(X509_V_OK) {
            return .untrusted(String(cString: X509_verify_cert_error_string(verified)))
        }
        return .unreachable("TLS: \(reason ?? "the connection failed")")
    }

    private func transmitWritten() {
        var piece = [UInt8](repeating: 0, count: 16 << 10)
        while case let count = BIO_read(written, &piece, Int32(piece.count)), count > 0 {
            piece[..<Int(count)].withUnsafeBytes { transmit($0) }
        }
    }

    // MARK: TCP

    /// A failure is kept for `read`: what the broker sent before may still be there to read.
    private func transmit(_ bytes: UnsafeRawBufferPointer) {
        var rest = bytes
        while !rest.isEmpty, sendError == nil {
            let count = Glibc.send(descriptor, rest.baseAddress, rest.count, Int32(MSG_NOSIGNAL))
            if count >= 0 {
                rest = UnsafeRawBufferPointer(rebasing: rest[Int(count)...])
            } else if errno == EAGAIN {
                if !TCP.wait(descriptor, POLLOUT, deadline) { sendError = "the broker does not read" }
            } else if errno != EINTR {
                sendError = String(cString: strerror(errno))
            }
        }
    }

    /// At least one byte, at most `count`.
    private func read(_ count: Int) throws(ExchangeError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: min(count, 16 << 10))
        while true {
            // Not sticky (tcp(7)). A broker without TCP_NODELAY holds back its CONNACK until we acknowledge the TLS
            // session tickets, which takes 40 ms otherwise.
            TCP.set(descriptor, TCP_QUICKACK)
            guard TCP.wait(descriptor, POLLIN, deadline) else { throw .timedOut }
            let got = recv(descriptor, &bytes, bytes.count, 0)
            if got > 0 {
                receivedCount += got
                guard receivedCount <= Self.receivedBytesMax else { throw .unreachable("the broker sends too much") }
                return Array(bytes[..<got])
            }
            if got == 0 { throw .unreachable(sendError ?? "the broker closed the connection") }
            guard errno == EAGAIN || errno == EINTR else { throw .unreachable(String(cString: strerror(errno))) }
        }
    }
}

private enum TCP {
    /// False when the deadline is over.
    static func wait(_ descriptor: Int32, _ events: Int32, _ deadline: Deadline) -> Bool {
        while case let milliseconds = deadline.milliseconds, milliseconds > 0 {
            var entry = pollfd(fd: descriptor, events: Int16(events), revents: 0)
            if poll(&entry, 1, milliseconds) > 0 { return true }
        }
        return false
    }

    /// Tries each address of the host. Each gets its share of the time.
    static func connect(host: String, port: Int, deadline: Deadline) throws(ExchangeError) -> Int32 {
        let addresses = try resolve(host, port, deadline)
        var failure = ExchangeError.unreachable("no address for \(host)")
        for (index, address) in addresses.enumerated() {
            let share = Deadline(in: .milliseconds(Int(deadline.milliseconds) / (addresses.count - index)))
            do throws(ExchangeError) { return try connect(address, share) } catch { failure = error }
        }
        throw failure
    }

    private static func connect(_ address: Address, _ deadline: Deadline) throws(ExchangeError) -> Int32 {
        let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        let descriptor = socket(address.family, type, 0)
        guard descriptor >= 0 else { throw .unreachable(String(cString: strerror(errno))) }
        var code: Int32 = 0, length = socklen_t(MemoryLayout<Int32>.size)
        let isConnected = address.bytes.withUnsafeBytes { bytes in
            bytes.withMemoryRebound(to: sockaddr.self) {
                Glibc.connect(descriptor, $0.baseAddress!, socklen_t(bytes.count)) == 0
            }
        }
        if !isConnected, errno == EINPROGRESS || errno == EINTR {
            code =
                !wait(descriptor, POLLOUT, deadline)
                ? ETIMEDOUT : getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &code, &length) == 0 ? code : errno
        } else if !isConnected {
            code = errno
        }
        guard code == 0 else {
            close(descriptor)
            if code == ETIMEDOUT { throw .timedOut }
            throw .unreachable(String(cString: strerror(code)))
        }
        set(descriptor, TCP_NODELAY)
        return descriptor
    }

    static func set(_ descriptor: Int32, _ option: Int32) {
        var one: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), option, &one, socklen_t(MemoryLayout<Int32>.size))
    }

    struct Address: Sendable {
        let family: Int32
        let bytes: [UInt8]
    }

    /// getaddrinfo(3) has no time limit: a thread of its own waits for it, and is left to itself when it takes longer.
    private static func resolve(_ host: String, _ port: Int, _ deadline: Deadline) throws(ExchangeError) -> [Address] {
        let answer = Monitor<Result<[Address], ExchangeError>?>(nil)
        let isStarted = tryStartThread(name: "resolve") {
            let result = Result { () throws(ExchangeError) in try look(host, port) }
            answer.withLock { $0 = result }
            answer.wakeAll()
        }
        guard isStarted else { throw .unreachable("too many threads to resolve \(host)") }
        guard let result = answer.wait(atMostMilliseconds: Int(deadline.milliseconds), { $0 }) else { throw .timedOut }
        return try result.get()
    }

    private static func look(_ host: String, _ port: Int) throws(ExchangeError) -> [Address] {
        var hints = addrinfo(), list: UnsafeMutablePointer<addrinfo>?
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        hints.ai_flags = AI_ADDRCONFIG
        let code = getaddrinfo(host, String(port), &hints, &list)
        guard code == 0 else { throw .unreachable("cannot resolve \(host): \(String(cString: gai_strerror(code)))") }
        defer { freeaddrinfo(list) }
        var addresses: [Address] = [], next = list
        while let info = next?.pointee {
            if let address = info.ai_addr {
                let bytes = UnsafeRawBufferPointer(start: address, count: Int(info.ai_addrlen))
                addresses.append(Address(family: info.ai_family, bytes: Array(bytes)))
            }
            next = info.ai_next
        }
        return addresses
    }
}
