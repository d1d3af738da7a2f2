import EventModel
import FoundationEssentials
import Primitives

/// A recorded message as a CloudEvent (CloudEvents 1.0.2, JSON event format), without a newline:
///
///     id, source      the position, and `/refold/<log id>`: together they name the event for ever
///     type            `refold.message.<what the topic is about>`
///     subject, time   the topic as received; when we received it
///     data            the payload when it is JSON, else `data_base64`
///     partitionkey    the device (extension "Partitioning"): who keeps order by it keeps each device's order
///     sequence        the position in twenty digits (extension "Sequence": lexicographically orderable)
///     mqttqos         the quality of service it came with
///
/// The position is text throughout: Integer attributes end at 2^31.
enum CloudEvent {
    static func append(_ record: RecordView, _ position: Position, logID: String, to output: inout [UInt8]) {
        let address = DeviceTopic(record.topic), digits = String(position.rawValue)
        EventJSON.put(#"{"specversion":"1.0","id":"\#(digits)","source":"/refold/\#(logID)""#, &output)
        EventJSON.put(#","type":"refold.message.\#(name(address?.topicClass))","subject":"#, &output)
        EventJSON.appendString(record.topic, to: &output)
        EventJSON.put(#","time":"\#(record.receivedAt)","sequence":""#, &output)
        EventJSON.put(String(repeating: "0", count: 20 - digits.utf8.count) + digits + "\"", &output)
        if let address {
            EventJSON.put(#","partitionkey":"#, &output)
            EventJSON.appendString(UnsafeRawBufferPointer(rebasing: record.topic[address.address]), to: &output)
        }
        EventJSON.put(#","mqttqos":\#(record.flags.qos)"#, &output)
        let declared = contentType(record.properties), before = output.count
        let isJSON = declared.map(declaresJSON) ?? true
        if isJSON {
            EventJSON.put(#","datacontenttype":"#, &output)
            JSONString.append(declared ?? "application/json", to: &output)
            EventJSON.put(#","data":"#, &output)
            if CompactJSON.append(record.payload, to: &output) {
                output.append(UInt8(ascii: "}"))
                return
            }
            output.removeSubrange(before...)
        }
        EventJSON.put(#","datacontenttype":"#, &output)
        JSONString.append(declared ?? "application/octet-stream", to: &output)
        EventJSON.put(#","data_base64":"\#(Data(record.payload).base64EncodedString())"}"#, &output)
    }

    private static func contentType(_ properties: UnsafeRawBufferPointer) -> String? {
        for case .contentType(let text) in RecordProperties(properties) where !text.isEmpty {
            return String(decoding: text, as: UTF8.self)
        }
        return nil
    }

    /// `*/json` or `*/*+json`, parameters aside (JSON event format, 3.1.1).
    private static func declaresJSON(_ type: String) -> Bool {
        let type = type.prefix { $0 != ";" }.lowercased().filter { $0 != " " }
        return type.hasSuffix("/json") || (type.contains("/") && type.hasSuffix("+json"))
    }

    private static func name(_ topic: TopicClass?) -> String {
        switch topic {
        case .telemetry: "telemetry"
        case .heartbeat: "heartbeat"
        case .shadowReported: "shadow_reported"
        case .commandAck: "command_ack"
        case .otaStatus: "ota_status"
        case .connection: "connection"
        case .otaCommand: "ota_command"
        case .certificateCommand: "certificate_command"
        case .certificateRequest: "certificate_request"
        case .certificateInstalled: "certificate_installed"
        case .other, nil: "other"
        }
    }
}
