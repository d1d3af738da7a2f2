#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// The JSON of an event of ours, members in the order of their names: one value has one spelling, which digests and
/// recorded cases rely on.
/// - Precondition: it encodes; a value of strings and finite numbers does.
public func canonicalJSON(_ value: some Encodable) -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    do {
        return Array(try encoder.encode(value))
    } catch {
        preconditionFailure("a value of strings and finite numbers did not encode: \(error)")
    }
}
