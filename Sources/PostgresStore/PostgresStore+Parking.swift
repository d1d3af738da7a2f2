import EventModel
import Postgres
import Projecting
import Projections

/// Parked keys, in the table `parked_keys` beside the checkpoints of the same place.
extension PostgresStore: ParkingStore {
    public func parked(of projection: ProjectionDescriptor, partition: Int) throws(StoreError) -> [ParkedKey] {
        try withSession { (session) throws(PostgresError) -> [ParkedKey] in
            var key = Parameters()
            key.text(projection.name)
            key.int4(Int32(partition))
            let found = try session.connection.query(
                "SELECT key, position, reason FROM \(self.place.rawValue).parked_keys "
                    + "WHERE projection = $1 AND partition = $2",
                key, name: "read the parked keys of \(projection.name)")
            return (0..<found.rowCount).compactMap { row -> ParkedKey? in
                guard let key = found.text(row, 0), let position = found.int8(row, 1) else { return nil }
                return ParkedKey(
                    key: FoldKey(key), position: Position(stored: position), reason: found.text(row, 2) ?? "")
            }
        }.inOrder()
    }

    public func commit(
        _ rows: [RowBuffer], of projection: ProjectionDescriptor, partition: Int, from old: Position?,
        to new: Position, parking: ParkingChange
    ) throws(StoreError) {
        try transact(
            rows, of: projection, partition: partition, from: old, to: new,
            parking.isEmpty ? .plain : .parking(parking))
    }

    public func rehearse(
        _ rows: [RowBuffer], of projection: ProjectionDescriptor, partition: Int, from old: Position?,
        to new: Position
    ) throws(StoreError) {
        try transact(rows, of: projection, partition: partition, from: old, to: new, .rehearsal)
    }

    /// The last statements of a transaction.
    struct Ending {
        let add: (inout Pipeline) -> Void
        let changesGeneration: Bool
    }

    func ending(_ variant: Variant, of projection: ProjectionDescriptor, partition: Int) -> Ending {
        let place = place.rawValue
        func parameters(_ more: (inout Parameters) -> Void = { _ in }) -> Parameters {
            var parameters = Parameters()
            parameters.text(projection.name)
            parameters.int4(Int32(partition))
            more(&parameters)
            return parameters
        }
        switch variant {
        case .plain:
            return Ending(add: { $0.execute(sql: "COMMIT") }, changesGeneration: false)
        case .rehearsal:
            // Constraints that wait for the end of the transaction are asked now.
            return Ending(
                add: {
                    $0.execute(sql: "SET CONSTRAINTS ALL IMMEDIATE")
                    $0.execute(sql: "ROLLBACK")
                }, changesGeneration: false)
        case .parking(let change):
            return Ending(
                add: { pipeline in
                    for parked in change.park {
                        pipeline.execute(
                            sql: """
                                INSERT INTO \(place).parked_keys AS k (projection, partition, key, position, reason) \
                                VALUES ($1, $2, $3, $4, $5) ON CONFLICT (projection, partition, key) \
                                DO UPDATE SET position = EXCLUDED.position, reason = EXCLUDED.reason
                                """,
                            parameters {
                                $0.text(parked.key.description)
                                $0.int8(Int64(parked.position.rawValue))
                                // What a message quotes of a row may hold what text cannot.
                                $0.text(parked.reason.replacing("\0", with: "\u{FFFD}"))
                            })
                    }
                    for key in change.unpark {
                        pipeline.execute(
                            sql: "DELETE FROM \(place).parked_keys "
                                + "WHERE projection = $1 AND partition = $2 AND key = $3",
                            parameters { $0.text(key.description) })
                    }
                    // Nobody who has other parked keys in mind may commit on top of this.
                    pipeline.execute(
                        sql: """
                            UPDATE \(place).projection_checkpoints SET generation = nextval('refold.generations') \
                            WHERE projection = $1 AND partition = $2 RETURNING generation
                            """, parameters())
                    pipeline.execute(sql: "COMMIT")
                }, changesGeneration: true)
        }
    }

    /// Whether other rows might be accepted where these are refused (PostgreSQL 15 documentation, appendix A): data and
    /// integrity exceptions, what triggers raise, what is too long for an index or deltas for a row that is not there.
    /// All else (a table or a right that is missing) no row would change.
    static func isAboutRows(_ error: PostgresError) -> Bool {
        guard let state = error.sqlState else { return false }
        return state == "RF002"
            || ["09", "22", "23", "27", "2F", "38", "39", "44", "54", "P0"].contains(state.prefix(2))
    }
}
