import EventModel
import Synchronization

/// The exchange of one session for another under a new client id, without a message recorded twice. For brokers that
/// deliver to all of their sessions in one order: Mosquitto, which is one thread.
///
///     new session:  SUBSCRIBE, PUBLISH of the marker → hold what comes, unacknowledged → what came before the marker
///                   is dropped where the old session has recorded it
///     old session:  make durable what came before the marker → what comes behind it is held, unacknowledged, and
///                   dropped where the new session has recorded it
///
/// In one order the new session has before the marker only what the old one has, and the old one has behind it only
/// what the new one has. But nothing is dropped by order alone: only for a message of the same topic and payload that
/// the other session has made durable, on its side of the marker, and each of these counts once. Whatever is not found
/// so within a moment is recorded: perhaps twice, but not lost.
///
/// Before that the old session catches up, so that each device's messages stay in their order: a probe that it sends to
/// itself comes back at once. Where it does not come back (the broker may forbid it), each session records what it has.
package final class Handover: Sendable {
    private enum Probing { case open, answered, refused }

    private struct State {
        var probing = Probing.open
        var hasBegun = false, hasPassed = false, isVoid = false
        var old = Digests(), new = Digests()
    }

    /// For how long the new session holds, and the old one for each of its messages, in µs. The usual time is two round
    /// trips and a write to the disk. Mosquitto drops what it cannot queue meanwhile (`max_queued_messages`, 1,000).
    static let waitMicrosMax: Int64 = 500_000
    /// Over MQTT 3.1.1 Mosquitto has 20 messages in flight by default, and sends no marker behind them.
    static func heldMessagesMax(isV5: Bool) -> Int { isV5 ? 500 : 16 }

    static func topic(logID: String) -> String { "refold/\(logID)/handover" }

    /// A payload of ours: such messages are not recorded, of whichever exchange.
    static func isOurs(_ payload: UnsafeRawBufferPointer) -> Bool {
        payload.count == prefix.count + 16 && payload.prefix(prefix.count).elementsEqual(prefix)
    }

    private static let prefix = Array("handover ".utf8)

    let topic: String
    /// Known to nobody before it is published: a stranger could send it earlier.
    let marker = Handover.payload()
    /// What the old session sends to itself to see how far behind it is.
    let probe = Handover.payload()
    private let state = Mutex(State())

    package init(logID: String) { topic = Self.topic(logID: logID) }

    private static func payload() -> [UInt8] {
        let digits = String(UInt64.random(in: .min ... .max), radix: 16)
        return prefix + Array((String(repeating: "0", count: 16 - digits.count) + digits).utf8)
    }

    // MARK: The probe

    package func noteProbe(isAnswered: Bool) {
        state.withLock { if $0.probing == .open { $0.probing = isAnswered ? .answered : .refused } }
    }

    /// Mosquitto 2.0 ends a connection that publishes what it may not, with `max_queued_messages 0`: one attempt.
    var isRefused: Bool { state.withLock { $0.probing == .refused } }

    /// An old session that connects again records what it has.
    var hasBegun: Bool { state.withLock { $0.hasBegun } }

    // MARK: The exchange

    /// True once, and only where the probe has come back.
    package func begin() -> Bool {
        state.withLock { state in
            defer { state.hasBegun = true }
            return state.probing == .answered && !state.hasBegun
        }
    }

    /// The old session has made these durable, all before the marker.
    package func noteOld(_ batch: borrowing RecordBatch) {
        state.withLock { if !$0.hasPassed { $0.old.add(batch) } }
    }

    /// The marker has come to the old session, and what was before it is durable.
    package func notePassed() { state.withLock { $0.hasPassed = true } }
    package var hasPassed: Bool { state.withLock { $0.hasPassed } }

    /// The old session has recorded such a message, which counts no more.
    package func takeOld(_ record: RecordView) -> Bool {
        state.withLock { $0.hasPassed && $0.old.take(record) }
    }

    /// The new session has made these durable, all behind the marker.
    package func noteNew(_ batch: borrowing RecordBatch) { state.withLock { $0.new.add(batch) } }

    /// The new session has recorded such a message, which counts no more.
    package func takeNew(_ record: RecordView) -> Bool { state.withLock { $0.new.take(record) } }

    /// The old session has waited in vain: it does not wait any more.
    package func giveUp() { state.withLock { $0.isVoid = true } }
    var isVoid: Bool { state.withLock { $0.isVoid } }
}

/// The last messages that were recorded, by topic and payload.
private struct Digests {
    private static let countMax = 8_192
    private var counts: [Int: Int] = [:]
    private var order: [Int] = []

    mutating func add(_ batch: borrowing RecordBatch) {
        batch.withUnsafeBytes { bytes in
            var offset = 0
            while offset < bytes.count {
                let record = RecordView(unchecked: bytes.baseAddress! + offset)
                offset += record.length
                guard record.kind == .message else { continue }
                let digest = Self.digest(record)
                counts[digest, default: 0] += 1
                order.append(digest)
            }
        }
        guard order.count > Self.countMax else { return }
        let excess = order.count - Self.countMax / 2
        for digest in order[..<excess] { remove(digest) }
        order.removeFirst(excess)
    }

    mutating func take(_ record: RecordView) -> Bool {
        let digest = Self.digest(record)
        guard counts[digest] != nil else { return false }
        remove(digest)
        return true
    }

    private mutating func remove(_ digest: Int) {
        guard let count = counts[digest] else { return }
        counts[digest] = count > 1 ? count - 1 : nil
    }

    private static func digest(_ record: RecordView) -> Int {
        var hasher = Hasher()
        hasher.combine(record.topic.count)
        hasher.combine(bytes: record.topic)
        hasher.combine(bytes: record.payload)
        return hasher.finalize()
    }
}
