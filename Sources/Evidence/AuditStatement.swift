import Primitives

/// What the log's owner says of an audit bundle: that these bytes are what the log gave. A signed note of three lines
/// under the log's key. It is no checkpoint and cannot pass for one: those begin with the log's origin.
public struct AuditStatement: Sendable, Equatable {
    private static let label = "refold-audit/1"

    /// Whose log it is.
    public let origin: String
    /// SHA-256 of everything in the bundle before the statement.
    public let digest: TreeHash

    public init(origin: String, digest: TreeHash) {
        self.origin = origin
        self.digest = digest
    }

    public func signed(with key: SigningKey) throws(EvidenceError) -> SignedNote {
        var note = SignedNote(text: "\(Self.label)\n\(origin)\n\(digest.base64)\n")
        try note.sign(with: key)
        return note
    }

    /// The statement that a note is.
    /// - Throws: `.malformed`; `.untrue` when `key` did not sign it, or it is of another log.
    public init(_ note: SignedNote, verifiedBy key: VerifierKey) throws(EvidenceError) {
        let lines = note.text.utf8.split(separator: 0x0A, omittingEmptySubsequences: false)
        guard lines.count == 4, lines[3].isEmpty, lines[0].elementsEqual(Self.label.utf8),
            let bytes = Base64.decode(lines[2]), let digest = TreeHash(bytes)
        else { throw EvidenceError(.malformed, "this is no statement about an audit bundle") }
        guard key.kind == .note, lines[1].elementsEqual(key.name.utf8) else {
            throw EvidenceError(
                .untrue,
                "the statement is of \(String(decoding: lines[1], as: UTF8.self)), the key of "
                    + key.name)
        }
        try note.verify(key)
        origin = key.name
        self.digest = digest
    }
}
