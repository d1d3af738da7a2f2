import Decisions
import EventModel
import Foundation

@testable import Projections

/// Records of a small log, made by hand: event i has position i and was received at second i.
struct History {
    var batches: [RecordBatch] = []

    static func time(_ position: Int) -> Timestamp { Timestamp(microseconds: Int64(position) * 1_000_000) }

    /// A device's message, on `tenant/{tenant}/device/{device}/{rest}`.
    mutating func message(
        _ rest: String, _ payload: String, tenant: String = "acme", device: String = "d1", broker: String = "main",
        kind: EventKind = .message, verdict: Verdict = .accepted, flags: RecordFlags = []
    ) {
        add("tenant/\(tenant)/device/\(device)/\(rest)", payload, broker, kind, verdict, flags)
    }

    mutating func add(
        _ topic: String, _ payload: String, _ broker: String, _ kind: EventKind, _ verdict: Verdict = .accepted,
        _ flags: RecordFlags = []
    ) {
        var batch = RecordBatch()
        let parts = [topic, payload, broker].map { Array($0.utf8) }
        parts[0].withUnsafeBytes { topic in
            parts[1].withUnsafeBytes { payload in
                parts[2].withUnsafeBytes { broker in
                    batch.append(
                        kind: kind, verdict: verdict, flags: flags, receivedAt: Self.time(batches.count), packetID: 0,
                        broker: broker, topic: topic, properties: UnsafeRawBufferPointer(start: nil, count: 0),
                        payload: payload)
                }
            }
        }
        batches.append(batch)
    }

    mutating func decision(_ schema: CampaignSchema, _ event: some Encodable) throws {
        add(schema.rawValue, String(decoding: try JSONEncoder().encode(event), as: UTF8.self), "", .decision)
    }

    mutating func decision(_ schema: CertificateSchema, _ event: some Encodable) throws {
        add(schema.rawValue, String(decoding: try JSONEncoder().encode(event), as: UTF8.self), "", .decision)
    }

    mutating func decision(_ schema: JobSchema, _ event: some Encodable) throws {
        add(schema.rawValue, String(decoding: try JSONEncoder().encode(event), as: UTF8.self), "", .decision)
    }

    mutating func system(_ schema: LogSchema, _ event: some Encodable) throws {
        add(schema.rawValue, String(decoding: try JSONEncoder().encode(event), as: UTF8.self), "", .system)
    }

    mutating func broker(_ schema: BrokerEvent.Schema, _ event: BrokerEvent, name: String = "main") throws {
        add(schema.rawValue, String(decoding: try JSONEncoder().encode(event), as: UTF8.self), name, .connection)
    }

    /// A token is created or revoked.
    mutating func token(_ id: Int64, tenant: String, isRevoked: Bool) throws {
        let secret = String(repeating: "a", count: 64)
        let json =
            isRevoked
            ? try JSONEncoder().encode(TokenRevoked(id: id, name: "n", tenantID: tenant, actor: "ann"))
            : try JSONEncoder().encode(
                TokenCreated(
                    id: id, name: "n", role: "viewer", tenantID: tenant, secretSHA256: secret, actor: "ann"))
        let schema = isRevoked ? AccessSchema.tokenRevoked : .tokenCreated
        add(schema.rawValue, String(decoding: json, as: UTF8.self), "", .decision)
    }

    /// A campaign with its targets, in two decisions.
    mutating func campaign(
        _ id: Int64, tenant: String = "acme", devices: [String], verifies: Bool = false
    ) throws {
        var created = CampaignCreated(
            id: id, tenantID: tenant, name: "c\(id)", firmwareVersionID: 1, rolloutStrategy: "all",
            totalDevices: Int64(devices.count), actor: "ann")
        if verifies {
            created.plan = CampaignPlan()
            created.plan?.verify = .shadow
        }
        try decision(.campaignCreated, created)
        try decision(
            .campaignTargets,
            CampaignTargets(
                campaignID: id, tenantID: tenant, firstID: id * 1000, devices: devices))
    }

