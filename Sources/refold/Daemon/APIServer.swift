import ControlAPI
import Logging
import ServiceLifecycle
import Synchronization
import Threading

/// The HTTP server as a thing that has started, or says why it cannot.
struct APIServer: Sendable {
    let address: String
    private let group: ServiceGroup
    private let task: Task<Void, any Error>

    static func start(_ api: ControlAPI, host: String, port: Int, logger: Logger) async throws -> APIServer {
        let started = AsyncStream.makeStream(of: Result<Int, any Error>.self)
        var quiet = logger
        quiet.logLevel = max(logger.logLevel, .warning)
        let connections = Descriptors.connectionsMax(wanted: ControlAPI.connectionsMax, limit: Descriptors.limit)
        let service = api.server(host: host, port: port, connectionsMax: connections, logger: quiet) {
            started.continuation.yield(.success($0))
        }
        // No signals: the daemon stops its parts itself, in its order.
        let group = ServiceGroup(configuration: .init(services: [service], gracefulShutdownSignals: [], logger: quiet))
        let task = Task {
            do {
                try await group.run()
            } catch {
                started.continuation.yield(.failure(error))
                throw error
            }
        }
        for await result in started.stream {
            do {
                let shown = host.contains(":") ? "[\(host)]" : host
                return APIServer(address: "\(shown):\(try result.get())", group: group, task: task)
            } catch {
                throw StartError(
                    description: "the API cannot listen on \(host):\(port): \(error). Give another --http HOST:PORT",
                    exitCode: ControlAPI.isAddressInUse(error) ? StartError.inUse : 2)
            }
        }
        throw StartError(description: "the API ended before it began", exitCode: 1)
    }

    func stop() async {
        await group.triggerGracefulShutdown()
        let patience = Task {
            try await Task.sleep(for: .seconds(2))
            task.cancel()
        }
        _ = await task.result
        patience.cancel()
    }
}
