import Glibc

/// Files that hold private keys.
enum KeyFile {
    /// - Throws: when others can read the file, or another user may know the key.
    static func read(_ path: String, bytesMax: Int) throws(PKIError) -> [UInt8] {
        // O_NONBLOCK: opening a FIFO would wait for its writer.
        let file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard file >= 0 else { throw failure("read", path) }
        defer { close(file) }
        var status = stat()
        guard fstat(file, &status) == 0 else { throw failure("read", path) }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw PKIError(.file, "key file \(path) is not a regular file")
        }
        guard status.st_uid == geteuid() || status.st_uid == 0 else {
            throw PKIError(
                .file,
                "key file \(path) belongs to user \(status.st_uid), who can read the key: chown it to the user that "
                    + "runs Refold (\(geteuid()))")
        }
        guard status.st_mode & 0o077 == 0 else {
            throw PKIError(
                .file,
                "key file \(path) is accessible by other users (mode 0\(String(status.st_mode & 0o777, radix: 8))): "
                    + "run chmod 600 \(path), and replace the key if others may have read it")
        }
        guard status.st_size <= bytesMax else {
            throw PKIError(.file, "key file \(path) has \(status.st_size) bytes; the limit is \(bytesMax)")
        }
        var bytes = [UInt8](repeating: 0, count: bytesMax + 1), count = 0
        while count < bytes.count {
            let read = bytes.withUnsafeMutableBytes { Glibc.read(file, $0.baseAddress! + count, $0.count - count) }
            if read < 0, errno == EINTR { continue }
            guard read >= 0 else { throw failure("read", path) }
            if read == 0 { break }
            count += read
        }
        bytes.removeSubrange(count...)
        return bytes
    }

    /// Creates the file with mode 0600, and makes file and folder durable. Removes it when that fails.
    static func create(_ path: String, _ bytes: [UInt8]) throws(PKIError) {
        let file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard file >= 0 else {
            guard errno == EEXIST else { throw failure("create", path) }
            throw PKIError(.file, "cannot create key file \(path): it exists, and a key is never overwritten")
        }
        do throws(PKIError) {
            defer { close(file) }
            var written = 0
            while written < bytes.count {
                let count = bytes.withUnsafeBytes { write(file, $0.baseAddress! + written, $0.count - written) }
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { throw failure("write", path) }
                written += count
            }
            guard fsync(file) == 0 else { throw failure("write", path) }
            try synchroniseFolder(of: path)
        } catch {
            unlink(path)
            throw error
        }
    }

    private static func synchroniseFolder(of path: String) throws(PKIError) {
        let end = path.lastIndex(of: "/")
        let name = end.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
        let folder = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard folder >= 0 else { throw failure("write", path) }
        defer { close(folder) }
        guard fsync(folder) == 0 else { throw failure("write", path) }
    }

    private static func failure(_ action: String, _ path: String) -> PKIError {
        PKIError(.file, "cannot \(action) key file \(path): \(String(cString: strerror(errno)))")
    }
}