    func block(_ range: Range<Int>) -> EventBlock {
        var all = RecordBatch()
        for batch in batches[range] { all.append(batch) }
        let block = EventBlock()
        let base = Position(UInt64(range.lowerBound))
        block.removeAll(at: base)
        let done = block.append(base: base, count: all.count, byteCount: all.byteCount) { room in
            all.withUnsafeBytes { room.copyMemory(from: $0) }
            return true
        }
        precondition(done)
        return block
    }
}

/// The tables of one projection, as a database would keep them, in memory.
final class MemoryTables {
    typealias Fields = [[UInt8]?]
    private(set) var tables: [String: [[UInt8]: [String: [UInt8]?]]] = [:]
    let descriptor: ProjectionDescriptor

    init(_ descriptor: ProjectionDescriptor) { self.descriptor = descriptor }

    /// Splits binary COPY tuples into fields.
    static func split(_ rows: RowBuffer) -> [Fields] {
        rows.offsets.enumerated().map { index, start in
            let end = index + 1 < rows.offsets.count ? rows.offsets[index + 1] : rows.bytes.count
            var cursor = start + 2, fields: Fields = []
            func integer(_ at: Int, _ width: Int) -> Int {
                rows.bytes[at..<(at + width)].reduce(0) { $0 << 8 | Int($1) }
            }
            for _ in 0..<integer(start, 2) {
                let length = Int(Int32(truncatingIfNeeded: integer(cursor, 4)))
                cursor += 4
                fields.append(length < 0 ? nil : Array(rows.bytes[cursor..<(cursor + length)]))
                cursor += max(0, length)
            }
            precondition(cursor == end, "a row is not as long as its fields say")
            return fields
        }
    }

    func write(_ drained: [RowBuffer]) {
        for (table, rows) in zip(descriptor.tables, drained) {
            var seen: Set<[UInt8]> = []
            for fields in Self.split(rows) {
                precondition(fields.count == table.columns.count, "\(table.name): \(fields.count) fields")
                let key = Self.key(fields.enumerated().filter { table.columns[$0.offset].role == .key }.map(\.element))
                precondition(seen.insert(key).inserted, "\(table.name): a key twice in one drain")
                write(table, fields, key)
            }
        }
    }

    private func write(_ table: Table, _ fields: Fields, _ key: [UInt8]) {
        var row = tables[table.name, default: [:]][key] ?? [:]
        switch table.write {
        case .insert: precondition(row.isEmpty, "\(table.name): inserted twice")
        case .upsert where row.isEmpty:
            // The table's default.
            for other in descriptor.tables where other.name == table.name {
                for column in other.columns where column.role == .delta {
                    row[column.name] = [UInt8](repeating: 0, count: 8)
                }
            }
        case .upsert: break
        case .addDeltas: precondition(!row.isEmpty, "\(table.name): a delta for a row that does not exist")
        }
        for (column, value) in zip(table.columns, fields) {
            if column.role == .delta {
                let old = row[column.name].flatMap { $0 }.map(Self.integer) ?? 0
                row[column.name] = withUnsafeBytes(of: (old + Self.integer(value!)).bigEndian) { Array($0) }
            } else {
                row[column.name] = .some(value)
            }
        }
        tables[table.name, default: [:]][key] = row
    }

