import Foundation
import Glibc
import Synchronization
import Testing

@testable import Output

/// The thread that writes, over real pipes and files.
@Suite(.serialized) struct LogOutputTests {
    /// A pipe that nobody reads, full to the last byte.
    @Test func aLoggingCallDoesNotWaitForTheReader_moby31540() throws {
        var ends: [Int32] = [-1, -1]
        try #require(pipe(&ends) == 0)
        defer { for end in ends { close(end) } }
        _ = fcntl(ends[1], F_SETFL, O_NONBLOCK)
        while Glibc.write(ends[1], "\n", 1) > 0 {}
        _ = fcntl(ends[1], F_SETFL, 0)
        let output = LogOutput(ends[1], limits: .init(lines: 100, bytes: 10_000))
        let line = [UInt8](repeating: 0x61, count: 99) + [0x0A]
        let start = ContinuousClock.now
        for _ in 0..<20_000 { output.add(line) }
        #expect(ContinuousClock.now - start < .seconds(5))
        #expect(wait { output.statistics.blockedSeconds > 0 })
        let blocked = output.statistics
        #expect(blocked.dropped > 18_000 && blocked.waiting <= 100)
        #expect(!output.flush(atMostMilliseconds: 50), "an end of the process does not wait for the reader either")

        // The reader comes back: what waited is written, and the number of lines that are missing.
        var text = [UInt8](), piece = [UInt8](repeating: 0, count: 65_536)
        output.add(Array("last\n".utf8))
        _ = fcntl(ends[0], F_SETFL, O_NONBLOCK)
        _ = wait {
            let count = read(ends[0], &piece, piece.count)
            if count > 0 { text += piece[..<count] }
            let end = String(decoding: text.suffix(100), as: UTF8.self)
            return end.contains("dropped\n") && output.statistics.waiting == 0
        }
        let said = String(decoding: text, as: UTF8.self).split(separator: "\n")
        let dropped = said.filter { $0.hasSuffix(" log lines dropped") }
            .compactMap { UInt64($0.prefix { $0.isNumber }) }
        #expect(dropped.reduce(0, +) == output.statistics.dropped)
        #expect(UInt64(said.count - dropped.count) == output.statistics.written)
    }

    @Test func aReaderThatGoesAwayEndsNothing_systemd6620() throws {
        var ends: [Int32] = [-1, -1]
        try #require(pipe(&ends) == 0)
        close(ends[0])
        defer { close(ends[1]) }
        let output = LogOutput(ends[1])
        for _ in 0..<50 { output.add(Array("a line\n".utf8)) }
        #expect(output.flush(atMostMilliseconds: 5000))
        #expect(output.statistics.dropped == 50 && output.statistics.lastError == "Broken pipe")
    }

    @Test func aFullDiskKeepsLinesAndAnEndDoesNotWaitForIt() throws {
        let full = open("/dev/full", O_WRONLY)
        try #require(full >= 0)  // stays open: the lines that wait would go into whatever gets its number next
        let output = LogOutput(full, limits: .init(lines: 10, bytes: 1000))
        for _ in 0..<30 { output.add(Array("a line\n".utf8)) }
        #expect(wait { output.statistics.lastError == "No space left on device" })
        #expect(output.statistics.dropped == 20 && output.statistics.waiting == 10)
        let start = ContinuousClock.now
        #expect(!output.flush(atMostMilliseconds: 20_000))
        #expect(ContinuousClock.now - start < .seconds(10))
    }

    private final class Calls: Sendable {
        private let count = Mutex(0)
        func next() -> Int {
            count.withLock { count in
                count += 1
                return count
            }
        }
    }

    /// Takes nothing of what it is given, a few times, and reports no error.
    private func idleWrite(_ calls: Calls) -> @Sendable (Int32, ArraySlice<UInt8>) -> LogOutput.WriteResult {
        { _, bytes in .wrote(calls.next() <= 5 ? 0 : bytes.count) }
    }

    @Test func aWriteThatTakesNothingIsAnErrorAndNotRepeatedAtOnce() {
        #expect(writeFully(STDOUT_FILENO, [0x61], write: idleWrite(Calls())) == EIO)
        #expect(writeFully(STDOUT_FILENO, [], write: idleWrite(Calls())) == 0)
        let output = LogOutput(STDERR_FILENO, write: idleWrite(Calls()))
        output.add(Array("a line\n".utf8))
        #expect(!output.flush(atMostMilliseconds: 20_000), "an end does not wait for an output that fails")
        #expect(wait { output.statistics.written == 1 }, "it is tried again after a pause")
        #expect(output.statistics.dropped == 0)
    }

    private func wait(_ condition: () -> Bool) -> Bool {
        let deadline = ContinuousClock.now + .seconds(20)
        while ContinuousClock.now < deadline {
            if condition() { return true }
            usleep(2000)
        }
        return false
    }
}

struct TerminalTextTests {
    /// Sequences that terminals obey, and characters that reverse or hide text.
    @Test(arguments: [
        "\u{1B}[2J", "\u{9B}31m", "\u{202E}abc", "\u{2066}x\u{2069}", "a\u{200B}b", "\r", "\u{7F}", "\u{61C}",
        "\u{FEFF}", "\u{E0041}", "\u{2028}", "\u{AD}", "\0",
    ])
    func whatATerminalObeysOrHidesIsReplaced(text: String) throws {
        let safe = terminalSafe(text)
        #expect(safe.contains("\u{FFFD}"))
        #expect(!safe.unicodeScalars.contains(where: isUnsafeForTerminals))
        // JSON keeps its meaning.
        let json = String(decoding: try JSONEncoder().encode([text]), as: UTF8.self)
        let escaped = terminalSafeJSON(json)
        #expect(!escaped.unicodeScalars.contains(where: isUnsafeForTerminals))
        #expect(try JSONDecoder().decode([String].self, from: Data(escaped.utf8)) == [text])
    }

    @Test func otherTextStaysAsItIs() {
        let text = "Gerät 7 — température 21 °C, 温度 ✓ 🛰"
        #expect(terminalSafe(text) == text && terminalSafeJSON(text) == text)
        #expect(terminalSafeLines("a\n\tb") == "a\n\tb" && terminalSafe("a\n\tb") == "a\u{FFFD}\u{FFFD}b")
    }
}
