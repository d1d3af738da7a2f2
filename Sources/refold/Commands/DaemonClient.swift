import ArgumentParser
import ControlAPI
import Foundation
import HTTPClient

/// The daemon's API, as the verbs use it. Problems become a line on standard error and an exit code.
struct DaemonClient: Sendable {
    let address: String
    let token: Result<String, TokenFileError>

    /// Lives as long as the process.
    private static let http = HTTPClient()

    struct Answer {
        let status: Int
        let body: Data

        func object() throws -> [String: Any] {
            guard let object = try JSONSerialization.jsonObject(with: body) as? [String: Any] else {
                throw APIError.notRefold
            }
            return object
        }
    }

    /// `path` begins with a slash; its parts must be escaped already (`DaemonClient.escape`).
    func get(_ path: String, query: [(String, String?)] = []) async throws(APIError) -> Answer {
        let pairs = query.compactMap { name, value in value.map { "\(name)=\(Self.escape($0))" } }
        return try await send(.get, pairs.isEmpty ? path : "\(path)?\(pairs.joined(separator: "&"))", nil, nil)
    }

    /// Page by page, until `limit` rows are there or no more are. `after` may be a number or an id.
    func pages(_ path: String, _ query: [(String, String?)], limit: Int?) async throws -> [[String: Any]] {
        var rows: [[String: Any]] = [], after: String?
        repeat {
            let count = min(1_000, (limit ?? .max) - rows.count)
            let page = try await get(path, query: query + [("limit", String(count)), ("after", after)]).object()
            let items = page["items"] as? [[String: Any]] ?? []
            rows += items
            let next = (page["next"] as? String) ?? (page["next"] as? NSNumber).map(\.stringValue)
            // A page that does not lead on ends the list, whatever it says.
            after = items.isEmpty || next == after ? nil : next
        } while after != nil && rows.count < limit ?? .max
        return rows
    }

    func post(
        _ path: String, _ body: [String: Any]? = nil, key: String? = nil, timeout: Duration = .seconds(60)
    ) async throws(APIError) -> Answer {
        try await write(.post, path, body, key, timeout)
    }

    func put(_ path: String, _ body: [String: Any], key: String? = nil) async throws(APIError) -> Answer {
        try await write(.put, path, body, key, .seconds(60))
    }

    func delete(_ path: String, key: String? = nil) async throws(APIError) -> Answer {
        try await write(.delete, path, nil, key, .seconds(60))
    }

    private func write(
        _ method: HTTPRequest.Method, _ path: String, _ body: [String: Any]?, _ key: String?, _ timeout: Duration
    ) async throws(APIError) -> Answer {
        guard case .success = token else { throw .noToken(token) }
        let bytes: Data?
        do {
            bytes = try body.map { try JSONSerialization.data(withJSONObject: $0) }
        } catch {
            throw .unreachable(address, "\(error)")
        }
        if let bytes, bytes.count > ControlAPI.bodyBytesMax { throw .tooLarge(bytes.count) }
        return try await send(method, path, bytes, key, timeout)
    }

    private func send(
        _ method: HTTPRequest.Method, _ target: String, _ body: Data?, _ key: String?,
        _ timeout: Duration = .seconds(60)
    ) async throws(APIError) -> Answer {
        var request = HTTPRequest(method, "http://\(address)\(target)")
        request.timeout = timeout
        request.headers.append(("Accept", "application/json"))
        if case .success(let token) = token { request.headers.append(("Authorization", "Bearer \(token)")) }
        if let key { request.headers.append(("Idempotency-Key", key)) }
        if let body {
            request.headers.append(("Content-Type", "application/json"))
            request.body = Array(body)
        }
        let answer: Answer
        do {
            let response = try await Self.http.send(request)
            answer = Answer(status: response.status, body: Data(response.body))
        } catch {
            throw .unreachable(address, error.description)
        }
        guard (200...299).contains(answer.status) else {
            guard let problem = try? JSONDecoder().decode(ProblemBody.self, from: answer.body) else { throw .notRefold }
            throw .problem(problem, answer.body)
        }
        return answer
    }

    /// Percent-encodes all but the unreserved characters (RFC 3986, 2.3).
    static func escape(_ text: String) -> String {
        text.addingPercentEncoding(withAllowedCharacters: unreserved) ?? text
    }
    private static let unreserved = CharacterSet(
        charactersIn: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
}

struct ProblemBody: Decodable, Sendable {
    let status: Int
    let code: String
    let detail: String
}

enum APIError: Error {
    case unreachable(String, String)
    case problem(ProblemBody, Data)
    case noToken(Result<String, TokenFileError>)
    case tooLarge(Int)
    /// Something else listens there.
    case notRefold

    /// What can be answered from the files: the daemon or its database is away.
    var isAway: Bool {
        switch self {
        case .unreachable: true
        case .problem(let problem, _): problem.status == 503
        case .noToken, .tooLarge, .notRefold: false
        }
    }

    /// Says what is wrong and what to do; in JSON the problem itself goes to standard output.
    func report(json: Bool) -> ExitCode {
        switch self {
        case .unreachable(let address, let why):
            printError(
                "no daemon answers at http://\(address) (\(why)); start one with `refold run`, or name it with --http")
            return ExitCode(3)
        case .problem(let problem, let body):
            if json { printJSON(String(decoding: body, as: UTF8.self).trimmingCharacters(in: .newlines)) }
            printError(problem.detail)
            return switch problem.status {
            case 401, 403: ExitCode(2)
            case 502, 503, 504: ExitCode(3)
            default: ExitCode(1)
            }
        case .noToken(let result):
            if case .failure(let error) = result {
                printError("\(error); name the daemon's data folder with --data, or set REFOLD_TOKEN")
            }
            return ExitCode(2)
        case .tooLarge(let count):
            printError(
                "the request has \(count) bytes, and at most \(ControlAPI.bodyBytesMax) are allowed; "
                    + "split the devices into several campaigns")
            return ExitCode(2)
        case .notRefold:
            printError("what answers at this address is no Refold daemon; name it with --http")
            return ExitCode(3)
        }
    }
}

extension DaemonOptions {
    /// Runs `body`, and turns what the daemon refuses into a line and an exit code.
    func asking<T>(_ body: (DaemonClient) async throws -> T) async throws -> T {
        do {
            return try await body(client)
        } catch let error as APIError {
            throw error.report(json: json)
        }
    }

    /// Rows from the daemon, or, while it or its database is away, from the log's files.
    func rows(_ query: RowQuery, limit: Int? = nil) async throws -> [[String: Any]] {
        try await asking { client in
            do {
                return try await query.rows(client, limit: limit)
            } catch let error as APIError where error.isAway {
                guard let rows = try offlineRows(query, dataFolder: dataFolder, limit: limit) else { throw error }
                printError("no answer from a daemon with a database: read from the log in \(dataFolder)")
                return rows
            }
        }
    }
}
