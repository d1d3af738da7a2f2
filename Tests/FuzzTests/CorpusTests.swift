import Foundation
import Testing

/// What the fuzzers once found worth keeping: none of it crashes, whatever has changed since.
struct CorpusTests {
    @Test(arguments: ["payload", "log", "evidence"]) func everyKeptInputIsSurvived(_ name: String) throws {
        let tests = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        let file = tests.deletingLastPathComponent().appending(path: "Fuzz/corpus/\(name).base64")
        let lines = try String(contentsOf: file, encoding: .utf8).split(separator: "\n")
        #expect(lines.count >= 50, "the corpus of \(name) is gone")
        for line in lines {
            let input = try #require(Data(base64Encoded: String(line)))
            input.withUnsafeBytes { bytes in
                switch name {
                case "payload": fuzzPayload(bytes)
                case "log": fuzzLog(bytes)
                default: fuzzEvidence(bytes)
                }
            }
        }
    }
}
