import EventLog
import Synchronization

/// The real disk, whose operation number `failing` fails; every one from then on when the process is to be dead. Writes
/// fail in their middle.
final class FailingFileSystem: LogFileSystem {
    private let real = PosixFileSystem()
    private let count = Mutex(0)
    private let failing: Int
    private let code: Int32
    private let dies: Bool

    init(failing: Int, code: Int32, dies: Bool) {
        (self.failing, self.code, self.dies) = (failing, code, dies)
    }

    var operations: Int { count.withLock { $0 } }

    fileprivate func check(_ operation: String, _ path: String, partial: () -> Void = {}) throws(FileError) {
        let number = count.withLock { count in
            count += 1
            return count - 1
        }
        guard number == failing || (dies && number > failing) else { return }
        if number == failing { partial() }
        throw FileError(operation: operation, path: path, code: code)
    }

    func open(_ path: String, create: Bool, writable: Bool) throws(FileError) -> any LogFile {
        try check("open", path)
        return FailingFile(try real.open(path, create: create, writable: writable), path, self)
    }
    func createNew(_ path: String, permissions: FilePermissions) throws(FileError) -> any LogFile {
        try check("open", path)
        return FailingFile(try real.createNew(path, permissions: permissions), path, self)
    }
    func resolve(_ path: String) throws(FileError) -> String {
        try check("readlink", path)
        return try real.resolve(path)
    }
    func permissions(_ path: String) throws(FileError) -> FilePermissions? {
        try check("stat", path)
        return try real.permissions(path)
    }
    func rename(_ path: String, to newPath: String) throws(FileError) {
        try check("rename", path)
        try real.rename(path, to: newPath)
    }
    func remove(_ path: String) throws(FileError) {
        try check("unlink", path)
        try real.remove(path)
    }
    func synchronizeDirectory(_ path: String) throws(FileError) {
        try check("fsync", path)
        try real.synchronizeDirectory(path)
    }
    func list(_ directory: String) throws(FileError) -> [String] { try real.list(directory) }
    func status(_ path: String) throws(FileError) -> FileStatus? { try real.status(path) }
    func makeReadOnly(_ path: String) throws(FileError) { try real.makeReadOnly(path) }
    func makeDirectory(_ path: String) throws(FileError) { try real.makeDirectory(path) }
    func lock(_ path: String, text: String) throws(FileError) -> (any FileLock)? { try real.lock(path, text: text) }
    func isLocked(_ path: String) -> Bool { real.isLocked(path) }
    func map(_ path: String, byteCount: Int, writable: Bool) throws(FileError) -> (any SharedPage)? {
        try real.map(path, byteCount: byteCount, writable: writable)
    }
}

private final class FailingFile: LogFile {
    private let real: any LogFile
    private let path: String
    private let disk: FailingFileSystem

    init(_ real: any LogFile, _ path: String, _ disk: FailingFileSystem) {
        (self.real, self.path, self.disk) = (real, path, disk)
    }

    func read(into bytes: UnsafeMutableRawBufferPointer, at offset: Int) throws(FileError) -> Int {
        try disk.check("pread", path)
        return try real.read(into: bytes, at: offset)
    }
    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(FileError) {
        try disk.check("pwrite", path) {
            try? real.write(UnsafeRawBufferPointer(rebasing: bytes[..<(bytes.count / 2)]), at: offset)
        }
        try real.write(bytes, at: offset)
    }
    func synchronize() throws(FileError) {
        try disk.check("fdatasync", path)
        try real.synchronize()
    }
    func byteCount() throws(FileError) -> Int { try real.byteCount() }
    func allocatedBytes() throws(FileError) -> Int { try real.allocatedBytes() }
    func allocate(_ byteCount: Int) throws(FileError) { try real.allocate(byteCount) }
    func truncate(_ byteCount: Int) throws(FileError) { try real.truncate(byteCount) }
}
