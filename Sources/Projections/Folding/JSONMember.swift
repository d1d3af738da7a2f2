/// A member of a JSON object as it was written: for what is kept as it was recorded, fields included that this program
/// does not know. `json` must be valid; the last of several members of one name counts, as in jsonb. Nil when there is
/// none, or it is null. Names with escapes are not looked into.
func jsonMember(_ name: String, of json: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
    var found: Range<Int>?, depth = 0, at = 0
    var key: Range<Int>?, valueStart: Int?
    func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || (0x09...0x0D).contains(byte) }
    func close(at end: Int) {
        defer { (key, valueStart) = (nil, nil) }
        guard let key, var start = valueStart, json[key].elementsEqual(name.utf8) else { return }
        var end = end
        while start < end, isSpace(json[start]) { start += 1 }
        while end > start, isSpace(json[end - 1]) { end -= 1 }
        found = start..<end
    }
    while at < json.count {
        switch json[at] {
        case UInt8(ascii: "\""):
            let start = at + 1
            at += 1
            while at < json.count, json[at] != UInt8(ascii: "\"") { at += json[at] == UInt8(ascii: "\\") ? 2 : 1 }
            if depth == 1, key == nil { key = start..<min(at, json.count) }
        case UInt8(ascii: ":"): if depth == 1, valueStart == nil { valueStart = at + 1 }
        case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
        case UInt8(ascii: "}"), UInt8(ascii: "]"):
            if depth == 1 { close(at: at) }
            depth -= 1
        case UInt8(ascii: ","): if depth == 1 { close(at: at) }
        default: break
        }
        at += 1
    }
    guard let found, !json[found].elementsEqual("null".utf8) else { return nil }
    return UnsafeRawBufferPointer(rebasing: json[found])
}
