import EventLog
import EventModel
import Foundation
import Projecting
import ProjectionTestSupport
import Projections
import Snapshots
import Synchronization
import Testing

@testable import History

/// What was is what folding up to then gives, however it is found.
@Suite final class AsOfTests {
    private let folder = NSTemporaryDirectory() + "refold-as-of-tests-" + UUID().uuidString
    private let log: FileLog
    private let count: UInt64 = 900

    init() throws {
        var options = FileLogOptions()
        options.segmentBytes = 64 << 10
        options.isKeeping = false
        log = try FileLog.open(directory: folder + "/log", options: options)
        var history = FleetHistory(seed: 3)
        try history.append(Int(count), to: log)
    }

    deinit {
        log.close()
        try? FileManager.default.removeItem(atPath: folder)
    }

    private func asOf(snapshots ends: [UInt64] = []) throws -> AsOf {
        let id = try ReadOnlyLog(directory: log.directory).logID
        let folder = SnapshotFolder(self.folder + "/snapshots-\(ends.count)", logID: id)
        let maker = SnapshotMaker(source: log, logID: id, folder: folder, deciders: []) { Timestamp(microseconds: 0) }
        for end in ends { _ = try maker.make(end: Position(end)) }
        return AsOf(log: log, snapshots: folder)
    }

    /// The rows of a table by the plainest way: every event up to `end` through one fold, in memory.
    private func naive(_ name: String, _ end: UInt64) throws -> MemoryTables {
        let entry = try #require(Catalog.entry(named: name)), tables = MemoryTables(), store = MemoryStore(tables)
        let fold = entry.makeFold(.all), reader = try log.reader(from: Position(0)), block = EventBlock()
        while try reader.read(into: block, atLeast: 1), block.base < Position(end) {
            let range = block.base..<min(block.end, Position(end))
            let requests = fold.prepare(block, in: range)
            try store.load(requests, of: entry.descriptor) { fold.load(table: $0, row: $1) }
            fold.fold(block, in: range)
        }
        var rows = entry.descriptor.tables.map { _ in RowBuffer() }
        fold.drain(into: &rows)
        try store.commit(rows, of: entry.descriptor, partition: 0, from: nil, to: Position(end - 1))
        return tables
    }

    private func text(_ bytes: [UInt8]?) -> String { String(decoding: bytes ?? [], as: UTF8.self) }
    private func number(_ bytes: [UInt8]?) -> Int64? { bytes?.reduce(0) { $0 << 8 | Int64($1) } }

    @Test(arguments: [[], [1, 400], [250, 500, 899]] as [[UInt64]])
    func devicesAndFleetsAreWhatFoldingGives(ends: [UInt64]) throws {
        let asOf = try asOf(snapshots: ends)
        for position in [0, 1, 249, 250, 399, 400, 401, 777, 898, 899] as [UInt64] {
            let moment = try asOf.moment(.position(position))
            #expect(moment.end == Position(position + 1) && moment.time == FleetHistory.time(position))
            let rows = try naive("device_status", position + 1).rows(of: "device_status_v1")
            for tenant in FleetHistory.tenants {
                var fleet: [NamedRow] = []
                try asOf.fleet(tenant: tenant, at: moment) { fleet.append($0) }
                let expected = rows.filter { text($0["tenant_id"]) == tenant }
                #expect(fleet.map { $0["device_id"] } == expected.map { "\"\(text($0["device_id"]))\"" })
                for device in FleetHistory.devices {
                    let found = try asOf.device(tenant: tenant, device: device, at: moment)
                    #expect(found == fleet.first { $0["device_id"] == "\"\(device)\"" })
                    let row = expected.first { text($0["device_id"]) == device }
                    #expect(found?["message_count"] == number(row?["message_count"]).map { "\($0)" })
                    #expect(found?["last_position"] == number(row?["last_position"]).map { "\($0)" })
                    let metrics = row?["last_metrics"].flatMap { $0 }.map { text(Array($0.dropFirst())) }
                    #expect((found?["last_metrics"] ?? "null") == metrics ?? "null")
                }
            }
        }
    }

