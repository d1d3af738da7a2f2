import EventModel
import Glibc
import Synchronization

/// The file `durable`: one mapped page that tells other processes how far they may read. Only the writer changes it,
/// and only after the fdatasync, so that a value in it is proof that so many events were durable. It is never synced
/// itself: after a power failure it may be behind, never ahead.
/// `@unchecked Sendable`: the count is read and written atomically, everything else is fixed once mapped.
final class DurableFile: @unchecked Sendable {
    static let byteCount = 32
    private static let magic: UInt64 = 0x3152_5544_4C4F_4652  // "RFOLDUR1"
    private let page: any SharedPage
    let logID: LogID

    private init(page: any SharedPage, logID: LogID) {
        self.page = page
        self.logID = logID
    }

    private var cell: UnsafeMutablePointer<Atomic<UInt64>> {
        (page.bytes.baseAddress! + 24).assumingMemoryBound(to: Atomic<UInt64>.self)
    }

    var count: UInt64 {
        get { UInt64(littleEndian: cell.pointee.load(ordering: .acquiring)) }
        set { cell.pointee.store(newValue.littleEndian, ordering: .releasing) }
    }

    /// For the writer: makes or takes over the file. A file of another log is replaced.
    static func create(
        _ path: String, logID: LogID, fileSystem: any LogFileSystem
    ) throws(FileError) -> (file: DurableFile, countBefore: UInt64?) {
        guard let page = try fileSystem.map(path, byteCount: byteCount, writable: true) else {
            throw FileError(operation: "mmap", path: path, code: ENOENT)
        }
        let bytes = page.bytes
        let file = DurableFile(page: page, logID: logID)
        if identify(bytes) == logID { return (file, file.count) }
        bytes.store(little: UInt64(0), 24)
        bytes.storeBytes(of: logID.high.bigEndian, toByteOffset: 8, as: UInt64.self)
        bytes.storeBytes(of: logID.low.bigEndian, toByteOffset: 16, as: UInt64.self)
        bytes.store(little: magic, 0)
        return (file, nil)
    }

    /// For readers in other processes; nil when there is none, or not yet.
    static func openReadOnly(_ path: String, fileSystem: any LogFileSystem) throws(FileError) -> DurableFile? {
        guard let page = try fileSystem.map(path, byteCount: byteCount, writable: false),
            let id = identify(page.bytes)
        else { return nil }
        return DurableFile(page: page, logID: id)
    }

    private static func identify(_ page: UnsafeMutableRawBufferPointer) -> LogID? {
        let bytes = UnsafeRawBufferPointer(page)
        guard bytes.little(0, as: UInt64.self) == magic else { return nil }
        return LogID(
            high: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)),
            low: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 16, as: UInt64.self)))
    }
}

/// The file `lock`: whoever holds the lock on it writes the log. It holds the writer's process id, for messages only.
final class LockFile: Sendable {
    private let held: any FileLock

    private init(_ held: any FileLock) { self.held = held }

    static func acquire(_ path: String, fileSystem: any LogFileSystem) throws(LogError) -> LockFile {
        var text = String(getpid())
        text += String(repeating: " ", count: 15 - text.utf8.count) + "\n"
        let held: (any FileLock)?
        do {
            held = try fileSystem.lock(path, text: text)
        } catch {
            throw LogError(.system, "cannot lock \(path): \(error.reason)")
        }
        guard let held else {
            let holder = readHolder(path, fileSystem), program = holder.flatMap(programName)
            let who = (holder.map { "the process \($0)" } ?? "another process") + (program.map { " (\($0))" } ?? "")
            throw LogError(
                .locked,
                "\(who) has this log open for writing (\(path)): wait for its end or stop it, "
                    + "or use another --data")
        }
        return LockFile(held)
    }

    /// The first words of a process's command line, e.g. `refold snapshot create` (proc(5)); nil when it is hidden.
    private static func programName(_ process: String) -> String? {
        guard let file = fopen("/proc/\(process)/cmdline", "re") else { return nil }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 256)
        let count = fread(&bytes, 1, bytes.count, file)
        // A flag's value may be a secret: the words before the first flag only.
        let words = bytes.prefix(count).split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
        guard let first = words.first else { return nil }
        let program = first.split(separator: "/").last.map(String.init) ?? first
        return ([program] + words.dropFirst().prefix { !$0.hasPrefix("-") }.prefix(2)).joined(separator: " ")
    }

    /// Throws when the lock file or the log's folder was deleted or replaced, so that a second writer could begin.
    func check() throws(FileError) { try held.check() }

    private static func readHolder(_ path: String, _ fileSystem: any LogFileSystem) -> String? {
        guard let file = try? fileSystem.open(path, create: false, writable: false) else { return nil }
        return withUnsafeTemporaryAllocation(byteCount: 16, alignment: 8) { bytes in
            guard let count = try? file.read(into: bytes, at: 0) else { return nil }
            let digits = bytes.prefix(count).prefix { $0 >= 0x30 && $0 <= 0x39 }
            return digits.isEmpty ? nil : String(decoding: digits, as: UTF8.self)
        }
    }
}
