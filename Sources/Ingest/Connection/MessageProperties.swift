import CMosquitto
import Glibc

/// Writes the properties of a PUBLISH that a record keeps, in their wire form (MQTT 5.0, 2.2.2.2) without the length in
/// front: payload format indicator, message expiry, content type, response topic, correlation data, user properties.
/// Topic alias and subscription identifier belong to the connection and mean nothing later.
func encodeProperties(_ list: OpaquePointer?, into bytes: inout [UInt8]) {
    bytes.removeAll(keepingCapacity: true)
    var current = list
    while let property = current {
        let identifier = mosquitto_property_identifier(property)
        switch identifier {
        case Int32(MQTT_PROP_PAYLOAD_FORMAT_INDICATOR.rawValue):
            var value: UInt8 = 0
            guard mosquitto_property_read_byte(property, identifier, &value, false) != nil else { break }
            bytes.append(UInt8(identifier))
            bytes.append(value)
        case Int32(MQTT_PROP_MESSAGE_EXPIRY_INTERVAL.rawValue):
            var value: UInt32 = 0
            guard mosquitto_property_read_int32(property, identifier, &value, false) != nil else { break }
            bytes.append(UInt8(identifier))
            withUnsafeBytes(of: value.bigEndian) { bytes.append(contentsOf: $0) }
        case Int32(MQTT_PROP_CONTENT_TYPE.rawValue), Int32(MQTT_PROP_RESPONSE_TOPIC.rawValue):
            var text: UnsafeMutablePointer<CChar>?
            guard mosquitto_property_read_string(property, identifier, &text, false) != nil else { break }
            bytes.append(UInt8(identifier))
            appendText(text, to: &bytes)
            free(text)
        case Int32(MQTT_PROP_CORRELATION_DATA.rawValue):
            var data: UnsafeMutableRawPointer?
            var count: UInt16 = 0
            guard mosquitto_property_read_binary(property, identifier, &data, &count, false) != nil else { break }
            bytes.append(UInt8(identifier))
            withUnsafeBytes(of: count.bigEndian) { bytes.append(contentsOf: $0) }
            bytes.append(contentsOf: UnsafeRawBufferPointer(start: data, count: Int(count)))
            free(data)
        case Int32(MQTT_PROP_USER_PROPERTY.rawValue):
            var name: UnsafeMutablePointer<CChar>?, value: UnsafeMutablePointer<CChar>?
            guard mosquitto_property_read_string_pair(property, identifier, &name, &value, false) != nil else { break }
            bytes.append(UInt8(identifier))
            appendText(name, to: &bytes)
            appendText(value, to: &bytes)
            free(name)
            free(value)
        default: break
        }
        current = mosquitto_property_next(property)
    }
}

/// A UTF-8 string as MQTT writes it (MQTT 5.0, 1.5.4). The library gives no pointer for an empty one.
private func appendText(_ text: UnsafeMutablePointer<CChar>?, to bytes: inout [UInt8]) {
    let count = text.map { strlen($0) } ?? 0
    withUnsafeBytes(of: UInt16(count).bigEndian) { bytes.append(contentsOf: $0) }
    bytes.append(contentsOf: UnsafeRawBufferPointer(start: text, count: count))
}
