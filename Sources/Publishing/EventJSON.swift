import EventModel
import FoundationEssentials
import Primitives

/// Events as JSON objects of one line, for programs.
public enum EventJSON {
    /// Appends one event, as `refold log cat --json` prints it, without a newline.
    /// - Parameter base64: the payload as the bytes that it is, whatever it holds.
    public static func append(
        _ record: RecordView, _ position: Position, base64: Bool = false, to output: inout [UInt8]
    ) {
        put("{\"position\":\(position),\"received_at\":\"\(record.receivedAt)\"", &output)
        put(",\"kind\":\"\(record.kind.name)\"", &output)
        put(",\"broker\":", &output)
        appendString(record.broker, to: &output)
        put(",\"topic\":", &output)
        appendString(record.topic, to: &output)
        put(",\"qos\":\(record.flags.qos),\"retain\":\(record.flags.contains(.retained))", &output)
        if record.kind == .message { put(",\"packet_id\":\(record.packetID)", &output) }
        if record.flags.contains(.duplicate) { put(",\"duplicate\":true", &output) }
        if !record.properties.isEmpty {
            put(",\"properties_base64\":\"\(Data(record.properties).base64EncodedString())\"", &output)
        }
        if record.flags.contains(.truncated) { put(",\"payload_bytes\":\(record.originalPayloadLength)", &output) }
        appendPayload(record.payload, base64: base64, to: &output)
        put(",\"verdict\":\"\(record.verdict.name)\"}", &output)
    }

    private static func appendPayload(_ payload: UnsafeRawBufferPointer, base64: Bool, to output: inout [UInt8]) {
        let before = output.count
        if !base64 {
            put(",\"payload\":", &output)
            if CompactJSON.append(payload, to: &output) { return }
            if CompactJSON.isUTF8(payload) {
                appendString(payload, to: &output)
                // Otherwise the text abc and the JSON string "abc" would look alike.
                put(",\"payload_is_json\":false", &output)
                return
            }
            output.removeSubrange(before...)
        }
        put(",\"payload_base64\":\"\(Data(payload).base64EncodedString())\"", &output)
    }

    static func put(_ text: String, _ output: inout [UInt8]) { output.append(contentsOf: text.utf8) }

    /// A JSON string. Bytes that are not UTF-8 become U+FFFD.
    public static func appendString(_ bytes: UnsafeRawBufferPointer, to output: inout [UInt8]) {
        JSONString.append(String(decoding: bytes, as: UTF8.self), to: &output)
    }
}
