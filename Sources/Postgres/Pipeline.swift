import CPostgres

/// Prepared statements to be sent together and answered together: one round trip, and one transaction, since
/// the server ends its implicit transaction at the sync point behind them (PostgreSQL 15 documentation,
/// 34.5.1.4). With `BEGIN` and `COMMIT` among them the transaction is theirs.
public struct Pipeline: Sendable {
    struct Step {
        var name: String
        /// Nil: `name` is a prepared statement.
        var sql: String?
        var parameters: Parameters
    }
    private(set) var steps: [Step] = []

    public init() {}

    public mutating func execute(_ prepared: String, _ parameters: Parameters) {
        steps.append(Step(name: prepared, sql: nil, parameters: parameters))
    }

    public mutating func execute(sql: String, _ parameters: Parameters = Parameters()) {
        steps.append(Step(name: String(sql.prefix(60)), sql: sql, parameters: parameters))
    }
}

extension Connection {
    /// Sends the pipeline and reads all its answers, one a step. Throws the first error; the connection stays
    /// usable after it unless it was lost.
    public func run(_ pipeline: Pipeline) throws(PostgresError) -> [QueryResult] {
        let steps = pipeline.steps
        guard let first = steps.first else { return [] }
        try begin(first.name)
        try check(PQenterPipelineMode(handle) == 1, first.name)
        for step in steps {
            let sent = step.parameters.withC { values, lengths, formats in
                let count = Int32(step.parameters.values.count)
                return if let sql = step.sql {
                    PQsendQueryParams(handle, sql, count, step.parameters.types, values, lengths, formats, 1)
                } else {
                    PQsendQueryPrepared(handle, step.name, count, values, lengths, formats, 1)
                }
            }
            try check(sent == 1, step.name)
            try flush(step.name)
        }
        try check(PQpipelineSync(handle) == 1, first.name)
        try flush(first.name)
        return try answers(steps)
    }

    private func answers(_ steps: [Pipeline.Step]) throws(PostgresError) -> [QueryResult] {
        var results: [QueryResult] = [], error: PostgresError?
        for step in steps {
            while let result = try nextResult(step.name, after: error) {
                switch result.status {
                case PGRES_COMMAND_OK, PGRES_TUPLES_OK, PGRES_EMPTY_QUERY: results.append(result)
                case PGRES_PIPELINE_ABORTED: break
                default: error = error ?? failure(result, step.name)
                }
            }
            // After a fatal error (the server is shutting down) no more answers will come.
            guard isUsable else { throw error ?? lost(step.name) }
        }
        // An error in the implicit commit comes here, in front of the sync.
        while true {
            guard let result = try nextResult("commit", after: error) else {
                guard isUsable else { throw error ?? lost("commit") }
                continue
            }
            if result.status == PGRES_PIPELINE_SYNC { break }
            if result.status != PGRES_COMMAND_OK { error = error ?? failure(result, "commit") }
        }
        try check(PQexitPipelineMode(handle) == 1, "commit")
        if let error { throw error }
        return results
    }
}
