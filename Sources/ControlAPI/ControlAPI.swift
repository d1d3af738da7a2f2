// ControlAPI: how people and programs see the system and give it commands, over HTTP.
//
// It knows routes, access and problem details, and nothing of SQL, of MQTT or of the log's files: what it shows comes
// through the protocols of Providers.swift, which the executable implements.
//
// Invariants. A write is answered with 2xx only when its event is durable, with the event's position. Every error is
// an RFC 9457 problem, 404 and 405 included. A read that names `min_position` is never older than that position.
// Reads that need PostgreSQL answer 503 while it is away; writes go on. `schemas/openapi.yaml` describes all of it,
// and a test compares the two.
import Access
import Foundation
import Hummingbird
import HummingbirdCore
import Logging
import NIOCore
import ServiceLifecycle

public struct ControlAPI: Sendable {
    let system: APIDependencies
    let policy: AccessPolicy
    let streams = Limiter(max: 128)
    /// Requests for CRLs of the past: they are rebuilt one at a time, each from a snapshot of all certificates.
    let crlRebuilds = Limiter(max: 8)
    let clients = GoneClients()

    /// A request's body may have at most so many bytes: about 60,000 device ids of full length, or 500,000 short ones.
    public static let bodyBytesMax = 8 << 20
    /// How long a read waits for `min_position`.
    static let waitForPosition: Duration = .seconds(5)
    /// Connections at once. Near that number new ones replace those without a request (`Connections`); when all have
    /// one, more wait in the kernel's queue.
    public static let connectionsMax = 512
    /// Time for a whole request header.
    static let headerTime: TimeAmount = .seconds(5)

    public init(system: APIDependencies, policy: AccessPolicy) {
        self.system = system
        self.policy = policy
    }

    /// Whether the server could not start because another process listens on its address.
    public static func isAddressInUse(_ error: any Error) -> Bool { (error as? IOError)?.errnoCode == EADDRINUSE }

    /// Every route, in the order in which `schemas/openapi.yaml` lists them.
    var routes: [Route] {
        probeRoutes + systemRoutes + brokerRoutes + logRoutes
            + snapshotRoutes + rebuildRoutes + firmwareRoutes + groupRoutes
            + settingsRoutes + campaignRoutes + deviceRoutes + auditRoutes + deadLetterRoutes + parkedRoutes
            + sessionRoutes + tokenRoutes + streamRoutes + aliasRoutes + eventRoutes + authorityRoutes
            + certificateRoutes + certificateChangeRoutes + certificateFindingRoutes + crlRoutes + jobRoutes
            + workerRoutes + queueRoutes
    }

    public func router() -> Router<APIContext> {
        let routes = self.routes + pageRoutes
        let router = Router(context: APIContext.self, options: [.autoGenerateHeadEndpoints])
        router.add(middleware: ProblemMiddleware(routes: routes))
        router.add(middleware: HostMiddleware(reachability: policy.reachability))
        for route in routes {
            router.on(RouterPath(route.path), method: route.method) { [policy, clients] request, context in
                var context = context
                context.principal = try policy.authorize(route, request, context)
                guard route.method == .get, let channel = context.channel else {
                    return try await route.handle(request, context)
                }
                return try await clients.run(channel) { [context] in try await route.handle(request, context) }
            }
        }
        return router
    }

    /// The server as a service: `run()` it, or add it to a `ServiceGroup`. With port 0 the kernel chooses one;
    /// `onListening` is told which.
    public func server(
        host: String, port: Int, connectionsMax: Int = Self.connectionsMax, logger: Logger,
        onListening: @escaping @Sendable (Int) async -> Void = { _ in }
    ) -> some Service {
        server(
            host: host, port: port, connectionsMax: connectionsMax, headerTime: Self.headerTime, logger: logger,
            onListening: onListening)
    }

