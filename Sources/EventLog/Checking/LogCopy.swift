import EventModel
import Evidence
import Primitives

/// A file that was copied.
public struct CopiedFile: Codable, Sendable, Equatable {
    /// Relative to the folder that was copied to.
    public var name: String
    public var bytes: Int
    /// Of the copy's bytes, in hex.
    public var sha256: String

    public init(name: String, bytes: Int, sha256: String) {
        self.name = name
        self.bytes = bytes
        self.sha256 = sha256
    }
}

/// Copies files whole and durably, and hashes them on the way.
public struct FileCopier: Sendable {
    private let fileSystem: any LogFileSystem

    public init(fileSystem: any LogFileSystem = PosixFileSystem()) { self.fileSystem = fileSystem }

    /// Nil when there is no file at `path`.
    public func copy(_ path: String, to target: String, name: String) throws(FileError) -> CopiedFile? {
        let file: any LogFile
        do throws(FileError) {
            file = try fileSystem.open(path, create: false, writable: false)
        } catch {
            if error.isMissing { return nil }
            throw error
        }
        return try copy(file, byteCount: try file.byteCount(), to: target, name: name)
    }

    func copy(_ file: any LogFile, byteCount: Int, to target: String, name: String) throws(FileError) -> CopiedFile {
        let copy = try fileSystem.open(target, create: true, writable: true)
        let room = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
        defer { room.deallocate() }
        var hash = SHA256.Stream(), offset = 0
        while offset < byteCount {
            let piece = UnsafeMutableRawBufferPointer(rebasing: room[..<min(room.count, byteCount - offset)])
            let count = try file.read(into: piece, at: offset)
            guard count > 0 else { break }
            let bytes = UnsafeRawBufferPointer(rebasing: piece[..<count])
            hash.update(bytes)
            try copy.write(bytes, at: offset)
            offset += count
        }
        try copy.synchronize()
        return CopiedFile(name: name, bytes: offset, sha256: hash.finish().description)
    }
}

/// What a copy of a log folder may hold. Names in a copy's list are from outside.
public enum LogCopyFiles {
    /// A segment by the name that the log gives it, or one of the small files beside the segments.
    public static func isKnown(_ name: String) -> Bool {
        LogFormat.segmentBase(name: name) != nil
            || [
                CheckpointFile.name, CheckpointFile.frontierName, RemovedSegments.fileName, Archiver.fileName,
                AcceptedLosses.fileName,
            ].contains(name)
    }
}

extension ReadOnlyLog {
    /// Copies the log into a folder that has no segments yet: every event that is durable when it is called, and the
    /// signed checkpoint of before, while a writer may go on appending, packing and removing. What is behind the end is
    /// left out, but for the rest of a segment that is sealed meanwhile; files that a writer makes anew are, too.
    /// - Parameter progress: is given the position up to which was copied.
    /// - Throws: `LogError`, `FileError`.
    public func copy(
        to target: String, progress: (Position) -> Void = { _ in }
    ) throws -> (files: [CopiedFile], first: Position, end: Position) {
        let fileSystem = catalog.fileSystem, copier = FileCopier(fileSystem: fileSystem)
        try fileSystem.makeDirectory(target)
        var files: [CopiedFile] = []
        func keep(_ name: String) throws {
            let copied = try copier.copy("\(directory)/\(name)", to: "\(target)/\(name)", name: name)
            if let copied { files.append(copied) }
        }
        // First: what it signs for is then in what is copied behind it.
        try keep(CheckpointFile.name)
        try keep(CheckpointFile.frontierName)
        let end = Position(durableCount)
        try catalog.refresh()
        let first = firstPosition
        var position = first, reached = first
        repeat {
            try catalog.refresh()
            guard let segment = try catalog.segment(holding: position) else { break }
            let copied = try copy(segment, until: end, to: target, copier)
            files.removeAll { $0.name == segment.name }
            files.append(copied.file)
            reached = max(reached, copied.end)
            // Behind damage: what is left of the file was copied whole.
            let next = catalog.bases(around: segment.base).next ?? end
            position = copied.end > position ? copied.end : next
            progress(min(position, end))
        } while position < end
        // Last: whatever was removed meanwhile stands in it.
        for name in [RemovedSegments.fileName, Archiver.fileName, AcceptedLosses.fileName] { try keep(name) }
        try fileSystem.synchronizeDirectory(target)
        // A segment that was sealed meanwhile is copied whole, and may end later.
        return (files, first, max(end, reached))
    }

    private func copy(
        _ segment: Segment, until end: Position, to target: String, _ copier: FileCopier
    ) throws -> (file: CopiedFile, end: Position) {
        let path = "\(target)/\(segment.name)"
        if let trailer = segment.trailer {
            let file = try copier.copy(segment.file, byteCount: trailer.fileBytes, to: path, name: segment.name)
            try catalog.fileSystem.makeReadOnly(path)
            return (file, trailer.end)
        }
        let limit = min(catalog.bases(around: segment.base).next ?? end, end)
        let outline = try segment.outline(until: limit)
        let byteCount = outline.end >= limit ? outline.offset : try segment.usedBytes()
        return (try copier.copy(segment.file, byteCount: byteCount, to: path, name: segment.name), outline.end)
    }
}
