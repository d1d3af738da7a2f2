/// A Swift file whose comments, strings and regular expressions are blanked, so that braces and words in `code` are
/// code. Line breaks stay.
struct SwiftSource {
    /// A function, initializer, subscript or computed property that has a body.
    struct Function: Equatable {
        var name: String
        /// Of its first line, from 1.
        var line: Int
        var lineCount: Int
    }

    private let bytes: [UInt8]
    private(set) var code: [UInt8]

    init(_ text: String) {
        bytes = Array(text.utf8)
        code = bytes
        var index = 0
        while index < bytes.count {
            guard let end = literalEnd(at: index) else {
                index += 1
                continue
            }
            for blanked in index..<end where bytes[blanked] != Self.newline { code[blanked] = Self.space }
            index = end
        }
    }

    // MARK: Comments and literals

    private static let newline = UInt8(ascii: "\n"), space = UInt8(ascii: " "), hash = UInt8(ascii: "#")
    private static let quote = UInt8(ascii: "\""), slash = UInt8(ascii: "/"), backslash = UInt8(ascii: "\\")

    private func byte(_ index: Int) -> UInt8 { bytes.indices.contains(index) ? bytes[index] : 0 }

    private func matches(_ text: StaticString, at index: Int) -> Bool {
        text.withUTF8Buffer { text in text.indices.allSatisfy { byte(index + $0) == text[$0] } }
    }

    private func hashes(at index: Int) -> Int {
        var count = 0
        while byte(index + count) == Self.hash { count += 1 }
        return count
    }

    /// End of the comment, string or regular expression that begins at `start`; nil when none begins there.
    private func literalEnd(at start: Int) -> Int? {
        if matches("//", at: start) { return lineEnd(from: start) }
        if matches("/*", at: start) { return commentEnd(from: start) }
        let hashes = hashes(at: start), open = start + hashes
        if byte(open) == Self.quote { return stringEnd(open, hashes) }
        guard byte(open) == Self.slash, hashes > 0 || canBeRegex(at: start) else { return nil }
        return regexEnd(open, hashes)
    }

    private func lineEnd(from start: Int) -> Int {
        bytes[start...].firstIndex(of: Self.newline) ?? bytes.count
    }

    /// Swift's block comments nest.
    private func commentEnd(from start: Int) -> Int {
        var depth = 0, index = start
        while index < bytes.count {
            if matches("/*", at: index) {
                (depth, index) = (depth + 1, index + 2)
            } else if matches("*/", at: index) {
                (depth, index) = (depth - 1, index + 2)
                if depth == 0 { return index }
            } else {
                index += 1
            }
        }
        return bytes.count
    }

    private func stringEnd(_ open: Int, _ hashes: Int) -> Int {
        // A line break follows the delimiter of a multiline string: #""""# is a quote.
        let isMultiline = matches("\"\"\"\n", at: open), quotes = isMultiline ? 3 : 1
        var index = open + quotes
        while index < bytes.count {
            if byte(index) == Self.backslash, self.hashes(at: index + 1) >= hashes {
                let escaped = index + 1 + hashes
                index = byte(escaped) == UInt8(ascii: "(") ? interpolationEnd(from: escaped) : escaped + 1
            } else if isMultiline ? matches("\"\"\"", at: index) : byte(index) == Self.quote,
                self.hashes(at: index + quotes) >= hashes
            {
                return index + quotes + hashes
            } else if !isMultiline, byte(index) == Self.newline {
                return index
            } else {
                index += 1
            }
        }
        return bytes.count
    }

    /// End of the parentheses that open at `start`; they may hold strings that hold parentheses.
    private func interpolationEnd(from start: Int) -> Int {
        var depth = 0, index = start
        while index < bytes.count {
            if let end = literalEnd(at: index) {
                index = end
                continue
            }
            if byte(index) == UInt8(ascii: "(") { depth += 1 }
            if byte(index) == UInt8(ascii: ")") { depth -= 1 }
            index += 1
            if depth == 0 { return index }
        }
        return bytes.count
    }

    /// A slash behind an operand divides.
    private func canBeRegex(at start: Int) -> Bool {
        guard ![Self.space, Self.newline, UInt8(ascii: ")")].contains(byte(start + 1)) else { return false }
        let before = bytes[..<start].last { $0 != Self.space }
        return before.map { "(,=:[{&|!?;\n".utf8.contains($0) } ?? true
    }

