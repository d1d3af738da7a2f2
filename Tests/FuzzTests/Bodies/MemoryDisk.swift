import EventLog
import Glibc

/// Files in memory, without faults: what a fuzzer has written is what the log finds. One thread only.
/// `@unchecked Sendable`: a fuzzer runs one input at a time, on one thread.
final class MemoryDisk: LogFileSystem, @unchecked Sendable {
    final class File: LogFile, FileLock, SharedPage, @unchecked Sendable {
        var content: [UInt8] = []
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 4096)

        init() { bytes.initializeMemory(as: UInt8.self, repeating: 0) }
        deinit { bytes.deallocate() }

        func byteCount() -> Int { content.count }
        func allocatedBytes() -> Int { content.count }

        func read(into bytes: UnsafeMutableRawBufferPointer, at offset: Int) -> Int {
            let count = max(0, min(bytes.count, content.count - offset))
            guard count > 0 else { return 0 }
            content.withUnsafeBytes { content in
                bytes.copyMemory(from: UnsafeRawBufferPointer(rebasing: content[offset..<offset + count]))
            }
            return count
        }

        func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
            allocate(offset + bytes.count)
            content.withUnsafeMutableBytes { $0[offset..<offset + bytes.count].copyBytes(from: bytes) }
        }

        func allocate(_ byteCount: Int) {
            if byteCount > content.count { content += [UInt8](repeating: 0, count: byteCount - content.count) }
        }

        func truncate(_ byteCount: Int) {
            allocate(byteCount)
            content.removeLast(content.count - byteCount)
        }

        func synchronize() {}
    }

    var files: [String: File] = [:]

    func open(_ path: String, create: Bool, writable: Bool) throws(FileError) -> any LogFile {
        if create { files[path] = File() }
        guard let file = files[path] else { throw FileError(operation: "open", path: path, code: ENOENT) }
        return file
    }

    func rename(_ path: String, to newPath: String) throws(FileError) {
        guard let file = files.removeValue(forKey: path) else {
            throw FileError(operation: "rename", path: path, code: ENOENT)
        }
        files[newPath] = file
    }

    func remove(_ path: String) { files[path] = nil }

    func list(_ directory: String) -> [String] {
        files.keys.filter { $0.hasPrefix(directory + "/") }.map { String($0.dropFirst(directory.count + 1)) }
    }

    func status(_ path: String) -> FileStatus? {
        // The folder itself is there, too.
        if !files.keys.contains(path), files.keys.contains(where: { $0.hasPrefix(path + "/") }) {
            return FileStatus(byteCount: 0, modifiedNanos: 0)
        }
        return files[path].map { FileStatus(byteCount: $0.content.count, modifiedNanos: 0) }
    }

    func makeReadOnly(_ path: String) {}
    func makeDirectory(_ path: String) {}
    func synchronizeDirectory(_ path: String) {}
    func lock(_ path: String, text: String) -> (any FileLock)? { File() }
    func isLocked(_ path: String) -> Bool { false }

    func map(_ path: String, byteCount: Int, writable: Bool) -> (any SharedPage)? {
        if let file = files[path] { return file }
        guard writable else { return nil }
        let file = File()
        files[path] = file
        return file
    }
}
