import EventModel
import Primitives
import Projecting
import Projections

/// What every store must do, whatever it is made of. Each case gets a store with empty tables.
public enum StoreCase: String, CaseIterable, Sendable {
    case everyTypeComesBack, nullsComeBack, upsertReplaces, insertRefusesAnExistingKey, deltasAdd
    case deltasOfUpsertsAdd, deltasNeedTheirRow, onlyRowsThatExistAreFound, theCheckpointMoves
    case aCheckpointThatMovedIsNoticed, aSecondBeginningIsNoticed, anotherVersionIsRefused
    case refusedRowsLeaveNothing, manyRows, checkpointAlone
    case keysAreParkedWithTheRows, aRehearsalLeavesNothing, whoHasOtherParkedKeysInMindCannotCommit

    public static let all = Table(
        "test_all", write: .upsert,
        [
            .key("k", .text), .key("n", .int8), .value("t", .text), .value("i", .int8), .value("b", .bool),
            .value("f", .float8), .value("j", .jsonb), .value("y", .bytea), .value("at", .timestamptz),
            .delta("d"),
        ])
    public static let deltas = Table(
        "test_all", write: .addDeltas, [.key("k", .text), .key("n", .int8), .delta("d")])
    public static let inserts = Table(
        "test_inserts", write: .insert, [.key("position", .int8), .value("t", .text)])
    public static let sql = """
        CREATE TABLE refold.test_all (k text, n bigint, t text, i bigint, b boolean, f float8, j jsonb, y bytea,
            at timestamptz, d bigint NOT NULL DEFAULT 0, PRIMARY KEY (k, n));
        CREATE TABLE refold.test_inserts (position bigint PRIMARY KEY, t text);
        """
    public static func projection(version: Int = 1) -> ProjectionDescriptor {
        ProjectionDescriptor(name: "test_store", version: version, tables: [all, deltas, inserts])
    }

    /// Nil when the store did right, else what was wrong.
    /// `other`: a second store over the same tables.
    public func problem(_ store: any ProjectionStore, other: (any ProjectionStore)? = nil) throws -> String? {
        let bench = StoreBench(store, other: other)
        switch self {
        case .everyTypeComesBack:
            try bench.commit(nil, 0, all: { $0.full("a", 1, delta: 5) })
            return differ(
                try bench.load([("a", 1)]),
                ["a/1/é\"\\/-7/true/-1.5/{\"a\": 1}/00ff/2026-01-02T03:04:05.000006Z/5"])
        case .nullsComeBack:
            try bench.commit(nil, 0, all: { $0.nulls("", 0) })
            return differ(try bench.load([("", 0)]), ["/0/null/null/null/null/null/null/null/0"])
        case .upsertReplaces:
            try bench.commit(
                nil, 0,
                all: {
                    $0.full("a", 1, delta: 0); $0.full("b", 1, delta: 0)
                })
            try bench.commit(0, 1, all: { $0.nulls("a", 1) })
            let found = try bench.load([("a", 1), ("b", 1)])
            return differ(found.map { String($0.prefix(8)) }.sorted(), ["a/1/null", "b/1/é\"\\/"])
        case .insertRefusesAnExistingKey:
            try bench.commit(nil, 0, inserts: [1, 2])
            return try refused { try bench.commit(0, 1, inserts: [3, 2]) }
        case .deltasAdd:
            try bench.commit(
                nil, 0,
                all: {
                    $0.full("a", 1, delta: 5); $0.full("b", 2, delta: 1)
                })
            try bench.commit(0, 1, deltas: [("a", 1, 10), ("b", 2, -3)])
            return differ(
                try bench.load([("a", 1), ("b", 2)]).compactMap { $0.split(separator: "/").last }.sorted(),
                ["-2", "15"])
        case .deltasOfUpsertsAdd:
            try bench.commit(nil, 0, all: { $0.full("a", 1, delta: 5) })
            try bench.commit(0, 1, all: { $0.full("a", 1, delta: 7) })
            return differ(try bench.load([("a", 1)]).compactMap { $0.split(separator: "/").last }, ["12"])
        case .deltasNeedTheirRow:
            try bench.commit(nil, 0, all: { $0.full("a", 1, delta: 5) })
            return try refused { try bench.commit(0, 1, deltas: [("a", 1, 1), ("z", 1, 1)]) }
                ?? differ(try bench.load([("a", 1)]).compactMap { $0.split(separator: "/").last }, ["5"])
        case .onlyRowsThatExistAreFound:
            try bench.commit(nil, 0, all: { $0.full("a", 1, delta: 0) })
            return differ(try bench.load([("a", 2), ("b", 1), ("a", 1)]).count, 1)
        default: return try checkpointProblem(bench)
        }
    }

