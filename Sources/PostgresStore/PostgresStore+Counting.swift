import Postgres
import Projecting
import Projections

// Rows that PostgreSQL accepted and did not keep: a BEFORE trigger that returns NULL, a rule DO INSTEAD NOTHING. Each
// statement counts the rows that it wrote and raises RF002 when they are fewer (`TableSQL.merge`).

extension PostgresStore {
    /// Fewer rows were written than given: the text for people; nil for any other error. Rows are not to blame, so no
    /// key is parked. Deltas for a row that does not exist (`of_table` without the mark) are about rows.
    static func missingRows(_ error: PostgresError) -> String? {
        // "cannot perform INSERT RETURNING on relation …", with a hint about rules.
        if error.sqlState == "0A000", "\(error)".contains("rule") {
            return "\(error.statement): \(error.message) (SQLSTATE 0A000): drop the rule on the table, since the rows "
                + "that Refold writes there cannot be counted"
        }
        guard error.sqlState == "RF002" else { return nil }
        // As raised by refold.expect_rows: "deltas for EXPECTED rows of TABLE, of which only FOUND exist".
        let words = error.message.split { $0 == " " || $0 == "," }
        guard let table = words.first(where: { $0.hasPrefix(TableSQL.countedMark) }) else { return nil }
        let counts = words.compactMap { Int($0) }
        guard counts.count == 2 else { return "\(error)" }
        return text(String(table.dropFirst(TableSQL.countedMark.count)), expected: counts[0], found: counts[1])
    }

    static func swallowed(_ table: String, expected: Int, found: Int, _ statement: String) -> PostgresError {
        PostgresError(
            sqlState: "RF002",
            message: "deltas for \(expected) rows of \(TableSQL.countedMark)\(table), of which only \(found) exist",
            statement: statement, kind: .refused)
    }

    private static func text(_ table: String, expected: Int, found: Int) -> String {
        "table refold.\(table): \(expected) rows were sent and PostgreSQL kept \(found), without an error. Look for "
            + "triggers, rules and row-level security on the table (\\d refold.\(table) in psql) and remove what "
            + "drops the rows"
    }
}
