/// Times in certificates and CRLs: seconds since 1970 in UTC. Written as UTCTime through 2049 and as GeneralizedTime
/// from 2050 on (RFC 5280 4.1.2.5), read in these two forms only.
public enum DERTime {
    /// 1950-01-01T00:00:00Z: UTCTime begins here, and RFC 5280 leaves no form for earlier times.
    public static let earliest: Int64 = -631_152_000
    /// 9999-12-31T23:59:59Z, which also stands for "no well-defined end" (RFC 5280 4.1.2.5).
    public static let latest: Int64 = 253_402_300_799
    /// 2050-01-01T00:00:00Z
    private static let generalizedBegin: Int64 = 2_524_608_000

    static let utcTimeTag: UInt8 = 0x17
    static let generalizedTimeTag: UInt8 = 0x18

    static func check(_ seconds: Int64, _ what: String) throws(PKIError) {
        guard (earliest...latest).contains(seconds) else {
            throw PKIError(.invalid, "\(what) (\(seconds) s since 1970) is outside of the years 1950 to 9999")
        }
    }

    static let derByteCountMax = 17

    /// With tag and length. Times out of range become the nearest one that can be written.
    /// - Parameter bytes: room for `derByteCountMax`. Returns how many were written.
    static func write(_ seconds: Int64, to bytes: UnsafeMutablePointer<UInt8>) -> Int {
        let seconds = min(max(seconds, earliest), latest)
        let isGeneralized = seconds >= generalizedBegin
        let days = seconds >= 0 ? seconds / 86_400 : (seconds - 86_399) / 86_400
        let second = Int(seconds - days * 86_400)
        let (year, month, day) = date(days: Int(days))
        var count = 2
        func two(_ value: Int) {
            bytes[count] = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: value / 10)
            bytes[count + 1] = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: value % 10)
            count += 2
        }
        bytes[0] = isGeneralized ? generalizedTimeTag : utcTimeTag
        bytes[1] = isGeneralized ? 15 : 13
        if isGeneralized { two(year / 100) }
        two(year % 100)
        two(month)
        two(day)
        two(second / 3600)
        two(second / 60 % 60)
        two(second % 60)
        bytes[count] = UInt8(ascii: "Z")
        return count + 1
    }

    static func der(_ seconds: Int64) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: derByteCountMax) { $1 = write(seconds, to: $0.baseAddress!) }
    }

    /// Nil unless the contents are `YYMMDDHHMMSSZ` (1950 to 2049) or `YYYYMMDDHHMMSSZ`, and a moment of the calendar.
    static func seconds(_ contents: some Collection<UInt8>, tag: UInt8) -> Int64? {
        let digits = tag == utcTimeTag ? 12 : tag == generalizedTimeTag ? 14 : 0
        guard digits > 0, contents.count == digits + 1 else { return nil }
        var pairs = (0, 0, 0, 0, 0, 0, 0), pair = 0, index = 0
        for byte in contents {
            if index == digits {
                guard byte == UInt8(ascii: "Z") else { return nil }
                break
            }
            guard (0x30...0x39).contains(byte) else { return nil }
            pair = index % 2 == 0 ? Int(byte - 0x30) : pair * 10 + Int(byte - 0x30)
            if index % 2 == 1 { pairs = (pairs.1, pairs.2, pairs.3, pairs.4, pairs.5, pairs.6, pair) }
            index += 1
        }
        let (century, yearOfCentury, month, day, hour, minute, second) = pairs
        let year = digits == 14 ? century * 100 + yearOfCentury : yearOfCentury + (yearOfCentury >= 50 ? 1900 : 2000)
        let days = days(year: year, month: month, day: day)
        guard (1...12).contains(month), day >= 1, date(days: days) == (year, month, day), hour < 24, minute < 60,
            second < 60
        else { return nil }
        return Int64(days) * 86_400 + Int64(hour * 3600 + minute * 60 + second)
    }

    // MARK: Calendar (H. Hinnant, "chrono-compatible low-level date algorithms")

    /// Days since 1970-01-01 of a date of the proleptic Gregorian calendar.
    private static func days(year: Int, month: Int, day: Int) -> Int {
        let y = month <= 2 ? year - 1 : year
        let era = (y >= 0 ? y : y - 399) / 400, yearOfEra = y - era * 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
    }

    private static func date(days: Int) -> (year: Int, month: Int, day: Int) {
        let z = days + 719_468
        let era = (z >= 0 ? z : z - 146_096) / 146_097, dayOfEra = z - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let m = (5 * dayOfYear + 2) / 153, month = m < 10 ? m + 3 : m - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * m + 2) / 5 + 1)
    }
}
