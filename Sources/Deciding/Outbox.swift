import Decisions

/// What decisions do outside of the log. It happens at least once, because a process may end before it.
public enum Effect: Sendable, Equatable {
    case send([Delivery])
    /// Cancel unsent deliveries of the subject. Removals of retained messages stay.
    case withdraw(subject: String)
}

/// Carries deliveries to the devices. Only what is durable is handed to it.
public protocol Outbox: Sendable {
    /// Enqueues them and returns at once. Each is sent at least once, in order per device, and retried while the
    /// broker is unavailable.
    func send(_ deliveries: [Delivery])
    func withdraw(subject: String)
    /// `body` is called, on any thread, with deliveries that the broker has acknowledged, also those of other deciders:
    /// each knows its own by their subject.
    func onAcknowledged(_ body: @escaping @Sendable ([Delivery]) -> Void)
}

extension Outbox {
    func perform(_ effects: [Effect]) {
        for effect in effects {
            switch effect {
            case .send(let deliveries): if !deliveries.isEmpty { send(deliveries) }
            case .withdraw(let subject): withdraw(subject: subject)
            }
        }
    }
}
