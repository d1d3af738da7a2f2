import NIOCore
import NIOHTTPTypes
import Synchronization

/// Keeps places free, so that clients that send nothing cannot keep out probes and operators.
///
/// A whole request header must arrive within `headerTime` of the connection, or of its first byte where an earlier
/// request was answered. Beyond `placesMax` connections, each new one closes the connection that has been without a
/// complete request for longest. A connection with a complete request stays.
final class Connections: Sendable {
    private struct Entry {
        let channel: any Channel
        /// Requests without a whole response.
        var requests = 0
        /// The last request's body is incomplete.
        var isReading = false
        /// Grows with time: when the connection began to wait, or its request to arrive.
        var since: UInt64

        var isWaiting: Bool { requests == 0 && !isReading }
    }
    private struct State {
        var entries: [ObjectIdentifier: Entry] = [:]
        var last: UInt64 = 0

        mutating func next() -> UInt64 {
            last += 1
            return last
        }

        /// Removes the connection to be closed for a new one; nil when all of them have a complete request.
        mutating func evict(except new: ObjectIdentifier?) -> (any Channel)? {
            let found = entries.filter { $0.key != new && ($0.value.isWaiting || $0.value.isReading) }
            guard let oldest = found.min(by: { $0.value.since < $1.value.since }) else { return nil }
            return entries.removeValue(forKey: oldest.key)?.channel
        }
    }

    let headerTime: TimeAmount
    /// Open connections from which on the oldest make room.
    let placesMax: Int
    private let state = Mutex(State())

    /// - Parameter connectionsMax: connections that the server accepts at once; a few of them are kept free.
    init(connectionsMax: Int, headerTime: TimeAmount) {
        self.headerTime = headerTime
        placesMax = connectionsMax - min(8, max(1, connectionsMax / 8))
    }

    private func add(_ channel: any Channel) {
        let id = ObjectIdentifier(channel)
        let evicted: (any Channel)? = state.withLock { state in
            let since = state.next()
            state.entries[id] = Entry(channel: channel, since: since)
            return state.entries.count > placesMax ? state.evict(except: id) : nil
        }
        evicted?.close(mode: .all, promise: nil)
    }

    private func remove(_ channel: any Channel) {
        state.withLock { $0.entries[ObjectIdentifier(channel)] = nil }
    }

    private func requestBegan(_ channel: any Channel) {
        state.withLock { state in
            guard var entry = state.entries[ObjectIdentifier(channel)] else { return }
            entry.requests += 1
            entry.isReading = true
            entry.since = state.next()
            state.entries[ObjectIdentifier(channel)] = entry
        }
    }

    private func requestEnded(_ channel: any Channel) {
        state.withLock { state in
            guard var entry = state.entries[ObjectIdentifier(channel)] else { return }
            entry.isReading = false
            state.entries[ObjectIdentifier(channel)] = entry
        }
    }

    /// The response was written to the socket.
    private func responseEnded(_ channel: any Channel) {
        let evicted: (any Channel)? = state.withLock { state in
            guard var entry = state.entries[ObjectIdentifier(channel)] else { return nil }
            entry.requests = max(0, entry.requests - 1)
            entry.since = state.next()
            state.entries[ObjectIdentifier(channel)] = entry
            // No connection waited when the last ones came.
            return state.entries.count > placesMax ? state.evict(except: nil) : nil
        }
        evicted?.close(mode: .all, promise: nil)
    }

    /// Watches one connection. In its pipeline it is behind the conversion to HTTP types.
    final class Watch: ChannelDuplexHandler, RemovableChannelHandler {
        typealias InboundIn = HTTPRequestPart
        typealias InboundOut = HTTPRequestPart
        typealias OutboundIn = HTTPResponsePart
        typealias OutboundOut = HTTPResponsePart

        private let connections: Connections
        private var requests = 0
        private var isReading = false
        private var deadline: Scheduled<Void>?

        init(_ connections: Connections) { self.connections = connections }

        func handlerAdded(context: ChannelHandlerContext) {
            connections.add(context.channel)
            startDeadline(context)
            do {
                try context.pipeline.syncOperations.addHandler(FirstBytes(self), position: .first)
            } catch {
                context.close(promise: nil)
            }
        }

        func handlerRemoved(context: ChannelHandlerContext) { end(context) }

        func channelInactive(context: ChannelHandlerContext) {
            end(context)
            context.fireChannelInactive()
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            switch unwrapInboundIn(data) {
            case .head:
                deadline?.cancel()
                deadline = nil
                requests += 1
                isReading = true
                connections.requestBegan(context.channel)
            case .body: break
            case .end:
                isReading = false
                connections.requestEnded(context.channel)
            }
            context.fireChannelRead(data)
        }

        func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
            guard case .end = unwrapOutboundIn(data) else { return context.write(data, promise: promise) }
            requests = max(0, requests - 1)
            let written = promise ?? context.eventLoop.makePromise(of: Void.self), channel = context.channel
            written.futureResult.whenComplete { [connections] _ in connections.responseEnded(channel) }
            context.write(data, promise: written)
        }

        /// Bytes arrived that are not parsed yet.
        fileprivate func bytesArrived(_ context: ChannelHandlerContext) {
            if requests == 0, !isReading, deadline == nil { startDeadline(context) }
        }

        private func startDeadline(_ context: ChannelHandlerContext) {
            let channel = context.channel
            deadline = context.eventLoop.scheduleTask(in: connections.headerTime) {
                channel.close(mode: .all, promise: nil)
            }
        }

        private func end(_ context: ChannelHandlerContext) {
            deadline?.cancel()
            deadline = nil
            connections.remove(context.channel)
        }
    }

    /// The first handler of a connection: reports bytes before the HTTP parser takes them.
    private final class FirstBytes: ChannelInboundHandler, RemovableChannelHandler {
        typealias InboundIn = ByteBuffer
        private let watch: Watch

        init(_ watch: Watch) { self.watch = watch }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            watch.bytesArrived(context)
            context.fireChannelRead(data)
        }
    }
}
