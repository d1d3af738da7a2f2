import ArgumentParser
import Foundation
import Postgres
import PrivateServices

/// The database of verbs that look at the tables themselves.
struct DatabaseOption: ParsableArguments {
    @Option(
        name: .customLong("database-url"),
        help: """
            postgresql://user:password@host:5432/name. Default: REFOLD_DATABASE_URL, DATABASE_URL, else the private \
            PostgreSQL of the data folder.
            """)
    var databaseURL: String?

    /// - Throws: `ExitCode(2)` when the URL cannot be understood.
    func target(dataFolder: String) throws -> DatabaseTarget {
        let environment = ProcessInfo.processInfo.environment
        let named = [databaseURL, environment["REFOLD_DATABASE_URL"], environment["DATABASE_URL"]]
            .compactMap { $0.flatMap { $0.isEmpty ? nil : $0 } }.first
        let target = DatabaseTarget(
            named ?? PrivatePostgres.url(folder: dataFolder + "/postgres"), applicationName: "refold replay",
            responseTimeoutSeconds: 3600)
        do throws(PostgresError) {
            try target.check()
        } catch {
            throw ExitCode(2, printing: "--database-url: \(error.message)")
        }
        return target
    }
}
