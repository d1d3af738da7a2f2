import CZlib
import Glibc

/// A file that is there whole or not at all: it is written beside its place, and put there when it is finished and on
/// disk. Compressed (gzip, RFC 1952) when its name ends with `.gz`. Without a path: standard output, as it comes.
final class OutputFile {
    private let path: String?
    private var descriptor: Int32
    private var deflate: UnsafeMutablePointer<z_stream>?
    private var buffer: [UInt8] = []
    private var room = [UInt8](repeating: 0, count: 64 << 10)
    private(set) var bytesWritten: UInt64 = 0
    private static let bufferBytes = 64 << 10

    init(_ path: String?) throws {
        self.path = path
        guard let path else {
            descriptor = 1
            return
        }
        // It holds what devices sent: its owner says who else may read it.
        descriptor = open(path + ".part", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw PublicationError(.usage, "cannot write \(path): \(String(cString: strerror(errno)))")
        }
        guard path.hasSuffix(".gz") else { return }
        let stream = UnsafeMutablePointer<z_stream>.allocate(capacity: 1)
        stream.initialize(to: z_stream())
        // 16 more than the window's bits: a gzip header and trailer, which has no time of its own.
        guard
            deflateInit2_(
                stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION,
                Int32(MemoryLayout<z_stream>.size)) == Z_OK
        else { preconditionFailure("zlib does not start") }
        deflate = stream
    }

    deinit {
        if let deflate {
            deflateEnd(deflate)
            deflate.deallocate()
        }
        // Not finished: as if it had never been begun.
        if let path, descriptor >= 0 {
            close(descriptor)
            unlink(path + ".part")
        }
    }

    /// Adds what `body` appends.
    func append(_ body: (inout [UInt8]) -> Void) throws {
        body(&buffer)
        if buffer.count >= Self.bufferBytes { try flush() }
    }

    func finish() throws {
        try flush(isLast: true)
        guard let path else { return }
        let isDone = fsync(descriptor) == 0
        let isClosed = close(descriptor) == 0
        descriptor = -1
        guard isDone, isClosed, rename(path + ".part", path) == 0 else {
            let why = String(cString: strerror(errno))
            unlink(path + ".part")
            throw PublicationError(.usage, "cannot write \(path): \(why)")
        }
    }

    private func flush(isLast: Bool = false) throws {
        defer { buffer.removeAll(keepingCapacity: true) }
        guard let deflate else { return try buffer.withUnsafeBytes { try write($0) } }
        deflate.pointee.avail_in = UInt32(buffer.count)
        try buffer.withUnsafeMutableBufferPointer { input in
            deflate.pointee.next_in = input.baseAddress
            var isMore = true
            while isMore {
                let count = room.withUnsafeMutableBufferPointer { room in
                    deflate.pointee.next_out = room.baseAddress
                    deflate.pointee.avail_out = UInt32(room.count)
                    let status = CZlib.deflate(deflate, isLast ? Z_FINISH : Z_NO_FLUSH)
                    isMore = isLast ? status != Z_STREAM_END : deflate.pointee.avail_out == 0
                    return room.count - Int(deflate.pointee.avail_out)
                }
                try room.withUnsafeBytes { bytes in
                    try write(UnsafeRawBufferPointer(rebasing: bytes[..<count]))
                }
            }
        }
    }

    private func write(_ bytes: UnsafeRawBufferPointer) throws {
        var rest = bytes
        while !rest.isEmpty {
            let count = Glibc.write(descriptor, rest.baseAddress, rest.count)
            if count < 0, errno == EINTR { continue }
            // Repeated, a write that takes nothing has no end.
            guard count > 0 else {
                throw PublicationError(
                    .usage,
                    "cannot write \(path ?? "to standard output"): "
                        + String(cString: strerror(count < 0 ? errno : EIO)))
            }
            bytesWritten += UInt64(count)
            rest = UnsafeRawBufferPointer(rebasing: rest[count...])
        }
    }
}
