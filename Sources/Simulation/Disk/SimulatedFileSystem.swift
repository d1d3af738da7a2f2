import EventLog
import Glibc

/// One process's view of a `SimulatedDisk`.
/// `@unchecked Sendable`: `dying` is touched under the disk's lock.
public final class SimulatedFileSystem: LogFileSystem, @unchecked Sendable {
    public let disk: SimulatedDisk
    let process: Int
    let isExposed: Bool
    /// Dies when the operation that runs ends.
    var dying: SimulatedDisk.Death?

    init(disk: SimulatedDisk, process: Int, isExposed: Bool) {
        self.disk = disk
        self.process = process
        self.isExposed = isExposed
    }

    /// Runs one operation under the disk's lock, with its faults.
    func run<R>(_ operation: SimulatedDisk.Operation, _ path: String, _ body: () throws(FileError) -> R)
        throws(FileError) -> R
    {
        try disk.locked { () throws(FileError) in
            if case .fail(let code, _) = try disk.begin(operation, self, path) {
                throw FileError(operation: operation.name, path: path, code: code)
            }
            let result = try body()
            try disk.end(operation, self, path)
            return result
        }
    }

    func fail<R>(_ operation: SimulatedDisk.Operation, _ path: String, _ code: Int32) throws(FileError) -> R {
        throw FileError(operation: operation.name, path: path, code: code)
    }

    // MARK: Names

    public func open(_ path: String, create: Bool, writable: Bool) throws(FileError) -> any LogFile {
        try run(.open, path) { () throws(FileError) in
            let node = try find(path, .open, create: create)
            guard !node.isDirectory else { return try fail(.open, path, EISDIR) }
            guard !node.isReadOnly || !writable else { return try fail(.open, path, EACCES) }
            if create { try disk.resize(node, to: 0, .open, path) }
            return SimulatedFile(node: node, path: path, view: self)
        }
    }

    public func rename(_ path: String, to newPath: String) throws(FileError) {
        try run(.rename, path) { () throws(FileError) in
            let (folder, name) = try parent(of: path, .rename)
            let (newFolder, newName) = try parent(of: newPath, .rename)
            precondition(folder === newFolder, "the log renames within a folder")
            guard let node = folder.entries.removeValue(forKey: name) else {
                throw FileError(operation: "rename", path: path, code: ENOENT)
            }
            if let replaced = folder.entries[newName], replaced !== node { unlink(replaced) }
            folder.entries[newName] = node
            folder.changes.append(.rename(name, to: newName, node))
        }
    }

    public func remove(_ path: String) throws(FileError) {
        try run(.remove, path) { () throws(FileError) in
            let (folder, name) = try parent(of: path, .remove)
            guard let node = folder.entries.removeValue(forKey: name) else { return }
            folder.changes.append(.remove(name))
            unlink(node)
        }
    }

    public func list(_ directory: String) throws(FileError) -> [String] {
        try run(.list, directory) { () throws(FileError) in
            try find(directory, .list).entries.keys.sorted()
        }
    }

    public func status(_ path: String) throws(FileError) -> FileStatus? {
        try run(.status, path) { () throws(FileError) in
            guard let node = lookUp(path) else { return nil }
            return FileStatus(byteCount: node.bytes.count, modifiedNanos: node.modified)
        }
    }

    public func makeReadOnly(_ path: String) throws(FileError) {
        try run(.makeReadOnly, path) { () throws(FileError) in try find(path, .makeReadOnly).isReadOnly = true }
    }

    public func makeDirectory(_ path: String) throws(FileError) {
        try run(.makeDirectory, path) { () throws(FileError) in
            var folder = disk.root
            for name in Self.parts(path) {
                if let next = folder.entries[name] {
                    guard next.isDirectory else {
                        throw FileError(operation: "mkdir", path: path, code: ENOTDIR)
                    }
                    folder = next
                } else {
                    let next = DiskNode(isDirectory: true)
                    folder.entries[name] = next
                    folder.changes.append(.set(name, next))
                    folder = next
                }
            }
        }
    }

    public func synchronizeDirectory(_ path: String) throws(FileError) {
        try run(.synchronizeDirectory, path) { () throws(FileError) in
            let folder = try find(path, .synchronizeDirectory)
            for change in folder.changes { folder.apply(change) }
            folder.changes = []
        }
    }

    // MARK: What processes share

    public func lock(_ path: String, text: String) throws(FileError) -> (any FileLock)? {
        try run(.lock, path) { () throws(FileError) in
            let node: DiskNode
            if let known = lookUp(path) { node = known } else { node = try find(path, .lock, create: true) }
            guard node.lockOwner == nil else { return nil }
            disk.lockCount += 1
            node.isLockFile = true
            node.lockOwner = (process, disk.lockCount)
            var text = text
            let count = text.utf8.count
            try disk.resize(node, to: max(node.bytes.count, count), .lock, path)
            text.withUTF8 { node.write(UnsafeRawBufferPointer($0), at: 0, random: &disk.random) }
            return SimulatedLock(node: node, token: disk.lockCount, disk: disk)
        }
    }

    public func isLocked(_ path: String) -> Bool {
        (try? run(.status, path) { () throws(FileError) in lookUp(path)?.lockOwner != nil }) ?? false
    }

    public func map(_ path: String, byteCount: Int, writable: Bool) throws(FileError) -> (any SharedPage)? {
        try run(.map, path) { () throws(FileError) in
            let known = lookUp(path)
            let made = writable && known == nil ? try find(path, .map, create: true) : known
            guard let node = made else { return nil }
            if node.bytes.count < byteCount {
                guard writable else { return nil }
                try disk.resize(node, to: byteCount, .map, path)
            }
            let page = node.page ?? DiskPage(node.bytes[..<byteCount])
            if node.page == nil { disk.pages.append(page) }
            node.page = page
            if writable { page.writer = process }
            return page
        }
    }

