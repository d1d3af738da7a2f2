import Foundation
import HTTPClient

/// A test's requests. URLSession is not used: on Linux it has ended the process of the tests (libdispatch traps when a
/// connection is closed beneath a source of it).
public enum HTTP {
    private static let client = HTTPClient()

    /// The answer, whatever its status; nil without one. Blocks.
    public static func get(_ url: String, timeoutSeconds: Int = 60) -> (status: Int, body: Data)? {
        var request = HTTPRequest(.get, url)
        request.timeout = .seconds(timeoutSeconds)
        return (try? client.perform(request)).map { ($0.status, Data($0.body)) }
    }

    /// The body of an answer with status 200; nil without one. Blocks.
    public static func body(_ url: String) -> Data? {
        get(url).flatMap { $0.status == 200 ? $0.body : nil }
    }

    /// - Throws: `HTTPClientError`.
    public static func send(
        _ method: String, _ url: String, headers: [String: String] = [:], json: Data? = nil
    ) async throws -> (status: Int, body: Data) {
        guard let method = HTTPRequest.Method(rawValue: method) else { throw SystemError("method \(method)") }
        var request = HTTPRequest(method, url)
        request.headers = headers.map { ($0.key, $0.value) }
        if let json {
            request.headers.append(("Content-Type", "application/json"))
            request.body = Array(json)
        }
        let response = try await client.send(request)
        return (response.status, Data(response.body))
    }
}
