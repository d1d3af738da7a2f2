import Projections

/// How many connections to PostgreSQL the daemon may hold at once. docs/database.md has the same figures.
enum DatabaseConnections {
    /// For reads of the API and the pages.
    static let reads = 3
    /// For the daemon's own look at the database.
    static let keeper = 1
    /// One a projection: each commits on its own.
    static var projections: Int { Catalog.entries.count }
    /// Without a rebuild, a self-check or a verb of the command line, which open their own while they run.
    static var needed: Int { reads + keeper + projections }
}
