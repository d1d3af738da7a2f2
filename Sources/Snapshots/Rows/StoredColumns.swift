import Projections

/// A table as it is stored: the columns of all `Table`s of one name, the key columns first.
public struct StoredColumns: Sendable, Equatable {
    public let name: String
    public let columns: [String]
    public let types: [ColumnType]
    /// So many of the first columns are the key.
    public let keyCount: Int

    public init(name: String, columns: [String], types: [ColumnType], keyCount: Int) {
        self.name = name
        self.columns = columns
        self.types = types
        self.keyCount = keyCount
    }

    var keyTypes: [ColumnType] { Array(types.prefix(keyCount)) }

    /// The same table as its digest knows it: what a column is for does not matter there, but for the key.
    var table: StoredTable {
        let columns = zip(columns, types).enumerated().map { index, column in
            index < keyCount ? Column.key(column.0, column.1) : Column.value(column.0, column.1)
        }
        return ProjectionDescriptor(name: name, version: 1, tables: [Table(name, write: .upsert, columns)])
            .storedTables[0]
    }

    public init(_ table: StoredTable) {
        self.init(
            name: table.name, columns: table.columns.map(\.name), types: table.columns.map(\.type),
            keyCount: table.keyCount)
    }

    /// The tables of a projection, in the order in which they are first named.
    public static func tables(of projection: ProjectionDescriptor) -> [StoredColumns] {
        projection.storedTables.map(StoredColumns.init)
    }
}
