import EventModel
import Projections
import Synchronization

/// Tables in memory, by the rules that PostgreSQL's obey. For folding on files alone, without a database.
/// Shared by the stores that are made from it.
public final class MemoryTables: Sendable {
    /// A row by column name; absent or nil is null.
    public typealias Row = [String: [UInt8]]

    fileprivate struct Contents {
        var tables: [String: [[UInt8]: Row]] = [:]
        var checkpoints: [String: Checkpoint] = [:]
        /// By projection and partition.
        var parked: [String: [FoldKey: ParkedKey]] = [:]
        var refusal: (@Sendable (_ table: String, _ row: Row) -> String?)?
    }

    fileprivate struct Checkpoint {
        var version: Int
        var position: Position
        /// Another one whenever something else than the position changed.
        var generation = 0
    }

    fileprivate let contents = Mutex(Contents())

    public init() {}

    /// All rows and checkpoints at one moment, for a simulation that loses commits.
    package struct Snapshot: Sendable {
        fileprivate let contents: Contents
    }
    package func snapshot() -> Snapshot { Snapshot(contents: contents.withLock { $0 }) }
    package func restore(_ snapshot: Snapshot) { contents.withLock { $0 = snapshot.contents } }

    /// Rows that are refused from now on, as by a constraint: says why, or nil.
    public func refuse(_ refusal: (@Sendable (_ table: String, _ row: Row) -> String?)?) {
        contents.withLock { $0.refusal = refusal }
    }

    /// The rows of a table in the order of their keys' bytes.
    public func rows(of table: String) -> [Row] {
        contents.withLock { contents in
            (contents.tables[table] ?? [:]).sorted { $0.key.lexicographicallyPrecedes($1.key) }.map(\.value)
        }
    }

    /// The same as readers in the order of `table`'s columns.
    public func forEachRow(of table: Table, _ body: (RowReader) throws -> Void) rethrows {
        for row in rows(of: table.name) { try RowReader.with(table.columns.map { row[$0.name] }, body) }
    }

    /// The same with these columns alone, in this order.
    public func forEachRow(of table: Table, columns names: [String], _ body: (RowReader) throws -> Void) rethrows {
        let columns = names.map { name in
            guard let column = table.columns.first(where: { $0.name == name }) else {
                preconditionFailure("\(table.name) has no column \(name)")
            }
            return column
        }
        try forEachRow(of: Table(table.name, write: table.write, columns), body)
    }

    /// The fields of a key as one byte string.
    package static func key<Field: Collection<UInt8>>(_ fields: some Sequence<Field?>) -> [UInt8] {
        fields.reduce(into: []) { key, field in
            withUnsafeBytes(of: UInt32(field?.count ?? 0).bigEndian) { key.append(contentsOf: $0) }
            if let field { key.append(contentsOf: field) }
        }
    }
}

/// A store over tables in memory. See `MemoryTables`.
public final class MemoryStore: ParkingStore {
    private let memory: MemoryTables
    /// Of the checkpoints that were read.
    private var generations: [String: Int] = [:]

    public init(_ memory: MemoryTables) { self.memory = memory }

    public var interrupter: @Sendable () -> Void { {} }  // nothing here ever waits

    public func checkpoint(of projection: ProjectionDescriptor, partition: Int) throws(StoreError) -> Position? {
        let name = "\(projection.name)/\(partition)"
        let found = memory.contents.withLock { $0.checkpoints[name] }
        if let known = generations[name], known != found?.generation {
            generations[name] = nil
            throw .checkpointMoved("what is parked has changed")
        }
        generations[name] = found?.generation
        guard let found else { return nil }
        guard found.version == projection.version else { throw .otherVersion(projection, found: found.version) }
        return found.position
    }

    public func load(
        _ requests: [LoadRequest], of projection: ProjectionDescriptor, found: (Int, RowReader) -> Void
    ) throws(StoreError) {
        for request in requests {
            let table = projection.tables[request.table]
            for row in 0..<request.keys.rowCount {
                let key = MemoryTables.key(
                    request.keys.fields(ofRow: row).map { $0.map { request.keys.bytes[$0] } })
                guard let row = memory.contents.withLock({ $0.tables[table.name]?[key] }) else { continue }
                RowReader.with(table.columns.map { row[$0.name] }) { found(request.table, $0) }
            }
        }
    }

