// HTTPClient: an HTTP/1.1 client over libcurl. Each request blocks a thread of its own.
//
// Invariants: no proxy from the environment, no redirect, no cookie; at most `responseBytesMax` bytes are kept; a
// request that is not idempotent is never sent twice (RFC 9110, 9.2.2).

import CCurl
import Synchronization
import Threading

/// A request with its limits.
public struct HTTPRequest: Sendable {
    public enum Method: String, Sendable {
        case get = "GET", post = "POST", put = "PUT", delete = "DELETE"

        /// RFC 9110, 9.2.2.
        var isIdempotent: Bool { self != .post }
    }

    public var method: Method
    /// `http://` or `https://`, without credentials; path and query already percent-encoded. Sent as it is.
    public var url: String
    public var headers: [(name: String, value: String)] = []
    /// No body if nil.
    public var body: [UInt8]?
    /// Limit for the whole request, from name resolution to the last byte.
    public var timeout: Duration = .seconds(60)
    /// Limit for name resolution and connecting.
    public var connectTimeout: Duration = .seconds(3)
    /// A longer body is an error.
    public var responseBytesMax = 64 << 20

    /// POST and PUT send `Content-Length: 0` without a body (RFC 9110, 8.6).
    var hasBody: Bool { body != nil || method == .post || method == .put }

    public init(_ method: Method, _ url: String) {
        self.method = method
        self.url = url
    }
}

public struct HTTPResponse: Sendable {
    public let status: Int
    public let body: [UInt8]
}

/// Why a request failed.
public struct HTTPClientError: Error, CustomStringConvertible, Equatable {
    public enum Code: Sendable {
        /// The URL or a header is malformed. Nothing was sent.
        case invalidRequest
        /// Name resolution, connecting or TLS failed. Nothing was sent.
        case notConnected
        /// No complete response in time. The server may have carried the request out.
        case timedOut
        case responseTooLarge
        case cancelled
        /// The connection was closed, or the response is not HTTP. The server may have carried the request out.
        case outcomeUnknown
    }
    public let code: Code
    public let description: String
}

/// Sends requests and reuses their connections. Safe to use from many tasks.
public final class HTTPClient: Sendable {
    private static let idleMax = 8
    private let idle = Mutex<[CurlHandle]>([])

    public init() {}

    /// Cancelling the task ends the transfer within a second.
    /// - Returns: the response, whatever its status.
    /// - Throws: `HTTPClientError`.
    public func send(_ request: HTTPRequest) async throws(HTTPClientError) -> HTTPResponse {
        let transfer = Transfer(request)
        do {
            return try await withTaskCancellationHandler {
                try await onOwnThread("http") { try self.perform(transfer) }
            } onCancel: {
                transfer.cancel()
            }
        } catch {
            throw error as? HTTPClientError ?? HTTPClientError(code: .notConnected, description: "\(error)")
        }
    }

    /// Blocks the calling thread: not for async code.
    /// - Throws: `HTTPClientError`; see `send`.
    public func perform(_ request: HTTPRequest) throws(HTTPClientError) -> HTTPResponse {
        try perform(Transfer(request))
    }

    private func perform(_ transfer: Transfer) throws(HTTPClientError) -> HTTPResponse {
        let reused = idle.withLock { $0.popLast() }
        let handle = if let reused { reused } else { try CurlHandle() }
        defer { idle.withLock { if $0.count < Self.idleMax { $0.append(handle) } } }
        return try handle.perform(transfer)
    }
}
