// HTTP/1.1 requests over libcurl. Blocking C runs on threads of its own; a cancelled task ends its transfer.
//
// Invariants: no proxy from the environment, no redirect, no cookie; at most `answerBytesMax` bytes are kept; a request
// that is not idempotent is never sent twice (RFC 9110, 9.2.2).

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
    /// `http` or `https`; path and query already percent-encoded.
    public var url: String
    public var headers: [(name: String, value: String)] = []
    /// Nil sends none.
    public var body: [UInt8]?
    /// From the first step to the last byte of the answer.
    public var timeout: Duration = .seconds(60)
    /// Of `timeout`, for resolving the name and connecting.
    public var connectTimeout: Duration = .seconds(3)
    /// A longer answer is an error.
    public var answerBytesMax = 64 << 20

    public init(_ method: Method, _ url: String) {
        self.method = method
        self.url = url
    }
}

public struct HTTPResponse: Sendable {
    public let status: Int
    public let body: [UInt8]
}

/// Why there is no answer.
public struct HTTPClientError: Error, CustomStringConvertible, Equatable {
    public enum Code: Sendable {
        /// Refused before anything was sent: the address or a header is malformed.
        case invalidRequest
        /// The name was not resolved, or nothing accepted the connection: nothing was sent.
        case notConnected
        case timedOut
        case answerTooLarge
        case cancelled
        /// The connection ended, or what came is not HTTP: the request may have been carried out.
        case broken
    }
    public let code: Code
    public let description: String
}

/// Sends requests and reuses their connections. Safe to use from many tasks.
public final class HTTPClient: Sendable {
    private static let idleMax = 8
    private let idle = Mutex<[CurlHandle]>([])

    public init() {}

    /// - Returns: the answer, whatever its status.
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

    private func perform(_ transfer: Transfer) throws(HTTPClientError) -> HTTPResponse {
        let known = idle.withLock { $0.popLast() }
        let handle = if let known { known } else { try CurlHandle() }
        defer { idle.withLock { if $0.count < Self.idleMax { $0.append(handle) } } }
        return try handle.perform(transfer)
    }
}
