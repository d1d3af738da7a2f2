// ControlAPI: how people and programs see the system and give it commands, over HTTP.
//
// It knows routes, access and problem details, and nothing of SQL, of MQTT or of the log's files: what it shows comes
// through the protocols of Providers.swift, which the executable implements.
//
// Invariants. A write is answered with 2xx only when its event is durable, with the event's position. Every error is
// an RFC 9457 problem, 404 and 405 included. A read that names `min_position` is never older than that position.
// Reads that need PostgreSQL answer 503 while it is away; writes go on. `schemas/openapi.yaml` describes all of it,
// and a test compares the two.
import Hummingbird
import HummingbirdCore
import Logging
import NIOCore
import ServiceLifecycle

public struct ControlAPI: Sendable {
    let system: SystemAccess
    let policy: AccessPolicy

    /// A request's body may have at most so many bytes: about 60,000 device ids of full length, or 500,000 short ones.
    public static let bodyBytesMax = 8 << 20
    /// How long a read waits for `min_position`.
    static let waitForPosition: Duration = .seconds(5)
    /// Connections at once; more wait in the kernel's queue.
    static let connectionsMax = 512

    public init(system: SystemAccess, policy: AccessPolicy) {
        self.system = system
        self.policy = policy
    }

    /// Every route, in the order in which `schemas/openapi.yaml` lists them.
    var routes: [Route] {
        probeRoutes + systemRoutes + logRoutes + snapshotRoutes + rebuildRoutes + firmwareRoutes
            + campaignRoutes + deviceRoutes + deadLetterRoutes + parkedRoutes
    }

    public func router() -> Router<APIContext> {
        let routes = self.routes
        let router = Router(context: APIContext.self, options: [.autoGenerateHeadEndpoints])
        router.add(middleware: ProblemMiddleware(routes: routes))
        router.add(middleware: HostMiddleware(policy: policy))
        for route in routes {
            router.on(RouterPath(route.path), method: route.method) { [policy] request, context in
                try policy.check(route.access, request)
                return try await route.handle(request, context)
            }
        }
        return router
    }

    /// The server as a service: `run()` it, or add it to a `ServiceGroup`. With port 0 the kernel chooses one;
    /// `onListening` is told which.
    public func server(
        host: String, port: Int, logger: Logger, onListening: @escaping @Sendable (Int) async -> Void = { _ in }
    ) -> some Service {
        Application(
            router: router(),
            server: .http1(configuration: .init(idleTimeout: .seconds(75))),
            configuration: ApplicationConfiguration(
                address: .hostname(host, port: port), serverName: nil,
                availableConnectionsDelegate: MaximumAvailableConnections(Self.connectionsMax)),
            onServerRunning: { await onListening($0.localAddress?.port ?? port) },
            logger: logger)
    }
}

/// One route: what it is called, who may use it, and what it does.
struct Route: Sendable {
    enum Access: Sendable {
        /// Everybody who can reach the port.
        case open
        /// Open on loopback, else with the token.
        case read
        /// Always with the token.
        case write
    }

    let method: HTTPRequest.Method
    /// As in the OpenAPI document: `/api/v1/tenants/{tenant}/firmware`.
    let path: String
    let access: Access
    let handle: @Sendable (Request, APIContext) async throws -> Response

    static func get(
        _ path: String, _ access: Access = .read,
        _ handle: @escaping @Sendable (Request, APIContext) async throws -> Response
    ) -> Route {
        Route(method: .get, path: path, access: access, handle: handle)
    }

    static func post(
        _ path: String, _ handle: @escaping @Sendable (Request, APIContext) async throws -> Response
    ) -> Route {
        Route(method: .post, path: path, access: .write, handle: handle)
    }

    /// Whether a request's path is this route's, whatever its method.
    func matches(_ path: String) -> Bool {
        let own = self.path.split(separator: "/"), other = path.split(separator: "/")
        return own.count == other.count && zip(own, other).allSatisfy { $0.hasPrefix("{") || $0 == $1 }
    }
}

public struct APIContext: RequestContext {
    public var coreContext: CoreRequestContextStorage
    public init(source: Source) { coreContext = .init(source: source) }
}
