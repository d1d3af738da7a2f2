import EventModel
import Postgres
import Projections
import Snapshots

/// Goes through the rows of two sides in the order of their keys, and notes where they differ.
struct RowComparison {
    let table: StoredTable
    let live: CopyOut
    let folded: any RowCursor

    /// - Parameters:
    ///   - max: so many rows are noted; the others are only counted.
    ///   - events: those that touched a row.
    func run(
        max: Int, into report: inout ReplayVerification, events: (NamedRow) throws -> (count: Int, last: [Position])
    ) throws {
        var noted = 0
        var mine = try live.next().map { Array($0) }, theirs = try nextFolded()
        while mine != nil || theirs != nil {
            let order = compare(mine, theirs)
            let left = order <= 0 ? mine : nil, right = order >= 0 ? theirs : nil
            if left == nil || right == nil || canonical(left) != canonical(right) {
                report.differenceCount += 1
                if noted < max {
                    noted += 1
                    try report.differences.append(difference(left, right, events))
                }
            }
            if order <= 0 { mine = try live.next().map { Array($0) } }
            if order >= 0 { theirs = try nextFolded() }
        }
    }

    private func nextFolded() throws -> [UInt8]? {
        try folded.next() ? folded.withRow { Array($0) } : nil
    }

    private func compare(_ a: [UInt8]?, _ b: [UInt8]?) -> Int {
        guard let a else { return 1 }
        guard let b else { return -1 }
        return a.withUnsafeBytes { a in b.withUnsafeBytes { b in table.compareKeys(a, b) } }
    }

    private func canonical(_ row: [UInt8]?) -> [UInt8] {
        var output: [UInt8] = []
        row?.withUnsafeBytes { table.appendCanonical($0, to: &output) }
        return output
    }

    private func past(_ row: [UInt8]?) -> NamedRow? {
        row.map { _ in canonical(row).withUnsafeBytes { NamedRow($0, table) } }
    }

    private func difference(
        _ left: [UInt8]?, _ right: [UInt8]?, _ events: (NamedRow) throws -> (count: Int, last: [Position])
    ) throws -> ReplayVerification.Difference {
        let live = past(left), folded = past(right)
        guard let either = live ?? folded else { preconditionFailure("a difference between no rows") }
        let touching = try events(either)
        return ReplayVerification.Difference(
            table: table.name,
            key: table.columns.prefix(table.keyCount).map { ($0.name, either[$0.name] ?? "null") },
            live: live, folded: folded, events: touching.last, eventCount: touching.count)
    }
}
