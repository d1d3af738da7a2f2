import CPlatform
import Foundation
import Synchronization

/// A command that the operator configured, in PostgreSQL's words (`archive_command`): run by `/bin/sh -c`, with `%p`
/// replaced by a path, `%f` by a file name and `%%` by `%`. Neither may hold what means something to the shell,
/// whatever file it was read from. The command gets our environment without our settings. Exit code 0 means that it is
/// done, for good; anything else that it must be tried again.
public struct ShellCommand: Sendable {
    public let template: String
    public let timeoutSeconds: Int

    public struct Failure: Error, Sendable, CustomStringConvertible {
        /// How it ended, and the last of what it printed.
        public let description: String
        /// Nil when it was not run, or ended by a signal.
        public var exitCode: Int32?
        /// The last of what it printed.
        public var output = ""
    }

    /// Of what a command prints, the end is kept.
    private static let outputBytesMax = 1000
    /// Maximum number of lines and characters of the output in an error.
    private static let describedLinesMax = 3, describedMax = 300

    public init(_ template: String, timeoutSeconds: Int) {
        self.template = template
        self.timeoutSeconds = timeoutSeconds
    }

    /// What is wrong with a template; nil when nothing is.
    public static func problem(with template: String) -> String? {
        var isEscape = false
        for character in template {
            if isEscape, !"pf%".contains(character) {
                return "%\(character) means nothing: there are %p (path), %f (file name) and %%"
            }
            isEscape = !isEscape && character == "%"
        }
        return isEscape ? "it ends with a single %" : template.contains("\0") ? "it holds a zero byte" : nil
    }

    func expanded(path: String, file: String) -> String {
        var text = "", isEscape = false
        for character in template {
            if isEscape {
                text += character == "p" ? path : character == "f" ? file : "%"
                isEscape = false
            } else if character == "%" {
                isEscape = true
            } else {
                text.append(character)
            }
        }
        return text
    }

    /// Runs it to its end, and kills it with all that it started when it takes longer than its time, or when
    /// `isStopped` says so. Blocks.
    /// - Parameter environment: more variables for the command.
    public func run(
        path: String, file: String, environment: [String: String] = [:], isStopped: () -> Bool = { false }
    ) throws(Failure) {
        try Self.check(path: path, file: file)
        var printed = Printed()
        try execute(
            expanded(path: path, file: file), environment: environment, input: -1, &printed, isStopped: isStopped)
    }

    /// Runs the template as it is, without placeholders. Returns what the command printed to standard output; what it
    /// printed to standard error is in the failure. Blocks until the command ends or is killed.
    public func run(
        input: [UInt8], outputBytesMax: Int, isStopped: () -> Bool = { false }
    ) throws(Failure) -> [UInt8] {
        // A file in memory, so that the command reads at its own pace and may close its input early.
        let file = refold_memory_file("input")
        guard file >= 0 else { throw Failure(description: "no memory file: \(errorText())") }
        defer { close(file) }
        var written = 0
        while written < input.count {
            let count = input.withUnsafeBytes { write(file, $0.baseAddress! + written, $0.count - written) }
            guard count > 0 else { throw Failure(description: "no memory file: \(errorText())") }
            written += count
        }
        lseek(file, 0, SEEK_SET)
        var printed = Printed(output: [], outputBytesMax: outputBytesMax)
        try execute(template, environment: [:], input: file, &printed, isStopped: isStopped)
        return printed.output ?? []
    }

    /// What a command prints.
    private struct Printed {
        /// Standard output, where it is wanted apart.
        var output: [UInt8]?
        var outputBytesMax = 0
        /// The end of everything else.
        var messages: [UInt8] = []

        mutating func drain(output: Int32, messages: Int32) {
            ShellCommand.drain(messages, into: &self.messages, bytesMax: ShellCommand.outputBytesMax)
            if self.output != nil {
                ShellCommand.drain(output, into: &self.output!, bytesMax: outputBytesMax + 1)
            }
        }
    }

