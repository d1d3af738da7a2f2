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

    /// The tables of a projection, in the order in which they are first named.
    public static func tables(of projection: ProjectionDescriptor) -> [StoredColumns] {
        var names: [String] = []
        for table in projection.tables where !names.contains(table.name) { names.append(table.name) }
        return names.map { name in
            var columns: [Column] = []
            for column in projection.tables.filter({ $0.name == name }).flatMap(\.columns)
            where !columns.contains(where: { $0.name == column.name }) {
                columns.append(column)
            }
            let sorted = columns.filter { $0.role == .key } + columns.filter { $0.role != .key }
            return StoredColumns(
                name: name, columns: sorted.map(\.name), types: sorted.map(\.type),
                keyCount: columns.count { $0.role == .key })
        }
    }
}
