import EventLog
import EventModel
import Foundation
import Projecting
import Projections

// `list` and `show` without a daemon or a database: the projection is folded over the log's files into tables in
// memory. The same folds and the same rules of writing as the live tables', so that the rows are the same.

/// Rows of one table as they are at the log's durable end, as JSON objects with the columns' names.
func foldedRows(projection name: String, table tableIndex: Int, log: any LogSource) throws -> [[String: Any]] {
    guard let entry = Catalog.entry(named: name) else { preconditionFailure("no projection \(name)") }
    let fold = entry.makeFold(.all), tables = MemoryTables(), store = MemoryStore(tables)
    let descriptor = entry.descriptor
    var rows = [RowBuffer](repeating: RowBuffer(), count: descriptor.tables.count), committed: Position?

    func commit(to position: Position) throws {
        fold.drain(into: &rows)
        try store.commit(rows, of: descriptor, partition: 0, from: committed, to: position)
        for index in rows.indices { rows[index].removeAll() }
        committed = position
    }
    let reader = try log.reader(from: Position(0)), block = EventBlock(capacity: 1 << 20)
    while try reader.read(into: block, atLeast: 1 << 20) {
        try store.load(into: fold, for: block, in: block.base..<block.end)
        fold.fold(block, in: block.base..<block.end)
        if fold.dirtyRowCount > 10_000 { try commit(to: Position(block.end.rawValue - 1)) }
    }
    if block.end.rawValue > 0 || reader.position.rawValue > 0 {
        try commit(to: Position(max(reader.position.rawValue, 1) - 1))
    }
    // A table may be written in several ways (rows here, counters there): all its columns are shown.
    let first = descriptor.tables[tableIndex], stored = descriptor.storedTables.first { $0.name == first.name }
    let table = Table(first.name, write: first.write, stored?.columns ?? [])
    var objects: [[String: Any]] = []
    tables.forEachRow(of: table) { objects.append(jsonObject($0, table)) }
    return objects
}

private func jsonObject(_ row: RowReader, _ table: Table) -> [String: Any] {
    var object: [String: Any] = [:]
    for (index, column) in table.columns.enumerated() {
        let value: Any? =
            switch column.type {
            case .text: row.text(index)
            case .int8: row.int8(index) ?? (column.role == .delta ? 0 : nil)
            case .bool: row.bool(index)
            case .float8: row.float8(index)
            case .timestamptz: row.timestamptz(index)?.description
            case .jsonb:
                row.jsonb(index).flatMap {
                    try? JSONSerialization.jsonObject(with: Data($0), options: .fragmentsAllowed)
                }
            case .bytea: row.bytes(index).map { Data($0).base64EncodedString() }
            }
        object[column.type == .bytea ? column.name + "_base64" : column.name] = value ?? NSNull()
    }
    return object
}

/// The rows that a query asks for, folded from the log's files in `dataFolder`: for when no daemon or no database
/// answers. Nil when there is no log.
func offlineRows(_ query: RowQuery, dataFolder: String, limit: Int?) throws -> [[String: Any]]? {
    guard FileManager.default.fileExists(atPath: dataFolder + "/log") else { return nil }
    let log = try ReadOnlyLog(directory: dataFolder + "/log")
    func rows(_ projection: String, _ suffix: String) throws -> [[String: Any]] {
        guard let entry = Catalog.entry(named: projection),
            let index = entry.descriptor.tables.firstIndex(where: {
                $0.name.hasPrefix(suffix) && $0.write != .addDeltas
            })
        else { preconditionFailure("\(projection) has no table \(suffix)") }
        return try foldedRows(projection: projection, table: index, log: log)
    }
    func text(_ row: [String: Any], _ key: String) -> String? { row[key] as? String }
    func number(_ row: [String: Any], _ key: String) -> Int64 { (row[key] as? Int64) ?? -1 }
    func chosen(_ rows: [[String: Any]], by key: String, _ isWanted: ([String: Any]) -> Bool) -> [[String: Any]] {
        Array(rows.filter(isWanted).sorted { number($0, key) < number($1, key) }.prefix(limit ?? .max))
    }
    switch query {
    case .firmware(let tenant):
        return chosen(try rows("campaigns", "firmware_versions"), by: "id") { text($0, "tenant_id") == tenant }
    case .firmwareByID(let tenant, let id):
        return chosen(try rows("campaigns", "firmware_versions"), by: "id") {
            text($0, "tenant_id") == tenant && number($0, "id") == id
        }
    case .campaigns(let tenant, let status):
        return chosen(try rows("campaigns", "ota_campaigns"), by: "id") {
            text($0, "tenant_id") == tenant && (status == nil || text($0, "status") == status)
        }
    case .campaignByID(let tenant, let id):
        return chosen(try rows("campaigns", "ota_campaigns"), by: "id") {
            text($0, "tenant_id") == tenant && number($0, "id") == id
        }
    case .deadLetters(let tenant, let device, let reason, let after):
        return chosen(try rows("dead_letters", "dead_letters"), by: "position") { row in
            (tenant == nil || text(row, "tenant_id") == tenant) && (device == nil || text(row, "device_id") == device)
                && (reason == nil || text(row, "reason") == reason) && number(row, "position") > after ?? -1
        }
    case .deadLettersAt(let position):
        return chosen(try rows("dead_letters", "dead_letters"), by: "position") {
            number($0, "position") == Int64(position)
        }
    }
}
