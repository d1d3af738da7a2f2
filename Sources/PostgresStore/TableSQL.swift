import Postgres
import Projections

/// The statements for one table of a projection, generated from its description.
/// Identifiers are quoted; they come from the code, never from data.
struct TableSQL {
    let table: Table
    let place: TablePlace
    /// Unique among the statements and temporary tables of a connection.
    let name: String

    /// Ahead of the table's name in what `refold.expect_rows` raises for rows that were sent and not kept.
    static let countedMark = "written:"

    var stage: String { "refold_stage_\(name)" }
    private var target: String { "\(place.rawValue).\(quote(table.name))" }
    private var keys: [Column] { table.columns.filter { $0.role == .key } }

    /// Writes rows given as one array a column.
    var mergeArrays: String { merge(from: arrays(table.columns), count: "cardinality($1)", sorted: false) }
    var columnTypes: [UInt32] { table.columns.map { TypeID.array(of: $0.type.id)! } }

    /// Writes the rows of the staging table.
    var mergeStage: String {
        merge(
            from: "pg_temp.\(quote(stage)) AS s", count: "(SELECT count(*) FROM pg_temp.\(quote(stage)))",
            sorted: true)
    }

    var createStage: String {
        let columns = table.columns.map { "\(quote($0.name)) \($0.type.rawValue)" }.joined(separator: ", ")
        return "CREATE TEMP TABLE IF NOT EXISTS \(quote(stage)) (\(columns)) ON COMMIT DELETE ROWS"
    }

    var copyToStage: String { "COPY pg_temp.\(quote(stage)) FROM STDIN BINARY" }

    /// Straight into the table: for rows whose keys are new to it, and a table without row-level security
    /// (PostgreSQL 15, COPY, "Notes": COPY FROM is refused otherwise).
    var copyToTable: String { "COPY \(target) (\(list(table.columns, of: nil))) FROM STDIN BINARY" }

    /// Reads rows by key, given as one array a key column.
    var load: String {
        """
        SELECT \(list(table.columns, of: "t")) FROM \(arrays(keys)) \
        JOIN \(target) AS t ON \(equal(keys))
        """
    }
    var keyTypes: [UInt32] { keys.map { TypeID.array(of: $0.type.id)! } }

    private func merge(from source: String, count: String, sorted: Bool) -> String {
        let order = sorted ? " ORDER BY \(keys.map(order).joined(separator: ", "))" : ""
        let insert = """
            INSERT INTO \(target) AS t (\(list(table.columns, of: nil))) \
            SELECT \(list(table.columns, of: "s")) FROM \(source)\(order)
            """
        switch table.write {
        case .insert: return counted(insert, count)
        case .upsert:
            let set = table.columns.filter { $0.role != .key }.map { column in
                let name = quote(column.name)
                return column.role == .delta
                    ? "\(name) = t.\(name) + EXCLUDED.\(name)" : "\(name) = EXCLUDED.\(name)"
            }
            let conflict = " ON CONFLICT (\(list(keys, of: nil))) DO "
            // Rows of keys alone that are there already are not written, and cannot be counted.
            guard !set.isEmpty else { return insert + conflict + "NOTHING" }
            return counted(insert + conflict + "UPDATE SET " + set.joined(separator: ", "), count)
        case .addDeltas:
            let deltas = table.columns.filter { $0.role == .delta }.map { quote($0.name) }
            let set = deltas.map { "\($0) = t.\($0) + s.\($0)" }.joined(separator: ", ")
            return """
                WITH moved AS (UPDATE \(target) AS t SET \(set) \
                FROM \(source) WHERE \(equal(keys)) RETURNING 1) \
                SELECT refold.expect_rows('\(table.name)', count(*), \(count)) FROM moved
                """
        }
    }

    /// A trigger or a rule may swallow rows without an error: the transaction must fail rather than lose them.
    private func counted(_ statement: String, _ count: String) -> String {
        """
        WITH written AS (\(statement) RETURNING 1) \
        SELECT refold.expect_rows('\(Self.countedMark)\(table.name)', count(*), \(count)) FROM written
        """
    }

    /// `unnest` of one array parameter a column, as `s`.
    private func arrays(_ columns: [Column]) -> String {
        let parameters = columns.enumerated().map { "$\($0.offset + 1)::\($0.element.type.rawValue)[]" }
        return "unnest(\(parameters.joined(separator: ", "))) AS s (\(list(columns, of: nil)))"
    }

    /// By bytes: cheaper than by a language's rules, and near enough to the index's order.
    private func order(_ column: Column) -> String {
        "s.\(quote(column.name))" + (column.type == .text ? " COLLATE \"C\"" : "")
    }

    private func equal(_ columns: [Column]) -> String {
        columns.map { "t.\(quote($0.name)) = s.\(quote($0.name))" }.joined(separator: " AND ")
    }

    private func list(_ columns: [Column], of alias: String?) -> String {
        columns.map { (alias.map { "\($0)." } ?? "") + quote($0.name) }.joined(separator: ", ")
    }

    private func quote(_ name: String) -> String { "\"\(name)\"" }
}

extension ColumnType {
    var id: UInt32 {
        switch self {
        case .text: TypeID.text
        case .int8: TypeID.int8
        case .bool: TypeID.bool
        case .float8: TypeID.float8
        case .jsonb: TypeID.jsonb
        case .bytea: TypeID.bytea
        case .timestamptz: TypeID.timestamptz
        }
    }
}
