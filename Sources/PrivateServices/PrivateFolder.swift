// PrivateServices: a Mosquitto and a PostgreSQL of our own (`PrivateMosquitto`, `PrivatePostgres`), in the data folder,
// for a daemon that is given none.
//
// Invariants. Mosquitto listens on loopback and demands a password, PostgreSQL listens on a unix socket. Both end with
// the daemon, and their data stay.

import Foundation

/// An account of this machine that owns files and runs servers.
struct Account: Sendable {
    let name: String
    let uid: uid_t
    let gid: gid_t

    /// The first of `names` that exists.
    init?(named names: String...) {
        guard let entry = names.lazy.compactMap({ getpwnam($0) }).first else { return nil }
        self.init(entry)
    }

    init?(uid: uid_t) {
        guard let entry = getpwuid(uid) else { return nil }
        self.init(entry)
    }

    private init(_ entry: UnsafeMutablePointer<passwd>) {
        name = String(cString: entry.pointee.pw_name)
        (uid, gid) = (entry.pointee.pw_uid, entry.pointee.pw_gid)
    }
}

/// Folders that one account alone can enter. What exists is verified before it is used: in a shared place anybody may
/// have made it first.
enum PrivateFolder {
    /// Makes the folder, or verifies the one that there is, and gives it to `owner` (nil: to us) with mode 0700.
    /// - Throws: `ServiceError` when it is a symbolic link, or belongs to neither of us.
    static func make(_ path: String, owner: Account?) throws(ServiceError) {
        if mkdir(path, 0o700) != 0, errno != EEXIST { throw failure("create", path) }
        try take(path, owner: owner)
    }

    /// A new folder of an unpredictable name in the shared temporary folder.
    static func makeTemporary(owner: Account?) throws(ServiceError) -> String {
        var template = Array("/tmp/refold-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw failure("create", "/tmp/refold-XXXXXX") }
        let path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
        try take(path, owner: owner)
        return path
    }

    /// Whether `path` is a folder, no symbolic link, that `owner` (nil: we) alone can enter.
    static func isPrivate(_ path: String, owner: Account?) -> Bool {
        var info = stat()
        guard lstat(path, &info) == 0 else { return false }
        return info.st_mode & S_IFMT == S_IFDIR && info.st_uid == owner?.uid ?? geteuid()
            && info.st_mode & 0o077 == 0
    }

    /// By descriptor: a name may come to mean another folder between two calls.
    private static func take(_ path: String, owner: Account?) throws(ServiceError) {
        let folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        guard folder >= 0 else {
            throw ServiceError(
                "cannot use \(path): \(String(cString: strerror(errno))); it must be a folder and no symbolic link")
        }
        defer { close(folder) }
        var info = stat()
        guard fstat(folder, &info) == 0 else { throw failure("examine", path) }
        let wanted = owner?.uid ?? geteuid()
        guard info.st_uid == wanted || info.st_uid == geteuid() else {
            throw ServiceError(
                "\(path) belongs to the user \(Account(uid: info.st_uid)?.name ?? String(info.st_uid)): move it away, "
                    + "or give it to \(owner?.name ?? "the user that runs Refold") (chown)")
        }
        if info.st_uid != wanted, let owner, fchown(folder, owner.uid, owner.gid) != 0 {
            throw failure("give to \(owner.name)", path)
        }
        if info.st_mode & 0o777 != 0o700, fchmod(folder, 0o700) != 0 { throw failure("protect", path) }
    }

    /// Writes a file of `owner`'s in a private folder: whole or not at all, readable by the owner alone.
    static func write(_ text: String, to path: String, owner: Account?) throws(ServiceError) {
        let draft = "\(path).\(getpid()).\(UInt32.random(in: .min ... .max))"
        let file = open(draft, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw failure("create", draft) }
        defer { close(file) }
        let bytes = Array(text.utf8)
        guard Glibc.write(file, bytes, bytes.count) == bytes.count,
            owner.map({ fchown(file, $0.uid, $0.gid) == 0 }) ?? true, rename(draft, path) == 0
        else {
            let error = failure("write", path)
            unlink(draft)
            throw error
        }
    }

    private static func failure(_ action: String, _ path: String) -> ServiceError {
        ServiceError("cannot \(action) \(path): \(String(cString: strerror(errno)))")
    }
}

/// The environment of programs that we start. Ours holds secrets: tokens, and URLs with passwords.
enum ChildEnvironment {
    private static let harmless: Set<String> = [
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH",
    ]

    /// For servers and tools of ours: what programs need to run at all.
    static func minimal(_ all: [String: String] = ProcessInfo.processInfo.environment) -> [String: String] {
        all.filter { harmless.contains($0.key) || $0.key.hasPrefix("LC_") }
    }

    /// For commands of the operator's: all but what Refold itself reads, and what ties us to the service manager.
    static func withoutSettings(_ all: [String: String] = ProcessInfo.processInfo.environment) -> [String: String] {
        all.filter { name, _ in
            !name.hasPrefix("REFOLD_") && !name.hasPrefix("MQTT_") && !secrets.contains(name)
        }
    }

    private static let secrets: Set<String> = [
        "DATABASE_URL", "PGPASSWORD", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY",
        "EMQX_DASHBOARD_PASSWORD",
    ]

    /// As execve(2) takes it, for the time of the call.
    static func withPointers<T>(
        _ environment: [String: String], _ body: (UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) -> T
    ) -> T {
        var pointers: [UnsafeMutablePointer<CChar>?] =
            environment.sorted { $0.key < $1.key }
            .map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for pointer in pointers { free(pointer) } }
        return pointers.withUnsafeMutableBufferPointer { body($0.baseAddress!) }
    }
}
