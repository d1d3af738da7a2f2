import COpenSSL
import EventLog
import Primitives

import Glibc

// Enforcement: what puts a CRL in force at a broker, and proves it.
//
//     EnforcementSteps the order of the steps at a broker, and what is recorded about them; pure
//     CRLEnforcer      performs them
//     CRLFile          replaces the CRL file that the broker reads
//     ReloadCommand    runs the operator's command that makes the broker read it
//     CanaryProbe      connects with a client certificate and reports whether the broker accepts it
//     ClientCutter     disconnects clients that are connected: DynsecCutter, TakeoverCutter, EMQXCutter
//     EMQXAPI          EMQX's HTTP API: bans, kicks, listeners
//     AccessList       permissions of devices for Mosquitto and EMQX
//
// Acts only: the certificate decider decides what is done, when and in which order. Every act blocks: call
// it on a thread of its own (`onOwnThread`).
//
// Invariants. The broker never reads a partial CRL file: Mosquitto 2.0 accepts revoked clients after it failed to read
// one, and 2.1 exits. Every exchange with a broker ends by its deadline, whatever the broker sends. A cut is reported
// as confirmed only if the broker reported it.

/// The CRL file of a broker, replaced as a whole: temporary file in the same folder, fsync, rename, fsync of the
/// folder.
public struct CRLFile: Sendable {
    public enum Encoding: Sendable {
        /// CRLs of any number of issuers, concatenated.
        case pem
        /// The CRL of one issuer.
        case der
    }

    public struct Written: Equatable, Sendable {
        /// Of the whole file.
        public let sha256: Digest
        public let byteCount: Int
    }

    public let path: String
    public let encoding: Encoding
    private let fileSystem: any LogFileSystem

    public init(_ path: String, encoding: Encoding = .pem, fileSystem: any LogFileSystem = PosixFileSystem()) {
        self.path = path
        self.encoding = encoding
        self.fileSystem = fileSystem
    }

    /// Replaces the file. Blocks. Owner, group and mode of an existing file are kept; a new file has mode 0644, because
    /// the broker runs as another user. A symbolic link is followed. One thread at a time.
    /// - Parameter crls: one complete DER CRL for each issuer in the broker's CA file: the broker refuses all clients
    ///   of an issuer without a CRL.
    public func write(_ crls: [[UInt8]]) throws(CRLFileError) -> Written {
        let contents = try encode(crls)
        var step = CRLFileError.Step.resolve
        do throws(FileError) {
            try replace(with: contents, step: &step)
        } catch {
            throw CRLFileError(path: path, step: step, code: error.code, reason: error.description)
        }
        return Written(sha256: contents.withUnsafeBytes { SHA256.digest($0) }, byteCount: contents.count)
    }

    /// Replaces another file that a broker reads, in the same way.
    public static func replace(_ path: String, with contents: [UInt8]) throws(FileError) {
        var step = CRLFileError.Step.resolve
        try CRLFile(path).replace(with: contents, step: &step)
    }

    private func replace(with contents: [UInt8], step: inout CRLFileError.Step) throws(FileError) {
        let target = try fileSystem.resolve(path)
        let slash = target.lastIndex(of: "/")
        let folder = slash.map { $0 == target.startIndex ? "/" : String(target[..<$0]) } ?? "."
        let name = slash.map { target[target.index(after: $0)...] } ?? target[...]
        let temporary = "\(folder)/.\(name).refold-new"
        let permissions = try fileSystem.permissions(target) ?? FilePermissions(mode: 0o644)
        step = .create
        // A process that was killed left it.
        try fileSystem.remove(temporary)
        var isRenamed = false
        // The caller reports the first error.
        defer { if !isRenamed { try? fileSystem.remove(temporary) } }
        let file = try fileSystem.createNew(temporary, permissions: permissions)
        step = .write
        try contents.withUnsafeBytes { bytes in
            Result { () throws(FileError) in try file.write(bytes, at: 0) }
        }.get()
        step = .synchronize
        if !EnforcementFault.isPlanted(.skipsFileSync) { try file.synchronize() }
        step = .readBack
        try compare(file, with: contents, temporary)
        step = .rename
        try fileSystem.rename(temporary, to: target)
        isRenamed = true
        step = .synchronizeFolder
        try fileSystem.synchronizeDirectory(folder)
        step = .readBack
        // Another program may write the same file.
        try compare(try fileSystem.open(target, create: false, writable: false), with: contents, target)
    }

