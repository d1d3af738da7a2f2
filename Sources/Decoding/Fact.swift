// Decoding: turns a record into a typed fact (`FactDecoder`). Pure: the same bytes always give the same fact, so that
// a corrected decoder heals old dead letters by replay.
//
// Two kinds of facts, because they cost differently. What devices say comes by the million: a `MessageFact` is
// made of byte ranges into the block and allocates nothing. What Refold itself recorded is rare: an `InternalEvent`
// holds ordinary strings.
//
// The field rules are the JSON Schemas under `schemas/messages`.
import Decisions
import EventModel

/// Bytes of a block or of the decoder. They are valid until the block changes or the decoder decodes again.
public typealias Bytes = UnsafeRawBufferPointer

/// What a device said.
public enum MessageFact {
    case telemetry(Telemetry)
    case heartbeat(Heartbeat)
    case shadow(Shadow)
    case commandAck(CommandAck)
    case otaStatus(OTAReport)
    case connection(ConnectionReport)
    /// The topic is none that is folded.
    case none
    case undecodable(Undecodable)
}

public struct Telemetry {
    public let siteID: Bytes?
    public let sequence: Int64?
    /// A JSON object of numbers, booleans and strings, as it stands in the payload.
    public let metrics: Bytes
    /// A digest of the metrics' names in their order: two objects of one shape have the same names. 0: not known.
    public let shape: UInt64
}

public struct Heartbeat {
    public let siteID: Bytes?
    public let sequence: Int64?
}

public struct Shadow {
    public let version: Int64
    /// A JSON object, as it stands in the payload.
    public let reported: Bytes
}

public struct CommandAck {
    public let commandID: Bytes
    public let status: Bytes
    /// A JSON object, as it stands in the payload.
    public let details: Bytes?
}

public struct OTAReport {
    public enum Status: String, Sendable, CaseIterable {
        case downloading = "DOWNLOADING", installing = "INSTALLING", success = "SUCCESS", failed = "FAILED"
        /// Ends an attempt.
        public var isTerminal: Bool { self == .success || self == .failed }
    }
    public let campaignID: Int64
    /// The command that the device answers to, where it says so in a way that can be understood.
    public let commandID: UInt64?
    public let status: Status
    /// 0 to 100.
    public let progress: Double?
    public let error: Bytes?
}

public struct ConnectionReport {
    public enum Status: String, Sendable, CaseIterable {
        case connected = "CONNECTED", disconnected = "DISCONNECTED", lost = "CONNECTION_LOST"
    }
    public let status: Status
}

/// Why a payload could not be understood.
public struct Undecodable: Sendable, Equatable {
    public enum Reason: String, Sendable, CaseIterable {
        case invalidJSON = "INVALID_JSON"
        case notAnObject = "NOT_AN_OBJECT"
        case missingField = "MISSING_FIELD"
        case invalidType = "INVALID_TYPE"
        /// An unknown status word, or text or a number that PostgreSQL cannot hold.
        case invalidValue = "INVALID_VALUE"
        case tenantMismatch = "TENANT_MISMATCH_TOPIC_VS_PAYLOAD"
        case deviceMismatch = "DEVICE_MISMATCH_TOPIC_VS_PAYLOAD"
    }
    public let reason: Reason
    /// The field at fault, where one is.
    public let field: PayloadField?
    let problem: UInt8

    init(_ reason: Reason, field: PayloadField? = nil, problem: UInt8 = 0) {
        self.reason = reason
        self.field = field
        self.problem = problem
    }

    /// One sentence for a person.
    public var details: String {
        let name = field?.rawValue ?? "payload"
        switch reason {
        case .invalidJSON: return "The payload is not JSON in UTF-8 from its first byte to its last."
        case .notAnObject: return "The payload is JSON but no object."
        case .missingField: return "The required field \"\(name)\" is missing or null."
        case .invalidType: return "The field \"\(name)\" is not \(field?.typeWanted ?? "of the right type")."
        case .tenantMismatch: return "The payload's tenant_id is not the topic's."
        case .deviceMismatch: return "The payload's device_id is not the topic's."
        case .invalidValue:
            switch problem {
            case 1: return "A string holds \\u0000, which PostgreSQL cannot store."
            case 2: return "A string holds half of a surrogate pair, which is no character."
            case 3: return "A number is beyond what jsonb can hold."
            case 4: return "Objects and arrays are nested deeper than 512."
            default: return "The field \"\(name)\" has none of the known values."
            }
        }
    }
}

/// The fields that decoding looks at, by their names in the payload.
public enum PayloadField: String, Sendable, CaseIterable {
    case tenantID = "tenant_id", deviceID = "device_id", ts, siteID = "site_id", seq, metrics, version, reported
    case commandID = "command_id", status, details, campaignID = "campaign_id", progress, error, count

    var typeWanted: String {
        switch self {
        case .seq, .version, .campaignID, .count: "an integer of 64 bits"
        case .progress: "a number"
        case .metrics: "an object of numbers, booleans and strings"
        case .reported, .details: "an object"
        default: "a string"
        }
    }
}

/// What Refold recorded itself: connections to brokers, decisions, refused commands.
public enum InternalEvent {
    case broker(BrokerEvent.Schema, BrokerEvent)
    case decision(any Decision)
    case lossAccepted(LossAccepted)
    case segmentsRemoved(SegmentsRemoved)
    /// A schema that this version does not know, or a kind of record that holds no such event.
    case none
    case undecodable(Undecodable)

    /// Nil for anything else.
    public var decision: (any Decision)? {
        if case .decision(let decision) = self { decision } else { nil }
    }
}
