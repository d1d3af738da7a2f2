import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import NIOEmbedded

@testable import ControlAPI

/// Sends requests to routes without a socket. HummingbirdTesting does the same, and brings an HTTP client with a TLS
/// library that takes minutes to build.
struct RouterClient: Sendable {
    struct Response: Sendable {
        let status: HTTPResponse.Status
        let headers: HTTPFields
        let body: ByteBuffer
    }

    private let responder: any HTTPResponder<APIContext>
    private let logger: Logger

    init(_ router: Router<APIContext>, logger: Logger = Logger(label: "test")) {
        responder = router.buildResponder()
        self.logger = logger
    }

    func execute(
        uri: String, method: HTTPRequest.Method, headers: HTTPFields = [:], body: ByteBuffer? = nil
    ) async throws -> Response {
        var headers = headers
        if let body { headers[.contentLength] = String(body.readableBytes) }
        let request = Request(
            head: HTTPRequest(method: method, scheme: "http", authority: "localhost", path: uri, headerFields: headers),
            body: RequestBody(buffer: body ?? ByteBuffer()))
        let channel = NIOAsyncTestingChannel()
        // A client without a connection counts as gone.
        try await channel.connect(to: try SocketAddress(ipAddress: "127.0.0.1", port: 1))
        let context = APIContext(source: .init(channel: channel, logger: logger))
        let response = try await responder.respond(to: request, context: context)
        let collected = Collected()
        try await response.body.write(Writer(collected: collected))
        return Response(status: response.status, headers: response.headers, body: await collected.body)
    }

    @discardableResult
    func execute<T>(
        uri: String, method: HTTPRequest.Method, headers: HTTPFields = [:], body: ByteBuffer? = nil,
        _ check: (Response) throws -> T
    ) async throws -> T {
        try check(try await execute(uri: uri, method: method, headers: headers, body: body))
    }

    private actor Collected {
        var body = ByteBuffer()
        func add(_ buffer: ByteBuffer) { body.writeImmutableBuffer(buffer) }
    }

    private struct Writer: ResponseBodyWriter {
        let collected: Collected
        func write(_ buffer: ByteBuffer) async throws { await collected.add(buffer) }
        func finish(_ trailers: HTTPFields?) async throws {}
    }
}
