import Foundation
import Output

// The only places of the executable that write to standard output and standard error (TidyTests holds the others to
// it). `FileHandle.write` ends the process by a trap when the reader is gone or the disk is full, and Swift's `print`
// reports no error at all: `refold log cat > file` on a full disk would exit 0.

/// Shadows Swift's `print` in this module: writes at once, ends the verb quietly (exit code 0) when the reader is gone
/// (`| head`), and with a message and exit code 1 when the output takes nothing (a full disk).
func print(_ items: Any..., separator: String = " ", terminator: String = "\n") {
    // Safe for terminals by construction: whatever a verb prints may hold text of devices and servers.
    printBytes(Array(terminalSafeLines(items.map { "\($0)" }.joined(separator: separator) + terminator).utf8))
}

/// A line of JSON as a server or a row gave it: what a terminal would obey is escaped, and its meaning stays.
func printJSON(_ json: some StringProtocol) { print(terminalSafeJSON(String(json))) }

func printBytes(_ bytes: [UInt8]) {
    let code = writeFully(STDOUT_FILENO, bytes)
    if code != 0 { exitBecauseOutputFailed(code) }
}

/// EPIPE is how a reader says that it has enough: no error of ours.
func exitBecauseOutputFailed(_ code: Int32) -> Never {
    if code != EPIPE { printError("cannot write to standard output: \(errorText(code))") }
    exit(code == EPIPE ? 0 : 1)
}

/// One line on standard error. What it says may come from outside.
func printError(_ line: String) { printToStandardError("refold: \(terminalSafeLines(line))\n") }

/// Text on standard error as it is: progress, questions, usage. A failure to write it is no error of the verb.
func printToStandardError(_ text: String) { _ = writeFully(STDERR_FILENO, Array(text.utf8)) }
