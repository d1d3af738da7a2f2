import CChecksum
import EventModel
import Glibc
import Primitives

/// The file `clock`: how far the log's time is ahead of the machine's steady clock, so that a daemon that starts again
/// while the wall clock is wrong goes on with the time that it had. It counts until the machine's next boot, and is not
/// synced: it outlives the process, and need not outlive the machine.
///
/// `BOOT-ID OFFSET crc32c:HHHHHHHH`, the CRC-32C of what stands before it, padded with spaces. Older versions wrote no
/// CRC: a flipped bit made a digit of a space, and the offset ten times what it was.
struct ClockFile {
    static let name = "clock"
    private static let byteCount = 80

    private let path: String
    private let bootID: String
    private let fileSystem: any LogFileSystem

    /// Nil when the clock does not tell one boot from another.
    init?(directory: String, fileSystem: any LogFileSystem, clock: any LogClock) {
        guard let bootID = clock.bootID, bootID.utf8.count <= 40 else { return nil }
        path = directory + "/" + Self.name
        self.bootID = bootID
        self.fileSystem = fileSystem
    }

    /// Microseconds; nil when there is none of this boot.
    func offset() -> Int64? {
        guard let file = try? fileSystem.open(path, create: false, writable: false) else { return nil }
        return withUnsafeTemporaryAllocation(byteCount: Self.byteCount, alignment: 8) { buffer in
            guard let count = try? file.read(into: buffer, at: 0), count == Self.byteCount else { return nil }
            let fields = String(decoding: buffer, as: UTF8.self).split { $0 == " " || $0 == "\n" }
            guard fields.count == 2 || fields.count == 3, fields[0] == bootID else { return nil }
            if fields.count == 3, fields[2] != Self.checksum("\(fields[0]) \(fields[1])") { return nil }
            // What lies beyond the bounds of stored times was written by no clock.
            guard let offset = Int64(fields[1]), offset == Int64(storedMicroseconds: offset) else { return nil }
            return offset
        }
    }

    private static func checksum(_ text: String) -> String {
        let crc = Array(text.utf8).withUnsafeBytes { refold_crc32c(0, $0.baseAddress, $0.count) }
        return "crc32c:" + Hex.encode(crc)
    }

    /// A failure costs only what this is for.
    func write(_ offset: Int64) {
        let fields = "\(bootID) \(offset)", text = fields + " " + Self.checksum(fields)
        let padded =
            Array(text.utf8) + Array(repeating: UInt8(ascii: " "), count: Self.byteCount - 1 - text.utf8.count)
            + [UInt8(ascii: "\n")]
        guard let file = try? fileSystem.open(path, create: true, writable: true) else { return }
        padded.withUnsafeBytes { bytes in try? file.write(bytes, at: 0) }
    }
}

extension SystemClock {
    /// proc(5): random/boot_id.
    public var bootID: String? {
        let file = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return nil }
        defer { close(file) }
        return withUnsafeTemporaryAllocation(byteCount: 64, alignment: 1) { buffer in
            let count = read(file, buffer.baseAddress, buffer.count)
            guard count >= 36 else { return nil }
            return String(decoding: UnsafeRawBufferPointer(rebasing: buffer[..<36]), as: UTF8.self)
        }
    }
}
