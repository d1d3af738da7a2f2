import Decisions
import EventModel
import Foundation
import Projections

/// The projections' hot path: find the rows of a block, fold it, write the changed rows out.
enum FoldPaths {
    /// Rows that one block of `FleetRecords` changes in the steady state.
    private static let rows = [
        "device_status": 100, "device_connection_events": 100, "campaigns": 100, "dead_letters": 10,
        "mqtt_connection_status": 1,
    ]

    static func fold(_ entry: Catalog.Entry) throws -> HotPath.Round {
        let fold = entry.makeFold(.all), block = EventBlock(capacity: 1 << 20)
        var rows = entry.descriptor.tables.map { _ in RowBuffer() }, batch = RecordBatch(), number = 0
        func load(_ batch: RecordBatch) -> Range<Position> {
            let base = block.end
            block.removeAll(at: base)
            _ = block.append(base: base, count: batch.count, byteCount: batch.byteCount) { room in
                batch.withUnsafeBytes { room.copyMemory(from: $0) }
                return true
            }
            return base..<block.end
        }
        func run(_ range: Range<Position>) {
            _ = fold.prepare(block, in: range)
            fold.fold(block, in: range)
            fold.drain(into: &rows)
        }
        run(load(try campaign()))
        // The first block creates the rows of the devices.
        FleetRecords.fill(&batch, at: FleetRecords.time(ofBlock: 0))
        run(load(batch))
        return { meter in
            number += 1
            FleetRecords.fill(&batch, at: FleetRecords.time(ofBlock: number))
            let range = load(batch)
            for index in rows.indices { rows[index].removeAll() }
            let allocations = meter.count { run(range) }
            let count = rows.reduce(0) { $0 + $1.rowCount }, expected = self.rows[entry.name] ?? 0
            guard count == expected else { throw PathError("\(entry.name): \(count) rows, not \(expected)") }
            return allocations
        }
    }

    /// A running campaign over all devices of the fleet.
    private static func campaign() throws -> RecordBatch {
        var batch = RecordBatch()
        func append(_ schema: CampaignSchema, _ event: some Encodable) throws {
            batch.append(
                kind: .decision, schema: schema.rawValue, receivedAt: FleetRecords.time(ofBlock: 0),
                json: Array(try JSONEncoder().encode(event)))
        }
        try append(
            .campaignCreated,
            CampaignCreated(
                id: 1, tenantID: "acme", name: "one", firmwareVersionID: 1, rolloutStrategy: "linear",
                totalDevices: Int64(FleetRecords.devices.count), actor: "ann"))
        try append(
            .campaignTargets,
            CampaignTargets(
                campaignID: 1, tenantID: "acme", firstID: 1, devices: FleetRecords.devices))
        try append(
            .campaignStarted,
            CampaignStatusChanged(
                campaignID: 1, tenantID: "acme", before: "CREATED", after: "RUNNING", actor: "ann"))
        return batch
    }
}
