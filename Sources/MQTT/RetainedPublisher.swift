import Glibc
import Synchronization
import Threading

/// Publishes one small retained message at QoS 1, again and again as it changes, on a broker connection of its own: it
/// neither waits for ingest nor holds it up. Only the newest value counts: what is superseded before it was sent is
/// not sent. A failure is counted, said, and tried again after a pause.
public final class RetainedPublisher: Sendable {
    public struct Status: Sendable, Equatable {
        /// Values that the broker has acknowledged.
        public internal(set) var published: UInt64 = 0
        public internal(set) var failures: UInt64 = 0
        public internal(set) var lastError: String?
    }

    private struct State {
        var waiting: [UInt8]?
        var status = Status()
    }

    public let broker: String
    private let settings: BrokerSettings
    private let topic: [CChar]
    private let state = Mutex(State())
    public let thread = ServiceThread()
    private static let answerMilliseconds = 10_000
    private static let retryMillisecondsMax = 60_000

    /// - Parameter settings: of the broker; the client id must be nobody else's.
    public init(_ settings: BrokerSettings, topic: String) {
        self.settings = settings
        self.topic = topic.utf8.map { CChar(bitPattern: $0) } + [0]
        broker = settings.name
        MQTTLibrary.load()
    }

    public func start() { thread.start(name: "publish") { [self] in run() } }

    public var status: Status { state.withLock { $0.status } }

    /// Replaces what waits to be sent.
    public func publish(_ payload: [UInt8]) { state.withLock { $0.waiting = payload } }

    public func stop() { thread.stop() }

    private func run() {
        var link: PublishLink?, retry = 500
        while !thread.isStopping {
            guard let payload = state.withLock({ $0.waiting }) else {
                // Pings, and notices a connection that ended; the next value makes a new one.
                do throws(PublishLink.Failure) { try link?.serve(milliseconds: 1_000) } catch { link = nil }
                if link == nil { thread.rest(milliseconds: 500) }
                continue
            }
            do throws(PublishLink.Failure) {
                if link == nil {
                    link = try PublishLink(
                        settings, isV5: settings.protocolPreference == .v5, window: 1,
                        milliseconds: Self.answerMilliseconds)
                }
                if let link { try publish(payload, over: link) }
                state.withLock { state in
                    if state.waiting == payload { state.waiting = nil }
                    state.status.published += 1
                    state.status.lastError = nil
                }
                retry = 500
            } catch {
                link = nil
                state.withLock { state in
                    state.status.failures += 1
                    state.status.lastError = "\(error)"
                }
                thread.rest(milliseconds: retry)
                retry = min(retry * 2, Self.retryMillisecondsMax)
            }
        }
        link?.disconnect()
    }

    /// Returns when the broker has acknowledged.
    private func publish(_ payload: [UInt8], over link: PublishLink) throws(PublishLink.Failure) {
        let id = try link.send(topic, payload, retain: true)
        let deadline = ContinuousClock.now + .milliseconds(Self.answerMilliseconds)
        while true {
            if let answer = link.takeAcknowledged().first(where: { $0.id == id }) {
                guard answer.reason >= 128 else { return }
                throw PublishLink.Failure(text: PublishLink.text(ofReason: answer.reason), isRefusal: true)
            }
            guard ContinuousClock.now < deadline else {
                throw PublishLink.Failure(text: "the broker does not answer")
            }
            try link.serve(milliseconds: 100)
        }
    }
}
