import Primitives

/// How three brokers keep persistent sessions, as measured on Mosquitto 2.0.11, RabbitMQ 3.10 and NATS 2.9
/// (`bench/NOTES.md`). Packet ids are 1 to `ids`, far fewer than MQTT's, so that they come round within a world.
struct BrokerModel {
    enum Kind: CaseIterable {
        /// Keeps ids over connections and redelivers before anything else. A kill brings the last save back.
        case mosquitto
        /// Counts ids anew in each connection. Loses nothing.
        case rabbitmq
        /// Redelivers when ack_wait is over, on a live connection too, among new messages or before them; counts from
        /// 1 again when nothing is pending, and after a kill, from which on pending messages have other ids.
        case nats
    }

    enum ToClient {
        case connack(sessionPresent: Bool)
        case suback, unsuback
        case publish(id: Int, isDuplicate: Bool, message: Int)
    }

    enum ToBroker {
        case connect, subscribe, unsubscribe
        case puback(Int)
        /// PUBLISH of the marker of a handover: a message with a number below 0.
        case marker(Int)
    }

    /// One TCP connection of a client.
    struct Link {
        let clientID: String
        var toClient: [ToClient] = []
        var toBroker: [ToBroker] = []
        /// Neither end sends any more; what the broker has received already it still takes.
        var isCut = false
        var isAccepted = false
    }

    fileprivate struct Delivery {
        var id: Int
        let message: Int
        var isSent = true
        /// NATS: sent on an earlier connection, so that it comes again when ack_wait is over.
        var isOwed = false
    }

    struct Session {
        fileprivate var queue: [Int] = []
        fileprivate var inFlight: [Delivery] = []
        fileprivate var lastID = 0
        fileprivate(set) var isSubscribed = false
        var isEmpty: Bool { queue.isEmpty && inFlight.isEmpty }

        func holds(_ message: Int) -> Bool {
            queue.contains(message) || inFlight.contains { $0.message == message }
        }
    }

    let kind: Kind
    let ids: Int
    let inFlightMax: Int
    private(set) var sessions: [String: Session] = [:]
    private var saved: [String: Session] = [:]
    var links: [Int: Link] = [:]
    private var nextLink = 0
    /// Times that ack_wait was over.
    private(set) var waits = 0

    init(kind: Kind, ids: Int, inFlightMax: Int) {
        (self.kind, self.ids, self.inFlightMax) = (kind, ids, inFlightMax)
    }

    mutating func open(_ clientID: String) -> Int {
        nextLink += 1
        links[nextLink] = Link(clientID: clientID)
        return nextLink
    }

    /// The client's end is gone; `received` packets of what it sent have arrived.
    mutating func cut(_ link: Int, received: Int) {
        guard var open = links[link] else { return }
        (open.isCut, open.toClient) = (true, [])
        open.toBroker = Array(open.toBroker.prefix(received))
        links[link] = open
    }

    mutating func publish(_ message: Int) {
        for name in sessions.keys.sorted() where sessions[name]?.isSubscribed == true {
            sessions[name]?.queue.append(message)
            pump(name)
        }
    }

    mutating func save() { saved = sessions }

    /// kill -9 and a start.
    mutating func restart() {
        links = [:]
        switch kind {
        case .mosquitto: sessions = saved
        case .rabbitmq: break
        case .nats:
            for name in sessions.keys {
                sessions[name]?.lastID = 0
                for index in sessions[name]!.inFlight.indices {
                    sessions[name]!.inFlight[index].id = 0
                    sessions[name]!.inFlight[index].isOwed = true
                }
            }
        }
    }

    /// The session is ended for good: a broker that brings it back from a save only collects copies in it.
    mutating func forget(_ clientID: String) {
        sessions[clientID] = nil
        saved[clientID] = nil
    }