    /// - Parameter input: a file that becomes standard input; -1 for none.
    private func execute(
        _ command: String, environment: [String: String], input: Int32, _ printed: inout Printed,
        isStopped: () -> Bool
    ) throws(Failure) {
        var ends: [Int32] = [-1, -1], outputEnds: [Int32] = [-1, -1]
        guard pipe(&ends) == 0, printed.output == nil || pipe(&outputEnds) == 0 else {
            let reason = errorText()
            for end in ends where end >= 0 { close(end) }
            throw Failure(description: "no pipe: \(reason)")
        }
        defer { for end in [ends[0], outputEnds[0]] where end >= 0 { close(end) } }
        // Whatever else we start closes all descriptors but its own, so that this may come after `pipe`.
        for end in ends + outputEnds { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        for end in [ends[0], outputEnds[0]] { _ = fcntl(end, F_SETFL, O_NONBLOCK) }
        var pid = pid_t()
        let output = printed.output == nil ? ends[1] : outputEnds[1]
        let variables = ChildEnvironment.withoutSettings().merging(environment) { $1 }
        let code = spawnProcess(["/bin/sh", "-c", command], environment: variables, pid: &pid) { files in
            if input < 0 {
                posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0)
            } else {
                posix_spawn_file_actions_adddup2(&files, input, 0)
            }
            posix_spawn_file_actions_adddup2(&files, output, 1)
            posix_spawn_file_actions_adddup2(&files, ends[1], 2)
        }
        for end in [ends[1], outputEnds[1]] where end >= 0 { close(end) }
        guard code == 0 else { throw Failure(description: "cannot run /bin/sh: \(String(cString: strerror(code)))") }
        let deadline = ContinuousClock.now + .seconds(timeoutSeconds)
        var status: Int32 = 0, pause: UInt32 = 1000, killed: String?
        while true {
            printed.drain(output: outputEnds[0], messages: ends[0])
            let waited = waitpid(pid, &status, WNOHANG)
            if waited == pid || (waited < 0 && errno != EINTR) { break }
            if killed == nil, ContinuousClock.now >= deadline {
                killed = "it was killed after \(timeoutSeconds) s"
            } else if killed == nil, isStopped() {
                killed = "it was killed because we stop"
            } else if killed == nil, printed.output.map({ $0.count > printed.outputBytesMax }) == true {
                killed = "it was killed because it printed more than \(printed.outputBytesMax) bytes"
            }
            // The whole group: the shell may have started others.
            if killed != nil { kill(-pid, SIGKILL) }
            Self.wait([ends[0], outputEnds[0]].filter { $0 >= 0 }, microseconds: pause)
            pause = min(pause * 2, 50_000)
        }
        printed.drain(output: outputEnds[0], messages: ends[0])
        if killed == nil, printed.output.map({ $0.count > printed.outputBytesMax }) == true {
            killed = "it printed more than \(printed.outputBytesMax) bytes"
        }
        guard killed != nil || status != 0 else { return }
        let ending = killed ?? exitText(status)
        let said = String(decoding: printed.messages, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
        let lines = said.split(separator: "\n").suffix(Self.describedLinesMax).joined(separator: "; ")
        throw Failure(
            description: said.isEmpty ? ending : "\(ending): \(lines.suffix(Self.describedMax))",
            exitCode: killed == nil && status & 0x7F == 0 ? (status >> 8) & 0xFF : nil, output: said)
    }

    /// Until there is something to read, or for so long.
    private static func wait(_ descriptors: [Int32], microseconds: UInt32) {
        var polls = descriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        let count = poll(&polls, nfds_t(polls.count), Int32((microseconds + 999) / 1_000))
        // A command that closed its output is waited for: poll returns at once.
        if count > 0, !polls.contains(where: { $0.revents & Int16(POLLIN) != 0 }) { usleep(microseconds) }
    }

    /// A file name of ours has letters, digits, `.`, `-` and `_`. A path is where the operator keeps the data: spaces
    /// are the template's to quote.
    private static func check(path: String, file: String) throws(Failure) {
        func isPlain(_ byte: UInt8) -> Bool {
            switch byte {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F: true
            default: false
            }
        }
        guard !file.isEmpty, !file.hasPrefix("-"), !file.hasPrefix("."), file.utf8.allSatisfy(isPlain) else {
            throw Failure(description: "not run: the file name \(file.debugDescription) is none of Refold's")
        }
        func isShells(_ scalar: Unicode.Scalar) -> Bool {
            scalar.value < 0x20 || scalar.value == 0x7F || shellSigns.contains(scalar)
        }
        guard let bad = path.unicodeScalars.first(where: isShells) else { return }
        throw Failure(
            description: "not run: the path \(path.debugDescription) holds \(String(bad).debugDescription), which "
                + "the shell would interpret; keep the data in a folder without such characters")
    }

    private static let shellSigns = Set("\"'`$\\;&|<>(){}*?[]!#~".unicodeScalars)

    /// Keeps the last `bytesMax` bytes.
    private static func drain(_ descriptor: Int32, into output: inout [UInt8], bytesMax: Int) {
        var piece = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = read(descriptor, &piece, piece.count)
            guard count > 0 else { return }
            output += piece[..<count]
            if output.count > bytesMax { output.removeFirst(output.count - bytesMax) }
        }
    }

    private func errorText() -> String { String(cString: strerror(errno)) }
}
