import EventModel

/// Small files beside the segments: read whole, and replaced whole or added to, always durable.
struct KeptFile {
    let path: String
    let directory: String
    let fileSystem: any LogFileSystem
    static let byteCountMax = 64 << 20

    init(_ name: String, _ catalog: SegmentCatalog) {
        path = catalog.directory + "/" + name
        directory = catalog.directory
        fileSystem = catalog.fileSystem
    }

    /// Nil when there is no such file.
    func read() throws(FileError) -> [UInt8]? {
        let file: any LogFile
        do throws(FileError) {
            file = try fileSystem.open(path, create: false, writable: false)
        } catch {
            if error.isMissing { return nil }
            throw error
        }
        let room = GrowingBuffer()
        let count = try file.read(into: room.grow(by: min(try file.byteCount(), Self.byteCountMax)), at: 0)
        return Array(room.bytes.prefix(count))
    }

    /// Whole lines of it; one that was half written when the power failed does not count.
    func lines() throws(FileError) -> [ArraySlice<UInt8>] {
        guard let bytes = try read(), let end = bytes.lastIndex(of: UInt8(ascii: "\n")) else { return [] }
        return bytes[..<end].split(separator: UInt8(ascii: "\n"))
    }

    /// Adds lines, behind the last whole one.
    func append(_ lines: [[UInt8]]) throws(FileError) {
        let old = try read()
        let end = old?.lastIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? 0
        let file = try fileSystem.open(path, create: old == nil, writable: true)
        if let old, end < old.count { try file.truncate(end) }
        let bytes = GrowingBuffer()
        for line in lines { (line + [UInt8(ascii: "\n")]).withUnsafeBytes { bytes.append($0) } }
        try file.write(bytes.bytes, at: end)
        try file.synchronize()
        if old == nil { try fileSystem.synchronizeDirectory(directory) }
    }

    func replace(_ content: [UInt8]) throws(FileError) {
        let file = try fileSystem.open(path + ".tmp", create: true, writable: true)
        let bytes = GrowingBuffer()
        content.withUnsafeBytes { bytes.append($0) }
        try file.write(bytes.bytes, at: 0)
        try file.synchronize()
        try fileSystem.rename(path + ".tmp", to: path)
        try fileSystem.synchronizeDirectory(directory)
    }
}
