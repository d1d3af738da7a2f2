import Primitives

/// The log's statement of what it holds: origin, number of events, root of the tree (C2SP tlog-checkpoint).
public struct Checkpoint: Sendable, Equatable {
    /// Whose tree it is: for ours `refold/<log id, 32 hexadecimal digits>`, also the name of the key.
    public let origin: String
    /// Leaves of the tree: the events 0 to `size` − 1.
    public let size: UInt64
    public let root: TreeHash
    /// Lines behind the root, which we do not write and ignore, but keep: they are signed too.
    public let extensionLines: [String]

    public init(origin: String, size: UInt64, root: TreeHash) {
        self.origin = origin
        self.size = size
        self.root = root
        extensionLines = []
    }

    /// `refold/` and the log's id.
    public static func origin(logID: String) -> String { "refold/" + logID }

    /// From a note's text. No signature is looked at.
    public init(text: String) throws(EvidenceError) {
        func malformed(_ what: String) -> EvidenceError { EvidenceError(.malformed, "this is no checkpoint: \(what)") }
        guard text.utf8.last == 0x0A else { throw malformed("the text does not end with a newline") }
        let lines = text.utf8.dropLast().split(separator: 0x0A, omittingEmptySubsequences: false)
        guard lines.count >= 3, lines.allSatisfy({ !$0.isEmpty }) else {
            throw malformed("it has not three lines, or an empty one")
        }
        guard let size = Decimal.parse(lines[1]) else { throw malformed("the second line is no number of events") }
        guard let bytes = Base64.decode(lines[2]), let root = TreeHash(bytes) else {
            throw malformed("the third line is no root hash in base64")
        }
        guard size > 0 || root == .emptyRoot else { throw malformed("an empty tree with a root that is none") }
        origin = String(decoding: lines[0], as: UTF8.self)
        self.size = size
        self.root = root
        extensionLines = lines[3...].map { String(decoding: $0, as: UTF8.self) }
    }

    public var text: String {
        ([origin, String(size), root.base64] + extensionLines).map { $0 + "\n" }.joined()
    }

    public func signed(with key: SigningKey) throws(EvidenceError) -> SignedNote {
        var note = SignedNote(text: text)
        try note.sign(with: key)
        return note
    }
}

extension SignedNote {
    /// The checkpoint that this note is, not yet believed.
    public func checkpoint() throws(EvidenceError) -> Checkpoint { try Checkpoint(text: text) }

    /// The checkpoint that this note is: signed by the log whose key is given, whose name must be the origin.
    public func checkpoint(verifiedBy key: VerifierKey) throws(EvidenceError) -> Checkpoint {
        guard key.kind == .note else {
            throw EvidenceError(.malformed, "the key of \(key.name) is a witness's: the log's own is needed")
        }
        let checkpoint = try checkpoint()
        guard checkpoint.origin.hasBytes(of: key.name) else {
            throw EvidenceError(.untrue, "the checkpoint is of \(checkpoint.origin), the key of \(key.name)")
        }
        try verify(key)
        return checkpoint
    }
}

/// Numbers as the formats write them: ASCII digits, no sign, no leading zero.
enum Decimal {
    static func parse(_ digits: some Collection<UInt8>) -> UInt64? {
        guard let first = digits.first, digits.count <= 20, digits.count == 1 || first != UInt8(ascii: "0"),
            digits.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 })
        else { return nil }
        return UInt64(String(decoding: digits, as: UTF8.self))
    }
}