    private func checkpointProblem(_ bench: StoreBench) throws -> String? {
        switch self {
        case .theCheckpointMoves:
            let before = try bench.checkpoint()
            try bench.commit(nil, 4)
            let first = try bench.checkpoint()
            try bench.commit(4, 9)
            return differ([before, first, try bench.checkpoint()], [nil, 4, 9])
        case .aCheckpointThatMovedIsNoticed:
            try bench.commit(nil, 4)
            return try moved { try bench.commit(3, 9, inserts: [1]) } ?? unchanged(bench, 4)
        case .aSecondBeginningIsNoticed:
            try bench.commit(nil, 4)
            return try moved { try bench.commit(nil, 9, inserts: [1]) } ?? unchanged(bench, 4)
        case .anotherVersionIsRefused:
            try bench.commit(nil, 4)
            bench.projection = Self.projection(version: 2)
            return try refused { _ = try bench.checkpoint() }
                ?? moved { try bench.commit(4, 5) }
        case .refusedRowsLeaveNothing:
            try bench.commit(nil, 0, inserts: [1])
            return try refused {
                try bench.commit(0, 1, all: { $0.full("a", 1, delta: 0) }, inserts: [1])
            } ?? differ(try bench.load([("a", 1)]).count, 0) ?? unchanged(bench, 0)
        case .manyRows:
            // More than go as arrays: the other path must mean the same, in both directions, together with
            // small tables.
            let many = 0..<2500 as Range<Int64>
            try bench.commit(
                nil, 0, all: { rows in for n in many { rows.full("m", n, delta: n) } }, inserts: [1])
            try bench.commit(
                0, 1, all: { rows in for n in many.dropFirst(2000) { rows.full("m", n + 1000, delta: 1) } },
                deltas: many.map { ("m", $0, 1) }, inserts: Array(many.dropFirst(2)))
            // A refused large transaction, after which the connection must still be good.
            if let problem = try refused({ () throws in try bench.commit(1, 2, inserts: Array(many)) }) {
                return problem
            }
            try bench.commit(1, 2, inserts: [9999])
            let found = try bench.load((0..<4000).map { ("m", $0) })
            let sum = found.compactMap { $0.split(separator: "/").last.flatMap { Int64($0) } }.reduce(0, +)
            return differ(found.count, 3000) ?? differ(sum, many.reduce(0, +) + 500 + 2500)
        case .checkpointAlone:
            for position in 0..<20 as Range<Int64> {
                try bench.commit(position == 0 ? nil : position - 1, position)
            }
            return unchanged(bench, 19)
        default: return try parkingProblem(bench)
        }
    }

    private func parkingProblem(_ bench: StoreBench) throws -> String? {
        guard let store = bench.store as? any ParkingStore else { return nil }
        let projection = Self.projection(), empty = [RowBuffer(), RowBuffer(), RowBuffer()]
        func parked() throws -> [ParkedKey] { try store.parked(of: projection, partition: 0) }
        func change(_ from: UInt64?, _ to: UInt64, park: [ParkedKey] = [], unpark: [FoldKey] = []) throws {
            var change = ParkingChange()
            change.park = park
            change.unpark = unpark
            try store.commit(
                empty, of: projection, partition: 0, from: from.map { Position($0) }, to: Position(to),
                parking: change)
        }
        let a = ParkedKey(key: FoldKey("tenant/t/device/a"), position: Position(3), reason: "é\"")
        let none = ParkedKey(key: .none, position: Position(0), reason: "")
        switch self {
        case .keysAreParkedWithTheRows:
            try change(nil, 3, park: [a])
            let first = try parked()
            // From another position on, and one more; the checkpoint stands.
            let later = ParkedKey(key: a.key, position: Position(5), reason: "again")
            try change(3, 3, park: [later, none])
            let second = try parked()
            try change(3, 4, unpark: [a.key])
            try bench.commit(4, 5)
            // Of a transaction that is refused nothing stays.
            let moved = try moved { try change(4, 6, park: [a]) }, third = try parked()
            return moved ?? differ([first, second, third], [[a], [none, later], [none]])
                ?? unchanged(bench, 5)
        case .aRehearsalLeavesNothing:
            try bench.commit(nil, 0, inserts: [1])
            func rehearse(_ position: Int64) throws {
                var rows = empty
                rows[2].beginRow(fieldCount: 2)
                rows[2].int8(position)
                rows[2].null()
                try store.rehearse(rows, of: projection, partition: 0, from: Position(0), to: Position(1))
            }
            try rehearse(2)
            try rehearse(2)
            return try refused { try rehearse(1) } ?? unchanged(bench, 0)
        case .whoHasOtherParkedKeysInMindCannotCommit:
            try change(nil, 3, park: [a])
            guard let other = bench.other else { return nil }
            _ = try other.checkpoint(of: projection, partition: 0)
            try change(3, 3, unpark: [a.key])
            let committed = try moved {
                try other.commit(empty, of: projection, partition: 0, from: Position(3), to: Position(4))
            }
            let read = try moved { _ = try other.checkpoint(of: projection, partition: 0) }
            return committed ?? read ?? unchanged(bench, 3)
        default: preconditionFailure("a case without a check")
        }
    }

