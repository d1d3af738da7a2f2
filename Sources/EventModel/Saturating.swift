extension FixedWidthInteger {
    /// The whole part of a number, at the limits where it lies beyond them; 0 for NaN. For numbers that come from
    /// outside or are computed from such: Swift's own conversion ends the process.
    @inlinable public init(saturating value: Double) {
        self = value.isNaN ? 0 : Self(exactly: value.rounded(.towardZero)) ?? (value < 0 ? .min : .max)
    }
}
