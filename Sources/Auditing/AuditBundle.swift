import EventModel
import Evidence
import Foundation
import Primitives
import Projections

// A bundle: a report in a file that others can check without the log. One JSON object a line, in this order:
//
//     format    what it is about, and by which versions of the folds
//     start     a row that was there before: as JSON, and as a COPY tuple for folding on
//     event     position, record in base64, and the rows that it changed: before and after
//     gap       positions that cannot be shown
//     proof     the hashes that lead from all events to the checkpoint's root
//     checkpoint, statement   signed notes; the statement is about all bytes before its line
//
// `schemas/audit-bundle.md` is the specification. A line has one form: a checker that folds the events again must come
// to the same bytes.

enum AuditBundle {
    static let format = "refold-audit/1"
    /// Larger ones are not read.
    static let byteCountMax = 1 << 30

    static func header(_ report: AuditReport) -> String {
        let versions = report.subject.projections.map { "\"\($0.name)\":\($0.descriptor.version)" }
        // How many of a row's first columns are its key.
        let keys = report.subject.projections.flatMap(\.descriptor.storedTables).map { "\"\($0.name)\":\($0.keyCount)" }
        return #"{"format":"\#(format)","log":\#(JSONString.encode(report.origin)),"subject":\#(report.subject.json)"#
            + #","from":\#(report.range.lowerBound),"end":\#(report.range.upperBound),"made_at":"\#(report.madeAt)""#
            + #","projections":{\#(versions.joined(separator: ","))}"#
            + #","keys":{\#(keys.joined(separator: ","))}}"#
    }

    static func start(_ table: StoredTable, _ row: AuditRow) -> String {
        #"{"start":{"table":"\#(table.name)","row":\#(row.json(table))"#
            + #","tuple":"\#(Data(row.tuple).base64EncodedString())"}}"#
    }

    static func event(_ position: UInt64, _ record: [UInt8], isContext: Bool, _ changes: [RowChange]) -> String {
        let changes = changes.map { change in
            #"{"table":"\#(change.table.name)","before":\#(change.before?.json(change.table) ?? "null")"#
                + #","after":\#(change.after.json(change.table))}"#
        }
        return #"{"position":\#(position)\#(isContext ? #","context":true"# : "")"#
            + #","record":"\#(Data(record).base64EncodedString())","changes":[\#(changes.joined(separator: ","))]}"#
    }

    static func gap(_ gap: AuditReport.Gap) -> String {
        #"{"gap":{"kind":"\#(gap.kind.rawValue)","from":\#(gap.from),"to":\#(gap.to)"#
            + #","text":\#(JSONString.encode(gap.text))}}"#
    }

    static func proof(_ hashes: [TreeHash], size: UInt64) -> String {
        #"{"proof":{"size":\#(size),"hashes":[\#(hashes.map { "\"\($0.base64)\"" }.joined(separator: ","))]}}"#
    }

    static func note(_ name: String, _ note: SignedNote) -> String {
        #"{"\#(name)":\#(JSONString.encode(String(decoding: note.bytes, as: UTF8.self)))}"#
    }
}

extension AuditReport {
    /// The bundle's bytes.
    /// - Parameter key: the log's; nil: without a statement, so that its rows can be checked by folding alone.
    /// - Throws: `AuditError` when there is no proof.
    public func bundle(signedWith key: SigningKey?) throws -> [UInt8] {
        if let proofProblem {
            throw AuditError(.no, "no bundle can be made, because nothing can be proved: \(proofProblem)")
        }
        var bytes: [UInt8] = []
        func put(_ line: String) {
            bytes.append(contentsOf: line.utf8)
            bytes.append(0x0A)
        }
        put(AuditBundle.header(self))
        for (table, row) in start { put(AuditBundle.start(table, row)) }
        for event in events {
            put(AuditBundle.event(event.position.rawValue, event.record, isContext: event.isContext, event.changes))
        }
        for gap in gaps { put(AuditBundle.gap(gap)) }
        put(AuditBundle.proof(proof, size: size))
        put(AuditBundle.note("checkpoint", checkpoint))
        if let key {
            let statement = AuditStatement(origin: origin, digest: SHA256.digest(bytes))
            put(AuditBundle.note("statement", try statement.signed(with: key)))
        }
        return bytes
    }
}
