import CPlatform
import Glibc

/// The real disk.
public struct PosixFileSystem: LogFileSystem {
    public init() {}

    public func open(_ path: String, create: Bool, writable: Bool) throws(FileError) -> any LogFile {
        let flags = (writable ? O_RDWR : O_RDONLY) | (create ? O_CREAT | O_TRUNC : 0)
        return PosixFile(descriptor: try RegularFile.open(path, flags).descriptor, path: path)
    }

    public func rename(_ path: String, to newPath: String) throws(FileError) {
        _ = try call("rename", path) { Int(Glibc.rename(path, newPath)) }
    }

    public func remove(_ path: String) throws(FileError) {
        guard unlink(path) != 0, errno != ENOENT else { return }
        throw FileError(operation: "unlink", path: path, code: errno)
    }

    public func list(_ directory: String) throws(FileError) -> [String] {
        guard let stream = opendir(directory) else {
            throw FileError(operation: "opendir", path: directory, code: errno)
        }
        defer { closedir(stream) }
        var names: [String] = []
        errno = 0
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != "." && name != ".." { names.append(name) }
            errno = 0
        }
        guard errno == 0 else { throw FileError(operation: "readdir", path: directory, code: errno) }
        return names
    }

    public func status(_ path: String) throws(FileError) -> FileStatus? {
        var result = stat()
        if stat(path, &result) == 0 {
            let modified = Int64(result.st_mtim.tv_sec) * 1_000_000_000 + Int64(result.st_mtim.tv_nsec)
            return FileStatus(byteCount: Int(result.st_size), modifiedNanos: modified)
        }
        guard errno != ENOENT else { return nil }
        throw FileError(operation: "stat", path: path, code: errno)
    }

    public func resolve(_ path: String) throws(FileError) -> String {
        var path = path
        // As many as the kernel follows (path_resolution(7)).
        for _ in 0..<40 {
            var target = [CChar](repeating: 0, count: Int(PATH_MAX))
            let count = readlink(path, &target, target.count)
            guard count >= 0 else {
                // No symbolic link, or no file yet.
                if errno == EINVAL || errno == ENOENT { return path }
                throw FileError(operation: "readlink", path: path, code: errno)
            }
            let text = String(decoding: target[..<count].map(UInt8.init(bitPattern:)), as: UTF8.self)
            path = text.hasPrefix("/") ? text : "\(Self.folder(of: path))/\(text)"
        }
        throw FileError(operation: "readlink", path: path, code: ELOOP)
    }

    public func permissions(_ path: String) throws(FileError) -> FilePermissions? {
        var result = stat()
        guard stat(path, &result) == 0 else {
            if errno == ENOENT { return nil }
            throw FileError(operation: "stat", path: path, code: errno)
        }
        guard result.st_mode & S_IFMT == S_IFREG else { throw FileError(operation: "open", path: path, code: ENXIO) }
        return FilePermissions(owner: (result.st_uid, result.st_gid), mode: result.st_mode & 0o777)
    }

    public func createNew(_ path: String, permissions: FilePermissions) throws(FileError) -> any LogFile {
        let descriptor = try RegularFile.open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW).descriptor
        let file = PosixFile(descriptor: descriptor, path: path)
        var code: Int32 = 0
        if let owner = permissions.owner, fchown(descriptor, owner.user, owner.group) != 0 {
            code = errno
            if code == EPERM, permissions.mode & 0o004 != 0 {
                // The group alone may be ours to give.
                _ = fchown(descriptor, uid_t.max, owner.group)
                code = 0
            }
        }
        if code == 0, fchmod(descriptor, permissions.mode) != 0 { code = errno }
        guard code != 0 else { return file }
        unlink(path)
        throw FileError(operation: "chown", path: path, code: code)
    }

    public func makeReadOnly(_ path: String) throws(FileError) {
        _ = try call("chmod", path) { Int(chmod(path, 0o400)) }
    }

    public func makeDirectory(_ path: String) throws(FileError) {
        guard mkdir(path, 0o700) != 0, errno != EEXIST else { return }
        guard errno == ENOENT, let slash = path.lastIndex(of: "/"), slash > path.startIndex else {
            throw FileError(operation: "mkdir", path: path, code: errno)
        }
        try makeDirectory(String(path[..<slash]))
        try makeDirectory(path)
    }

    public func synchronizeDirectory(_ path: String) throws(FileError) {
        let descriptor = try call("open", path) { Glibc.open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) }
        defer { Glibc.close(Int32(descriptor)) }
        guard fsync(Int32(descriptor)) == 0 else { throw FileError(operation: "fsync", path: path, code: errno) }
    }

    public func lock(_ path: String, text: String) throws(FileError) -> (any FileLock)? {
        // The folder first: a lock file that was deleted under its holder is not made again here. Where the file system
        // cannot lock a folder (EBADF on NFS), the lock on the file is all there is.
        let folder = try PosixLock.Part(Self.folder(of: path), O_RDONLY | O_DIRECTORY)
        if refold_lock_folder(folder.descriptor) == EWOULDBLOCK { return nil }
        let lock = PosixLock(folder: folder, file: try PosixLock.Part(path, O_RDWR | O_CREAT))
        let code = refold_lock_file(lock.file.descriptor)
        if code == EAGAIN || code == EACCES { return nil }
        guard code == 0 else { throw FileError(operation: "lock", path: path, code: code) }
        // Overwritten, not cut first: a full disk can still take it.
        var text = text
        _ = text.withUTF8 { pwrite(lock.file.descriptor, $0.baseAddress, $0.count, 0) }
        return lock
    }

    public func isLocked(_ path: String) -> Bool {
        do throws(FileError) {
            let file = try RegularFile.open(path, O_RDONLY)
            defer { Glibc.close(file.descriptor) }
            return refold_file_is_locked(file.descriptor) == 1
        } catch {
            // The file was deleted, or there was no writer yet.
            guard error.isMissing else { return false }
            let folder = Glibc.open(Self.folder(of: path), O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            guard folder >= 0 else { return false }
            defer { Glibc.close(folder) }
            return refold_folder_is_locked(folder) == 1
        }
    }

    private static func folder(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    public func map(_ path: String, byteCount: Int, writable: Bool) throws(FileError) -> (any SharedPage)? {
        let opened: (descriptor: Int32, status: stat)
        do throws(FileError) {
            opened = try RegularFile.open(path, writable ? O_RDWR | O_CREAT : O_RDONLY)
        } catch {
            if error.isMissing { return nil }
            throw error
        }
        let descriptor = opened.descriptor
        defer { Glibc.close(descriptor) }
        if writable {
            let code = posix_fallocate(descriptor, 0, off_t(byteCount))
            guard code == 0 else { throw FileError(operation: "fallocate", path: path, code: code) }
        } else if opened.status.st_size < off_t(byteCount) {
            return nil
        }
        let access = writable ? PROT_READ | PROT_WRITE : PROT_READ
        let address = mmap(nil, byteCount, access, MAP_SHARED, descriptor, 0)
        guard let address, address != MAP_FAILED else { throw FileError(operation: "mmap", path: path, code: errno) }
        return MappedPage(UnsafeMutableRawBufferPointer(start: address, count: byteCount))
    }
}

/// The lock on a file, and on the folder that holds it.
private final class PosixLock: FileLock {
    /// An open file or folder.
    final class Part: Sendable {
        let descriptor: Int32
        private let path: String

        /// Opens a regular file, or with `O_DIRECTORY` a folder.
        init(_ path: String, _ flags: Int32) throws(FileError) {
            self.path = path
            descriptor = try RegularFile.open(path, flags).descriptor
        }

        deinit { Glibc.close(descriptor) }

        /// Compares what the path names now with what is open. Other errors than a missing file prove nothing.
        func check() throws(FileError) {
            var held = stat(), found = stat()
            guard fstat(descriptor, &held) == 0 else { return }
            if stat(path, &found) == 0 {
                guard found.st_dev != held.st_dev || found.st_ino != held.st_ino else { return }
            } else if errno != ENOENT && errno != ENOTDIR {
                return
            }
            throw FileError(operation: "lock", path: path, code: ESTALE)
        }
    }

    let folder: Part
    let file: Part

    init(folder: Part, file: Part) {
        self.folder = folder
        self.file = file
    }

    func check() throws(FileError) {
        try folder.check()
        try file.check()
    }

    deinit {
        refold_unlock_file(file.descriptor)
        refold_unlock_folder(folder.descriptor)
    }
}

/// `@unchecked Sendable`: an address that stays the same; what lies there is for `SharedPage`'s users.
private final class MappedPage: SharedPage, @unchecked Sendable {
    let bytes: UnsafeMutableRawBufferPointer

    init(_ bytes: UnsafeMutableRawBufferPointer) { self.bytes = bytes }
    deinit { munmap(bytes.baseAddress, bytes.count) }
}

final class PosixFile: LogFile {
    private let descriptor: Int32
    private let path: String

    /// Takes ownership of the descriptor.
    init(descriptor: Int32, path: String) {
        self.descriptor = descriptor
        self.path = path
    }

    deinit { Glibc.close(descriptor) }

    private func status() throws(FileError) -> stat {
        var result = stat()
        _ = try call("fstat", path) { Int(fstat(descriptor, &result)) }
        return result
    }

    func byteCount() throws(FileError) -> Int { Int(try status().st_size) }

    /// `st_blocks` counts units of 512 bytes, whatever the file system's own block is (stat(2)).
    func allocatedBytes() throws(FileError) -> Int { Int(try status().st_blocks) * 512 }

    func read(into bytes: UnsafeMutableRawBufferPointer, at offset: Int) throws(FileError) -> Int {
        var done = 0
        while done < bytes.count {
            let count = try call("pread", path) {
                pread(descriptor, bytes.baseAddress! + done, bytes.count - done, off_t(offset + done))
            }
            if count == 0 { break }
            done += count
        }
        return done
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(FileError) {
        var done = 0
        while done < bytes.count {
            let count = try call("pwrite", path) {
                pwrite(descriptor, bytes.baseAddress! + done, bytes.count - done, off_t(offset + done))
            }
            // Repeated, a write that takes nothing has no end.
            guard count > 0 else { throw FileError(operation: "pwrite", path: path, code: EIO) }
            done += count
        }
    }

    func allocate(_ byteCount: Int) throws(FileError) {
        let size = try self.byteCount()
        guard size < byteCount else { return }
        // Not posix_fallocate: where the file system cannot, glibc emulates it with a byte a block, which leaves
        // holes filled one by one; zeroes in large writes are laid out better, and are what the format asks for.
        var code: Int32
        repeat { code = refold_fallocate(descriptor, Int64(size), Int64(byteCount - size)) } while code == EINTR
        if code == 0 { return }
        guard code == EOPNOTSUPP || code == ENOSYS else {
            throw FileError(operation: "fallocate", path: path, code: code)
        }
        var offset = size
        while offset < byteCount {
            let piece = min(LogFormat.zeroes.count, byteCount - offset)
            try write(UnsafeRawBufferPointer(rebasing: LogFormat.zeroes[..<piece]), at: offset)
            offset += piece
        }
    }

    func truncate(_ byteCount: Int) throws(FileError) {
        _ = try call("ftruncate", path) { Int(ftruncate(descriptor, off_t(byteCount))) }
    }

    func synchronize() throws(FileError) {
        // Not through `call`: it is not repeated, whatever the reason.
        guard fdatasync(descriptor) == 0 else { throw FileError(operation: "fdatasync", path: path, code: errno) }
        // The kernel syncs a deleted file without an error, and frees its space when it is closed.
        guard try status().st_nlink > 0 else { throw FileError(operation: "fdatasync", path: path, code: ESTALE) }
    }
}

/// Opens files of the data folder. A FIFO would make open(2) wait for its other end, for ever and unmoved by signals.
public enum RegularFile {
    /// Opens a regular file, or with `O_DIRECTORY` a folder; new files have mode 0600. The caller closes it.
    /// - Throws: ENXIO for anything else; EISDIR for a folder where a file is expected.
    public static func open(_ path: String, _ flags: Int32) throws(FileError) -> (descriptor: Int32, status: stat) {
        let descriptor = Int32(
            try call("open", path) {
                Glibc.open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0o600)
            })
        var status = stat(), code: Int32 = 0
        if fstat(descriptor, &status) != 0 {
            code = errno
        } else if status.st_mode & S_IFMT == S_IFDIR {
            code = flags & O_DIRECTORY == 0 ? EISDIR : 0
        } else if status.st_mode & S_IFMT != S_IFREG {
            code = ENXIO
        }
        guard code != 0 else { return (descriptor, status) }
        Glibc.close(descriptor)
        throw FileError(operation: "open", path: path, code: code)
    }
}

func errorText(_ code: Int32) -> String { String(cString: strerror(code)) }

/// Runs a call that returns -1 and sets errno; repeats it when a signal interrupted it.
private func call<N: FixedWidthInteger>(_ operation: String, _ path: String, _ body: () -> N) throws(FileError) -> N {
    while true {
        let result = body()
        if result >= 0 { return result }
        guard errno == EINTR else { throw FileError(operation: operation, path: path, code: errno) }
    }
}
