extension FixedWidthInteger {
    /// The whole part of a number, at the limits where it lies beyond them; 0 for NaN. For numbers that come from
    /// outside or are computed from such: Swift's own conversion ends the process.
    @inlinable public init(saturating value: Double) {
        self = value.isNaN ? 0 : Self(exactly: value.rounded(.towardZero)) ?? (value < 0 ? .min : .max)
    }

    /// The sum, at the limits where it lies beyond them. For sums with numbers that come from outside.
    @inlinable public func saturatingAdding(_ other: Self) -> Self {
        let (sum, isOver) = addingReportingOverflow(other)
        return isOver ? (other < 0 ? .min : .max) : sum
    }

    /// The difference, at the limits where it lies beyond them.
    @inlinable public func saturatingSubtracting(_ other: Self) -> Self {
        let (difference, isOver) = subtractingReportingOverflow(other)
        return isOver ? (other < 0 ? .max : .min) : difference
    }
}

extension Int64 {
    /// Microseconds as bytes or JSON give them, moved within ±73,000 years: differences and sums of two such numbers
    /// do not overflow, whatever a damaged or foreign file holds.
    @inlinable public init(storedMicroseconds stored: Int64) {
        self = Swift.max(-1 << 61, Swift.min(1 << 61, stored))
    }
}
