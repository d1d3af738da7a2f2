import EventModel
import Evidence
import Foundation
import Primitives
import Projections

/// What a bundle proves. Made from its bytes and a public key alone: no log, no daemon, no database.
public struct AuditVerdict: Sendable {
    public internal(set) var subject = AuditSubject.range
    public internal(set) var origin = ""
    public internal(set) var from: UInt64 = 0
    public internal(set) var end: UInt64 = 0
    public internal(set) var madeAt = ""
    public internal(set) var events = 0
    public internal(set) var firstTime: Timestamp?
    public internal(set) var lastTime: Timestamp?
    public internal(set) var changes = 0
    public internal(set) var startRows = 0
    public internal(set) var checkpointSize: UInt64 = 0
    /// Signed as a whole by the log's owner.
    public internal(set) var isSigned = false
    /// Every row before and after was folded again here, and is the same.
    public internal(set) var isFolded = false
    /// Positions that the bundle says cannot be shown.
    public internal(set) var missing: [AuditReport.Gap] = []
    /// Every position of the range is here, or is said to be lost.
    public internal(set) var isComplete = false

    /// What follows from it, each a sentence.
    public var proves: [String] {
        var list = [
            "each of the \(events) events is, byte for byte and at its position, in the log that the checkpoint of "
                + "\(checkpointSize) events was signed for"
        ]
        if isComplete {
            list.append(
                "no event between positions \(from) and \(end) was left out"
                    + (missing.isEmpty ? "" : ", but for those that are named as lost"))
        }
        if isFolded {
            list.append(
                startRows == 0
                    ? "the rows before and after each event follow from these events by this program's folds"
                    : "the rows after each event follow from \(startRows) rows at the beginning by this program's folds"
            )
        }
        if isSigned { list.append("the owner of the log's key signed this bundle as a whole") }
        return list
    }

    /// What nobody should take it for.
    public var doesNotProve: [String] {
        var list: [String] = []
        if !isComplete {
            list.append(
                "that no other event of the subject is in the log: only whoever has the log can tell "
                    + "(an audit of a range is complete)")
        }
        if startRows > 0 {
            list.append("that the rows at the beginning were so: an audit from position 0 shows how they came to be")
        }
        if !isFolded {
            list.append("that the rows follow from the events: they were folded by another version of the folds")
        }
        list.append("that devices said the truth, or when: times are those of the log's clock on receipt")
        list.append(
            "that the key's owner showed everybody the same history: compare with checkpoints that are held "
                + "elsewhere")
        return list
    }
}

/// Checks a bundle (`schemas/audit-bundle.md`).
public struct AuditCheck {
    private var lines: [ArraySlice<UInt8>]
    private var next = 0
    private var verdict = AuditVerdict()
    private var folds: [ChangeTrackingFold] = []
    private var hasOurVersions = true

    /// - Parameters:
    ///   - needsStatement: a bundle that is not signed as a whole is refused.
    /// - Throws: `EvidenceError` saying what does not hold.
    public static func run(
        _ bytes: [UInt8], key: VerifierKey, witnesses: [VerifierKey] = [], needsStatement: Bool = true
    ) throws(EvidenceError) -> AuditVerdict {
        guard bytes.count <= AuditBundle.byteCountMax, bytes.last == 0x0A else {
            throw EvidenceError(.malformed, "the bundle is cut off, or larger than any")
        }
        var check = AuditCheck(
            lines: bytes.dropLast().split(separator: 0x0A, omittingEmptySubsequences: false))
        return try check.run(bytes, key, witnesses, needsStatement)
    }

    private init(lines: [ArraySlice<UInt8>]) { self.lines = lines }

    private mutating func run(
        _ bytes: [UInt8], _ key: VerifierKey, _ witnesses: [VerifierKey], _ needsStatement: Bool
    ) throws(EvidenceError) -> AuditVerdict {
        try checkStatement(bytes, key, needsStatement)
        try readHeader(key)
        var events: [(position: UInt64, record: [UInt8], isContext: Bool, line: ArraySlice<UInt8>)] = []
        while let row = try take("start") { try put(row) }
        while let object = peek(), object["position"] != nil {
            guard let position = object["position"]?.uint64, position <= UInt64(Int64.max) else { throw malformed() }
            events.append((position, try record(in: object), object["context"]?.bool ?? false, lines[next]))
            next += 1
        }
        while let gap = try take("gap") { try put(gap: gap) }
        try checkProof(events.map { ($0.position, $0.record) }, key, witnesses)
        guard next == lines.count else { throw EvidenceError(.malformed, "lines behind the end, or out of order") }
        try fold(events)
        try finish(events.map(\.position))
        return verdict
    }

    // MARK: lines

