import Foundation
import Synchronization
import Threading

/// A server of ours in a process of its own: in its own process group (so that Ctrl-C reaches only us, and we stop it
/// in our order), and told to stop by the kernel should we be killed.
///
/// The kernel ties the death signal to the *thread* that started the child (prctl(2), PR_SET_PDEATHSIG), so a thread
/// starts it and stays with it until it ends.
public final class ChildProcess: Sendable {
    private struct State {
        var pid: pid_t?
        var startError: String?
        var isStopping = false
    }

    public let name: String
    private let state = Mutex(State())
    private let ended = DispatchSemaphore(value: 0)

    /// - Parameters:
    ///   - arguments: program and arguments; the program is found in PATH when it has no slash.
    ///   - user: the user to become, when we are root.
    ///   - output: file that standard output and error are appended to.
    ///   - onExit: called on the child's thread, with a text that says how it ended, when nobody had asked it to end;
    ///     it is started again after a second.
    public init(
        name: String, arguments: [String], user: String?, output: String, deathSignal: String = "TERM",
        onExit: @escaping @Sendable (String) -> Void = { _ in }
    ) throws(ServiceError) {
        self.name = name
        var command = ["setpriv", "--pdeathsig", deathSignal]
        if let user {
            // The capability is for the path to the data folder, which may lead through root's own folders.
            command += ["--reuid", user, "--regid", user, "--init-groups"]
            if !Self.everybodyMayTraverse(output) {
                command += ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
            }
        }
        command += ["--"] + arguments
        let started = DispatchSemaphore(value: 0)
        let line = command
        startThread(name: name) { [self] in
            while true {
                var pid = pid_t()
                let error = spawnProcess(line, environment: ChildEnvironment.minimal(), pid: &pid) { files in
                    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0)
                    posix_spawn_file_actions_addopen(
                        &files, 1, output, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0o600)
                    posix_spawn_file_actions_adddup2(&files, 1, 2)
                }
                state.withLock {
                    if error == 0 { $0.pid = pid } else { $0.startError = String(cString: strerror(error)) }
                }
                started.signal()
                guard error == 0 else { return }
                var status: Int32 = 0
                while waitpid(pid, &status, 0) < 0, errno == EINTR {}
                let asked = state.withLock {
                    $0.pid = nil
                    return $0.isStopping
                }
                if asked {
                    ended.signal()
                    return
                }
                onExit(exitText(status))
                sleep(1)
                if state.withLock({ $0.isStopping }) { return }
            }
        }
        started.wait()
        if let text = state.withLock({ $0.startError }) {
            throw ServiceError("cannot start \(name) (\(arguments[0])): \(text)")
        }
    }

    public var isRunning: Bool { state.withLock { $0.pid != nil } }

    /// Asks it to stop and waits; kills it when it does not in time.
    public func stop(signal: Int32 = SIGTERM, timeoutSeconds: Int) {
        let running = state.withLock {
            $0.isStopping = true
            return $0.pid
        }
        guard let pid = running else { return }
        kill(pid, signal)
        if ended.wait(timeout: .now() + .seconds(timeoutSeconds)) == .timedOut {
            kill(-pid, SIGKILL)
            _ = ended.wait(timeout: .now() + .seconds(5))
        }
    }

    /// Whether every folder on the way to `path` lets everybody through.
    static func everybodyMayTraverse(_ path: String) -> Bool {
        var folder = URL(fileURLWithPath: path).deletingLastPathComponent().deletingLastPathComponent()
        while folder.path != "/" {
            var info = stat()
            if stat(folder.path, &info) != 0 || info.st_mode & 0o001 == 0 { return false }
            folder.deleteLastPathComponent()
        }
        return true
    }
}

/// A private service could not be made or started; the text says what to do.
public struct ServiceError: Error, Sendable, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}

/// Runs a program to its end. Returns its exit code and all that it printed.
func runProgram(_ arguments: [String]) throws(ServiceError) -> (code: Int32, output: String) {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = arguments
    process.environment = ChildEnvironment.minimal()
    let pipe = Pipe()
    process.standardOutput = pipe
    process.standardError = pipe
    process.standardInput = FileHandle.nullDevice
    do {
        try process.run()
    } catch {
        throw ServiceError("cannot run \(arguments[0]): \(error.localizedDescription)")
    }
    let output = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return (process.terminationStatus, String(decoding: output, as: UTF8.self))
}
