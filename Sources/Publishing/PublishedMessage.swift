import CMosquitto
import EventModel
import Glibc

/// A recorded message, copied out of its block, until the broker has acknowledged it.
struct PublishedMessage {
    let position: Position
    let receivedAt: Timestamp
    /// With its prefix, and a zero byte at the end.
    let topic: [CChar]
    let payload: [UInt8]
    let properties: [UInt8]

    init(_ record: RecordView, _ position: Position, prefix: [CChar]) {
        self.position = position
        receivedAt = record.receivedAt
        topic = prefix + record.topic.map { CChar(bitPattern: $0) } + [0]
        payload = Array(record.payload)
        properties = Array(record.properties)
    }

    var byteCount: Int { topic.count + payload.count + properties.count }

    /// The properties that it is published with: those of the original that still mean something, and where it is from.
    /// An expiry would have passed; a response would go to where nobody waits any more, past any prefix.
    /// The caller frees the list.
    func mqttProperties(logID: String) -> OpaquePointer? {
        var list: OpaquePointer?
        properties.withUnsafeBytes { bytes in
            for property in RecordProperties(bytes) {
                switch property {
                case .payloadFormat(let value):
                    mosquitto_property_add_byte(&list, Int32(MQTT_PROP_PAYLOAD_FORMAT_INDICATOR.rawValue), value)
                case .contentType(let text):
                    mosquitto_property_add_string(
                        &list, Int32(MQTT_PROP_CONTENT_TYPE.rawValue), String(decoding: text, as: UTF8.self))
                case .user(let name, let value):
                    // An original that was itself published out of a log is now of this one.
                    guard !ReplayMark.all.contains(where: { Self.equal(name, $0) }) else { continue }
                    Self.add(String(decoding: name, as: UTF8.self), String(decoding: value, as: UTF8.self), to: &list)
                case .messageExpiry, .responseTopic, .correlationData: break
                }
            }
        }
        Self.add("\(ReplayMark.log)", logID, to: &list)
        Self.add("\(ReplayMark.position)", "\(position)", to: &list)
        Self.add("\(ReplayMark.receivedAt)", receivedAt.description, to: &list)
        return list
    }

    private static func equal(_ bytes: UnsafeRawBufferPointer, _ text: StaticString) -> Bool {
        bytes.elementsEqual(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    private static func add(_ name: String, _ value: String, to list: inout OpaquePointer?) {
        mosquitto_property_add_string_pair(&list, Int32(MQTT_PROP_USER_PROPERTY.rawValue), name, value)
    }
}
