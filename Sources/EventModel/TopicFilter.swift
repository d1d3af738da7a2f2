/// An MQTT topic filter (MQTT 5.0, 4.7.1): `+` stands for one level, `#` for all that follow and their parent.
public struct TopicFilter: Sendable {
    private let levels: [[UInt8]]

    /// Nil when a wildcard does not stand alone in its level, `#` is not the last, or the filter is empty.
    public init?(_ text: String) {
        let levels = text.utf8.split(separator: 0x2F, omittingEmptySubsequences: false).map { [UInt8]($0) }
        for (index, level) in levels.enumerated() {
            if level.contains(0x2B) && level.count != 1 { return nil }
            if level.contains(0x23) && (level.count != 1 || index != levels.count - 1) { return nil }
        }
        guard !text.isEmpty else { return nil }
        self.levels = levels
    }

    /// Topics that begin with `$` are matched by no filter that begins with a wildcard (MQTT 5.0, 4.7.2).
    public func matches(_ topic: UnsafeRawBufferPointer) -> Bool {
        if topic.first == 0x24, levels[0] == [0x2B] || levels[0] == [0x23] { return false }
        var start = 0
        for (index, level) in levels.enumerated() {
            if level == [0x23] { return true }
            guard start <= topic.count else { return false }
            var end = start
            while end < topic.count, topic[end] != 0x2F { end += 1 }
            if level != [0x2B], !level.elementsEqual(topic[start..<end]) { return false }
            if index == levels.count - 1 { return end == topic.count }
            start = end + 1
            // `a/#` matches `a` itself.
            if end == topic.count { return index == levels.count - 2 && levels[index + 1] == [0x23] }
        }
        return false
    }
}