    /// Throws EIO when the file has other contents.
    private func compare(_ file: any LogFile, with contents: [UInt8], _ path: String) throws(FileError) {
        // One byte more than expected: a longer file differs.
        let room = UnsafeMutableRawBufferPointer.allocate(byteCount: contents.count + 1, alignment: 1)
        defer { room.deallocate() }
        let count = try file.read(into: room, at: 0)
        // Neither is empty.
        let isSame = contents.withUnsafeBytes { expected in
            count == expected.count && memcmp(expected.baseAddress!, room.baseAddress!, count) == 0
        }
        guard isSame else { throw FileError(operation: "compare", path: path, code: EIO) }
    }

    private func encode(_ crls: [[UInt8]]) throws(CRLFileError) -> [UInt8] {
        // The encoder's lengths are Int32.
        for crl in crls where !Self.isWholeSequence(crl) || crl.count > 1 << 30 {
            throw invalid("a CRL is no complete DER SEQUENCE")
        }
        switch encoding {
        case .pem:
            // Mosquitto does not start with an empty file, and reloads it as if nothing were revoked.
            guard !crls.isEmpty else { throw invalid("there is no CRL") }
            return crls.reduce(into: []) { $0 += Self.pem($1) }
        case .der:
            guard crls.count == 1 else { throw invalid("a DER file has exactly 1 CRL, not \(crls.count)") }
            return crls[0]
        }
    }

    private func invalid(_ reason: String) -> CRLFileError {
        CRLFileError(path: path, step: .encode, code: EINVAL, reason: reason)
    }

    /// Lines of 64 characters (RFC 7468, 2), which is what OpenSSL's encoder writes.
    static func pem(_ der: [UInt8]) -> [UInt8] {
        let context = EVP_ENCODE_CTX_new()
        defer { EVP_ENCODE_CTX_free(context) }
        EVP_EncodeInit(context)
        let lines = [UInt8](unsafeUninitializedCapacity: (der.count / 48 + 2) * 65) { room, count in
            var written: Int32 = 0, rest: Int32 = 0
            EVP_EncodeUpdate(context, room.baseAddress, &written, der, Int32(der.count))
            EVP_EncodeFinal(context, room.baseAddress.map { $0 + Int(written) }, &rest)
            count = Int(written + rest)
        }
        return "-----BEGIN X509 CRL-----\n".utf8 + lines + "-----END X509 CRL-----\n".utf8
    }

    /// Whether the bytes are one DER SEQUENCE from the first to the last (X.690, 8.1.3): finds a truncated CRL.
    static func isWholeSequence(_ bytes: [UInt8]) -> Bool {
        guard bytes.count >= 2, bytes[0] == 0x30 else { return false }
        guard bytes[1] >= 0x80 else { return bytes.count == 2 + Int(bytes[1]) }
        let lengthBytes = Int(bytes[1] & 0x7F)
        guard (1...4).contains(lengthBytes), bytes.count > 2 + lengthBytes else { return false }
        let length = bytes[2..<(2 + lengthBytes)].reduce(0) { $0 << 8 | Int($1) }
        return bytes.count == 2 + lengthBytes + length
    }
}

/// The CRL file was not replaced, or may not survive a power failure. The broker was not told to reload.
public struct CRLFileError: Error, Sendable, CustomStringConvertible {
    public enum Step: String, Sendable, CaseIterable {
        case encode, resolve, create, write, synchronize, readBack = "read back", rename
        case synchronizeFolder = "synchronize folder"
    }

    public let path: String
    public let step: Step
    /// POSIX errno.
    public let code: Int32
    let reason: String

    public var description: String {
        "cannot replace CRL file \(path): \(step.rawValue): \(reason); the broker still has the old CRL"
    }
}
