import EventModel
import Primitives

/// A self-contained proof: that an event is in the log at its position (`inclusion`), or that the log of one checkpoint
/// is the beginning of that of another (`consistency`).
///
///     refold-proof/1                            refold-consistency/1
///     record <bytes>                            old <bytes>
///     <the record as stored>                    new <bytes>
///     c2sp.org/tlog-proof@v1                    <base64 hash>
///     index <position>                          …
///     <base64 hash>
///     …                                         <the old checkpoint><the new checkpoint>
///
///     <the checkpoint>
///
/// What follows the record is a C2SP tlog-proof, byte for byte. Parsing is strict: one proof has one form.
public enum ProofFile: Sendable, Equatable {
    case inclusion(InclusionProof)
    case consistency(ConsistencyProof)

    /// No valid file is larger: the largest record, a note, and a path of 64 hashes.
    public static let byteCountMax = RecordBatch.recordBytesMax + 2 * SignedNote.byteCountMax + (16 << 10)

    public init(parsing bytes: [UInt8]) throws(EvidenceError) {
        guard bytes.count <= Self.byteCountMax else {
            throw EvidenceError(.malformed, "the file is larger than any proof (\(Self.byteCountMax) bytes)")
        }
        var reader = LineReader(bytes)
        switch reader.line().map({ String(decoding: $0, as: UTF8.self) }) {
        case InclusionProof.label: self = .inclusion(try InclusionProof(&reader))
        case ConsistencyProof.label: self = .consistency(try ConsistencyProof(&reader))
        default:
            throw EvidenceError(
                .malformed,
                "the file is no proof: it begins with neither \(InclusionProof.label) nor "
                    + ConsistencyProof.label)
        }
    }

    public var bytes: [UInt8] {
        switch self {
        case .inclusion(let proof): proof.bytes
        case .consistency(let proof): proof.bytes
        }
    }
}

/// An event and its path to a signed root.
public struct InclusionProof: Sendable, Equatable {
    static let label = "refold-proof/1"
    private static let proofLabel = "c2sp.org/tlog-proof@v1"

    /// As stored, payload included.
    public let record: [UInt8]
    public let position: Position
    /// From the leaf's sibling to the root's child.
    public let path: [TreeHash]
    public let note: SignedNote

    public init(record: [UInt8], position: Position, path: [TreeHash], note: SignedNote) {
        self.record = record
        self.position = position
        self.path = path
        self.note = note
    }

    fileprivate init(_ reader: inout LineReader) throws(EvidenceError) {
        let count = try reader.number(behind: "record ", of: "the record's length")
        guard count >= RecordView.headerBytes, count <= RecordBatch.recordBytesMax,
            let record = reader.take(Int(count)), reader.take(1) == [0x0A]
        else { throw EvidenceError(.malformed, "the proof is cut off, or its record has another length") }
        guard record.withUnsafeBytes({ RecordView.check($0, at: 0) }) == record.count else {
            throw EvidenceError(.malformed, "the record in the proof is no record")
        }
        guard reader.line().map({ $0.elementsEqual(Self.proofLabel.utf8) }) == true else {
            throw EvidenceError(.malformed, "behind the record stands no \(Self.proofLabel)")
        }
        position = Position(try reader.number(behind: "index ", of: "the position"))
        path = try reader.hashes()
        note = try SignedNote(parsing: reader.rest())
        self.record = record
    }

    public var bytes: [UInt8] { Array("\(Self.label)\nrecord \(record.count)\n".utf8) + record + [0x0A] + tlogProof }

    /// The C2SP tlog-proof alone, for stock tools.
    public var tlogProof: [UInt8] {
        let hashes = path.map { $0.base64 + "\n" }.joined()
        return Array("\(Self.proofLabel)\nindex \(position)\n\(hashes)\n".utf8) + note.bytes
    }

    /// That the record is event `position` of the log that holds `key`.
    /// - Returns: the checkpoint that it follows from.
    /// - Throws: `.untrue` when it does not.
    public func check(_ key: VerifierKey) throws(EvidenceError) -> Checkpoint {
        let checkpoint = try note.checkpoint(verifiedBy: key)
        guard position.rawValue < checkpoint.size else {
            throw EvidenceError(.untrue, "position \(position) lies beyond the checkpoint's \(checkpoint.size) events")
        }
        let leaf = record.withUnsafeBytes { LeafHasher().leaf(RecordView(unchecked: $0.baseAddress!)) }
        let root = TreeProofs.root(leaf: leaf, index: position.rawValue, size: checkpoint.size, path: path)
        guard root == checkpoint.root else {
            throw EvidenceError(
                .untrue,
                "the record does not lead to the signed root: this is not what the log held "
                    + "at position \(position)")
        }
        return checkpoint
    }
}

