import EventModel
import Foundation
import Primitives
import Projecting
import Projections
import Snapshots

/// One row as values in the order of its stored table's columns, each as PostgreSQL's binary form has it.
struct AuditRow: Equatable, Sendable {
    var values: [[UInt8]?]

    /// A COPY tuple; nil unless it is exactly a row of the table, with values of its types. It may come from anywhere.
    init?(tuple: [UInt8], of table: StoredTable) {
        var rest = tuple[...]
        func number(_ count: Int) -> Int? {
            guard rest.count >= count else { return nil }
            defer { rest = rest.dropFirst(count) }
            let value = rest.prefix(count).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            return count == 4 ? Int(Int32(truncatingIfNeeded: value)) : Int(value)
        }
        guard number(2) == table.columns.count else { return nil }
        values = []
        for column in table.columns {
            guard let length = number(4), length >= -1, length <= rest.count else { return nil }
            if length < 0 {
                values.append(nil)
                continue
            }
            let value = Array(rest.prefix(length))
            rest = rest.dropFirst(length)
            guard Self.isValue(value, of: column.type) else { return nil }
            values.append(value)
        }
        guard rest.isEmpty, !values.prefix(table.keyCount).contains(nil) else { return nil }
    }

    init(values: [[UInt8]?]) { self.values = values }

    private static func isValue(_ value: [UInt8], of type: ColumnType) -> Bool {
        switch type {
        case .text: String(validating: value, as: UTF8.self) != nil
        case .int8, .float8, .timestamptz: value.count == 8
        case .bool: value.count == 1
        case .bytea: true
        case .jsonb:
            value.first == 1
                && value.withUnsafeBytes { bytes in
                    var compact: [UInt8] = []
                    return CompactJSON.append(UnsafeRawBufferPointer(rebasing: bytes[1...]), to: &compact)
                }
        }
    }

    var tuple: [UInt8] {
        var rows = RowBuffer()
        rows.beginRow(fieldCount: values.count)
        for value in values { if let value { rows.bytea(value) } else { rows.null() } }
        return rows.bytes
    }

    /// Values of these columns as a reader in their order.
    func withReader<R>(_ columns: [Int], _ body: (RowReader) throws -> R) rethrows -> R {
        try RowReader.with(columns.map { values[$0] }, body)
    }

    /// Column names and values as JSON, in the order of the table.
    func fields(_ table: StoredTable) -> [(name: String, json: String)] {
        withReader(Array(table.columns.indices)) { reader in
            table.columns.enumerated().map { index, column in
                (column.name, Self.json(reader, index, column.type))
            }
        }
    }

    /// One object, of one line.
    func json(_ table: StoredTable) -> String {
        "{" + fields(table).map { "\"\($0.name)\":\($0.json)" }.joined(separator: ",") + "}"
    }

    private static func json(_ reader: RowReader, _ index: Int, _ type: ColumnType) -> String {
        guard type == .jsonb, let json = reader.jsonb(index) else {
            return NamedRow.value(reader, index, type) ?? "null"
        }
        var compact: [UInt8] = []
        guard CompactJSON.append(json, to: &compact) else { preconditionFailure("a fold wrote what is no JSON") }
        return String(decoding: compact, as: UTF8.self)
    }

    func text(_ name: String, _ table: StoredTable) -> String? {
        guard let index = table.columns.firstIndex(where: { $0.name == name && $0.type == .text }) else { return nil }
        return values[index].map { String(decoding: $0, as: UTF8.self) }
    }

    func int8(_ name: String, _ table: StoredTable) -> Int64? {
        guard let index = table.columns.firstIndex(where: { $0.name == name && $0.type == .int8 }) else { return nil }
        return values[index].map { $0.reduce(0) { $0 << 8 | Int64($1) } }
    }
}

/// What an event changed in one row.
struct RowChange: Sendable {
    let table: StoredTable
    let before: AuditRow?
    let after: AuditRow
}

/// One projection, folded over rows in memory, that tells what each event changes. Pure, as the fold is.
final class ChangeTrackingFold {
    let descriptor: ProjectionDescriptor
    let tables: [StoredTable]
    private let entry: Catalog.Entry
    private var fold: any ProjectionFold
    /// Of each way of writing: its stored table, and where its columns stand there.
    private let places: [(table: Int, columns: [Int])]
    private var rows: [[[UInt8]: AuditRow]]
    private var drained: [RowBuffer]
    /// Keys of the rows that the event at hand has written.
    private var touched: [Set<[UInt8]>]
    private let one = EventBlock(capacity: 4 << 10)
    /// Rows that were there when watching began and were needed since, by table and key; nil: not watching.
    private var known: [Set<[UInt8]>]?
    private(set) var start: [(table: StoredTable, row: AuditRow)] = []

    /// Rows of a snapshot, which are there where `rows` has none.
    private let base: RowFiles?
    /// The snapshot could not be read: what was told since is wrong.
    private(set) var failure: (any Error)?

    init(_ entry: Catalog.Entry, scope: FoldScope = .all, base: RowFiles? = nil) {
        self.entry = entry
        self.base = base
        descriptor = entry.descriptor
        let tables = descriptor.storedTables
        self.tables = tables
        fold = entry.makeFold(scope)
        places = descriptor.tables.map { write in
            let table = tables.firstIndex { $0.name == write.name }!
            return (
                table,
                write.columns.map { column in
                    tables[table].columns.firstIndex { $0.name == column.name }!
                }
            )
        }
        rows = tables.map { _ in [:] }
        touched = tables.map { _ in [] }
        drained = descriptor.tables.map { _ in RowBuffer() }
    }

