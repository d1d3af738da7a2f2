import Foundation
import HTTPClient
import Primitives
import Synchronization

/// EMQX 5 and 6: what of its HTTP API disconnects clients and keeps them out. Safe to use from any thread.
public final class EMQXAPI: Sendable {
    public enum Credentials: Sendable {
        /// Of the dashboard (`EMQX_API_USER`, `EMQX_DASHBOARD_PASSWORD`).
        case login(username: String, password: String)
        case apiKey(key: String, secret: String)
    }

    public enum BanKind: String, Sendable { case clientID = "clientid", username }

    public struct Client: Sendable, Equatable, Decodable {
        public let clientID: String
        /// False for a session that outlived its connection.
        public let isConnected: Bool

        private enum CodingKeys: String, CodingKey { case clientID = "clientid", isConnected = "connected" }
    }

    /// Ends with `/api/v5`.
    private let base: String
    private let credentials: Credentials
    private let timeout: Duration
    private let client = HTTPClient()
    private let token = Mutex<String?>(nil)

    /// - Parameters:
    ///   - url: e.g. `http://emqx:18083`, with or without `/api/v5` (`EMQX_API_URL`).
    ///   - timeout: for each request.
    public init(_ url: String, _ credentials: Credentials, timeout: Duration = .seconds(5)) {
        var base = url[...]
        while base.hasSuffix("/") { base.removeLast() }
        self.base = base.hasSuffix("/api/v5") ? String(base) : base + "/api/v5"
        self.credentials = credentials
        self.timeout = timeout
    }

    /// Keeps clients out. A ban by client id also disconnects; one by username does not.
    /// - Parameter untilSeconds: since 1970.
    public func ban(_ kind: BanKind, _ name: String, reason: String, untilSeconds: Int64) throws(EMQXError) {
        struct Ban: Encodable { let `as`, who, by, reason, until: String }
        let until = Date(timeIntervalSince1970: TimeInterval(untilSeconds)).formatted(.iso8601)
        let ban = Ban(as: kind.rawValue, who: name, by: "refold", reason: reason, until: until)
        let response = try call(.post, "/banned", encode(ban), accepts: [200, 400])
        guard response.status == 400 else { return }
        guard code(response) == "ALREADY_EXISTS" else { throw failure(.post, "/banned", response) }
    }

    /// Lifts a ban; no error when there is none.
    public func unban(_ kind: BanKind, _ name: String) throws(EMQXError) {
        _ = try call(.delete, "/banned/\(kind.rawValue)/\(Self.escape(name))", nil, accepts: [204, 404])
    }

    /// Disconnects clients and ends their sessions. No error for those that are not connected.
    public func kickOut(_ clientIDs: [String]) throws(EMQXError) {
        for start in stride(from: 0, to: clientIDs.count, by: 1000) {
            let part = Array(clientIDs[start..<min(start + 1000, clientIDs.count)])
            _ = try call(.post, "/clients/kickout/bulk", encode(part), accepts: [200, 204])
        }
    }

    /// Nil when the broker has neither a connection nor a session under this client id.
    public func client(_ clientID: String) throws(EMQXError) -> Client? {
        let path = "/clients/\(Self.escape(clientID))"
        let response = try call(.get, path, nil, accepts: [200, 404])
        return response.status == 404 ? nil : try decode(Client.self, response, path)
    }

    /// Clients with a username, the first 1,000.
    public func clients(username: String) throws(EMQXError) -> [Client] {
        struct Page: Decodable { let data: [Client] }
        let path = "/clients?limit=1000&username=\(Self.escape(username))"
        return try decode(Page.self, try call(.get, path, nil, accepts: [200]), path).data
    }

    // MARK: Requests

    private func call(
        _ method: HTTPRequest.Method, _ path: String, _ body: [UInt8]?, accepts: Set<Int>
    ) throws(EMQXError) -> HTTPResponse {
        var response = try send(method, path, body, authorization: try authorization())
        if response.status == 401, case .login = credentials {
            // The token expired, or EMQX restarted.
            token.withLock { $0 = nil }
            response = try send(method, path, body, authorization: try authorization())
        }
        guard accepts.contains(response.status) else { throw failure(method, path, response) }
        return response
    }

    private func authorization() throws(EMQXError) -> String {
        switch credentials {
        case .apiKey(let key, let secret): return "Basic " + Base64.encode("\(key):\(secret)".utf8)
        case .login(let username, let password):
            if let known = token.withLock({ $0 }) { return "Bearer \(known)" }
            struct Token: Decodable { let token: String }
            let body = encode(["username": username, "password": password])
            let response = try send(.post, "/login", body, authorization: nil)
            guard response.status == 200 else { throw failure(.post, "/login", response) }
            let made = try decode(Token.self, response, "/login").token
            token.withLock { $0 = made }
            return "Bearer \(made)"
        }
    }

    private func send(
        _ method: HTTPRequest.Method, _ path: String, _ body: [UInt8]?, authorization: String?
    ) throws(EMQXError) -> HTTPResponse {
        var request = HTTPRequest(method, base + path)
        request.timeout = timeout
        request.connectTimeout = min(timeout, request.connectTimeout)
        request.responseBytesMax = 8 << 20
        request.body = body
        request.headers = [("Accept", "application/json")]
        if body != nil { request.headers.append(("Content-Type", "application/json")) }
        if let authorization { request.headers.append(("Authorization", authorization)) }
        do throws(HTTPClientError) {
            return try client.perform(request)
        } catch {
            throw EMQXError(status: nil, description: "EMQX API \(method.rawValue) \(path): \(error.description)")
        }
    }

    private func failure(_ method: HTTPRequest.Method, _ path: String, _ response: HTTPResponse) -> EMQXError {
        let code = code(response).map { " (\($0))" } ?? ""
        let advice =
            response.status == 401 || response.status == 403
            ? ": check EMQX_API_USER and EMQX_DASHBOARD_PASSWORD, or the API key" : ""
        return EMQXError(
            status: response.status,
            description: "EMQX API \(method.rawValue) \(path): status \(response.status)\(code)\(advice)")
    }

    /// EMQX's error code, where the body has one.
    private func code(_ response: HTTPResponse) -> String? {
        struct Problem: Decodable { let code: String }
        guard let code = try? JSONDecoder().decode(Problem.self, from: Data(response.body)).code else { return nil }
        return code.utf8.count <= 64 && code.utf8.allSatisfy { (0x21...0x7E).contains($0) } ? code : nil
    }

    private func decode<T: Decodable>(
        _ type: T.Type, _ response: HTTPResponse, _ path: String
    ) throws(EMQXError) -> T {
        if let value = try? JSONDecoder().decode(type, from: Data(response.body)) { return value }
        throw EMQXError(
            status: response.status, description: "EMQX API \(path): the response is not EMQX's JSON")
    }

    private func encode(_ value: some Encodable) -> [UInt8] { (try? JSONEncoder().encode(value)).map(Array.init) ?? [] }

    /// Percent-encodes everything but unreserved characters (RFC 3986, 2.3): client ids may contain slashes.
    private static func escape(_ text: String) -> String {
        var escaped = ""
        for byte in text.utf8 {
            switch byte {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F, 0x7E: escaped.append(Character(.init(byte)))
            default: escaped += "%" + Hex.encode([byte]).uppercased()
            }
        }
        return escaped
    }
}

/// A request to EMQX's API failed. Contains no password and no token.
public struct EMQXError: Error, Sendable, CustomStringConvertible {
    /// Nil without a response.
    public let status: Int?
    public let description: String
}
