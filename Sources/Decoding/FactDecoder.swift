import CSIMDJSON
import Decisions
import EventModel
import Foundation

/// Turns records into facts. Belongs to one thread: it holds the parser's working memory, and what is known of the
/// block in hand.
public final class FactDecoder {
    /// `refold_parser *`, owned.
    private let parser: OpaquePointer
    private let blockScan = BlockScan()

    public init() {
        guard let parser = refold_parser_create() else { preconditionFailure("no memory for a JSON parser") }
        self.parser = parser
    }

    deinit { refold_parser_destroy(parser) }

    // MARK: what is known of a block

    /// What the records of a block are; done once a block, whoever asks.
    public func scan(_ block: EventBlock) -> BlockScan {
        blockScan.update(block)
        return blockScan
    }

    /// The record at `position` of the block that was scanned last was decoded here, and is sound.
    @inline(__always)
    public func noteSound(_ position: Position) { blockScan.noteSound(position) }

    // MARK: what devices say

    /// The fact of an MQTT message. `topic` must be `record.topic`, parsed. Allocates nothing.
    @inline(__always)
    public func decode(_ record: RecordView, topic: DeviceTopic) -> MessageFact {
        switch topic.topicClass {
        case .telemetry:
            let message = parse(record, topic, REFOLD_TELEMETRY)
            guard message.error == 0 else { return .undecodable(Self.undecodable(message)) }
            return .telemetry(
                Telemetry(
                    siteID: Self.bytes(message.site_id), sequence: message.has_integer != 0 ? message.integer : nil,
                    metrics: Self.certain(message.object), shape: message.shape))
        case .heartbeat:
            let message = parse(record, topic, REFOLD_HEARTBEAT)
            guard message.error == 0 else { return .undecodable(Self.undecodable(message)) }
            return .heartbeat(
                Heartbeat(
                    siteID: Self.bytes(message.site_id), sequence: message.has_integer != 0 ? message.integer : nil))
        case .shadowReported:
            let message = parse(record, topic, REFOLD_SHADOW)
            guard message.error == 0 else { return .undecodable(Self.undecodable(message)) }
            return .shadow(Shadow(version: message.integer, reported: Self.certain(message.object)))
        case .commandAck:
            let message = parse(record, topic, REFOLD_ACK)
            guard message.error == 0 else { return .undecodable(Self.undecodable(message)) }
            return .commandAck(
                CommandAck(
                    commandID: Self.certain(message.command_id), status: Self.certain(message.status),
                    details: Self.bytes(message.object)))
        case .otaStatus: return otaStatus(record, topic)
        case .connection: return connection(record, topic)
        case .otaCommand, .certificateCommand, .certificateRequest, .certificateInstalled, .other: return .none
        }
    }

    private func otaStatus(_ record: RecordView, _ topic: DeviceTopic) -> MessageFact {
        let message = parse(record, topic, REFOLD_OTA)
        guard message.error == 0 else { return .undecodable(Self.undecodable(message)) }
        guard let status = Self.word(Self.certain(message.status), of: Self.otaStatuses) else {
            return .undecodable(Undecodable(.invalidValue, field: .status))
        }
        return .otaStatus(
            OTAReport(
                campaignID: message.integer, commandID: Self.bytes(message.command_id).flatMap(Self.commandID),
                status: status, progress: message.has_progress != 0 ? message.progress : nil,
                error: Self.bytes(message.error_text)))
    }

    /// A position as decimal digits; nil for anything else.
    private static func commandID(_ digits: Bytes) -> UInt64? {
        guard (1...19).contains(digits.count), digits.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        let number = digits.reduce(UInt64(0)) { $0 * 10 + UInt64($1 - 0x30) }
        return number <= UInt64(Int64.max) ? number : nil
    }

    private func connection(_ record: RecordView, _ topic: DeviceTopic) -> MessageFact {
        let message = parse(record, topic, REFOLD_CONNECTION)
        guard message.error == 0 else { return .undecodable(Self.undecodable(message)) }
        guard let status = Self.word(Self.certain(message.status), of: Self.connectionStatuses) else {
            return .undecodable(Undecodable(.invalidValue, field: .status))
        }
        return .connection(ConnectionReport(status: status))
    }

    /// How many messages a rejection record stands for; nil when its payload is not what the gate writes.
    public func rejectedCount(_ record: RecordView) -> Int64? {
        guard let topic = DeviceTopic(record.topic) else { return nil }
        let message = parse(record, topic, REFOLD_REJECTION)
        return message.error == 0 && message.integer >= 0 ? message.integer : nil
    }

    // MARK: what Refold recorded

