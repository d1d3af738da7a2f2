// The few operations that the log needs of a disk. Behind them: POSIX, and in tests a disk that fails.

/// Where segments live. Safe to use from any thread.
public protocol LogFileSystem: Sendable {
    /// Opens an existing file; `create` makes it (and cuts it to nothing when it exists).
    func open(_ path: String, create: Bool, writable: Bool) throws(FileError) -> any LogFile
    func rename(_ path: String, to newPath: String) throws(FileError)
    /// No error when there is no such file.
    func remove(_ path: String) throws(FileError)
    /// The names in a folder, unsorted.
    func list(_ directory: String) throws(FileError) -> [String]
    /// The size of a file that need not be open.
    func byteCount(_ path: String) throws(FileError) -> Int
    /// Makes the folder, and those above it, where they do not exist.
    func makeDirectory(_ path: String) throws(FileError)
    /// fsync of a folder: created and renamed names are durable after it.
    func synchronizeDirectory(_ path: String) throws(FileError)
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
    /// the kernel marks the pages clean all the same (PostgreSQL's "fsyncgate", 2018).
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

    public var description: String { "\(operation) \(path): \(errorText(code)) (errno \(code))" }
}