    public func commit(
        _ rows: [RowBuffer], of projection: ProjectionDescriptor, partition: Int, from old: Position?,
        to new: Position
    ) throws(StoreError) {
        try commit(rows, of: projection, partition: partition, from: old, to: new, parking: ParkingChange())
    }

    public func parked(of projection: ProjectionDescriptor, partition: Int) throws(StoreError) -> [ParkedKey] {
        let found = memory.contents.withLock { $0.parked["\(projection.name)/\(partition)"] ?? [:] }
        return Array(found.values).inOrder()
    }

    public func commit(
        _ rows: [RowBuffer], of projection: ProjectionDescriptor, partition: Int, from old: Position?,
        to new: Position, parking: ParkingChange
    ) throws(StoreError) {
        try write(rows, of: projection, partition: partition, from: old, to: new, parking: parking)
    }

    public func rehearse(
        _ rows: [RowBuffer], of projection: ProjectionDescriptor, partition: Int, from old: Position?,
        to new: Position
    ) throws(StoreError) {
        try write(rows, of: projection, partition: partition, from: old, to: new, isRehearsal: true)
    }

    private func write(
        _ rows: [RowBuffer], of projection: ProjectionDescriptor, partition: Int, from old: Position?,
        to new: Position, parking: ParkingChange = ParkingChange(), isRehearsal: Bool = false
    ) throws(StoreError) {
        let name = "\(projection.name)/\(partition)", known = old == nil ? nil : generations[name]
        generations[name] = try memory.contents.withLock { (contents) throws(StoreError) in
            let found = contents.checkpoints[name]
            guard found?.position == old, found == nil || found?.version == projection.version,
                known == nil || known == found?.generation
            else { throw .checkpointMoved("the checkpoint of \(name) is not where it was") }
            // Changed in a copy, so that a refused row leaves nothing behind.
            var copy = contents
            for (table, rows) in zip(projection.tables, rows) {
                for row in 0..<rows.rowCount { try copy.write(row, of: rows, to: table) }
            }
            var checkpoint = found ?? .init(version: projection.version, position: new)
            checkpoint.position = new
            if !parking.isEmpty { checkpoint.generation += 1 }
            for parked in parking.park { copy.parked[name, default: [:]][parked.key] = parked }
            for key in parking.unpark { copy.parked[name]?[key] = nil }
            copy.checkpoints[name] = checkpoint
            if !isRehearsal { contents = copy }
            return isRehearsal ? found?.generation : checkpoint.generation
        }
    }
}

extension MemoryTables.Contents {
    /// One row by the table's rule; see `Table.WriteRule`.
    fileprivate mutating func write(_ row: Int, of rows: RowBuffer, to table: Table) throws(StoreError) {
        let fields = rows.fields(ofRow: row).map { $0.map { rows.bytes[$0] } }
        precondition(fields.count == table.columns.count, "a row of \(table.name) has \(fields.count) fields")
        let columns = Array(zip(table.columns, fields))
        let key = MemoryTables.key(columns.filter { $0.0.role == .key }.map(\.1))
        var target = tables[table.name]?[key]
        switch table.write {
        case .insert where target != nil: throw .refusedRows("\(table.name) has a row of this key already")
        case .addDeltas where target == nil:
            throw .refusedRows("deltas for a row of \(table.name) that does not exist")
        default: break
        }
        let exists = target != nil
        for (column, field) in columns {
            switch column.role {
            case .delta where exists:
                let sum = Self.int8(target?[column.name]) &+ Self.int8(field.map(Array.init))
                target?[column.name] = withUnsafeBytes(of: sum.bigEndian, Array.init)
            case .value where table.write == .addDeltas: break
            default:
                target = target ?? [:]
                target?[column.name] = field.map(Array.init)
            }
        }
        if let refusal, let target, let why = refusal(table.name, target) { throw .refusedRows(why) }
        tables[table.name, default: [:]][key] = target
    }

    private static func int8(_ bytes: [UInt8]?) -> Int64 {
        bytes.map { $0.reduce(0) { $0 << 8 | Int64($1) } } ?? 0
    }
}
