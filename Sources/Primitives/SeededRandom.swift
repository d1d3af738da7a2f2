/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers on every machine and in every release, which the standard
/// library's `random(in:using:)` does not promise.
public struct SeededRandom: RandomNumberGenerator, Sendable {
    @usableFromInline var state: UInt64

    @inlinable public init(seed: UInt64) { state = seed }

    @inlinable public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        return Self.mix(state)
    }

    /// A number from 0 up to, not including, `limit`.
    @inlinable public mutating func below(_ limit: Int) -> Int {
        precondition(limit > 0, "nothing lies below \(limit)")
        return Int(next().multipliedFullWidth(by: UInt64(limit)).high)
    }

    /// True with probability `share`. A share of 0 draws nothing.
    @inlinable public mutating func chance(_ share: Double) -> Bool {
        share > 0 && Double(next() >> 11) * 0x1p-53 < share
    }

    @inlinable public mutating func pick<T>(_ from: [T]) -> T { from[below(from.count)] }

    /// An independent generator: its draws do not shift those of this one.
    @inlinable public mutating func fork() -> SeededRandom { SeededRandom(seed: next()) }

    /// SplitMix64's output function: a good hash of one number.
    @inlinable public static func mix(_ value: UInt64) -> UInt64 {
        var z = value
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
