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

    public func byteCount(_ path: String) throws(FileError) -> Int {
        var result = stat()
        _ = try call("stat", path) { Int(stat(path, &result)) }
        return Int(result.st_size)
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
