import Access
import EventLog
import Glibc

/// The API's token: 256 random bits in hex, in the file `token` of the data folder, for its owner only.
public enum TokenFile {
    /// Reads the token, or makes one. Two processes that start at once end up with the same token.
    /// - Throws: `TokenFileError`.
    public static func loadOrCreate(inFolder folder: String) throws(TokenFileError) -> String {
        let path = "\(folder)/token"
        // Written aside and linked into place: the file is never seen half written, and never replaced.
        let draft = "\(path).\(getpid()).\(UInt64.random(in: .min ... .max))"
        if access(path, F_OK) != 0 {
            try write(Secrets.random() + "\n", to: draft)
            defer { unlink(draft) }
            guard link(draft, path) == 0 || errno == EEXIST else { throw TokenFileError(path, "create") }
        }
        return try load(inFolder: folder, owners: [geteuid(), 0])
    }

    /// As a client. Root reads the token of a daemon that runs as another user; what it is given opens nothing here.
    /// - Throws: `TokenFileError` when it is missing, of another user, readable by others, or holds no token.
    public static func load(inFolder folder: String) throws(TokenFileError) -> String {
        try load(inFolder: folder, owners: geteuid() == 0 ? nil : [geteuid(), 0])
    }

    private static func load(inFolder folder: String, owners: Set<uid_t>?) throws(TokenFileError) -> String {
        let path = "\(folder)/token"
        let opened: (descriptor: Int32, status: stat)
        do throws(FileError) {
            opened = try RegularFile.open(path, O_RDONLY)
        } catch {
            let isOther = error.code == ENXIO || error.code == EISDIR
            throw TokenFileError(
                description: isOther
                    ? "\(path) is no regular file; remove it" : "cannot read \(path): \(error.reason)")
        }
        let file = opened.descriptor, status = opened.status
        defer { close(file) }
        // Whoever wrote it knows it: it must be none of another user's making.
        guard owners?.contains(status.st_uid) ?? true else {
            throw TokenFileError(
                description: "\(path) belongs to the user \(status.st_uid), who knows the token: remove it to have a "
                    + "new one made, or chown it to the user that runs Refold")
        }
        guard status.st_mode & 0o077 == 0 else {
            throw TokenFileError(description: "\(path) can be read by others; run: chmod 600 \(path)")
        }
        var bytes = [UInt8](repeating: 0, count: 1024)
        let count = read(file, &bytes, bytes.count)
        guard count >= 0 else { throw TokenFileError(path, "read") }
        let token = bytes[..<count].filter { $0 > 0x20 && $0 < 0x7F }
        guard token.count >= 32 else {
            throw TokenFileError(description: "\(path) holds no token; remove it and restart the daemon")
        }
        return String(decoding: token, as: UTF8.self)
    }

    private static func write(_ text: String, to path: String) throws(TokenFileError) {
        let file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw TokenFileError(path, "create") }
        defer { close(file) }
        let bytes = Array(text.utf8)
        guard Glibc.write(file, bytes, bytes.count) == bytes.count, fsync(file) == 0 else {
            throw TokenFileError(path, "write")
        }
    }
}

public struct TokenFileError: Error, Sendable, CustomStringConvertible {
    public let description: String
    init(description: String) { self.description = description }
    init(_ path: String, _ action: String) {
        description = "cannot \(action) \(path): \(String(cString: strerror(errno)))"
    }
}