    func load(_ requests: [LoadRequest], into fold: any ProjectionFold) {
        for request in requests {
            let table = descriptor.tables[request.table]
            for fields in Self.split(request.keys) {
                guard let row = tables[table.name]?[Self.key(fields)] else { continue }
                let values = table.columns.map { row[$0.name].flatMap { $0 } }
                let pointers = values.map { value in
                    value.map { value in
                        let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: max(1, value.count), alignment: 16)
                        copy.copyBytes(from: value)
                        return UnsafeRawBufferPointer(rebasing: copy[..<value.count])
                    }
                }
                fold.load(table: request.table, row: RowReader { pointers[$0] })
                for pointer in pointers { pointer?.deallocate() }
            }
        }
    }

    /// Rows of a table by its live name.
    func rows(of table: String) -> [[UInt8]: [String: [UInt8]?]] {
        let name = descriptor.tables.first { $0.name.hasPrefix(table + "_v") }!.name
        return tables[name] ?? [:]
    }

    static func key(_ fields: Fields) -> [UInt8] { fields.flatMap { ($0 ?? []) + [0] } }
    static func integer(_ bytes: [UInt8]) -> Int64 { bytes.reduce(0) { $0 << 8 | Int64($1) } }

    /// Every row as one line of `column=value`, in an order of its own; JSON as it compares, not as it is written.
    var lines: [String] {
        tables.keys.sorted().flatMap { name in
            let columns = descriptor.tables.filter { $0.name == name }.flatMap(\.columns)
            return tables[name]!.values.map { row in
                "\(name): "
                    + row.keys.sorted().map { column in
                        let type = columns.first { $0.name == column }!.type
                        return "\(column)=\(row[column]!.map { Self.show($0, type) } ?? "null")"
                    }.joined(separator: " ")
            }.sorted()
        }
    }

    static func show(_ bytes: [UInt8], _ type: ColumnType) -> String {
        switch type {
        case .text: return String(decoding: bytes, as: UTF8.self)
        case .bytea: return String(decoding: bytes, as: UTF8.self)
        case .int8: return String(integer(bytes))
        case .bool: return bytes[0] == 1 ? "true" : "false"
        case .float8: return String(Double(bitPattern: UInt64(bitPattern: integer(bytes))))
        case .timestamptz:
            let seconds = Timestamp(binary: integer(bytes)).microseconds / 1_000_000
            return "@\(seconds)"
        case .jsonb:
            precondition(bytes.first == 1, "binary jsonb begins with a version")
            guard
                let value = try? JSONSerialization.jsonObject(
                    with: Data(bytes.dropFirst()), options: .fragmentsAllowed),
                let sorted = try? JSONSerialization.data(
                    withJSONObject: value, options: [.sortedKeys, .fragmentsAllowed, .withoutEscapingSlashes])
            else { preconditionFailure("not JSON: \(String(decoding: bytes, as: UTF8.self))") }
            return String(decoding: sorted, as: UTF8.self)
        }
    }
}

extension History {
    /// Folds the whole history. `cuts` are the ends of its blocks; after a block whose end is in `restarts` the fold is
    /// dropped and the next begins from the tables; after one in `drains` rows are written. `shrinks`: all is evicted.
    func fold(
        _ entry: Catalog.Entry, cuts: [Int] = [], drains: Set<Int> = [], restarts: Set<Int> = [], shrinks: Set<Int> = []
    ) -> MemoryTables {
        let tables = MemoryTables(entry.descriptor)
        var fold = entry.makeFold(.all)
        var start = 0
        for end in (cuts.filter { $0 > 0 && $0 < batches.count } + [batches.count]) where end > start {
            let block = block(start..<end), from = Position(UInt64(start))
            tables.load(fold.prepare(block, in: from..<block.end), into: fold)
            fold.fold(block, in: from..<block.end)
            if drains.contains(end) || restarts.contains(end) || end == batches.count {
                var rows = [RowBuffer](repeating: RowBuffer(), count: entry.descriptor.tables.count)
                fold.drain(into: &rows)
                precondition(fold.dirtyRowCount == 0)
                tables.write(rows)
            }
            if restarts.contains(end) { fold = entry.makeFold(.all) }
            if shrinks.contains(end) { fold.shrink(toBytes: 0) }
            start = end
        }
        return tables
    }

    /// The rows of one table, with the columns asked for, in the order of the rows' keys.
    func rows(_ projection: String, _ table: String, _ columns: [String]) -> [String] {
        let tables = fold(Catalog.entry(named: projection)!)
        let all = tables.rows(of: table)
        let types = tables.descriptor.tables.filter { $0.name.hasPrefix(table + "_v") }.flatMap(\.columns)
        return all.keys.sorted { $0.lexicographicallyPrecedes($1) }.map { key in
            columns.map { column in
                let type = types.first { $0.name == column }?.type ?? .int8
                return all[key]![column]!.map { MemoryTables.show($0, type) } ?? "null"
            }.joined(separator: " ")
        }
    }
}
