import Decisions

/// What decisions do outside of the log. It happens at least once, because a process may end before it.
public enum Effect: Sendable, Equatable {
    case send([Delivery])
    /// Forget what has not been sent yet of this subject, except removals of retained messages.
    case withdraw(subject: String)
}

/// Carries deliveries to the devices. Only what is durable is handed to it.
public protocol Outbox: Sendable {
    /// Takes them over and returns at once. Sends each at least once, in their order for each device, and goes on
    /// trying while the broker is away.
    func send(_ deliveries: [Delivery])
    func withdraw(subject: String)
    /// `body` is called, on any thread, with deliveries that the broker has acknowledged.
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
