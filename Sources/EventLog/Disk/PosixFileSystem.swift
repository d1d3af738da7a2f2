import CPlatform
import Glibc

/// The real disk.
public struct PosixFileSystem: LogFileSystem {
    public init() {}

    public func open(_ path: String, create: Bool, writable: Bool) throws(FileError) -> any LogFile {
        let flags = (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | (create ? O_CREAT | O_TRUNC : 0)
        let descriptor = try call("open", path) { Glibc.open(path, flags, 0o600) }
        return PosixFile(descriptor: Int32(descriptor), path: path)
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
        let descriptor = Int32(try call("open", path) { Glibc.open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600) })
        let code = refold_lock_file(descriptor)
        guard code == 0 else {
            Glibc.close(descriptor)
            if code == EAGAIN || code == EACCES { return nil }
            throw FileError(operation: "lock", path: path, code: code)
        }
        // Overwritten, not cut first: a full disk can still take it.
        var text = text
        _ = text.withUTF8 { pwrite(descriptor, $0.baseAddress, $0.count, 0) }
        return PosixLock(descriptor: descriptor)
    }

    public func isLocked(_ path: String) -> Bool {
        let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return false }
        defer { Glibc.close(descriptor) }
        return refold_file_is_locked(descriptor) == 1
    }

    public func map(_ path: String, byteCount: Int, writable: Bool) throws(FileError) -> (any SharedPage)? {
        let descriptor = Glibc.open(path, (writable ? O_RDWR | O_CREAT : O_RDONLY) | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            if errno == ENOENT { return nil }
            throw FileError(operation: "open", path: path, code: errno)
        }
        defer { Glibc.close(descriptor) }
        if writable {
            let code = posix_fallocate(descriptor, 0, off_t(byteCount))
            guard code == 0 else { throw FileError(operation: "fallocate", path: path, code: code) }
        } else {
            var status = stat()
            guard fstat(descriptor, &status) == 0, status.st_size >= off_t(byteCount) else { return nil }
        }
        let access = writable ? PROT_READ | PROT_WRITE : PROT_READ
        let address = mmap(nil, byteCount, access, MAP_SHARED, descriptor, 0)
        guard let address, address != MAP_FAILED else { throw FileError(operation: "mmap", path: path, code: errno) }
        return MappedPage(UnsafeMutableRawBufferPointer(start: address, count: byteCount))
    }
}

private final class PosixLock: FileLock {
    private let descriptor: Int32

    /// Takes ownership of the descriptor.
    init(descriptor: Int32) { self.descriptor = descriptor }

    deinit {
        refold_unlock_file(descriptor)
        Glibc.close(descriptor)
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
            done += try call("pwrite", path) {
                pwrite(descriptor, bytes.baseAddress! + done, bytes.count - done, off_t(offset + done))
            }
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