    func server(
        host: String, port: Int, connectionsMax: Int, headerTime: TimeAmount, logger: Logger,
        onListening: @escaping @Sendable (Int) async -> Void
    ) -> some Service {
        let connections = Connections(connectionsMax: connectionsMax, headerTime: headerTime)
        return Application(
            router: router(),
            server: .http1(
                configuration: .init(
                    additionalChannelHandlers: [
                        AbsoluteFormInstaller(), GoneClients.Watch(clients), Connections.Watch(connections),
                    ],
                    idleTimeout: .seconds(75))),
            configuration: ApplicationConfiguration(
                address: .hostname(host, port: port), serverName: nil,
                availableConnectionsDelegate: MaximumAvailableConnections(connectionsMax)),
            onServerRunning: { await onListening($0.localAddress?.port ?? port) },
            logger: logger)
    }
}

/// One route: what it is called, who may use it, and what it does.
struct Route: Sendable {
    enum Access: Sendable, Equatable {
        /// Everybody who can reach the port.
        case open
        /// With a token of this role at least; a viewer's reads are open on loopback while there are no tokens.
        case read(Role)
        /// Always with a token, of this role at least.
        case write(Role)

        var isWrite: Bool {
            if case .write = self { true } else { false }
        }
    }

    enum Scope: Sendable {
        /// The tenant in the path, which must be the token's.
        case tenant
        /// All tenants: a token of one is not enough.
        case system
        /// Whatever the token is for; the handler keeps to it.
        case own
    }

    let method: HTTPRequest.Method
    /// As in the OpenAPI document: `/api/v1/tenants/{tenant}/firmware`.
    let path: String
    let access: Access
    let scope: Scope
    let handle: @Sendable (Request, APIContext) async throws -> Response

    init(
        _ method: HTTPRequest.Method, _ path: String, _ access: Access, _ scope: Scope?,
        _ handle: @escaping @Sendable (Request, APIContext) async throws -> Response
    ) {
        self.method = method
        self.path = path
        self.access = access
        self.scope = scope ?? (path.contains("/{tenant}/") ? .tenant : .system)
        self.handle = handle
    }

    static func get(
        _ path: String, _ access: Access = .read(.viewer), scope: Scope? = nil,
        _ handle: @escaping @Sendable (Request, APIContext) async throws -> Response
    ) -> Route {
        Route(.get, path, access, scope, handle)
    }

    /// What concerns one tenant is the operators'; what concerns the system, its admins'.
    static func post(
        _ path: String, _ access: Access? = nil, scope: Scope? = nil,
        _ handle: @escaping @Sendable (Request, APIContext) async throws -> Response
    ) -> Route {
        Route(.post, path, access ?? .write(path.contains("/{tenant}/") ? .operator : .admin), scope, handle)
    }

    static func put(
        _ path: String, _ handle: @escaping @Sendable (Request, APIContext) async throws -> Response
    ) -> Route {
        Route(.put, path, .write(.operator), nil, handle)
    }

    static func delete(
        _ path: String, _ handle: @escaping @Sendable (Request, APIContext) async throws -> Response
    ) -> Route {
        Route(.delete, path, .write(.operator), nil, handle)
    }

    /// Whether a request's path is this route's, whatever its method.
    func matches(_ path: String) -> Bool {
        let own = self.path.split(separator: "/"), other = path.split(separator: "/")
        return own.count == other.count && zip(own, other).allSatisfy { $0.hasPrefix("{") || $0 == $1 }
    }
}

public struct APIContext: RequestContext {
    public var coreContext: CoreRequestContextStorage
    /// Who asks. Set before a handler runs.
    var principal = Principal.anonymous
    /// The other end of the connection: the client, or a proxy.
    let peer: SocketAddress?
    /// The client's connection.
    let channel: (any Channel)?

    public init(source: Source) {
        coreContext = .init(source: source)
        peer = source.channel.remoteAddress
        channel = source.channel
    }
}
