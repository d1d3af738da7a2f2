import CPlatform
import Glibc

/// Starts a program (found in PATH when its name has no slash) in a process group of its own, with no signal blocked or
/// ignored, and with nothing open but what `files` opens: descriptors of ours (the log, its lock, sockets) must not
/// live on in it.
/// - Returns: 0 or an errno.
func spawnProcess(
    _ command: [String], environment: [String: String], pid: inout pid_t,
    files: (inout posix_spawn_file_actions_t) -> Void
) -> Int32 {
    var attributes = posix_spawnattr_t(), actions = posix_spawn_file_actions_t()
    posix_spawnattr_init(&attributes)
    posix_spawn_file_actions_init(&actions)
    defer {
        posix_spawnattr_destroy(&attributes)
        posix_spawn_file_actions_destroy(&actions)
    }
    posix_spawnattr_setflags(
        &attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
    posix_spawnattr_setpgroup(&attributes, 0)
    var none = sigset_t(), defaults = sigset_t()
    sigemptyset(&none)
    sigfillset(&defaults)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setsigdefault(&attributes, &defaults)
    files(&actions)
    _ = refold_spawn_close_from(&actions, 3)
    var arguments: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) } + [nil]
    defer { for argument in arguments { free(argument) } }
    return ChildEnvironment.withPointers(environment) {
        posix_spawnp(&pid, command[0], &actions, &attributes, &arguments, $0)
    }
}

/// How a process ended, of a status as waitpid(2) gives it.
func exitText(_ status: Int32) -> String {
    status & 0x7F == 0 ? "exit code \((status >> 8) & 0xFF)" : "signal \(status & 0x7F)"
}
