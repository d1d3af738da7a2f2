#if canImport(Glibc)
import Glibc
#else
import Musl
#endif
import COpenSSL

/// The outside witness: one NDJSON line a publish, written when its fate is known. A line that says
/// `"acknowledged":true` is written only after the PUBACK, so what a killed run leaves behind can be trusted:
/// every line in it is true, and what is missing was not yet known.
final class Ledger {
    private let descriptor: CInt
    private let path: String
    private var line = JSONText(capacity: 64 << 10)
    private static let bufferBytesMax = 48 << 10

    /// Begins an empty file at `path`.
    init(path: String) throws(FleetError) {
        descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        self.path = path
        guard descriptor >= 0 else {
            throw .invalid("--ledger: cannot write \(path): \(String(cString: strerror(errno)))")
        }
    }

    deinit { close(descriptor) }

    static func digest(_ payload: [UInt8]) -> [UInt8] {
        var digest = [UInt8](repeating: 0, count: Int(SHA256_DIGEST_LENGTH))
        _ = SHA256(payload, payload.count, &digest)
        return digest
    }

    func write(_ publish: Publish, acknowledged: Bool, shape: FleetShape) throws(FleetError) {
        line.raw("{\"topic\":")
        line.string(publish.topic)
        line.raw(",\"sha256\":\"")
        line.hex(publish.digest)
        line.raw(acknowledged ? "\",\"acknowledged\":true" : "\",\"acknowledged\":false")
        line.raw(",\"tenant\":\"\(shape.tenant(ofDevice: publish.device))\"")
        line.raw(",\"device\":\"\(shape.device(publish.device))\"")
        line.raw(",\"kind\":\"\(publish.kind.rawValue)\",\"seq\":\(publish.seq)")
        if let index = publish.index { line.raw(",\"index\":\(index)") }
        if publish.isDuplicate { line.raw(",\"duplicate\":true") }
        if let defect = publish.defect {
            line.raw(",\"defect\":\"\(defect.rawValue)\",\"reason\":\"\(defect.reason)\"")
        }
        line.raw("}\n")
        if line.bytes.count >= Self.bufferBytesMax { try flush() }
    }

    /// Hands whole lines to the kernel, so that they outlive this process.
    func flush() throws(FleetError) {
        var written = 0
        while written < line.bytes.count {
            let count = line.bytes.withUnsafeBytes {
                Glibc.write(descriptor, $0.baseAddress! + written, $0.count - written)
            }
            if count < 0 {
                if errno == EINTR { continue }
                throw .ledger("cannot write \(path): \(String(cString: strerror(errno)))")
            }
            written += count
        }
        line.clear()
    }
}