    /// Takes the next packet of a link. Calls `acknowledged` with each message that a PUBACK ends, and `dropped` with
    /// each that an UNSUBSCRIBE takes away.
    mutating func take(
        _ link: Int, _ random: inout SeededRandom, acknowledged: (Int) throws -> Void,
        dropped: (Int, BrokerModel) throws -> Void
    ) rethrows {
        guard var open = links[link] else { return }
        guard !open.toBroker.isEmpty else {
            if open.isCut { links[link] = nil }
            return
        }
        let packet = open.toBroker.removeFirst()
        links[link] = open
        let name = open.clientID
        switch packet {
        case .connect: accept(link, name, redeliversNow: random.below(2) == 0)
        case .subscribe:
            sessions[name]?.isSubscribed = true
            send(.suback, on: name)
            if kind == .rabbitmq { redeliver(name) }
        case .unsubscribe:
            sessions[name]?.isSubscribed = false
            send(.unsuback, on: name)
            if kind == .nats, let session = sessions[name] {
                // The subscription's consumer is deleted, with all that it has not delivered.
                sessions[name]?.queue = []
                sessions[name]?.inFlight = []
                for message in session.queue + session.inFlight.map(\.message) { try dropped(message, self) }
            }
        case .marker(let message): publish(message)
        case .puback(let id):
            guard let index = sessions[name]?.inFlight.firstIndex(where: { $0.id == id && $0.isSent }) else { return }
            let message = sessions[name]!.inFlight.remove(at: index).message
            // What a kill left pending has no id until it is sent again.
            if kind == .nats, sessions[name]!.inFlight.allSatisfy({ $0.id == 0 }) { sessions[name]!.lastID = 0 }
            try acknowledged(message)
        }
        pump(name)
    }

    /// NATS: ack_wait is over. RabbitMQ gets to its queue.
    /// - Parameter isOverall: also for what was sent on the present connection.
    mutating func timePasses(isOverall: Bool) {
        waits += 1
        guard kind != .mosquitto else { return }
        for name in sessions.keys.sorted() {
            for index in sessions[name]!.inFlight.indices where kind == .nats && isOverall {
                sessions[name]!.inFlight[index].isOwed = true
            }
            redeliver(name)
        }
    }

    private mutating func accept(_ link: Int, _ name: String, redeliversNow: Bool) {
        for (other, open) in links where other != link && open.clientID == name { cut(other, received: 0) }
        links[link]?.isAccepted = true
        let isPresent = sessions[name] != nil
        if !isPresent { sessions[name] = Session() }
        send(.connack(sessionPresent: isPresent), on: name)
        switch kind {
        case .mosquitto: redeliver(name)
        case .rabbitmq:
            sessions[name]!.lastID = 0
            for index in sessions[name]!.inFlight.indices {
                sessions[name]!.inFlight[index].id = 0
                sessions[name]!.inFlight[index].isSent = false
            }
            if redeliversNow { redeliver(name) }
        case .nats:
            for index in sessions[name]!.inFlight.indices { sessions[name]!.inFlight[index].isOwed = true }
            // ack_wait ran out while nobody was connected.
            if redeliversNow { redeliver(name) }
        }
    }

    private mutating func redeliver(_ name: String) {
        guard var session = sessions[name], isReachable(name) else { return }
        for index in session.inFlight.indices
        where kind == .mosquitto
            || (kind == .nats ? session.inFlight[index].isOwed : !session.inFlight[index].isSent)
        {
            if session.inFlight[index].id == 0 { session.inFlight[index].id = nextID(&session) }
            (session.inFlight[index].isSent, session.inFlight[index].isOwed) = (true, false)
            let delivery = session.inFlight[index]
            send(.publish(id: delivery.id, isDuplicate: true, message: delivery.message), on: name)
        }
        sessions[name] = session
    }

    private mutating func pump(_ name: String) {
        guard var session = sessions[name], isReachable(name) else { return }
        // RabbitMQ delivers nothing new before what it still has to redeliver.
        while session.inFlight.count < inFlightMax, !session.queue.isEmpty,
            kind != .rabbitmq || session.inFlight.allSatisfy(\.isSent)
        {
            let delivery = Delivery(id: nextID(&session), message: session.queue.removeFirst())
            session.inFlight.append(delivery)
            send(.publish(id: delivery.id, isDuplicate: false, message: delivery.message), on: name)
        }
        sessions[name] = session
    }

    private func nextID(_ session: inout Session) -> Int {
        repeat {
            session.lastID = session.lastID % ids + 1
        } while session.inFlight.contains { $0.id == session.lastID }
        return session.lastID
    }

    private func isReachable(_ name: String) -> Bool {
        links.values.contains { $0.clientID == name && $0.isAccepted && !$0.isCut }
    }

    private mutating func send(_ packet: ToClient, on name: String) {
        for (link, open) in links where open.clientID == name && open.isAccepted && !open.isCut {
            links[link]?.toClient.append(packet)
        }
    }
}
