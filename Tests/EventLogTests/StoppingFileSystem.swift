import Foundation
@testable import EventLog

/// The real disk, up to the n-th operation that changes something: that one fails, half done where it can be, and
/// either it alone (a fault) or everything behind it (the process was killed there).
final class StoppingFileSystem: LogFileSystem, @unchecked Sendable {
    enum Ending: Sendable { case fault(Int32), death }

    private let real = PosixFileSystem()
    private let lock = NSLock()
    private var left: Int?
    private var ending = Ending.death
    private var isDead = false
    private(set) var operations: [String] = []

    /// Begins to count: `number` operations succeed.
    func stop(after number: Int?, _ ending: Ending = .death) {
        lock.withLock {
            left = number
            self.ending = ending
            isDead = false
            operations = []
        }
    }

    /// Whether the operation that was to fail has been reached.
    var hasStopped: Bool { lock.withLock { left == -1 } }

    fileprivate func change(_ operation: String, _ path: String, half: () -> Void = {}) throws(FileError) {
        let code: Int32? = lock.withLock {
            operations.append("\(operation) \(path.split(separator: "/").last ?? "")")
            if isDead { return EIO }
            guard let count = left, count >= 0 else { return nil }
            left = count - 1
            guard count == 0 else { return nil }
            switch ending {
            case .fault(let code): return code
            case .death:
                isDead = true
                return EIO
            }
        }
        guard let code else { return }
        half()
        throw FileError(operation: operation, path: path, code: code)
    }

    func open(_ path: String, create: Bool, writable: Bool) throws(FileError) -> any LogFile {
        if create { try change("create", path) }
        return StoppingFile(real: try real.open(path, create: create, writable: writable), path: path, disk: self)
    }

    func rename(_ path: String, to newPath: String) throws(FileError) {
        try change("rename", path)
        try real.rename(path, to: newPath)
    }

    func remove(_ path: String) throws(FileError) {
        try change("remove", path)
        try real.remove(path)
    }

    func makeReadOnly(_ path: String) throws(FileError) {
        try change("chmod", path)
        try real.makeReadOnly(path)
    }

    func synchronizeDirectory(_ path: String) throws(FileError) {
        try change("fsync", path)
        try real.synchronizeDirectory(path)
    }

    func list(_ directory: String) throws(FileError) -> [String] { try real.list(directory) }
    func status(_ path: String) throws(FileError) -> FileStatus? { try real.status(path) }
    func lock(_ path: String, text: String) throws(FileError) -> (any FileLock)? { try real.lock(path, text: text) }
    func isLocked(_ path: String) -> Bool { real.isLocked(path) }
    func map(_ path: String, byteCount: Int, writable: Bool) throws(FileError) -> (any SharedPage)? {
        try real.map(path, byteCount: byteCount, writable: writable)
    }
    func makeDirectory(_ path: String) throws(FileError) { try real.makeDirectory(path) }
}

private final class StoppingFile: LogFile {
    private let real: any LogFile
    private let path: String
    private let disk: StoppingFileSystem

    init(real: any LogFile, path: String, disk: StoppingFileSystem) {
        self.real = real
        self.path = path
        self.disk = disk
    }

    func byteCount() throws(FileError) -> Int { try real.byteCount() }
    func allocatedBytes() throws(FileError) -> Int { try real.allocatedBytes() }
    func read(into bytes: UnsafeMutableRawBufferPointer, at offset: Int) throws(FileError) -> Int {
        try real.read(into: bytes, at: offset)
    }
    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(FileError) {
        try disk.change("write", path) {
            try? real.write(UnsafeRawBufferPointer(rebasing: bytes[..<(bytes.count / 2)]), at: offset)
        }
        try real.write(bytes, at: offset)
    }
    func allocate(_ byteCount: Int) throws(FileError) {
        try disk.change("allocate", path)
        try real.allocate(byteCount)
    }
    func truncate(_ byteCount: Int) throws(FileError) {
        try disk.change("truncate", path)
        try real.truncate(byteCount)
    }
    func synchronize() throws(FileError) {
        try disk.change("fdatasync", path)
        try real.synchronize()
    }
}
