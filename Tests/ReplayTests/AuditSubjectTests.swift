import EventLog
import EventModel
import Evidence
import ProjectionTestSupport
import Projections
import Testing

@testable import Auditing

/// What an audit of one subject leaves out must not matter to that subject's rows.
struct AuditSubjectTests {
    /// The rows of each device and campaign are those that an audit of the whole log gives them, campaigns that the
    /// engine runs included.
    @Test(arguments: [UInt64](1...4)) func aSubjectsRowsAreThoseOfTheWholeLog(seed: UInt64) throws {
        let (log, key, folder) = try fleet(seed: seed)
        defer { withExtendedLifetime(folder) {} }
        func audit(_ subject: AuditSubject) throws -> AuditReport {
            try Audit.run(subject, in: Position(0)..<Position(600), of: log, key: key, madeAt: moment(0))
        }
        let range = try audit(.range), whole = range.end
        // What the comparison is about happens.
        let text = range.events.map { String(decoding: $0.record, as: UTF8.self) }
        for part in [
            "campaign.dispatched/2", "campaign.devices_ended/1", "campaign.published/1", "campaign.stage_begun/1",
        ] where !text.contains(where: { $0.contains(part) }) {
            Issue.record("seed \(seed) has no \(part)")
        }
        var certificates: Set<String> = []
        for tenant in FleetHistory.tenants {
            for device in FleetHistory.devices {
                let report = try audit(.device(tenant: tenant, device: device))
                compare(report, whole)
                for (table, row) in report.end where table.name == "device_certificates_v1" {
                    certificates.insert(row.text("status", table) ?? "")
                }
            }
        }
        #expect(certificates.count > 1, "devices have certificates, and not all stay as they were issued")
        for id in Int64(1)...3 { try compare(audit(.campaign(id)), whole) }
    }

    /// Rows from before the report are the subject's and those of its campaigns, not those of other devices.
    @Test func aDevicesReportHasNoOtherDevicesRows() throws {
        let (log, key, folder) = try fleet(seed: 1)
        defer { withExtendedLifetime(folder) {} }
        let signer = try LogKey.open(dataFolder: folder.path, logID: log.logID)
        var starts = 0
        for from in stride(from: UInt64(50), to: 600, by: 50) {
            for device in FleetHistory.devices {
                let report = try Audit.run(
                    .device(tenant: "acme", device: device), in: Position(from)..<Position(600), of: log, key: key,
                    madeAt: moment(0))
                for (table, row) in report.start {
                    starts += 1
                    #expect(row.text("device_id", table) ?? device == device, "\(device) from \(from): \(table.name)")
                }
                let verdict = try AuditCheck.run(try report.bundle(signedWith: signer), key: key)
                #expect(verdict.isFolded)
            }
        }
        #expect(starts > 100)
    }

    /// What decisions change, those about groups and certificates included, is the same wherever the range begins.
    @Test func aRangeMayBeginAnywhere() throws {
        let (log, key, folder) = try fleet(seed: 5)
        defer { withExtendedLifetime(folder) {} }
        func events(from: UInt64) throws -> [String] {
            let report = try Audit.run(
                .range, in: Position(from)..<Position(600), of: log, key: key, madeAt: moment(0))
            return report.events.map {
                AuditBundle.event($0.position.rawValue, $0.record, isContext: $0.isContext, $0.changes)
            }
        }
        let whole = try events(from: 0)
        for table in ["device_groups_v1", "certificate_authorities_v1", "device_certificates_v1", "crls_v1"] {
            #expect(whole.contains { $0.contains(table) }, "nothing changes \(table)")
        }
        for from in stride(from: UInt64(40), to: 600, by: 70) {
            #expect(try events(from: from) == Array(whole[Int(from)...]), "from \(from)")
        }
    }

    /// A signed log of 600 events.
    private func fleet(seed: UInt64) throws -> (log: ReadOnlyLog, key: VerifierKey, folder: DataFolder) {
        let folder = try DataFolder(), path = folder.path
        var options = FileLogOptions()
        options.isKeeping = false
        options.signer = { (id) throws(LogError) in try LogKey.open(dataFolder: path, logID: id) }
        let writer = try FileLog.open(directory: folder.logPath, options: options)
        var history = FleetHistory(seed: seed)
        try history.append(600, to: writer)
        writer.close()
        return (try folder.open(), try #require(try LogKey.publicKey(dataFolder: path)), folder)
    }

    private func compare(_ report: AuditReport, _ whole: [(table: StoredTable, row: AuditRow)]) {
        var tables = Set(report.subject.projections.flatMap { $0.descriptor.storedTables.map(\.name) })
        // An audit of one campaign has its own firmware only, and begins with its creation.
        if case .campaign = report.subject { tables.remove("ota_unmatched_reports_v1") }
        tables.remove("firmware_versions_v1")
        func rows(_ all: [(table: StoredTable, row: AuditRow)]) -> Set<String> {
            Set(
                all.filter { tables.contains($0.table.name) && report.subject.shows($0.row, of: $0.table) }
                    .map { "\($0.table.name) \($0.row.values.map { $0.map { String(decoding: $0, as: UTF8.self) } })" })
        }
        let difference = rows(report.end).symmetricDifference(rows(whole))
        #expect(difference.isEmpty, "\(report.subject): \(difference.sorted().prefix(2))")
    }
}
