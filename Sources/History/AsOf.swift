// History: rows as of a position or a time (`AsOf`), from the log and the snapshots alone. PostgreSQL is not needed.
//
// One device: its row of the nearest snapshot before the moment, and its own events since, which the posting lists of
// sealed segments find. A fleet, a campaign, a broker, a certificate: the rows of the nearest snapshot, and all events
// since, folded by one projection on every core. Presence is what it was at the moment that was asked for, by the
// thresholds in force now: no event says what they were then.

import Decoding
import EventLog
import EventModel
import Foundation
import Primitives
import Projecting
import Projections
import Snapshots

/// Answers what was. Its calls block the thread: not for the cooperative pool. Safe to use from any thread.
public struct AsOf: Sendable {
    public let log: any PastLog
    public let snapshots: SnapshotFolder
    public var thresholds: PresenceThresholds
    /// Told of a damaged snapshot that was passed over.
    public var note: @Sendable (String) -> Void = { _ in }
    public var threads = 2

    public init(log: any PastLog, snapshots: SnapshotFolder, thresholds: PresenceThresholds = .init()) {
        self.log = log
        self.snapshots = snapshots
        self.thresholds = thresholds
    }

    public func moment(_ name: PointInTime) throws -> Moment { try Moment(name, in: log, snapshots: snapshots) }

    // MARK: one device

    /// Nil when no message of the device had been folded by then.
    /// - Throws: `LogError` when events that it needs are damaged or before the horizon; `SnapshotError`.
    public func device(tenant: String, device: String, at moment: Moment) throws -> NamedRow? {
        let entry = entry("device_status"), key = FoldKey.device(tenant: tenant, device: device)
        return try withRows(entry, moment) { rows in
            let fold = entry.makeFold(.only([key]))
            let feeder = Feeder(fold, rows)
            try feedDevice(tenant, device, rows.end..<max(rows.end, moment.end), feeder)
            try feeder.finish(moment.end)
            let table = rows.tables[0]
            var row: NamedRow?
            try rows.find(sortKey(tenant, device), in: table.name) { row = NamedRow($0, table) }
            return row.map { present($0, moment) }
        }
    }

    private func feedDevice(_ tenant: String, _ device: String, _ range: Range<Position>, _ feeder: Feeder) throws {
        var next = range.lowerBound
        let kept = min(max(log.firstPosition, next), range.upperBound)
        // What is not on this disk has no posting lists here: all of it is fetched, or the reader says why not.
        if next < kept {
            let reader = try log.reader(from: next), block = EventBlock()
            while next < kept, try reader.read(into: block, atLeast: 512 << 10) {
                try feeder.feed(block, next..<min(block.end, kept))
                next = block.end
            }
        }
        let events = log.events(.device(tenant: tenant, device: device), in: kept..<range.upperBound)
        while try events.read({ record, position in feeder.feed(record, position) }) {
            if let error = feeder.failure { throw error }
        }
        if let error = feeder.failure { throw error }
        guard events.position >= range.upperBound || range.isEmpty else {
            throw LogError(.outOfRange, "the log ends at \(events.position), before \(range.upperBound)")
        }
    }

    // MARK: many rows

    /// Calls `body` with every device of a tenant that had a row by then, in the order of their ids.
    public func fleet(tenant: String, at moment: Moment, _ body: (NamedRow) throws -> Void) throws {
        let entry = entry("device_status")
        var found: [NamedRow] = []
        try withRows(entry, moment) { rows in
            found.removeAll()
            try foldAll(entry, rows, to: moment.end)
            try forEach(rows.tables[0], of: rows, from: sortKey(tenant)) { found.append(present($0, moment)) }
        }
        for row in found { try body(row) }
    }

    /// A campaign and its devices' parts in it; nil when there was none of this id in the tenant (nil: in any).
    public func campaign(
        _ id: Int64, tenant: String?, at moment: Moment
    ) throws -> (campaign: NamedRow, devices: [NamedRow])? {
        let entry = entry("campaigns")
        return try withRows(entry, moment) { rows in
            try foldAll(entry, rows, to: moment.end)
            var key: [UInt8] = []
            withUnsafeBytes(of: id.bigEndian) { SortKey.append($0, .int8, to: &key) }
            let campaigns = table("ota_campaigns", of: rows)
            var campaign: NamedRow?
            try rows.find(key, in: campaigns.name) { campaign = NamedRow($0, campaigns) }
            guard var campaign, tenant == nil || campaign["tenant_id"] == tenant.map(JSONString.encode)
            else { return nil }
            func count(_ name: String) -> Int64 { campaign[name].flatMap { Int64($0) } ?? 0 }
            campaign.insert(
                "open", String(count("total_devices") - count("succeeded") - count("failed") - count("skipped")),
                after: "skipped")
            var devices: [NamedRow] = []
            try forEach(table("ota_device_status", of: rows), of: rows, from: key) { devices.append($0) }
            return (campaign, devices)
        }
    }

    /// A broker connection of ours; nil when there had been none of that name.
    public func broker(_ name: String, at moment: Moment) throws -> NamedRow? {
        try row(sortKey(name), of: "mqtt_connection_status", in: "mqtt_connection_status", moment)
    }

    /// A certificate authority, with its newest CRL; nil when there was none of this id.
    public func authority(_ id: String, at moment: Moment) throws -> NamedRow? {
        try row(sortKey(id), of: "certificates", in: "certificate_authorities", moment)
    }

