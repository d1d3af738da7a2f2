// The few operations that the log needs of a disk. Behind them: POSIX, and in the simulation a disk that fails. Nothing
// else in this module touches the operating system's files.

import Glibc

/// Where segments live. Safe to use from any thread.
public protocol LogFileSystem: Sendable {
    /// Opens an existing file; `create` makes it (and cuts it to nothing when it exists).
    func open(_ path: String, create: Bool, writable: Bool) throws(FileError) -> any LogFile
    func rename(_ path: String, to newPath: String) throws(FileError)
    /// No error when there is no such file.
    func remove(_ path: String) throws(FileError)
    /// The names in a folder, unsorted.
    func list(_ directory: String) throws(FileError) -> [String]
    /// What a folder says of a file that need not be open; nil when there is no such file.
    func status(_ path: String) throws(FileError) -> FileStatus?
    /// The path behind symbolic links, of a file that need not exist.
    func resolve(_ path: String) throws(FileError) -> String
    /// Owner, group and mode of a file; nil when there is no such file. Throws ENXIO for anything but a regular file.
    func permissions(_ path: String) throws(FileError) -> FilePermissions?
    /// A new file for writing. Throws EEXIST when the name is taken, also by a symbolic link, and EPERM when the owner
    /// or group cannot be set and the mode does not let others read: whoever reads the file now could not any more.
    func createNew(_ path: String, permissions: FilePermissions) throws(FileError) -> any LogFile
    /// Takes the permission to write from a file (mode 0400). Descriptors that are open keep theirs.
    func makeReadOnly(_ path: String) throws(FileError)
    /// Makes the folder, and those above it, where they do not exist.
    func makeDirectory(_ path: String) throws(FileError)
    /// fsync of a folder: created and renamed names are durable after it.
    func synchronizeDirectory(_ path: String) throws(FileError)
    /// Locks a file, made where there is none, and its folder, and leaves `text` in the file; nil when this process or
    /// another holds either. The lock ends when it is released, and with its process.
    func lock(_ path: String, text: String) throws(FileError) -> (any FileLock)?
    /// Whether somebody holds the lock on a file. Takes none.
    func isLocked(_ path: String) -> Bool
    /// Maps the beginning of a file that processes share. `writable` makes it where there is none, and takes its space
    /// for good, so that a store can never meet a full disk; otherwise nil when it is missing or shorter.
    func map(_ path: String, byteCount: Int, writable: Bool) throws(FileError) -> (any SharedPage)?
}

extension LogFileSystem {
    /// The size of a file that need not be open.
    func byteCount(_ path: String) throws(FileError) -> Int {
        if let status = try status(path) { return status.byteCount }
        throw FileError(operation: "stat", path: path, code: ENOENT)
    }
}

/// A file system without links and owners, as the simulated one.
extension LogFileSystem {
    public func resolve(_ path: String) throws(FileError) -> String { path }
    public func permissions(_ path: String) throws(FileError) -> FilePermissions? { nil }
    public func createNew(_ path: String, permissions: FilePermissions) throws(FileError) -> any LogFile {
        try open(path, create: true, writable: true)
    }
}

public struct FilePermissions: Equatable, Sendable {
    /// The owner and the group; nil: this process's.
    public var owner: (user: UInt32, group: UInt32)?
    /// The lowest nine bits of `st_mode`.
    public var mode: UInt32

    public init(owner: (user: UInt32, group: UInt32)? = nil, mode: UInt32) {
        self.owner = owner
        self.mode = mode
    }

    public static func == (a: Self, b: Self) -> Bool {
        a.mode == b.mode && a.owner?.user == b.owner?.user && a.owner?.group == b.owner?.group
    }
}

public struct FileStatus: Equatable, Sendable {
    public var byteCount: Int
    /// Nanoseconds since 1970; changes with every write, as far as the file system's clock can tell.
    public var modifiedNanos: Int64

    public init(byteCount: Int, modifiedNanos: Int64) {
        self.byteCount = byteCount
        self.modifiedNanos = modifiedNanos
    }
}

/// A lock that is held until this is released.
public protocol FileLock: AnyObject, Sendable {
    /// Throws ESTALE when the locked file, or the folder that holds it, was deleted or replaced: another process could
    /// then lock what is there now.
    func check() throws(FileError)
}

extension FileLock {
    public func check() throws(FileError) {}
}

/// Bytes of a file, seen by every process that maps it; valid until this is released. It survives the process, and may
/// fall behind when the machine stops: nobody syncs it.
public protocol SharedPage: AnyObject, Sendable {
    /// At least 8-byte aligned. Whoever shares it loads and stores atomically.
    var bytes: UnsafeMutableRawBufferPointer { get }
}

/// An open file; closed when released. Reading is safe from any thread; one thread writes.
public protocol LogFile: AnyObject, Sendable {
    func byteCount() throws(FileError) -> Int
    /// Bytes that the disk holds for the file (POSIX `st_blocks`).
    func allocatedBytes() throws(FileError) -> Int
    /// Fills `bytes` from `offset`; returns less than its size only at the end of the file.
    func read(into bytes: UnsafeMutableRawBufferPointer, at offset: Int) throws(FileError) -> Int
    /// Writes all of `bytes`. After an error any part of them may have been written.
    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(FileError)
    /// Takes disk space for the file up to `byteCount`, which becomes its size; new bytes read as zero.
    func allocate(_ byteCount: Int) throws(FileError)
    func truncate(_ byteCount: Int) throws(FileError)
    /// fdatasync: everything written is durable, and the size, when it returns. Never to be repeated after an error:
    /// the kernel marks the pages clean all the same (PostgreSQL's "fsyncgate", 2018). Throws ESTALE when the file was
    /// deleted: nothing will find what was written.
    func synchronize() throws(FileError)
}

/// The operating system refused a file operation.
public struct FileError: Error, Sendable, CustomStringConvertible {
    public let operation: String
    public let path: String
    /// POSIX errno.
    public let code: Int32

    public init(operation: String, path: String, code: Int32) {
        self.operation = operation
        self.path = path
        self.code = code
    }

    public var description: String { "\(operation) \(path): \(reason) (errno \(code))" }

    /// What failed, without the file's name.
    public var reason: String {
        switch (operation, code) {
        case ("open", ENXIO): "it is no regular file; remove it"
        case (_, ESTALE): "it was deleted or replaced while in use"
        default: errorText(code)
        }
    }
}
