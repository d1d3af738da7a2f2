import Foundation
@testable import EventLog

/// The real disk, with faults on demand.
final class FaultyFileSystem: LogFileSystem, @unchecked Sendable {
    enum Operation: String, Sendable, CaseIterable { case open, write, allocate, fdatasync, rename, fsync }

    struct Fault {
        var operation: Operation
        var code: Int32
        /// How many calls of the operation succeed before.
        var after = 0
        /// How many then fail.
        var times = Int.max
        /// Bytes that a failing write leaves behind all the same.
        var partialBytes = 0
    }

    private let real = PosixFileSystem()
    private let lock = NSLock()
    private var fault: Fault?
    private var counts: [Operation: Int] = [:]
    private var onSync: (@Sendable () -> Void)?

    /// Called before every fdatasync, while nothing of it is durable yet.
    func beforeSync(_ body: (@Sendable () -> Void)?) { lock.withLock { onSync = body } }

    func set(_ newFault: Fault?) {
        lock.withLock {
            fault = newFault
            counts = [:]
        }
    }

    func count(of operation: Operation) -> Int { lock.withLock { counts[operation] ?? 0 } }

    /// The bytes to leave behind, when this call is to fail.
    fileprivate func check(_ operation: Operation, _ path: String, partial: (Int) -> Void = { _ in })
        throws(FileError)
    {
        if operation == .fdatasync { lock.withLock { onSync }?() }
        let failing: Fault? = lock.withLock {
            counts[operation, default: 0] += 1
            guard let fault, fault.operation == operation else { return nil }
            let number = counts[operation, default: 0] - 1 - fault.after
            return number >= 0 && number < fault.times ? fault : nil
        }
        guard let failing else { return }
        partial(failing.partialBytes)
        throw FileError(operation: operation.rawValue, path: path, code: failing.code)
    }

    func open(_ path: String, create: Bool, writable: Bool) throws(FileError) -> any LogFile {
        try check(.open, path)
        return FaultyFile(real: try real.open(path, create: create, writable: writable), path: path, disk: self)
    }

    func rename(_ path: String, to newPath: String) throws(FileError) {
        try check(.rename, path)
        try real.rename(path, to: newPath)
    }

    func remove(_ path: String) throws(FileError) { try real.remove(path) }
    func list(_ directory: String) throws(FileError) -> [String] { try real.list(directory) }
    func status(_ path: String) throws(FileError) -> FileStatus? { try real.status(path) }
    func makeReadOnly(_ path: String) throws(FileError) { try real.makeReadOnly(path) }
    func lock(_ path: String, text: String) throws(FileError) -> (any FileLock)? { try real.lock(path, text: text) }
    func isLocked(_ path: String) -> Bool { real.isLocked(path) }
    func map(_ path: String, byteCount: Int, writable: Bool) throws(FileError) -> (any SharedPage)? {
        try real.map(path, byteCount: byteCount, writable: writable)
    }
    func makeDirectory(_ path: String) throws(FileError) { try real.makeDirectory(path) }

    func synchronizeDirectory(_ path: String) throws(FileError) {
        try check(.fsync, path)
        try real.synchronizeDirectory(path)
    }
}

private final class FaultyFile: LogFile {
    private let real: any LogFile
    private let path: String
    private let disk: FaultyFileSystem

    init(real: any LogFile, path: String, disk: FaultyFileSystem) {
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
        try disk.check(.write, path) { partial in
            try? real.write(UnsafeRawBufferPointer(rebasing: bytes[..<min(partial, bytes.count)]), at: offset)
        }
        try real.write(bytes, at: offset)
    }
    func allocate(_ byteCount: Int) throws(FileError) {
        try disk.check(.allocate, path)
        try real.allocate(byteCount)
    }
    func truncate(_ byteCount: Int) throws(FileError) { try real.truncate(byteCount) }
    func synchronize() throws(FileError) {
        try disk.check(.fdatasync, path)
        try real.synchronize()
    }
}
