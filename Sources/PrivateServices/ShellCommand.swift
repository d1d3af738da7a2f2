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
    }

    /// Of what a command prints, the end is kept.
    private static let outputBytesMax = 1000

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
    public func run(path: String, file: String, isStopped: () -> Bool = { false }) throws(Failure) {
        try Self.check(path: path, file: file)
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw Failure(description: "no pipe: \(errorText())") }
        defer { close(ends[0]) }
        // Whatever else we start closes all descriptors but its own, so that this may come after `pipe`.
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        _ = fcntl(ends[0], F_SETFL, O_NONBLOCK)
        var pid = pid_t()
        let command = ["/bin/sh", "-c", expanded(path: path, file: file)]
        let code = spawnProcess(command, environment: ChildEnvironment.withoutSettings(), pid: &pid) { files in
            posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0)
            posix_spawn_file_actions_adddup2(&files, ends[1], 1)
            posix_spawn_file_actions_adddup2(&files, ends[1], 2)
        }
        close(ends[1])
        guard code == 0 else { throw Failure(description: "cannot run /bin/sh: \(String(cString: strerror(code)))") }
        let deadline = ContinuousClock.now + .seconds(timeoutSeconds)
        var output: [UInt8] = [], status: Int32 = 0, pause: UInt32 = 1000, killed: String?
        while true {
            Self.drain(ends[0], into: &output)
            let waited = waitpid(pid, &status, WNOHANG)
            if waited == pid || (waited < 0 && errno != EINTR) { break }
            if killed == nil, ContinuousClock.now >= deadline {
                killed = "it was killed after \(timeoutSeconds) s"
            } else if killed == nil, isStopped() {
                killed = "it was killed because we stop"
            }
            // The whole group: the shell may have started others.
            if killed != nil { kill(-pid, SIGKILL) }
            usleep(pause)
            pause = min(pause * 2, 50_000)
        }
        Self.drain(ends[0], into: &output)
        guard killed != nil || status != 0 else { return }
        let ending = killed ?? exitText(status)
        let said = String(decoding: output, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
        throw Failure(description: said.isEmpty ? ending : "\(ending): \(said)")
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

    private static func drain(_ descriptor: Int32, into output: inout [UInt8]) {
        var piece = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = read(descriptor, &piece, piece.count)
            guard count > 0 else { return }
            output += piece[..<count]
            if output.count > outputBytesMax { output.removeFirst(output.count - outputBytesMax) }
        }
    }

    private func errorText() -> String { String(cString: strerror(errno)) }
}
