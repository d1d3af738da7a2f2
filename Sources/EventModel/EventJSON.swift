import FoundationEssentials

/// JSON of an event or a state of ours, with sorted keys: equal values give equal bytes, which digests and recorded
/// cases rely on.
/// - Precondition: it encodes; a value of strings and finite numbers does.
public func eventJSON(_ value: some Encodable) -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    do {
        return Array(try encoder.encode(value))
    } catch {
        preconditionFailure("a value of strings and finite numbers did not encode: \(error)")
    }
}

extension RecordView {
    /// The payload, as the JSON of a `T`.
    /// - Throws: `DecodingError`.
    public func decoded<T: Decodable>(_ type: T.Type = T.self) throws -> T {
        try JSONDecoder().decode(T.self, from: Data(payload))
    }
}
