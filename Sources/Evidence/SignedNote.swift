import Primitives

/// Text with signatures under it (C2SP signed-note). Parsing is strict about the form and says nothing of the truth:
/// `verify` does.
public struct SignedNote: Sendable, Equatable {
    /// Larger ones are not read. 16 signatures, the least that a verifier must accept, fit ten times.
    public static let byteCountMax = 64 << 10
    public static let signaturesMax = 64

    public struct Signature: Sendable, Equatable {
        public let name: String
        /// 4 bytes.
        public let keyID: [UInt8]
        /// What stands behind the key id, in the form of the key's type.
        public let bytes: [UInt8]
    }

    /// Ends with a newline, which is signed too.
    public let text: String
    public private(set) var signatures: [Signature]

    private static let dash = Array("\u{2014} ".utf8)

    init(text: String, signatures: [Signature] = []) {
        self.text = text
        self.signatures = signatures
    }

    public init(parsing bytes: some Collection<UInt8>) throws(EvidenceError) {
        let bytes = Array(bytes)
        func malformed(_ what: String) -> EvidenceError { EvidenceError(.malformed, "this is no signed note: \(what)") }
        guard bytes.count <= Self.byteCountMax else { throw malformed("it is larger than \(Self.byteCountMax) bytes") }
        guard String(validating: bytes, as: UTF8.self) != nil else { throw malformed("it is not UTF-8") }
        guard bytes.allSatisfy({ $0 >= 0x20 || $0 == 0x0A }) else { throw malformed("it holds control characters") }
        guard bytes.last == 0x0A else { throw malformed("it does not end with a newline") }
        // The last empty line parts the text, whose own newline stands before it, from the signatures.
        var split: Int?
        for index in bytes.indices.dropFirst().dropLast().reversed()
        where bytes[index] == 0x0A && bytes[index - 1] == 0x0A {
            split = index
            break
        }
        guard let split else { throw malformed("no empty line stands before the signatures") }
        text = String(decoding: bytes[..<split], as: UTF8.self)
        signatures = []
        for line in bytes[(split + 1)...].dropLast().split(separator: 0x0A, omittingEmptySubsequences: false) {
            guard signatures.count < Self.signaturesMax else { throw malformed("it has too many signatures") }
            guard line.starts(with: Self.dash), let space = line.lastIndex(of: 0x20),
                space >= line.startIndex + Self.dash.count, let value = Base64.decode(line[(space + 1)...]),
                value.count > 4
            else { throw malformed("a signature line is not of the form \"\u{2014} name base64\"") }
            let name = String(decoding: line[(line.startIndex + Self.dash.count)..<space], as: UTF8.self)
            guard VerifierKey.isName(name) else { throw malformed("the name of a signature's key is none") }
            signatures.append(Signature(name: name, keyID: Array(value[..<4]), bytes: Array(value[4...])))
        }
    }

    /// As it is kept and sent.
    public var bytes: [UInt8] {
        var result = Array(text.utf8) + [0x0A]
        for signature in signatures {
            result += Self.dash + Array(signature.name.utf8) + [0x20]
            result += Array(Base64.encode(signature.keyID + signature.bytes).utf8) + [0x0A]
        }
        return result
    }

    mutating func add(_ key: VerifierKey, _ bytes: [UInt8]) {
        signatures.append(Signature(name: key.name, keyID: key.id, bytes: bytes))
    }

    /// What the signatures under this key's name and id say; others are ignored (C2SP signed-note, Signatures).
    public func signatures(of key: VerifierKey) -> [Signature] {
        signatures.filter { $0.name.hasBytes(of: key.name) && $0.keyID == key.id }
    }

    /// - Returns: for a cosignature its time, in seconds since 1970; for a signature of the note's text nil.
    /// - Throws: `.untrue` when the key has not signed, or any signature under its name and id is wrong.
    @discardableResult
    public func verify(_ key: VerifierKey) throws(EvidenceError) -> UInt64? {
        let found = signatures(of: key)
        guard !found.isEmpty else {
            let named = signatures.contains { $0.name.hasBytes(of: key.name) }
            throw EvidenceError(
                .untrue,
                named
                    ? "it is signed under the name \(key.name), but by another key than the one given"
                    : "it is not signed by \(key.name)")
        }
        var time: UInt64?
        for signature in found {
            guard let (bytes, message, signedAt) = statement(signature, key.kind), key.verify(bytes, of: message) else {
                throw EvidenceError(
                    .untrue, "the signature of \(key.name) is wrong: the text was changed, or it is forged")
            }
            time = max(time ?? 0, signedAt ?? 0)
        }
        return key.kind == .cosignature ? time : nil
    }

    private func statement(_ signature: Signature, _ kind: VerifierKey.Kind)
        -> (signature: [UInt8], message: [UInt8], time: UInt64?)?
    {
        switch kind {
        case .note: return (signature.bytes, Array(text.utf8), nil)
        case .cosignature:
            guard signature.bytes.count == 8 + 64 else { return nil }
            let time = signature.bytes[..<8].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            // The format's own limit, so that signed arithmetic never overflows.
            guard time <= UInt64(Int64.max) else { return nil }
            return (Array(signature.bytes[8...]), Self.cosigned(text, at: time), time)
        }
    }

    /// What a witness signs (C2SP tlog-cosignature, Ed25519 signed message).
    private static func cosigned(_ text: String, at time: UInt64) -> [UInt8] {
        Array("cosignature/v1\ntime \(time)\n\(text)".utf8)
    }

    /// Adds this key's signature; `time`, in seconds since 1970, is for cosignatures.
    public mutating func sign(with key: SigningKey, at time: UInt64 = 0) throws(EvidenceError) {
        switch key.verifier.kind {
        case .note: add(key.verifier, try key.signature(of: Array(text.utf8)))
        case .cosignature:
            let stamp = withUnsafeBytes(of: time.bigEndian) { Array($0) }
            add(key.verifier, stamp + (try key.signature(of: Self.cosigned(text, at: time))))
        }
    }
}

extension String {
    /// Byte for byte. Swift's own comparison takes texts for equal that Unicode calls equivalent; signatures do not.
    func hasBytes(of other: String) -> Bool { utf8.elementsEqual(other.utf8) }
}