/// Two signed checkpoints, and why the older is the beginning of the newer.
public struct ConsistencyProof: Sendable, Equatable {
    static let label = "refold-consistency/1"

    public let old: SignedNote
    public let new: SignedNote
    public let path: [TreeHash]

    public init(old: SignedNote, new: SignedNote, path: [TreeHash]) {
        self.old = old
        self.new = new
        self.path = path
    }

    fileprivate init(_ reader: inout LineReader) throws(EvidenceError) {
        let oldCount = try reader.number(behind: "old ", of: "the old checkpoint's length")
        let newCount = try reader.number(behind: "new ", of: "the new checkpoint's length")
        path = try reader.hashes()
        guard oldCount <= SignedNote.byteCountMax, newCount <= SignedNote.byteCountMax,
            let oldBytes = reader.take(Int(oldCount)), let newBytes = reader.take(Int(newCount)), reader.rest().isEmpty
        else { throw EvidenceError(.malformed, "the checkpoints in the proof have other lengths than it says") }
        old = try SignedNote(parsing: oldBytes)
        new = try SignedNote(parsing: newBytes)
    }

    public var bytes: [UInt8] {
        let (old, new) = (self.old.bytes, self.new.bytes)
        let hashes = path.map { $0.base64 + "\n" }.joined()
        return Array("\(Self.label)\nold \(old.count)\nnew \(new.count)\n\(hashes)\n".utf8) + old + new
    }

    /// That both are signed by the log that holds `key`, and that nothing of the old one was changed or dropped since.
    public func check(_ key: VerifierKey) throws(EvidenceError) -> (old: Checkpoint, new: Checkpoint) {
        let old = try self.old.checkpoint(verifiedBy: key), new = try self.new.checkpoint(verifiedBy: key)
        guard old.size <= new.size else {
            throw EvidenceError(
                .untrue,
                "the log held \(old.size) events and then \(new.size): it was rolled back, or "
                    + "the checkpoints are in the wrong order")
        }
        guard
            TreeProofs.isConsistent(
                first: old.size, firstRoot: old.root, second: new.size, secondRoot: new.root, path: path)
        else {
            throw EvidenceError(
                .untrue,
                "the log of \(new.size) events does not begin with that of \(old.size): "
                    + "its history was changed, or the proof is none")
        }
        return (old, new)
    }
}

/// Lines and counted bytes from the front of a file.
private struct LineReader {
    private var bytes: ArraySlice<UInt8>
    /// Longer lines than this are of no proof.
    private static let lineBytesMax = 200

    init(_ bytes: [UInt8]) { self.bytes = bytes[...] }

    mutating func line() -> ArraySlice<UInt8>? {
        guard let end = bytes.prefix(Self.lineBytesMax).firstIndex(of: 0x0A) else { return nil }
        defer { bytes = bytes[(end + 1)...] }
        return bytes[bytes.startIndex..<end]
    }

    mutating func take(_ count: Int) -> [UInt8]? {
        guard count <= bytes.count else { return nil }
        defer { bytes = bytes.dropFirst(count) }
        return Array(bytes.prefix(count))
    }

    func rest() -> ArraySlice<UInt8> { bytes }

    mutating func number(behind label: String, of what: String) throws(EvidenceError) -> UInt64 {
        guard let line = line(), line.starts(with: label.utf8),
            let value = Decimal.parse(line.dropFirst(label.utf8.count))
        else { throw EvidenceError(.malformed, "the proof does not say \(what) where it should") }
        return value
    }

    /// Hashes in base64, a line each, up to an empty line.
    mutating func hashes() throws(EvidenceError) -> [TreeHash] {
        var hashes: [TreeHash] = []
        while let line = line() {
            if line.isEmpty { return hashes }
            guard hashes.count < TreeProofs.hashesMax, let bytes = Base64.decode(line), let hash = TreeHash(bytes)
            else { break }
            hashes.append(hash)
        }
        throw EvidenceError(.malformed, "the path in the proof is cut off, too long, or holds what is no hash")
    }
}