    private func unchanged(_ bench: StoreBench, _ expected: Int64) -> String? {
        do { return differ(try bench.checkpoint(), expected) } catch { return "\(error)" }
    }

    private func differ<T: Equatable>(_ found: T, _ expected: T) -> String? {
        found == expected ? nil : "found \(found), expected \(expected)"
    }

    private func refused(_ body: () throws -> Void) throws -> String? {
        do { try body() } catch StoreError.refused { return nil } catch StoreError.refusedRows { return nil }
        return "not refused"
    }

    private func moved(_ body: () throws -> Void) throws -> String? {
        do { try body() } catch StoreError.checkpointMoved { return nil }
        return "the moved checkpoint was not noticed"
    }
}

/// Commits and loads of `StoreCase.projection` in few words.
public final class StoreBench {
    let store: any ProjectionStore
    let other: (any ProjectionStore)?
    var projection = StoreCase.projection()

    public init(_ store: any ProjectionStore, other: (any ProjectionStore)? = nil) {
        self.store = store
        self.other = other
    }

    func checkpoint() throws -> Int64? {
        try store.checkpoint(of: projection, partition: 0).map { Int64($0.rawValue) }
    }

    public func commit(
        _ old: Int64?, _ new: Int64, all: (inout RowBuffer) -> Void = { _ in },
        deltas: [(String, Int64, Int64)] = [],
        inserts: [Int64] = []
    ) throws {
        var rows = [RowBuffer(), RowBuffer(), RowBuffer()]
        all(&rows[0])
        for (k, n, d) in deltas {
            rows[1].beginRow(fieldCount: 3)
            rows[1].text(k)
            rows[1].int8(n)
            rows[1].int8(d)
        }
        for position in inserts {
            rows[2].beginRow(fieldCount: 2)
            rows[2].int8(position)
            rows[2].text("x")
        }
        try store.commit(
            rows, of: projection, partition: 0, from: old.map { Position(UInt64($0)) },
            to: Position(UInt64(new)))
    }

    public func load(_ keys: [(String, Int64)]) throws -> [String] {
        var buffer = RowBuffer(), found: [String] = []
        for (k, n) in keys {
            buffer.beginRow(fieldCount: 2)
            buffer.text(k)
            buffer.int8(n)
        }
        try store.load([LoadRequest(table: 0, keys: buffer)], of: projection) { table, row in
            precondition(table == 0)
            let fields: [String?] = [
                row.text(0), row.int8(1).map(String.init), row.text(2), row.int8(3).map(String.init),
                row.bool(4).map(String.init), row.float8(5).map { "\($0)" },
                row.jsonb(6).map { String(decoding: $0, as: UTF8.self) },
                row.bytes(7).map { Hex.encode($0) },
                row.timestamptz(8).map { "\($0)" }, row.int8(9).map(String.init),
            ]
            found.append(fields.map { $0 ?? "null" }.joined(separator: "/"))
        }
        return found
    }
}

extension RowBuffer {
    fileprivate mutating func full(_ k: String, _ n: Int64, delta: Int64) {
        beginRow(fieldCount: 10)
        text(k)
        int8(n)
        text("é\"\\")
        int8(-7)
        bool(true)
        float8(-1.5)
        jsonb(Array("{\"a\": 1}".utf8))
        bytea([0, 255])
        timestamptz(Timestamp(rfc3339: "2026-01-02T03:04:05.000006Z")!)
        int8(delta)
    }

    fileprivate mutating func nulls(_ k: String, _ n: Int64) {
        beginRow(fieldCount: 10)
        text(k)
        int8(n)
        for _ in 0..<7 { null() }
        int8(0)
    }
}