    func keys(of record: RecordView) -> [FoldKey] { fold.keys(of: record) }

    /// A row to begin with.
    func put(_ row: AuditRow, into table: String) {
        guard let index = tables.firstIndex(where: { $0.name == table }) else { return }
        rows[index][MemoryTables.key(row.values.prefix(tables[index].keyCount))] = row
    }

    /// Folds without telling; rows that are never read again are forgotten at once.
    func pass(_ block: EventBlock, in range: Range<Position>) {
        step(block, range)
        guard fold.dirtyRowCount > 10_000 else { return }
        _ = drain(keepsInserts: false)
    }

    func pass(_ record: RecordView, _ position: Position) { withBlock(record, position) { pass($0, in: $1) } }

    /// From now on `start` gathers the rows that what follows builds on.
    func beginWatching() {
        _ = drain(keepsInserts: false)
        // It remembers rows; a new one asks for them.
        fold = entry.makeFold(.all)
        known = tables.map { _ in [] }
    }

    func watch(_ record: RecordView, _ position: Position) -> [RowChange] {
        withBlock(record, position) { step($0, $1) }
        return drain(keepsInserts: true)
    }

    private func withBlock(_ record: RecordView, _ position: Position, _ body: (EventBlock, Range<Position>) -> Void) {
        one.removeAll(at: position)
        let isWhole = one.append(base: position, count: 1, byteCount: record.length) { room in
            room.copyMemory(from: record.bytes)
            return true
        }
        precondition(isWhole, "a record that was checked is one")
        body(one, position..<position.next)
    }

    private func step(_ block: EventBlock, _ range: Range<Position>) {
        for request in fold.prepare(block, in: range) {
            let place = places[request.table]
            for index in 0..<request.keys.rowCount {
                let fields = request.keys.fields(ofRow: index).map { $0.map { Array(request.keys.bytes[$0]) } }
                let key = MemoryTables.key(fields)
                guard let row = find(place.table, key, fields) else { continue }
                note(place.table, key, row)
                row.withReader(place.columns) { fold.load(table: request.table, row: $0) }
            }
        }
        fold.fold(block, in: range)
    }

    /// The row of a key, whose fields these begin with.
    private func find(_ table: Int, _ key: [UInt8], _ fields: [[UInt8]?]) -> AuditRow? {
        if let row = rows[table][key] { return row }
        guard let base, failure == nil else { return nil }
        var sortKey: [UInt8] = [], found: AuditRow?
        for (column, field) in zip(tables[table].columns.prefix(tables[table].keyCount), fields) {
            (field ?? []).withUnsafeBytes { SortKey.append($0, column.type, to: &sortKey) }
        }
        do {
            try base.find(sortKey, in: tables[table].name) { found = AuditRow(tuple: Array($0), of: tables[table]) }
        } catch {
            failure = error
        }
        rows[table][key] = found
        return found
    }

    private func note(_ table: Int, _ key: [UInt8], _ row: AuditRow?) {
        guard known?[table].insert(key).inserted == true, let row else { return }
        start.append((tables[table], row))
    }

    private func drain(keepsInserts: Bool) -> [RowChange] {
        fold.drain(into: &drained)
        var order: [(table: Int, key: [UInt8], before: AuditRow?)] = []
        for table in touched.indices { touched[table].removeAll(keepingCapacity: true) }
        for write in places.indices { apply(write, places[write], keepsInserts: keepsInserts, order: &order) }
        guard keepsInserts else { return [] }
        return order.compactMap { table, key, before in
            guard let after = rows[table][key], after != before else { return nil }
            return RowChange(table: tables[table], before: before, after: after)
        }
    }

    private func apply(
        _ write: Int, _ place: (table: Int, columns: [Int]), keepsInserts: Bool,
        order: inout [(table: Int, key: [UInt8], before: AuditRow?)]
    ) {
        let rule = descriptor.tables[write].write, table = tables[place.table], buffer = drained[write]
        defer { drained[write].removeAll() }
        for index in 0..<buffer.rowCount {
            let fields = buffer.fields(ofRow: index).map { $0.map { Array(buffer.bytes[$0]) } }
            if !keepsInserts, case .insert = rule { continue }
            // Nothing but shares of what all devices add up to.
            if case .upsert = rule, descriptor.tables[write].isSum { continue }
            let key = MemoryTables.key(fields.prefix(table.keyCount))
            let before: AuditRow? = if case .insert = rule { nil } else { find(place.table, key, fields) }
            // A share of a row that belongs to others.
            if before == nil, case .addDeltas = rule { continue }
            note(place.table, key, before)
            if keepsInserts, touched[place.table].insert(key).inserted { order.append((place.table, key, before)) }
            var row = before ?? AuditRow(values: table.columns.map { $0.role == .delta ? Self.bytes(0) : nil })
            for (column, field) in zip(place.columns, fields) {
                if case .addDeltas = rule {
                    guard table.columns[column].role == .delta else { continue }
                    row.values[column] = Self.bytes(Self.int8(row.values[column]) &+ Self.int8(field))
                } else {
                    row.values[column] = field
                }
            }
            rows[place.table][key] = row
        }
    }

    private static func int8(_ bytes: [UInt8]?) -> Int64 { bytes.map { $0.reduce(0) { $0 << 8 | Int64($1) } } ?? 0 }
    private static func bytes(_ value: Int64) -> [UInt8] { withUnsafeBytes(of: value.bigEndian, Array.init) }
}
