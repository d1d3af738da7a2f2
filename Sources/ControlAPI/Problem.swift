import Campaigns
import Deciding
import EventLog
import FoundationEssentials
import HTTPTypes
import Hummingbird
import Issuing
import NIOCore
import NIOHTTP1
import PKI

/// An error as the caller sees it: RFC 9457, `application/problem+json`.
struct Problem: Error {
    let status: HTTPResponse.Status
    /// For programs, stable: `not_found`, `illegal_transition`, …
    let code: String
    /// A sentence for people that says what to do.
    let detail: String
    var headers: HTTPFields = [:]
    /// Of the event that records a refusal.
    var position: UInt64?

    init(_ status: HTTPResponse.Status, _ code: String, _ detail: String, headers: HTTPFields = [:]) {
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = headers
    }

    /// RFC 9110, 10.2.3.
    static func unavailable(_ code: String, _ detail: String, retryAfterSeconds: Int) -> Problem {
        Problem(.serviceUnavailable, code, detail, headers: [.retryAfter: String(retryAfterSeconds)])
    }

    static func rejected(_ code: RejectionCode, _ reason: String, position: UInt64) -> Problem {
        let status: HTTPResponse.Status =
            switch code {
            case .notFound: .notFound
            case .illegalTransition: .conflict
            case .invalidValue, .keyReused: .unprocessableContent
            }
        var problem = Problem(status, code.rawValue, reason)
        problem.position = position
        return problem
    }

    private struct Body: Encodable {
        let type: String
        let title: String
        let status: Int
        let detail: String
        let instance: String
        let code: String
        let position: UInt64?
    }

    func response(instance: String) -> Response {
        let body = Body(
            type: "tag:refold,2026:problem/\(code)", title: status.reasonPhrase, status: status.code, detail: detail,
            instance: instance, code: code, position: position)
        // Strings and whole numbers always encode.
        var response = (try? Response.json(body, status: status)) ?? Response.json(text: "{}", status: status)
        response.headers[.contentType] = "application/problem+json"
        for field in headers { response.headers[field.name] = field.value }
        return response
    }
}

/// Outermost: whatever goes wrong becomes a problem; nothing of the inside leaks.
struct ProblemMiddleware: RouterMiddleware {
    typealias Context = APIContext
    let routes: [Route]

    func handle(
        _ request: Request, context: APIContext, next: (Request, APIContext) async throws -> Response
    ) async throws -> Response {
        do {
            return try await next(request, context)
        } catch {
            return problem(for: error, request, context).response(instance: request.uri.path)
        }
    }

    private func problem(for error: any Error, _ request: Request, _ context: APIContext) -> Problem {
        switch error {
        case let problem as Problem: return problem
        case let error as QueryError: return Self.problem(for: error, context)
        case AppendError.full(let text):
            return .unavailable("log_full", "the log takes no events: \(text)", retryAfterSeconds: 10)
        case AppendError.failed(let text):
            context.logger.error("append failed", metadata: ["error": "\(text)"])
            return .unavailable("log_failed", "the log failed and the daemon stops", retryAfterSeconds: 30)
        case let error as PKIError: return Self.problem(for: error, context)
        case let error as CRLFailure:
            context.logger.error("no CRL issued", metadata: ["authority": "\(error.authority)", "error": "\(error)"])
            return .unavailable("crl_not_issued", error.description, retryAfterSeconds: 10)
        case let error as AppendConflict:
            return .unavailable("conflict", "\(error.description); try again", retryAfterSeconds: 1)
        case let error as LogError where error.code == .outOfRange:
            return Problem(.notFound, "no_such_event", error.description)
        case let error as LogError where error.code == .beforeHorizon:
            return Problem(.gone, "before_horizon", error.description)
        case let error as LogError:
            context.logger.error("the log cannot be read", metadata: ["error": "\(error)"])
            return Problem(.internalServerError, "log_unreadable", error.description)
        case is NIOTooManyBytesError: return Self.tooLarge
        case is HTTPParserError:
            return Problem(
                .badRequest, "malformed_request",
                "the request is not valid HTTP/1.1: check Transfer-Encoding, "
                    + "Content-Length and the chunks of the body (RFC 9112, 6 and 7)", headers: [.connection: "close"])
        case is CancellationError: return Self.clientGone
        case let error as HTTPError where error.status == .notFound: return notRouted(request)
        case let error as HTTPError where error.status == .contentTooLarge: return Self.tooLarge
        case let error as HTTPError:
            return Problem(error.status, "http_\(error.status.code)", error.body ?? error.status.reasonPhrase)
        default:
            context.logger.error(
                "request failed", metadata: ["path": "\(request.uri.path)", "error": "\(error)"])
            return Problem(.internalServerError, "internal", "internal error; see the daemon's log")
        }
    }

    /// What the caller sent, or a key that is not here.
    private static func problem(for error: PKIError, _ context: APIContext) -> Problem {
        switch error.code {
        case .malformed, .unsupported, .weak, .untrusted, .passphrase, .invalid:
            return Problem(.unprocessableContent, "invalid_value", error.description)
        case .file, .command, .crypto:
            context.logger.error("cannot sign", metadata: ["error": "\(error)"])
            return .unavailable("key_unavailable", error.description, retryAfterSeconds: 10)
        }
    }

    private static func problem(for error: QueryError, _ context: APIContext) -> Problem {
        switch error {
        case .unavailable(let text):
            return .unavailable(
                "database_unavailable", "PostgreSQL cannot be reached (\(text)); commands are still taken",
                retryAfterSeconds: 5)
        case .busy(let text):
            return .unavailable(
                "database_busy", "the database is busy (\(text)); try again", retryAfterSeconds: 2)
        case .cancelled: return Self.clientGone
        case .failed(let text):
            context.logger.error("query failed", metadata: ["error": "\(text)"])
            return Problem(.internalServerError, "query_failed", "the query failed; see the daemon's log")
        }
    }

    /// Nobody reads it, but a client that closed its sending half only.
    static var clientGone: Problem {
        .unavailable("cancelled", "the client closed the connection before the answer was there", retryAfterSeconds: 1)
    }

    static var tooLarge: Problem {
        Problem(.contentTooLarge, "too_large", "a request may have at most \(ControlAPI.bodyBytesMax) bytes")
    }

    /// The path exists with another method (RFC 9110, 15.5.6: then `Allow` names them), or not at all.
    private func notRouted(_ request: Request) -> Problem {
        var methods = routes.filter { $0.matches(request.uri.path) }.map(\.method.rawValue)
        guard !methods.isEmpty else {
            return Problem(.notFound, "no_such_route", "there is nothing at this path; see schemas/openapi.yaml")
        }
        if methods.contains("GET") { methods.append("HEAD") }
        let allowed = methods.joined(separator: ", ")
        return Problem(
            .methodNotAllowed, "method_not_allowed", "this path takes \(allowed)", headers: [.allow: allowed])
    }
}
