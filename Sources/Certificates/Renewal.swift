import Decisions
import EventModel
import PKI

/// The open renewal of a device's certificate over MQTT. A device has at most one.
///
///     requested ── certificate request ──► answered ── signed ──► issued ── report, or time ──► ended
///       ▲   │                                 │
///       └───┴─ retry with backoff             └─ refused: requested again
public struct Renewal: Sendable, Equatable, Codable {
    /// Position of the first request: the `renewal_id` that devices see.
    public let id: Position
    public let tenantID: String
    public let deviceID: String
    /// The certificate to renew, and its expiry.
    public let certificate: CertificateReference
    let notAfter: Timestamp
    /// Of the last request; an issued certificate is one of its own.
    var command: Position
    public internal(set) var attempt: Int64
    public internal(set) var requestedAt: Timestamp
    /// The brokers have acknowledged `command`.
    var isDelivered = false
    /// Messages of the device that are to be handled, in log order.
    var messages: [Position] = []
    var refusalCount = 0
    /// Why the last message was refused.
    public internal(set) var error: String?
    public internal(set) var issued: CertificateReference?
    var issuedAt: Timestamp?
    /// The new certificate and the authorities above it, in base64 of their DER, until its delivery is acknowledged.
    var undelivered: [String]?

    /// Messages that wait to be handled; the others are ignored until then.
    static let messagesMax = 4
    /// Refusals on the record for one request to the device; further messages are ignored until the next request.
    static let refusalsMax = 8
    /// First pause between two requests; doubled each time, to at most an eighth of the certificate's remaining life.
    static let retrySeconds: Int64 = 3_600
    private static let retrySecondsMin: Int64 = 60
    private static let retrySecondsMax: Int64 = 86_400
    /// How long after its expiry a certificate can still be renewed: devices can be offline for weeks.
    static let secondsAfterExpiry: Int64 = 30 * 86_400

    public enum Status: String, Sendable {
        case requested = "REQUESTED", answered = "ANSWERED", issued = "ISSUED", delivered = "DELIVERED"
    }

    public var status: Status {
        if issued != nil { return isDelivered ? .delivered : .issued }
        return messages.isEmpty ? .requested : .answered
    }

    var address: String { "tenant/\(tenantID)/device/\(deviceID)" }

    /// When the next request is due. It waits until the brokers have acknowledged the last one: a broker that is down
    /// is no failure of the device.
    var retryAt: Timestamp? {
        guard issued == nil, isDelivered, messages.isEmpty else { return nil }
        let left = notAfter.wholeSeconds.saturatingSubtracting(requestedAt.wholeSeconds)
        let limit = left > 0 ? max(Self.retrySecondsMin, left / 8) : Self.retrySecondsMax
        let doubled = Self.retrySeconds << max(0, min(attempt - 1, 10))
        let pause = min(doubled, limit, Self.retrySecondsMax)
        // Jitter: requests that were sent together are not retried together.
        let spread = Int64(spreadHash(certificate.serial, attempt) % 1_024) * (pause * 1_000_000 / 8) / 1_024
        return requestedAt.moved(by: pause * 1_000_000 + spread)
    }
}

/// Hash for jitter. Not `Hasher`: replays in other processes must compute the same times.
func spreadHash(_ serial: SerialNumber, _ number: Int64 = 0) -> UInt64 {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325  // FNV-1a
    for byte in serial.magnitude { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
    hash ^= UInt64(bitPattern: number) &* 0x9e37_79b9_7f4a_7c15
    hash = (hash ^ hash >> 33) &* 0xff51_afd7_ed55_8ccd  // the finalizer of MurmurHash3
    return (hash ^ hash >> 33) >> 16
}

extension RenewalPolicy {
    /// The policy with its numbers limited: those in the log may come from a damaged or foreign file.
    public var withinLimits: RenewalPolicy {
        var policy = self
        policy.afterPercent = max(1, min(afterPercent, 95))
        policy.graceSeconds = max(0, min(graceSeconds, 36_500 * 86_400))
        return policy
    }

    /// Start of a certificate's renewal window, in seconds since 1970.
    func windowStart(notBefore: Int64, notAfter: Int64) -> Int64 {
        let life = max(0, notAfter.saturatingSubtracting(notBefore))
        // In parts: the life of a certificate without a well-defined expiry (year 9999) times 100 would not fit.
        return notBefore.saturatingAdding(life / 100 * afterPercent + life % 100 * afterPercent / 100)
    }

    /// Time at which a renewal without a device report ends. A sleeping device can still install the certificate while
    /// the old one is valid and the new one is not due.
    /// - Parameters:
    ///   - newNotBefore: of the new certificate, in seconds since 1970.
    ///   - newNotAfter: likewise.
    public func end(
        issuedAt: Timestamp, oldNotAfter: Timestamp, newNotBefore: Int64, newNotAfter: Int64
    ) -> Timestamp {
        let due = Timestamp(seconds: windowStart(notBefore: newNotBefore, notAfter: newNotAfter))
        return max(issuedAt.moved(by: graceSeconds * 1_000_000), min(oldNotAfter, due))
    }
}

/// When a certificate is to be renewed (RFC 9773, section 4.2).
public struct RenewalWindow: Sendable, Equatable {
    let start: Timestamp
    let end: Timestamp
    /// The time within the window, by hash of the serial number.
    public let renewAt: Timestamp

    /// - Parameters:
    ///   - notBefore: of the certificate, in seconds since 1970.
    ///   - notAfter: likewise.
    public init(_ serial: SerialNumber, notBefore: Int64, notAfter: Int64, _ policy: RenewalPolicy) {
        let begin = policy.windowStart(notBefore: notBefore, notAfter: notAfter)
        let width = max(0, notAfter.saturatingSubtracting(notBefore)) / 20
        start = Timestamp(seconds: begin)
        end = Timestamp(seconds: begin.saturatingAdding(width))
        renewAt = Timestamp(
            seconds: begin.saturatingAdding(width > 0 ? Int64(spreadHash(serial) % UInt64(width)) : 0))
    }
}

extension CertificateReference: Codable {
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer(), text = try container.decode(String.self)
        guard let reference = CertificateReference(text) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "no certificate: \(text)")
        }
        self = reference
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}
