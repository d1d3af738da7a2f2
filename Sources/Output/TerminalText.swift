import Primitives

// Text from outside (topics, payloads, error texts of devices and servers, names from files) may hold characters that
// a terminal obeys or that change how a line reads: escape sequences (ECMA-48 C0 and C1), controls of direction
// (Unicode TR 9, "Trojan source") and characters without width.

/// The text with every character replaced by U+FFFD that a terminal would obey or hide.
public func terminalSafe(_ text: String) -> String {
    guard text.unicodeScalars.contains(where: isUnsafeForTerminals) else { return text }
    return String(String.UnicodeScalarView(text.unicodeScalars.map { isUnsafeForTerminals($0) ? "\u{FFFD}" : $0 }))
}

/// Like `terminalSafe`, and keeps line breaks and tabs: for texts of several lines that we compose ourselves.
public func terminalSafeLines(_ text: String) -> String {
    guard text.unicodeScalars.contains(where: { isUnsafeForTerminals($0) && $0 != "\n" && $0 != "\t" }) else {
        return text
    }
    return String(
        String.UnicodeScalarView(
            text.unicodeScalars.map {
                isUnsafeForTerminals($0) && $0 != "\n" && $0 != "\t" ? "\u{FFFD}" : $0
            }))
}

/// JSON that means the same, with those characters escaped: for lines that a terminal may show and a program reads.
public func terminalSafeJSON(_ json: String) -> String {
    guard json.unicodeScalars.contains(where: { $0.value >= 0x7F && isUnsafeForTerminals($0) }) else { return json }
    var safe = String.UnicodeScalarView()
    for scalar in json.unicodeScalars {
        if scalar.value >= 0x7F, isUnsafeForTerminals(scalar) {
            // RFC 8259, 7: code units of UTF-16. These characters stand inside strings only.
            for unit in String(scalar).utf16 {
                safe.append(contentsOf: ("\\u" + Hex.encode(unit)).unicodeScalars)
            }
        } else {
            safe.append(scalar)
        }
    }
    return String(safe)
}

public func isUnsafeForTerminals(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0..<0x20, 0x7F...0x9F: true  // C0, DEL, C1
    case 0x61C, 0x200E...0x200F, 0x202A...0x202E, 0x2066...0x2069: true  // direction
    case 0xAD, 0x180E, 0x200B...0x200D, 0x2060...0x2065, 0x206A...0x206F, 0xFEFF: true  // no width
    case 0x2028...0x2029, 0xFFF9...0xFFFB, 0xE0000...0xE007F: true  // line separators, annotations, tags
    default: false
    }
}
