import Foundation

/// HTTP/1.1, as little of it as a driver on this machine needs, a connection each. URLSession does not read headers
/// without a space behind the colon, which are as good as others (RFC 9112, 5).
enum PlainHTTP {
    static func ask(
        _ method: String, port: Int, path: String, body: Data?
    ) async throws -> (status: Int, body: Data) {
        try await withCheckedThrowingContinuation { continuation in
            DispatchQueue.global().async {
                continuation.resume(with: Result { try talk(method, port: port, path: path, body: body) })
            }
        }
    }

    private static func talk(_ method: String, port: Int, path: String, body: Data?) throws -> (Int, Data) {
        let handle = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard handle >= 0 else { throw SystemError("socket: \(String(cString: strerror(errno)))") }
        defer { close(handle) }
        var patience = timeval(tv_sec: 60, tv_usec: 0)
        setsockopt(handle, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        guard connectLoopback(handle, port: port) else {
            throw SystemError("connect: \(String(cString: strerror(errno)))")
        }

        var request = Data("\(method) \(path) HTTP/1.1\r\nHost: 127.0.0.1:\(port)\r\nConnection: close\r\n".utf8)
        if let body { request += Data("Content-Type: application/json\r\nContent-Length: \(body.count)\r\n".utf8) }
        request += Data("\r\n".utf8) + (body ?? Data())
        var sent = 0
        while sent < request.count {
            let count = request.withUnsafeBytes {
                send(handle, $0.baseAddress! + sent, $0.count - sent, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { throw SystemError("send: \(String(cString: strerror(errno)))") }
            sent += count
        }

        var answer = Data(), buffer = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            if let whole = try parse(answer) { return whole }
            let count = recv(handle, &buffer, buffer.count, 0)
            guard count > 0 else { throw SystemError("\(method) \(path): the answer ended early") }
            answer += buffer[..<count]
        }
    }

    /// Nil until all of it is there.
    private static func parse(_ answer: Data) throws -> (Int, Data)? {
        guard let end = answer.firstRange(of: Data("\r\n\r\n".utf8)) else { return nil }
        let lines = String(decoding: answer[..<end.lowerBound], as: UTF8.self).components(separatedBy: "\r\n")
        let status = lines[0].split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
        let length = lines.first { $0.lowercased().hasPrefix("content-length:") }
            .flatMap { Int($0.dropFirst(15).trimmingCharacters(in: .whitespaces)) }
        guard let length else { throw SystemError("an answer without a length: \(lines[0])") }
        let body = answer[end.upperBound...]
        return body.count < length ? nil : (status, Data(body.prefix(length)))
    }
}