    /// A device's certificate; nil when the authority had none with this serial number.
    public func certificate(authority: String, serial: String, at moment: Moment) throws -> NamedRow? {
        var row = try row(sortKey(authority, serial), of: "certificates", in: "device_certificates", moment)
        // As the view has it: the second of not_after belongs to the validity.
        let isExpired = row?["not_after"].flatMap(time).map { $0.adding(microseconds: 1_000_000) <= moment.time }
        row?.insert("is_expired", "\(isExpired ?? false)", after: "last_position")
        return row
    }

    /// How far a CRL had come at a broker; nil when it had not been written for it.
    public func enforcement(broker: String, authority: String, number: Int64, at moment: Moment) throws -> NamedRow? {
        var key = sortKey(broker, authority)
        withUnsafeBytes(of: number.bigEndian) { SortKey.append($0, .int8, to: &key) }
        return try row(key, of: "crl_enforcement", in: "crl_enforcement", moment)
    }

    /// What `transform` makes of all device certificates, in the order of authority and serial number; nil: nothing.
    public func certificates<R>(at moment: Moment, _ transform: (NamedRow) -> R?) throws -> [R] {
        let entry = entry("certificates")
        return try withRows(entry, moment) { rows in
            try foldAll(entry, rows, to: moment.end)
            var found: [R] = []
            try forEach(table("device_certificates", of: rows), of: rows, from: []) { row in
                if let made = transform(row) { found.append(made) }
            }
            return found
        }
    }

    // MARK: parts

    private func entry(_ name: String) -> Catalog.Entry {
        guard let entry = Catalog.entry(named: name) else { preconditionFailure("no projection \(name)") }
        return entry
    }

    /// A row of a table (its name without the version) by its key.
    private func row(
        _ key: [UInt8], of projection: String, in name: String, _ moment: Moment
    ) throws -> NamedRow? {
        let entry = entry(projection)
        return try withRows(entry, moment) { rows in
            try foldAll(entry, rows, to: moment.end)
            let table = table(name, of: rows)
            var row: NamedRow?
            try rows.find(key, in: table.name) { row = NamedRow($0, table) }
            return row
        }
    }

    private func table(_ name: String, of rows: RowFiles) -> StoredTable {
        guard let found = rows.tables.first(where: { $0.name.hasPrefix(name + "_v") }) else {
            preconditionFailure("there is no table \(name)")
        }
        return found
    }

    /// The time that a row holds as JSON.
    private func time(_ json: String) -> Timestamp? {
        Timestamp(rfc3339: json.replacingOccurrences(of: "\"", with: ""))
    }

    private func withRows<R>(_ entry: Catalog.Entry, _ moment: Moment, _ body: (RowFiles) throws -> R) throws -> R {
        let folder = NSTemporaryDirectory() + "refold-as-of"
        return try snapshots.withNewest(
            atOrBefore: moment.end, where: { $0.holds(entry.descriptor) }, report: { note($0.description) }
        ) { base in
            try body(RowFiles(entry.descriptor, folder: folder, base: base, memoryBytesMax: 128 << 20))
        }
    }

    private func foldAll(_ entry: Catalog.Entry, _ rows: RowFiles, to end: Position) throws {
        guard rows.end < end else { return }
        var options = BulkOptions()
        options.threads = threads
        let fold = try BulkFold(source: log, entries: [entry], stores: [rows], options: options)
        try fold.run(to: end)
    }

    /// The rows whose key begins like `key`.
    private func forEach(
        _ table: StoredTable, of rows: RowFiles, from key: [UInt8], _ body: (NamedRow) throws -> Void
    ) throws {
        let cursor = try rows.cursor(of: table.name, from: key)
        while try cursor.next(), cursor.key.starts(with: key) { try cursor.withRow { try body(NamedRow($0, table)) } }
    }

    private func sortKey(_ parts: String...) -> [UInt8] {
        var key: [UInt8] = []
        for part in parts { Array(part.utf8).withUnsafeBytes { SortKey.append($0, .text, to: &key) } }
        return key
    }

    /// What the view `device_status` adds to a row, at that moment.
    private func present(_ row: NamedRow, _ moment: Moment) -> NamedRow {
        var row = row
        let lastSeen = row["last_seen_at"].flatMap(time)
        row.insert(
            "status", JSONString.encode(thresholds.status(lastSeen: lastSeen, at: moment.time)), after: "site_id")
        row.insert(
            "firmware_version", NamedRow.member("firmware_version", of: row["reported_state"]), after: "last_ack_at")
        return row
    }
}

/// Events into one fold over one store, by block or one by one.
private final class Feeder {
    private let fold: any ProjectionFold
    private let rows: RowFiles
    private let one = EventBlock(capacity: 4 << 10)
    private(set) var failure: (any Error)?

    init(_ fold: any ProjectionFold, _ rows: RowFiles) {
        self.fold = fold
        self.rows = rows
    }

    func feed(_ block: EventBlock, _ range: Range<Position>) throws {
        try rows.load(into: fold, for: block, in: range)
        fold.fold(block, in: range)
    }

    func feed(_ record: RecordView, _ position: Position) {
        guard failure == nil else { return }
        one.removeAll(at: position)
        _ = one.append(base: position, count: 1, byteCount: record.length) { room in
            room.copyMemory(from: record.bytes)
            return true
        }
        do { try feed(one, position..<position.next) } catch { failure = error }
    }

    /// What was folded becomes rows.
    func finish(_ end: Position) throws {
        guard end > rows.end else { return }
        var drained = fold.descriptor.tables.map { _ in RowBuffer() }
        fold.drain(into: &drained)
        try rows.commit(
            drained, of: fold.descriptor, partition: 0,
            from: try rows.checkpoint(of: fold.descriptor, partition: 0), to: Position(end.rawValue - 1))
    }
}
