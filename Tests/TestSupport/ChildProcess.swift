import CPlatform
import Foundation
import Synchronization

/// A server that a test started. It is killed when this is released, and by the kernel when the test process
/// ends, however it ends (PR_SET_PDEATHSIG by setpriv(1)).
public final class ChildProcess: Sendable {
    public let pid: pid_t
    private let exited = Mutex<Int32?>(nil)

    /// - Parameter user: whom to run as when we are root; servers such as PostgreSQL refuse root.
    public init(_ arguments: [String], user: String? = nil, log: String) throws {
        var line = ["/usr/bin/setpriv", "--pdeathsig", "KILL"]
        if let user, getuid() == 0 { line += ["--reuid", user, "--regid", user, "--init-groups"] }
        line += ["--"] + arguments
        let command = line
        pid = try Spawner.shared.run { () throws(SystemError) in try spawn(command, log: log) }
    }

    deinit { if isRunning { kill(SIGKILL); wait() } }

    public var isRunning: Bool {
        exited.withLock { status in
            if status != nil { return false }
            var raw: Int32 = 0
            guard waitpid(pid, &raw, WNOHANG) == pid else { return true }
            status = raw
            return false
        }
    }

    public func kill(_ signal: Int32) { if isRunning { _ = Foundation.kill(pid, signal) } }

    /// Waits for its end.
    public func wait() { while isRunning { usleep(2000) } }

    /// How it ended: its exit code, or 128 and the number of the signal that ended it. Nil while it runs.
    public var exitCode: Int32? {
        guard !isRunning, let raw = exited.withLock({ $0 }) else { return nil }
        return raw & 0x7F == 0 ? (raw >> 8) & 0xFF : 128 + (raw & 0x7F)
    }

    /// Its direct children.
    public var children: [pid_t] { childProcesses(of: pid) }
}

/// proc(5): the fourth field of stat is the parent.
private func childProcesses(of parent: pid_t) -> [pid_t] {
    let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return entries.compactMap { pid_t($0) }.filter { child in
        guard let stat = try? String(contentsOfFile: "/proc/\(child)/stat", encoding: .utf8),
            let end = stat.lastIndex(of: ")")
        else { return false }
        return stat[end...].split(separator: " ").dropFirst(2).first.flatMap { pid_t($0) } == parent
    }
}

public struct SystemError: Error, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}

/// PR_SET_PDEATHSIG means the end of the thread that forked, so children are started from one that never
/// ends.
private final class Spawner: Sendable {
    static let shared = Spawner()
    private let jobs = Mutex<[@Sendable () -> Void]>([])
    private let wake = DispatchSemaphore(value: 0)

    private init() {
        let thread = Thread { [self] in
            while true {
                wake.wait()
                jobs.withLock { $0.removeFirst() }()
            }
        }
        thread.start()
    }

    func run(_ job: @escaping @Sendable () throws(SystemError) -> pid_t) throws(SystemError) -> pid_t {
        let done = DispatchSemaphore(value: 0), answer = Answer()
        jobs.withLock { jobs in
            jobs.append {
                let result = Result { () throws(SystemError) in try job() }
                answer.value.withLock { $0 = result }
                done.signal()
            }
        }
        wake.signal()
        done.wait()
        return try answer.value.withLock { $0 }!.get()
    }

    private final class Answer: Sendable {
        let value = Mutex<Result<pid_t, SystemError>?>(nil)
    }
}

private func spawn(_ arguments: [String], log: String) throws(SystemError) -> pid_t {
    var actions = posix_spawn_file_actions_t(), attributes = posix_spawnattr_t()
    posix_spawn_file_actions_init(&actions)
    posix_spawnattr_init(&attributes)
    defer {
        posix_spawn_file_actions_destroy(&actions)
        posix_spawnattr_destroy(&attributes)
    }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0o644)
    posix_spawn_file_actions_adddup2(&actions, 1, 2)
    // A socket that a child inherits stays open when we close it.
    _ = refold_spawn_close_from(&actions, 3)
    // Swift's pool blocks signals on its threads, and a child inherits that: SIGTERM would never reach it.
    var none = sigset_t(), all = sigset_t()
    sigemptyset(&none)
    sigfillset(&all)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setsigdefault(&attributes, &all)
    posix_spawnattr_setflags(
        &attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
    let pointers = arguments.map { strdup($0) } + [nil]
    defer { for pointer in pointers { free(pointer) } }
    var pid: pid_t = 0
    let result = posix_spawn(&pid, arguments[0], &actions, &attributes, pointers, environ)
    guard result == 0 else { throw SystemError("\(arguments[0]): \(String(cString: strerror(result)))") }
    return pid
}

/// What is to be gone when the test process has ended in order: servers first, then their folders. A PostgreSQL whose
/// folder goes before its own processes do leaves a background writer behind that never notices its postmaster's end.
enum Leftovers {
    private static let folders: Mutex<[String]> = {
        atexit { Leftovers.remove() }
        return Mutex([])
    }()

    static func add(_ folder: String) { folders.withLock { $0.append(folder) } }
    private static func remove() {
        for server in childProcesses(of: getpid()) {
            kill(server, SIGSTOP)
            for child in childProcesses(of: server) { kill(child, SIGKILL) }
            kill(server, SIGKILL)
        }
        for folder in folders.withLock({ $0 }) { try? FileManager.default.removeItem(atPath: folder) }
    }
}

/// A new folder in the temporary directory, short enough to hold unix sockets, removed when the test process
/// ends.
public func makeTemporaryFolder(_ name: String) throws -> String {
    var template = Array("/tmp/refold-\(name)-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw SystemError("mkdtemp: \(String(cString: strerror(errno)))") }
    let folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    Leftovers.add(folder)
    return folder
}

/// Waits until `condition` holds. The deadline is for a broken test; a sound one never meets it.
public func eventually(
    within seconds: Double = 20, _ condition: () async throws -> Bool
) async rethrows -> Bool {
    let deadline = ContinuousClock.now + .seconds(seconds)
    while ContinuousClock.now < deadline {
        if try await condition() { return true }
        try? await Task.sleep(for: .milliseconds(5))
    }
    return false
}
