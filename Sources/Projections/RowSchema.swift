import Decoding

// The schema of a row is its type's `columns`: each column once, with its name, its role and where its value is. The
// table's description, the writer and the reader of rows all go over that one list. It is generic code rather than a
// list of closures or key paths: the compiler specialises it for each of the three, down to what one would write by
// hand, and it allocates nothing. Inlining is forced: left to the compiler, reading rows takes a fifth longer.

/// Goes over the columns of a row: describes, writes or reads them.
protocol RowVisitor {
    mutating func column<F: Field>(_ name: String, _ role: Column.Role, _ type: ColumnType, _ field: inout F)
    /// A byte string that lies in an arena; none is null.
    mutating func column(_ name: String, _ type: ColumnType, _ ref: inout ByteRef, _ arena: inout ByteArena)
    /// A byte string that lies in an arena and is in no column.
    mutating func unstored(_ ref: inout ByteRef, _ arena: inout ByteArena)
}

extension RowVisitor {
    @inline(__always) mutating func unstored(_ ref: inout ByteRef, _ arena: inout ByteArena) {}

    @inline(__always)
    mutating func key<F: Field>(_ name: String, _ field: inout F) { column(name, .key, F.columnType, &field) }
    @inline(__always)
    mutating func value<F: Field>(_ name: String, _ field: inout F) { column(name, .value, F.columnType, &field) }
    @inline(__always) mutating func delta(_ name: String, _ field: inout Int64) { column(name, .delta, .int8, &field) }
    @inline(__always)
    mutating func jsonb<F: Field>(_ name: String, _ field: inout F) { column(name, .value, .jsonb, &field) }
    @inline(__always)
    mutating func bytea<F: Field>(_ name: String, _ field: inout F) { column(name, .value, .bytea, &field) }
    @inline(__always) mutating func text(_ name: String, _ ref: inout ByteRef, _ arena: inout ByteArena) {
        column(name, .text, &ref, &arena)
    }
    @inline(__always) mutating func jsonb(_ name: String, _ ref: inout ByteRef, _ arena: inout ByteArena) {
        column(name, .jsonb, &ref, &arena)
    }

    /// A value that is null unless `exists`.
    @inline(__always) mutating func value<F: Field>(_ name: String, _ field: inout F, if exists: inout Bool) {
        var value = exists ? field : nil
        self.value(name, &value)
        exists = value != nil
        if let value { field = value }
    }

    /// A value that is null when it is `none`.
    @inline(__always) mutating func value<F: Field & Equatable>(_ name: String, _ field: inout F, none: F) {
        var value = field == none ? nil : field
        self.value(name, &value)
        field = value ?? none
    }
}

/// A row that is written as it is made.
protocol TableRow {
    static var table: Table { get }
    init()
    /// Every column in the table's order, the key first.
    mutating func columns(_ row: inout some RowVisitor)
}

/// What a fold keeps of one row, by its key. Its byte strings lie in the table's arena.
protocol RowState {
    associatedtype Key: RowKey
    static var table: Table { get }
    /// A row that does not exist yet.
    init()
    /// Every column in the table's order, the key first.
    mutating func columns(_ row: inout some RowVisitor, _ key: inout Key, _ arena: inout ByteArena)
    /// Completes a state that was read from a row.
    mutating func didLoad(_ key: Key)
}

extension RowState {
    mutating func didLoad(_ key: Key) {}
}

/// The values of a table's key columns. Byte strings are borrowed.
protocol RowKey {
    init()
    /// - Parameter bytes: the key in memory.
    init(_ bytes: Bytes)
    func append(to bytes: inout [UInt8])
}

extension Table {
    init<Row: TableRow>(_ name: String, write: WriteRule, _ type: Row.Type) {
        var list = ColumnList(), row = Row()
        row.columns(&list)
        self.init(name, write: write, list.columns)
    }

    init<State: RowState>(_ name: String, write: WriteRule, _ type: State.Type) {
        var list = ColumnList(), state = State(), key = State.Key(), arena = ByteArena()
        state.columns(&list, &key, &arena)
        self.init(name, write: write, list.columns)
    }
}

/// Describes the columns.
private struct ColumnList: RowVisitor {
    var columns: [Column] = []

    mutating func column<F: Field>(_ name: String, _ role: Column.Role, _ type: ColumnType, _ field: inout F) {
        columns.append(Column(name: name, type: type, role: role))
    }
    mutating func column(_ name: String, _ type: ColumnType, _ ref: inout ByteRef, _ arena: inout ByteArena) {
        columns.append(Column(name: name, type: type, role: .value))
    }
}

extension RowBuffer: RowVisitor {
    mutating func append<Row: TableRow>(_ row: consuming Row) {
        beginRow(fieldCount: Row.table.columns.count)
        row.columns(&self)
    }

    @inline(__always)
    mutating func column<F: Field>(_ name: String, _ role: Column.Role, _ type: ColumnType, _ field: inout F) {
        field.write(as: type, to: &self)
    }
    @inline(__always)
    mutating func column(_ name: String, _ type: ColumnType, _ ref: inout ByteRef, _ arena: inout ByteArena) {
        if ref.isNone { null() } else { bytes(arena.bytes(ref), as: type) }
    }
}

/// Writes the key columns alone.
struct KeyWriter: RowVisitor {
    var rows = RowBuffer()

    @inline(__always)
    mutating func column<F: Field>(_ name: String, _ role: Column.Role, _ type: ColumnType, _ field: inout F) {
        if role == .key { field.write(as: type, to: &rows) }
    }
    @inline(__always)
    mutating func column(_ name: String, _ type: ColumnType, _ ref: inout ByteRef, _ arena: inout ByteArena) {}
}

/// Reads the key columns of a row, or the others. What is null, or no value of the field's type, leaves a field that is
/// not optional as it is.
struct RowDecoder: RowVisitor {
    private let row: RowReader
    private let keys: Bool
    private var index = 0

    @inline(__always) init(_ row: RowReader, keys: Bool) { (self.row, self.keys) = (row, keys) }

    @inline(__always)
    mutating func column<F: Field>(_ name: String, _ role: Column.Role, _ type: ColumnType, _ field: inout F) {
        if (role == .key) == keys, let value = F(field: row.bytes(index), as: type) { field = value }
        index += 1
    }
    @inline(__always)
    mutating func column(_ name: String, _ type: ColumnType, _ ref: inout ByteRef, _ arena: inout ByteArena) {
        if !keys, let content = Bytes(field: row.bytes(index), as: type) { arena.put(content, in: &ref) }
        index += 1
    }
}

/// Copies the byte strings of a row to another arena, when other rows are evicted.
struct Mover: RowVisitor {
    let target: UnsafeMutablePointer<ByteArena>

    mutating func column<F: Field>(_ name: String, _ role: Column.Role, _ type: ColumnType, _ field: inout F) {}
    mutating func column(_ name: String, _ type: ColumnType, _ ref: inout ByteRef, _ arena: inout ByteArena) {
        unstored(&ref, &arena)
    }
    mutating func unstored(_ ref: inout ByteRef, _ arena: inout ByteArena) {
        guard !ref.isNone else { return }
        var moved = ByteRef()
        target.pointee.put(arena.bytes(ref), in: &moved)
        ref = moved
    }
}