    @Test(arguments: [[], [300, 600]] as [[UInt64]])
    func campaignsAndBrokersToo(ends: [UInt64]) throws {
        let asOf = try asOf(snapshots: ends)
        for position in [5, 299, 300, 601, 899] as [UInt64] {
            let moment = try asOf.moment(.position(position)), tables = try naive("campaigns", position + 1)
            for id in 1...4 as ClosedRange<Int64> {
                let row = tables.rows(of: "ota_campaigns_v2").first { number($0["id"]) == id }
                let found = try asOf.campaign(id, tenant: nil, at: moment)
                #expect((found == nil) == (row == nil))
                guard let found, let row else { continue }
                #expect(found.campaign["succeeded"] == "\(number(row["succeeded"]) ?? 0)")
                #expect(found.campaign["failed"] == "\(number(row["failed"]) ?? 0)")
                let devices = tables.rows(of: "ota_device_status_v2").filter { number($0["campaign_id"]) == id }
                #expect(found.devices.map { $0["status"] } == devices.map { "\"\(text($0["status"]))\"" })
                let other = FleetHistory.tenants.first { $0 != text(row["tenant_id"]) }
                #expect(try asOf.campaign(id, tenant: other, at: moment) == nil)
            }
            let broker = try naive("mqtt_connection_status", position + 1).rows(of: "mqtt_connection_status_v1").first
            #expect(
                try asOf.broker("main", at: moment)?["messages_received"]
                    == number(broker?["messages_received"]).map { "\($0)" })
            #expect(try asOf.broker("nobody", at: moment) == nil)
        }
    }

    @Test(arguments: [[], [300, 600]] as [[UInt64]])
    func certificatesAndAuthoritiesToo(ends: [UInt64]) throws {
        let asOf = try asOf(snapshots: ends)
        var expired: Set<String> = []
        for position in [5, 299, 300, 601, 899] as [UInt64] {
            let moment = try asOf.moment(.position(position)), tables = try naive("certificates", position + 1)
            let authorities = tables.rows(of: "certificate_authorities_v1")
            let certificates = tables.rows(of: "device_certificates_v1")
            for authority in ["ca1", "ca2", "ca3", "other"] {
                let row = authorities.first { text($0["id"]) == authority }
                let found = try asOf.authority(authority, at: moment)
                #expect(found?["status"] == row.map { "\"\(text($0["status"]))\"" })
                #expect(found?["crl_number"] == row.map { number($0["crl_number"]).map { "\($0)" } ?? "null" })
                for serial in ["a1", "a3", "a9"] {
                    let row = certificates.first {
                        text($0["authority_id"]) == authority && text($0["serial"]) == serial
                    }
                    let found = try asOf.certificate(authority: authority, serial: serial, at: moment)
                    #expect(found?["status"] == row.map { "\"\(text($0["status"]))\"" })
                    if let found { expired.insert(found["is_expired"] ?? "") }
                }
            }
            guard let row = certificates.first, let notAfter = number(row["not_after"]) else { continue }
            // PostgreSQL counts from 2000.
            let end = Timestamp(microseconds: notAfter + 946_684_800_000_000)
            for (after, isExpired) in [(999_999, "false"), (1_000_000, "true")] as [(Int64, String)] {
                let moment = Moment(end: moment.end, time: end.adding(microseconds: after))
                let found = try asOf.certificate(
                    authority: text(row["authority_id"]), serial: text(row["serial"]), at: moment)
                #expect(found?["is_expired"] == isExpired)
            }
        }
        #expect(expired == ["false"])
    }

    @Test func aTimeIsBehindAllEventsUpToIt() throws {
        let asOf = try asOf()
        let at = FleetHistory.time(100)
        #expect(try asOf.moment(.time(at)) == Moment(end: Position(101), time: at))
        #expect(try asOf.moment(.time(at.adding(microseconds: -1))).end == Position(100))
        #expect(try asOf.moment(.time(at.adding(microseconds: 999_999))).end == Position(101))
        #expect(try asOf.moment(.time(FleetHistory.time(5000))).end == Position(count))
        #expect(try asOf.moment(.time(Timestamp(microseconds: 0))).end == Position(0))
        #expect(throws: LogError.self) { try asOf.moment(.position(900)) }
        #expect(PointInTime("17") == .position(17) && PointInTime("-1") == nil && PointInTime("noon") == nil)
        #expect(PointInTime("2026-11-21T08:00:00Z") == .time(Timestamp(rfc3339: "2026-11-21T08:00:00Z")!))
    }

    /// Presence is that of the moment, not of now.
    @Test func presenceIsThatOfTheMoment() throws {
        let asOf = try asOf()
        let last = try asOf.moment(.position(count - 1))
        let row = try #require(try asOf.device(tenant: "acme", device: "d1", at: last))
        let seen = try #require(Timestamp(rfc3339: row["last_seen_at"]!.replacingOccurrences(of: "\"", with: "")))
        for (seconds, status) in [(0, "ONLINE"), (90, "ONLINE"), (91, "STALE"), (300, "STALE"), (301, "OFFLINE")] {
            let time = seen.adding(microseconds: Int64(seconds) * 1_000_000)
            let moment = Moment(end: last.end, time: time)
            #expect(try asOf.device(tenant: "acme", device: "d1", at: moment)?["status"] == "\"\(status)\"")
        }
        let some = try #require(
            try (0..<9).lazy.compactMap {
                try asOf.device(tenant: "acme", device: "d\($0)", at: last)
            }.first { $0["reported_state"] != "null" })
        #expect(some["firmware_version"]?.hasPrefix("\"1.") == true)
    }

    @Test func whatChangedBetweenTwoMoments() throws {
        let asOf = try asOf(snapshots: [500])
        let before = try asOf.device(tenant: "acme", device: "d1", at: try asOf.moment(.position(300)))
        let after = try asOf.device(tenant: "acme", device: "d1", at: try asOf.moment(.position(800)))
        let changes = NamedRow.changes(from: before, to: after)
        #expect(changes.contains { $0.name == "message_count" } && !changes.contains { $0.name == "device_id" })
        #expect(NamedRow.changes(from: after, to: after).isEmpty)
        #expect(NamedRow.changes(from: nil, to: after).count == after?.fields.count { $0.json != "null" })
    }

    @Test func nobodyThereYet() throws {
        let asOf = try asOf()
        let moment = try asOf.moment(.position(5))
        #expect(try asOf.device(tenant: "acme", device: "unknown", at: moment) == nil)
        let empty = Moment(end: Position(0), time: FleetHistory.time(0))
        #expect(try asOf.device(tenant: "acme", device: "d1", at: empty) == nil)
    }
}