    /// The fact of a connection, decision or system record.
    public func decodeInternal(_ record: RecordView) -> InternalEvent {
        guard record.kind == .connection || record.kind == .decision || record.kind == .system else { return .none }
        var problem: UInt8 = 0
        let checked = refold_check_json(
            parser, record.payload.baseAddress?.assumingMemoryBound(to: UInt8.self), record.payload.count, &problem)
        switch refold_json_error(UInt32(checked)) {
        case REFOLD_JSON_OK: break
        case REFOLD_JSON_UNREPRESENTABLE: return .undecodable(Undecodable(.invalidValue, problem: problem))
        default: return .undecodable(Undecodable(.invalidJSON))
        }
        let schema = record.topicString
        do {
            if record.kind == .connection {
                guard let known = BrokerEvent.Schema(rawValue: schema) else { return .none }
                return .broker(known, try record.decoded())
            }
            if record.kind == .system {
                switch LogSchema(rawValue: schema) {
                case .lossAccepted: return .lossAccepted(try record.decoded())
                case .segmentsRemoved: return .segmentsRemoved(try record.decoded())
                case .clockStepped, .snapshotCreated, nil: return .none
                }
            }
            guard let type = DecisionCatalog.all.type(of: schema) else { return .none }
            return .decision(try type.decoded(record))
        } catch DecodingError.keyNotFound, DecodingError.valueNotFound {
            return .undecodable(Undecodable(.missingField))
        } catch {
            return .undecodable(Undecodable(.invalidType))
        }
    }

    // MARK: metrics

    /// Merges two metrics objects by name, `newer` winning. The result is valid until the next call on this decoder.
    /// `isOnlyNewer`: it is `newer` unchanged, because nothing else remains or because the merged object would be
    /// larger than `metricsBytesMax` (then the older metrics are forgotten: everything is bounded).
    /// `weight`: what the result takes in bytes, the digits included that its numbers grow by when written out.
    public func merge(metrics older: Bytes, with newer: Bytes) -> (merged: Bytes, isOnlyNewer: Bool, weight: Int) {
        var isOnlyNewer: Int32 = 0, weight = 0
        let merged = refold_merge_objects(
            parser, Self.c(older), Self.c(newer), Self.metricsBytesMax, &isOnlyNewer, &weight)
        return (Self.certain(merged), isOnlyNewer != 0, Int(clamping: weight))
    }

    public static let metricsBytesMax = 1 << 20

    // MARK: C

    @inline(__always)
    private func parse(_ record: RecordView, _ topic: DeviceTopic, _ kind: refold_message_kind) -> refold_message {
        var message = refold_message()
        let payload = record.payload, name = record.topic.baseAddress!.assumingMemoryBound(to: UInt8.self)
        refold_decode(
            parser, Int32(kind.rawValue), payload.baseAddress?.assumingMemoryBound(to: UInt8.self), payload.count,
            name + topic.tenant.lowerBound, topic.tenant.count, name + topic.device.lowerBound, topic.device.count,
            &message)
        return message
    }

    private static func undecodable(_ message: refold_message) -> Undecodable {
        let fields = PayloadField.allCases
        let field = message.field < REFOLD_FIELD_COUNT.rawValue ? fields[Int(message.field)] : nil
        let reason: Undecodable.Reason =
            switch refold_json_error(UInt32(message.error)) {
            case REFOLD_JSON_UNREPRESENTABLE: .invalidValue
            case REFOLD_JSON_NOT_AN_OBJECT: .notAnObject
            case REFOLD_JSON_TENANT_MISMATCH: .tenantMismatch
            case REFOLD_JSON_DEVICE_MISMATCH: .deviceMismatch
            case REFOLD_JSON_MISSING_FIELD: .missingField
            case REFOLD_JSON_INVALID_TYPE: .invalidType
            default: .invalidJSON
            }
        return Undecodable(reason, field: field, problem: message.problem)
    }

    /// The value of `words` that `bytes` names, whatever the case of its ASCII letters.
    private static func word<T: RawRepresentable>(_ bytes: Bytes, of words: [T]) -> T? where T.RawValue == String {
        for word in words {
            let isWord = word.rawValue.utf8.elementsEqual(bytes.lazy.map { $0 >= 0x61 && $0 <= 0x7A ? $0 - 0x20 : $0 })
            if isWord { return word }
        }
        return nil
    }

    // Made once: `allCases` allocates its array in each call.
    private static let otaStatuses = OTAReport.Status.allCases
    private static let connectionStatuses = ConnectionReport.Status.allCases

    private static func c(_ bytes: Bytes) -> refold_bytes {
        refold_bytes(start: bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), count: bytes.count)
    }

    @inline(__always)
    private static func bytes(_ bytes: refold_bytes) -> Bytes? {
        bytes.start.map { Bytes(start: $0, count: bytes.count) }
    }

    @inline(__always)
    private static func certain(_ bytes: refold_bytes) -> Bytes { Bytes(start: bytes.start, count: bytes.count) }
}