    private func malformed(_ what: String = "is not of the form that the format asks for") -> EvidenceError {
        EvidenceError(.malformed, "line \(next + 1) of the bundle \(what)")
    }

    /// The next line's members; nil unless it is an object in which no name comes twice. Rows inside may hold what a
    /// device sent: any number, and names that come twice (`ExactJSON`).
    private func peek() -> [String: ExactJSON]? {
        next < lines.count ? ExactJSON(lines[next])?.uniqueMembers : nil
    }

    /// The next line's value when the line is `{"name": …}`, else nil.
    private mutating func take(_ name: String) throws(EvidenceError) -> ExactJSON? {
        guard let object = peek() else {
            guard next < lines.count else { return nil }
            throw malformed("is no JSON object")
        }
        guard let value = object[name], object.count == 1 else { return nil }
        next += 1
        return value
    }

    /// True if both are the same bytes but for escapes in strings, which JSON leaves open (RFC 8259, 7).
    private static func isSame(_ line: some Collection<UInt8>, _ expected: String) -> Bool {
        if expected.utf8.elementsEqual(line) { return true }
        guard let shown = withOneEscape(Array(line)) else { return false }
        return shown == withOneEscape(Array(expected.utf8))
    }

    /// The line with each string escaped as `JSONString` does. Nil if a string is malformed.
    private static func withOneEscape(_ line: [UInt8]) -> [UInt8]? {
        var result: [UInt8] = [], at = 0
        while at < line.count {
            guard line[at] == UInt8(ascii: "\"") else {
                result.append(line[at])
                at += 1
                continue
            }
            var end = at + 1
            while end < line.count, line[end] != UInt8(ascii: "\"") { end += line[end] == UInt8(ascii: "\\") ? 2 : 1 }
            guard end < line.count, let text = ExactJSON(line[at...end])?.string else { return nil }
            JSONString.append(text, to: &result)
            at = end + 1
        }
        return result
    }

    // MARK: what was signed

    private mutating func checkStatement(
        _ bytes: [UInt8], _ key: VerifierKey, _ needsStatement: Bool
    ) throws(EvidenceError) {
        guard let last = lines.last,
            let object = ExactJSON(last)?.uniqueMembers, object.count == 1,
            let text = object["statement"]?.string
        else {
            guard needsStatement else { return }
            throw EvidenceError(
                .untrue,
                "the bundle is not signed as a whole: what it says beside the events could "
                    + "have been changed (--unsigned accepts that)")
        }
        let statement = try AuditStatement(try SignedNote(parsing: Array(text.utf8)), verifiedBy: key)
        guard statement.digest == SHA256.digest(bytes[..<last.startIndex]) else {
            throw EvidenceError(.untrue, "the bundle is not the one that was signed: it was changed")
        }
        guard Self.isSame(last, AuditBundle.note("statement", try SignedNote(parsing: Array(text.utf8)))) else {
            throw EvidenceError(.malformed, "the statement is in another form")
        }
        lines.removeLast()
        verdict.isSigned = true
    }

    private mutating func readHeader(_ key: VerifierKey) throws(EvidenceError) {
        guard let header = peek(), header["format"]?.string == AuditBundle.format,
            let origin = header["log"]?.string, let subject = AuditSubject(json: header["subject"]),
            let from = header["from"]?.uint64, let end = header["end"]?.uint64, from <= end,
            end <= UInt64(Int64.max), let madeAt = header["made_at"]?.string,
            let versions = header["projections"]?.uniqueMembers
        else { throw EvidenceError(.malformed, "the file is no audit bundle (\(AuditBundle.format))") }
        guard origin.utf8.elementsEqual(key.name.utf8) else {
            throw EvidenceError(.untrue, "the bundle is of \(origin), the key of \(key.name)")
        }
        (verdict.origin, verdict.subject, verdict.from, verdict.end) = (origin, subject, from, end)
        verdict.madeAt = madeAt
        folds = subject.projections.map { ChangeTrackingFold($0) }
        hasOurVersions =
            versions
            == Dictionary(
                uniqueKeysWithValues: folds.map { ($0.descriptor.name, .number("\($0.descriptor.version)")) })
        next += 1
    }

    private mutating func put(_ start: ExactJSON) throws(EvidenceError) {
        verdict.startRows += 1
        guard hasOurVersions else { return }
        next -= 1
        defer { next += 1 }
        guard let object = start.uniqueMembers, let name = object["table"]?.string,
            let tuple = (object["tuple"]?.string).flatMap({ Data(base64Encoded: $0) }),
            let fold = folds.first(where: { $0.tables.contains { $0.name == name } }),
            let table = fold.tables.first(where: { $0.name == name }),
            let row = AuditRow(tuple: Array(tuple), of: table),
            Self.isSame(lines[next], AuditBundle.start(table, row))
        else { throw malformed("holds no row, or shows another than it holds") }
        fold.put(row, into: name)
    }

