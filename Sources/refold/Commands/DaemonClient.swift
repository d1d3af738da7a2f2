import ArgumentParser
import AsyncHTTPClient
import ControlAPI
import Foundation
import NIOCore
import NIOHTTP1

/// The daemon's API, as the verbs use it. Problems become a line on standard error and an exit code.
struct DaemonClient: Sendable {
    let address: String
    let token: Result<String, TokenFileError>

    private static let answerBytesMax = 64 << 20

    /// Lives as long as the process. A refused connection is an answer: it is not tried again.
    private static let http: HTTPClient = {
        var configuration = HTTPClient.Configuration()
        configuration.connectionPool.retryConnectionEstablishment = false
        configuration.timeout.connect = .seconds(3)
        configuration.redirectConfiguration = .disallow
        return HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
    }()

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
        return try await send(.GET, pairs.isEmpty ? path : "\(path)?\(pairs.joined(separator: "&"))", nil, nil)
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
        _ path: String, _ body: [String: Any]? = nil, key: String? = nil, timeout: TimeAmount = .seconds(60)
    ) async throws(APIError) -> Answer {
        try await write(.POST, path, body, key, timeout)
    }

    func put(_ path: String, _ body: [String: Any], key: String? = nil) async throws(APIError) -> Answer {
        try await write(.PUT, path, body, key, .seconds(60))
    }

    func delete(_ path: String, key: String? = nil) async throws(APIError) -> Answer {
        try await write(.DELETE, path, nil, key, .seconds(60))
    }

    private func write(
        _ method: HTTPMethod, _ path: String, _ body: [String: Any]?, _ key: String?, _ timeout: TimeAmount
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
        _ method: HTTPMethod, _ target: String, _ body: Data?, _ key: String?, _ timeout: TimeAmount = .seconds(60)
    ) async throws(APIError) -> Answer {
        var request = HTTPClientRequest(url: "http://\(address)\(target)")
        request.method = method
        request.headers.add(name: "Accept", value: "application/json")
        if case .success(let token) = token { request.headers.add(name: "Authorization", value: "Bearer \(token)") }
        if let key { request.headers.add(name: "Idempotency-Key", value: key) }
        if let body {
            request.headers.add(name: "Content-Type", value: "application/json")
            request.body = .bytes(ByteBuffer(bytes: body))
        }
        let answer: Answer
        do {
            let response = try await Self.http.execute(request, timeout: timeout)
            let bytes = try await response.body.collect(upTo: Self.answerBytesMax)
            answer = Answer(status: Int(response.status.code), body: Data(bytes.readableBytesView))
        } catch {
            throw .unreachable(address, Self.reason(error))
        }
        guard (200...299).contains(answer.status) else {
            guard let problem = try? JSONDecoder().decode(ProblemBody.self, from: answer.body) else { throw .notRefold }
            throw .problem(problem, answer.body)
        }
        return answer
    }

    /// In words: what the system said, where it said something.
    private static func reason(_ error: any Error) -> String {
        switch error {
        case let error as IOError: String(cString: strerror(error.errnoCode))
        case let error as HTTPClientError: error.shortDescription
        default: "\(error)"
        }
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
    func rows(_ question: RowQuestion, limit: Int? = nil) async throws -> [[String: Any]] {
        try await asking { client in
            do {
                return try await question.ask(client, limit: limit)
            } catch let error as APIError where error.isAway {
                guard let rows = try offlineRows(question, dataFolder: dataFolder, limit: limit) else { throw error }
                printError("no answer from a daemon with a database: read from the log in \(dataFolder)")
                return rows
            }
        }
    }
}