    // MARK: Paths

    static func parts(_ path: String) -> [String] { path.split(separator: "/").map(String.init) }

    func lookUp(_ path: String) -> DiskNode? {
        var node: DiskNode? = disk.root
        for name in Self.parts(path) { node = node?.entries[name] }
        return node
    }

    private func parent(of path: String, _ operation: SimulatedDisk.Operation) throws(FileError)
        -> (folder: DiskNode, name: String)
    {
        let parts = Self.parts(path)
        guard let name = parts.last, let folder = lookUp(parts.dropLast().joined(separator: "/")), folder.isDirectory
        else { return try fail(operation, path, ENOENT) }
        return (folder, name)
    }

    private func find(_ path: String, _ operation: SimulatedDisk.Operation, create: Bool = false) throws(FileError)
        -> DiskNode
    {
        if let node = lookUp(path) { return node }
        guard create else { return try fail(operation, path, ENOENT) }
        let (folder, name) = try parent(of: path, operation)
        let node = DiskNode(isDirectory: false)
        node.links = 1
        folder.entries[name] = node
        folder.changes.append(.set(name, node))
        return node
    }

    private func unlink(_ node: DiskNode) {
        node.links -= 1
        disk.release(node)
    }
}

/// An open file. After its process died it does nothing.
/// `@unchecked Sendable`: everything is touched under the disk's lock.
private final class SimulatedFile: LogFile, @unchecked Sendable {
    private let node: DiskNode
    private let path: String
    private let view: SimulatedFileSystem

    init(node: DiskNode, path: String, view: SimulatedFileSystem) {
        self.node = node
        self.path = path
        self.view = view
        node.handles += 1
    }

    deinit {
        view.disk.locked {
            // A power cut has closed everything already.
            guard node.handles > 0 else { return }
            node.handles -= 1
            view.disk.release(node)
        }
    }

    func byteCount() throws(FileError) -> Int {
        try view.run(.status, path) { () throws(FileError) in node.bytes.count }
    }

    func allocatedBytes() throws(FileError) -> Int {
        try view.run(.status, path) { () throws(FileError) in DiskNode.allocated(node.bytes.count) }
    }

    func read(into bytes: UnsafeMutableRawBufferPointer, at offset: Int) throws(FileError) -> Int {
        try view.run(.read, path) { () throws(FileError) in
            if let page = node.page { node.bytes.replaceSubrange(..<page.bytes.count, with: page.bytes) }
            let count = max(0, min(bytes.count, node.bytes.count - offset))
            guard count > 0 else { return 0 }
            node.bytes.withUnsafeBytes {
                bytes.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[offset..<(offset + count)]))
            }
            return count
        }
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(FileError) {
        let disk = view.disk
        try disk.locked { () throws(FileError) in
            disk.trace.mix(offset)
            disk.trace.mix(bytes)
            var count = bytes.count, code: Int32?
            if case .fail(let why, let partial) = try disk.begin(.write, view, path, bytes: bytes.count) {
                (count, code) = (min(partial, count), why)
            }
            // A disk that fills up takes what fits.
            let room = DiskNode.allocated(node.bytes.count) + max(0, min(disk.capacity, 1 << 48) - disk.used)
            if offset + count > max(room, node.bytes.count) {
                count = max(0, room - offset)
                code = code ?? ENOSPC
            }
            if count > 0 {
                if offset + count > node.bytes.count { try disk.resize(node, to: offset + count, .write, path) }
                node.write(UnsafeRawBufferPointer(rebasing: bytes[..<count]), at: offset, random: &disk.random)
                node.modified = disk.clock
            }
            try disk.end(.write, view, path)
            if let code { throw FileError(operation: "pwrite", path: path, code: code) }
        }
    }

    func allocate(_ byteCount: Int) throws(FileError) {
        try view.run(.allocate, path) { () throws(FileError) in
            if byteCount > node.bytes.count { try view.disk.resize(node, to: byteCount, .allocate, path) }
        }
    }

    func truncate(_ byteCount: Int) throws(FileError) {
        try view.run(.truncate, path) { () throws(FileError) in
            try view.disk.resize(node, to: byteCount, .truncate, path)
            node.modified = view.disk.clock
        }
    }

    func synchronize() throws(FileError) {
        let disk = view.disk
        try disk.locked { () throws(FileError) in
            if case .fail(let code, _) = try disk.begin(.synchronize, view, path) {
                node.failToSynchronize(&disk.random)
                throw FileError(operation: "fdatasync", path: path, code: code)
            }
            node.synchronize()
            try disk.end(.synchronize, view, path)
            if node.links == 0 { throw FileError(operation: "fdatasync", path: path, code: ESTALE) }
        }
    }
}

private final class SimulatedLock: FileLock, @unchecked Sendable {
    private let node: DiskNode
    private let token: Int
    private let disk: SimulatedDisk

    init(node: DiskNode, token: Int, disk: SimulatedDisk) {
        self.node = node
        self.token = token
        self.disk = disk
    }

    deinit {
        disk.locked { if node.lockOwner?.token == token { node.lockOwner = nil } }
    }
}

extension SimulatedDisk.Operation {
    /// As the system call is called in messages, and in the log's own judgement of errors.
    var name: String {
        switch self {
        case .synchronize: "fdatasync"
        case .synchronizeDirectory: "fsync"
        case .write: "pwrite"
        case .read: "pread"
        case .remove: "unlink"
        default: rawValue
        }
    }
}
