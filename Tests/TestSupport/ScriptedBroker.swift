import COpenSSL
import Foundation
import Synchronization

/// A peer that does to the client what a test says, byte by byte, over TCP or TLS: for what no real broker can be made
/// to do. Each connection runs `script` on a thread of its own.
public final class ScriptedBroker: Sendable {
    public let port: Int
    private let listener: Int32
    private let closed = Mutex(false)

    public init(
        certificates: TestCertificates? = nil, script: @escaping @Sendable (ScriptedConnection) throws -> Void
    ) throws {
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        port = bindLoopback(listener, port: 0)
        guard listen(listener, 16) == 0 else { throw SystemError("listen: \(String(cString: strerror(errno)))") }
        self.listener = listener
        let thread = Thread {
            var number = 0
            while true {
                let descriptor = Foundation.accept(listener, nil, nil)
                guard descriptor >= 0 else {
                    // Here, not in `deinit`: the number would go to the next server's socket, and this thread would
                    // accept that server's connections.
                    close(listener)
                    return
                }
                _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
                let connection = ScriptedConnection(descriptor, number, certificates)
                number += 1
                Thread {
                    if connection.open() { try? script(connection) }
                    connection.close()
                }.start()
            }
        }
        thread.start()
    }

    /// Ends `accept`.
    deinit { shutdown(listener, Int32(SHUT_RDWR)) }
}

/// One client's connection. `@unchecked Sendable`: its script's thread is the only one that uses it after `accept`.
public final class ScriptedConnection: @unchecked Sendable {
    /// 0 for the first connection that the broker took.
    public let number: Int
    private let descriptor: Int32
    private let certificates: TestCertificates?
    private var tls: OpaquePointer?  // SSL *

    init(_ descriptor: Int32, _ number: Int, _ certificates: TestCertificates?) {
        self.descriptor = descriptor
        self.number = number
        self.certificates = certificates
        var timeout = timeval(tv_sec: 20, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
    }

    func open() -> Bool {
        guard let certificates else { return true }
        // OpenSSL writes to the socket without MSG_NOSIGNAL, and the client may be gone.
        signal(SIGPIPE, SIG_IGN)
        guard let context = SSL_CTX_new(TLS_server_method()) else { return false }
        defer { SSL_CTX_free(context) }
        guard SSL_CTX_use_certificate_chain_file(context, certificates.serverCert) == 1,
            SSL_CTX_use_PrivateKey_file(context, certificates.serverKey, SSL_FILETYPE_PEM) == 1
        else { return false }
        tls = SSL_new(context)
        SSL_set_fd(tls, descriptor)
        return SSL_accept(tls) == 1
    }

    func close() {
        if let tls { SSL_free(tls) }
        Foundation.close(descriptor)
    }

    /// One write; under TLS one record, as long as it is not beyond 16 KiB.
    public func send(_ bytes: [UInt8]) throws {
        let count =
            tls.map { Int(SSL_write($0, bytes, Int32(bytes.count))) }
            ?? Foundation.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL))
        guard count == bytes.count else { throw SystemError("send: the client is gone") }
    }

    /// The next packet: its first byte and what follows the length. Nil at the end of the stream.
    public func receive() -> (header: UInt8, body: [UInt8])? {
        guard let header = read(1)?.first else { return nil }
        var length = 0, shift = 0
        while true {
            guard let byte = read(1)?.first else { return nil }
            length |= Int(byte & 127) << shift
            shift += 7
            if byte & 128 == 0 { break }
            // At most four bytes (MQTT 5.0, 1.5.5): what comes may be a TLS handshake.
            guard shift < 28 else { return nil }
        }
        guard let body = read(length) else { return nil }
        return (header, body)
    }

    /// Whether the client sends anything within the time.
    public func hasInput(withinMilliseconds milliseconds: Int32) -> Bool {
        if let tls, SSL_pending(tls) > 0 { return true }
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return poll(&entry, 1, milliseconds) > 0
    }

    private func read(_ count: Int) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: count)
        var filled = 0
        while filled < count {
            let got = bytes.withUnsafeMutableBytes { room in
                let start = room.baseAddress! + filled
                return tls.map { Int(SSL_read($0, start, Int32(count - filled))) }
                    ?? recv(descriptor, start, count - filled, 0)
            }
            guard got > 0 else { return nil }
            filled += got
        }
        return bytes
    }

    // MARK: HTTP

    /// The next request as it came: head and body. Nil at the end of the stream.
    public func receiveHTTP() -> String? {
        var request: [UInt8] = []
        while !request.suffix(4).elementsEqual("\r\n\r\n".utf8) {
            guard let byte = read(1), request.count < 65_536 else { return nil }
            request += byte
        }
        let name = "content-length:"
        let length =
            String(decoding: request, as: UTF8.self).split(separator: "\r\n")
            .first { $0.lowercased().hasPrefix(name) }
            .flatMap { Int($0.dropFirst(name.count).trimmingCharacters(in: .whitespaces)) } ?? 0
        guard let body = read(length) else { return nil }
        return String(decoding: request + body, as: UTF8.self)
    }

    // MARK: MQTT

    /// Takes the CONNECT and accepts it. Returns the protocol level: 5, or 4 for 3.1.1. Nil: the client is gone.
    @discardableResult
    public func accept(sessionPresent: Bool = false) throws -> UInt8? {
        guard let level = receiveConnect() else { return nil }
        let flags: UInt8 = sessionPresent ? 1 : 0
        try send(level == 5 ? [0x20, 3, flags, 0, 0] : [0x20, 2, flags, 0])
        return level
    }

    public func receiveConnect() -> UInt8? {
        guard let packet = receive(), packet.header == 0x10, packet.body.count > 6 else { return nil }
        return packet.body[6]
    }

    /// Takes packets until the client goes: answers SUBSCRIBE and PINGREQ, tells of each PUBACK's packet id.
    public func serve(level: UInt8, granted: UInt8 = 1, onPuback: (UInt16) throws -> Void = { _ in }) throws {
        while let packet = receive() {
            switch packet.header & 0xF0 {
            case 0x80:
                let id = Array(packet.body[0..<2])
                try send(level == 5 ? [0x90, 4] + id + [0, granted] : [0x90, 3] + id + [granted])
            case 0xC0: try send([0xD0, 0])
            case 0x40: try onPuback(UInt16(packet.body[0]) << 8 | UInt16(packet.body[1]))
            case 0xE0: return
            default: break
            }
        }
    }

    /// The bytes of a PUBLISH at QoS 1.
    public static func publishBytes(
        _ topic: String, _ payload: [UInt8], id: UInt16, duplicate: Bool = false, level: UInt8
    ) -> [UInt8] {
        let name = Array(topic.utf8)
        var body = [UInt8(name.count >> 8), UInt8(name.count & 255)] + name + [UInt8(id >> 8), UInt8(id & 255)]
        if level == 5 { body.append(0) }
        body += payload
        var packet: [UInt8] = [0x32 | (duplicate ? 8 : 0)]
        var length = body.count
        repeat {
            packet.append(UInt8(length & 127) | (length > 127 ? 128 : 0))
            length >>= 7
        } while length > 0
        return packet + body
    }
}
