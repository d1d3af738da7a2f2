import EventModel
import Testing

@Suite struct TopicFilterTests {
    @Test(arguments: [
        ("a/b", "a/b", true), ("a/b", "a/c", false), ("a/b", "a/b/c", false), ("a/b/c", "a/b", false),
        ("a/+", "a/b", true),
        ("a/+", "a", false), ("a/+", "a/", true), ("a/+", "a/b/c", false), ("+", "a", true), ("+/+", "/a", true),
        ("#", "a/b/c", true), ("#", "$SYS/x", false), ("+/x", "$SYS/x", false), ("$SYS/#", "$SYS/x", true),
        ("a/#", "a", true), ("a/#", "a/b/c", true), ("a/#", "ab", false), ("a/b/#", "a", false), ("a/+/#", "a", false),
        ("a/+/#", "a/b", true), ("/", "/", true), ("/", "a", false),
        ("tenant/+/device/+/telemetry", "tenant/t/device/d/telemetry", true),
    ])
    func matching(filter: String, topic: String, expected: Bool) throws {
        let parsed = try #require(TopicFilter(filter))
        #expect(Array(topic.utf8).withUnsafeBytes { parsed.matches($0) } == expected)
    }

    @Test(arguments: ["", "a+", "a/b+/c", "#/a", "a#", "a/#/b"])
    func refused(filter: String) { #expect(TopicFilter(filter) == nil) }
}
