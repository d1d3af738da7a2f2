import Hummingbird
import NIOCore
import Synchronization

/// Cancels requests whose client has disconnected, to free the database connection that they wait for or hold.
///
/// A client that closes only its sending half (`nc -N`) counts as gone too; HTTP/1.1 clients do not do that.
final class GoneClients: Sendable {
    private struct State {
        var cancels: [ObjectIdentifier: [UInt64: @Sendable () -> Void]] = [:]
        var last: UInt64 = 0
    }
    private let state = Mutex(State())

    /// Runs `work`, and cancels it when the client of `channel` hangs up meanwhile.
    func run<R: Sendable>(_ channel: any Channel, _ work: @escaping @Sendable () async throws -> R) async throws -> R {
        let task = Task { try await work() }, id = ObjectIdentifier(channel)
        let number = state.withLock { state in
            state.last += 1
            state.cancels[id, default: [:]][state.last] = { task.cancel() }
            return state.last
        }
        defer {
            state.withLock { state in
                state.cancels[id]?[number] = nil
                if state.cancels[id]?.isEmpty == true { state.cancels[id] = nil }
            }
        }
        if !channel.isActive { task.cancel() }
        return try await withTaskCancellationHandler {
            try await task.value
        } onCancel: {
            task.cancel()
        }
    }

    fileprivate func gone(_ channel: any Channel) {
        for cancel in state.withLock({ Array((($0.cancels[ObjectIdentifier(channel)]) ?? [:]).values) }) { cancel() }
    }

    /// Watches one connection; stands in its pipeline.
    final class Watch: ChannelInboundHandler, RemovableChannelHandler {
        typealias InboundIn = NIOAny
        private let clients: GoneClients

        init(_ clients: GoneClients) { self.clients = clients }

        func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
            if case .inputClosed? = event as? ChannelEvent { clients.gone(context.channel) }
            context.fireUserInboundEventTriggered(event)
        }

        func channelInactive(context: ChannelHandlerContext) {
            clients.gone(context.channel)
            context.fireChannelInactive()
        }
    }
}