    private func regexEnd(_ open: Int, _ hashes: Int) -> Int? {
        var index = open + 1
        while index < bytes.count {
            if byte(index) == Self.backslash {
                index += 2
            } else if byte(index) == Self.slash, self.hashes(at: index + 1) >= hashes {
                return index + 1 + hashes
            } else if hashes == 0, byte(index) == Self.newline {
                return nil
            } else {
                index += 1
            }
        }
        return nil
    }

    // MARK: Functions

    /// In the order in which they begin. A function within another counts in both.
    var functions: [Function] {
        var found: [Function] = [], line = 1, index = 0
        while index < code.count {
            let end = wordEnd(from: index)
            if end > index {
                if let name = declaredName(index..<end), let body = body(from: end, isProperty: name.isProperty) {
                    let lineCount = 1 + code[index..<body].count { $0 == Self.newline }
                    found.append(Function(name: name.text, line: line, lineCount: lineCount))
                }
                index = end
            } else {
                if code[index] == Self.newline { line += 1 }
                index += 1
            }
        }
        return found
    }

    static func isWord(_ byte: UInt8) -> Bool {
        byte == UInt8(ascii: "_") || byte >= 0x80 || UInt8(ascii: "0")...UInt8(ascii: "9") ~= byte
            || UInt8(ascii: "a")...UInt8(ascii: "z") ~= byte | 0x20
    }

    private func wordEnd(from start: Int) -> Int {
        code[start...].firstIndex { !Self.isWord($0) } ?? code.count
    }

    /// What a keyword declares; nil when it is none of a function.
    private func declaredName(_ word: Range<Int>) -> (text: String, isProperty: Bool)? {
        let keyword = String(decoding: code[word], as: UTF8.self)
        let before = word.lowerBound > 0 ? code[word.lowerBound - 1] : Self.newline
        guard !".`@#".utf8.contains(before) else { return nil }
        let behind = word.upperBound < code.count ? code[word.upperBound] : 0
        switch keyword {
        case "func", "var":
            let name = code[word.upperBound...].drop { $0 == Self.space }.prefix {
                ![Self.newline, Self.space, UInt8(ascii: "("), UInt8(ascii: "<"), UInt8(ascii: ":")].contains($0)
            }
            return (String(decoding: name, as: UTF8.self), keyword == "var")
        case "init", "subscript": return "(<?!".utf8.contains(behind) ? (keyword, false) : nil
        case "deinit": return (keyword, false)
        default: return nil
        }
    }

    /// End of the braces that follow a declaration; nil for a requirement of a protocol, and for a stored property.
    private func body(from start: Int, isProperty: Bool) -> Int? {
        var depth = 0, hasType = false, index = start
        while index < code.count {
            switch code[index] {
            case UInt8(ascii: "("), UInt8(ascii: "["): depth += 1
            case UInt8(ascii: ")"), UInt8(ascii: "]"): depth -= 1
            case UInt8(ascii: "{") where depth == 0: return !isProperty || hasType ? bracesEnd(from: index) : nil
            case UInt8(ascii: "}") where depth == 0: return nil
            case UInt8(ascii: ":"): hasType = true
            case UInt8(ascii: "="), UInt8(ascii: ","), Self.newline:
                if isProperty, depth == 0 { return nil }
            default: if depth == 0, !isProperty, beginsDeclaration(at: index) { return nil }
            }
            if depth < 0 { return nil }
            index += 1
        }
        return nil
    }

    /// The next declaration begins: the one before has no body.
    private func beginsDeclaration(at index: Int) -> Bool {
        guard index > 0, !Self.isWord(code[index - 1]), Self.isWord(code[index]) else { return false }
        let word = String(decoding: code[index..<wordEnd(from: index)], as: UTF8.self)
        return ["func", "init", "var", "let", "subscript", "static", "mutating"].contains(word)
    }

    private func bracesEnd(from start: Int) -> Int {
        var depth = 0
        for index in start..<code.count {
            if code[index] == UInt8(ascii: "{") { depth += 1 }
            if code[index] == UInt8(ascii: "}") { depth -= 1 }
            if depth == 0 { return index + 1 }
        }
        return code.count
    }
}
