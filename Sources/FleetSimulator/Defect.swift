/// The ways in which a malformed message is malformed, each with the reason under which it must be found again:
/// as a row of `dead_letters`, or, for a bad topic, as the gate's verdict.
public enum Defect: String, Sendable, CaseIterable {
    case cutShort, trailingText, invalidUTF8, notAnObject, missingField, wrongType, nullCharacter, loneSurrogate
    case hugeNumber, unknownStatus, tenantMismatch, deviceMismatch, badTopic

    public var reason: String {
        switch self {
        case .cutShort, .trailingText, .invalidUTF8: "INVALID_JSON"
        case .notAnObject: "NOT_AN_OBJECT"
        case .missingField: "MISSING_FIELD"
        case .wrongType: "INVALID_TYPE"
        case .nullCharacter, .loneSurrogate, .hugeNumber, .unknownStatus: "INVALID_VALUE"
        case .tenantMismatch: "TENANT_MISMATCH_TOPIC_VS_PAYLOAD"
        case .deviceMismatch: "DEVICE_MISMATCH_TOPIC_VS_PAYLOAD"
        case .badTopic: "BAD_TOPIC_FORMAT"
        }
    }

    var kind: MessageKind {
        switch self {
        case .nullCharacter, .loneSurrogate, .hugeNumber: .shadow
        case .wrongType, .unknownStatus: .ota
        default: .telemetry
        }
    }

    /// The malformed payload. `seq` keeps it apart from the device's other messages.
    func payload(seq: Int64, version: Int64) -> [UInt8] {
        var json = JSONText()
        switch self {
        case .cutShort: json.raw("{\"seq\":\(seq),\"metrics\":{\"temperature\":21.")
        case .trailingText: json.raw("{\"seq\":\(seq),\"metrics\":{\"temperature\":21.5}} and more")
        case .invalidUTF8:
            json.raw("{\"seq\":\(seq),\"metrics\":{\"mode\":\"")
            return json.bytes + [0xC3, 0x28] + Array("\"}}".utf8)
        case .notAnObject: json.raw("[\(seq),{\"metrics\":{}}]")
        case .missingField: json.raw("{\"seq\":\(seq),\"site_id\":\"site-1\"}")
        case .wrongType: json.raw("{\"seq\":\(seq),\"campaign_id\":\"seven\",\"status\":\"DOWNLOADING\"}")
        case .nullCharacter: json.raw("{\"version\":\(version),\"reported\":{\"seq\":\(seq),\"name\":\"a\\u0000b\"}}")
        case .loneSurrogate: json.raw("{\"version\":\(version),\"reported\":{\"seq\":\(seq),\"name\":\"\\ud800\"}}")
        case .hugeNumber: json.raw("{\"version\":\(version),\"reported\":{\"seq\":\(seq),\"load\":1e200000}}")
        case .unknownStatus: json.raw("{\"seq\":\(seq),\"campaign_id\":7,\"status\":\"THINKING\"}")
        case .tenantMismatch:
            json.raw("{\"seq\":\(seq),\"tenant_id\":\"somebody-else\",\"metrics\":{\"temperature\":21.5}}")
        case .deviceMismatch:
            json.raw("{\"seq\":\(seq),\"device_id\":\"somebody-else\",\"metrics\":{\"temperature\":21.5}}")
        case .badTopic: json.raw("{\"seq\":\(seq),\"metrics\":{\"temperature\":21.5}}")
        }
        return json.bytes
    }
}
