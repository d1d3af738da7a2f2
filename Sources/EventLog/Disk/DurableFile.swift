import CPlatform
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
    private let page: UnsafeMutableRawPointer
    let logID: LogID

    private init(page: UnsafeMutableRawPointer, logID: LogID) {
        self.page = page
        self.logID = logID
    }

    deinit { munmap(page, Self.byteCount) }

    private var cell: UnsafeMutablePointer<Atomic<UInt64>> {
        (page + 24).assumingMemoryBound(to: Atomic<UInt64>.self)
    }

    var count: UInt64 {
        get { UInt64(littleEndian: cell.pointee.load(ordering: .acquiring)) }
        set { cell.pointee.store(newValue.littleEndian, ordering: .releasing) }
    }

    /// For the writer: makes or takes over the file. A file of another log is replaced.
    static func create(_ path: String, logID: LogID) throws(FileError) -> (file: DurableFile, countBefore: UInt64?) {
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw FileError(operation: "open", path: path, code: errno) }
        defer { close(descriptor) }
        // Space is taken for good, so that a store through the mapping can never meet a full disk (SIGBUS).
        let code = posix_fallocate(descriptor, 0, off_t(byteCount))
        guard code == 0 else { throw FileError(operation: "fallocate", path: path, code: code) }
        let page = try map(descriptor, path, PROT_READ | PROT_WRITE)
        if identify(page) == logID {
            let file = DurableFile(page: page, logID: logID)
            return (file, file.count)
        }
        let bytes = UnsafeMutableRawBufferPointer(start: page, count: byteCount)
        bytes.store(little: UInt64(0), 24)
        bytes.storeBytes(of: logID.high.bigEndian, toByteOffset: 8, as: UInt64.self)
        bytes.storeBytes(of: logID.low.bigEndian, toByteOffset: 16, as: UInt64.self)
        bytes.store(little: magic, 0)
        return (DurableFile(page: page, logID: logID), nil)
    }

    /// For readers in other processes; nil when there is none, or not yet.
    static func openReadOnly(_ path: String) throws(FileError) -> DurableFile? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        if descriptor < 0 {
            if errno == ENOENT { return nil }
            throw FileError(operation: "open", path: path, code: errno)
        }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_size >= off_t(byteCount) else { return nil }
        let page = try map(descriptor, path, PROT_READ)
        guard let id = identify(page) else {
            munmap(page, byteCount)
            return nil
        }
        return DurableFile(page: page, logID: id)
    }

    private static func map(_ descriptor: Int32, _ path: String, _ access: Int32) throws(FileError)
        -> UnsafeMutableRawPointer
    {
        let page = mmap(nil, byteCount, access, MAP_SHARED, descriptor, 0)
        guard let page, page != MAP_FAILED else { throw FileError(operation: "mmap", path: path, code: errno) }
        return page
    }

    private static func identify(_ page: UnsafeMutableRawPointer) -> LogID? {
        let bytes = UnsafeRawBufferPointer(start: page, count: byteCount)
        guard bytes.little(0, as: UInt64.self) == magic else { return nil }
        return LogID(
            high: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)),
            low: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 16, as: UInt64.self)))
    }
}

/// The file `lock`: whoever holds the lock on it writes the log. It holds the writer's process id, for messages only.
final class LockFile: Sendable {
    private let descriptor: Int32

    private init(descriptor: Int32) { self.descriptor = descriptor }
    deinit {
        refold_unlock_file(descriptor)
        close(descriptor)
    }

    static func acquire(_ path: String) throws(LogError) -> LockFile {
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw LogError(.system, "cannot open \(path): \(errorText(errno))") }
        let code = refold_lock_file(descriptor)
        guard code == 0 else {
            let holder = readHolder(descriptor)
            close(descriptor)
            guard code == EAGAIN || code == EACCES else {
                throw LogError(.system, "cannot lock \(path): \(errorText(code))")
            }
            let who = holder.map { "the process \($0)" } ?? "another process"
            throw LogError(.locked, "\(who) has this log open for writing (\(path)): stop it first, "
                + "or use another --data")
        }
        // Overwritten, not cut first: a full disk can still take it.
        var text = String(getpid())
        text += String(repeating: " ", count: 15 - text.utf8.count) + "\n"
        _ = text.withUTF8 { pwrite(descriptor, $0.baseAddress, $0.count, 0) }
        return LockFile(descriptor: descriptor)
    }

    /// Whether a writer is up.
    static func isHeld(_ path: String) -> Bool {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        return refold_file_is_locked(descriptor) == 1
    }

    private static func readHolder(_ descriptor: Int32) -> String? {
        var bytes = [UInt8](repeating: 0, count: 16)
        let count = pread(descriptor, &bytes, bytes.count, 0)
        guard count > 0 else { return nil }
        let digits = bytes.prefix(count).prefix { $0 >= 0x30 && $0 <= 0x39 }
        return digits.isEmpty ? nil : String(decoding: digits, as: UTF8.self)
    }
}
