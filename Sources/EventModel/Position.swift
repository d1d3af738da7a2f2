/// The place of an event in the log: 0 for the first, then one more for each. Never reused, never skipped.
@frozen
public struct Position: RawRepresentable, Comparable, Hashable, Sendable, Codable, CustomStringConvertible {
    public var rawValue: UInt64

    @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }
    @inlinable public init(_ rawValue: UInt64) { self.rawValue = rawValue }

    /// A position as a database column holds it; an administrator may have written any number there.
    @inlinable public init(stored: Int64) { rawValue = UInt64(clamping: stored) }

    @inlinable public static func < (a: Position, b: Position) -> Bool { a.rawValue < b.rawValue }
    @inlinable public func advanced(by count: Int) -> Position { Position(rawValue &+ UInt64(count)) }
    @inlinable public var next: Position { Position(rawValue &+ 1) }
    public var description: String { String(rawValue) }

    public init(from decoder: any Decoder) throws { rawValue = try decoder.singleValueContainer().decode(UInt64.self) }
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(rawValue)
    }
}