    private func record(in object: [String: ExactJSON]) throws(EvidenceError) -> [UInt8] {
        guard let text = object["record"]?.string, let data = Data(base64Encoded: text),
            data.count <= RecordBatch.recordBytesMax,
            data.withUnsafeBytes({ RecordView.check($0, at: 0) }) == data.count
        else { throw malformed("holds no record") }
        return Array(data)
    }

    private mutating func put(gap: ExactJSON) throws(EvidenceError) {
        guard let object = gap.uniqueMembers,
            let kind = (object["kind"]?.string).flatMap(AuditReport.Gap.Kind.init(rawValue:)),
            let from = object["from"]?.uint64, let to = object["to"]?.uint64, from <= to,
            to < verdict.end, verdict.missing.last.map({ $0.to < from }) ?? true,
            let text = object["text"]?.string
        else { throw malformed() }
        verdict.missing.append(AuditReport.Gap(kind: kind, from: from, to: to, text: text))
    }

    // MARK: the proof

    private mutating func checkProof(
        _ events: [(position: UInt64, record: [UInt8])], _ key: VerifierKey, _ witnesses: [VerifierKey]
    ) throws(EvidenceError) {
        guard let proof = try take("proof")?.uniqueMembers, let size = proof["size"]?.uint64,
            let texts = proof["hashes"]?.array
        else { throw malformed("is no proof") }
        var hashes: [TreeHash] = []
        for item in texts {
            guard let text = item.string, let data = Data(base64Encoded: text), let hash = TreeHash(data),
                hash.base64 == text
            else { throw malformed("holds what is no hash") }
            hashes.append(hash)
        }
        guard let text = try take("checkpoint")?.string else { throw malformed("is no checkpoint") }
        let note = try SignedNote(parsing: Array(text.utf8))
        let checkpoint = try note.checkpoint(verifiedBy: key)
        for witness in witnesses { try note.verify(witness) }
        verdict.checkpointSize = checkpoint.size
        guard checkpoint.size == size, verdict.end <= size else {
            throw EvidenceError(.untrue, "the checkpoint is of \(checkpoint.size) events, the proof of \(size)")
        }
        let leaves = events.map { position, record in
            (
                position: position,
                leaf: record.withUnsafeBytes {
                    LeafHasher().leaf(RecordView(unchecked: $0.baseAddress!))
                }
            )
        }
        guard TreeProofs.root(of: leaves, size: size, hashes: hashes) == checkpoint.root else {
            throw EvidenceError(
                .untrue,
                "the events do not lead to the signed root: one was changed, moved, added or "
                    + "left out, or the proof is none")
        }
    }

    // MARK: folding again

    private mutating func fold(
        _ events: [(position: UInt64, record: [UInt8], isContext: Bool, line: ArraySlice<UInt8>)]
    ) throws(EvidenceError) {
        verdict.events = events.count
        if hasOurVersions { for fold in folds { fold.beginWatching() } }
        for event in events {
            guard event.position >= verdict.from, event.position < verdict.end else {
                throw EvidenceError(.untrue, "the event at position \(event.position) lies outside of the range")
            }
            let (line, time) = event.record.withUnsafeBytes { bytes in
                let record = RecordView(unchecked: bytes.baseAddress!)
                guard hasOurVersions else { return ("", record.receivedAt) }
                let changes = Audit.changes(record, Position(event.position), folds, verdict.subject)
                verdict.changes += changes.count
                return (
                    AuditBundle.event(event.position, event.record, isContext: event.isContext, changes),
                    record.receivedAt
                )
            }
            if verdict.firstTime == nil { verdict.firstTime = time }
            verdict.lastTime = time
            guard !hasOurVersions || Self.isSame(event.line, line) else {
                throw EvidenceError(
                    .untrue,
                    "the rows that the bundle shows at position \(event.position) are not "
                        + "those that follow from its events")
            }
        }
        verdict.isFolded = hasOurVersions
    }

    /// Whether every position is here or lost.
    private mutating func finish(_ positions: [UInt64]) throws(EvidenceError) {
        var expected = verdict.from, gaps = verdict.missing.filter { $0.to >= verdict.from }[...]
        func passGaps() {
            while let gap = gaps.first, gap.from <= expected {
                expected = max(expected, gap.to + 1)
                gaps.removeFirst()
            }
        }
        var isComplete = true
        for position in positions {
            passGaps()
            if position != expected { isComplete = false }
            expected = position + 1
        }
        passGaps()
        verdict.isComplete = isComplete && expected >= verdict.end
        guard verdict.subject != .range || verdict.isComplete else {
            throw EvidenceError(.untrue, "the bundle is of a range, and not all events of the range are in it")
        }
    }
}
