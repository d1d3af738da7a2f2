import Decisions
import Decoding
import EventLog
import EventModel
import Evidence
import Foundation
import Projections
import Snapshots

// Auditing: what happened to a device, to a campaign, or in a range of the log; what each event changed; and the proof
// that these events are in the log that its checkpoint says. Everything is folded from the log's first event, by
// the folds that fill the tables: no database takes part. A device's events are found by posting lists. Where the log's
// beginning was removed, and before a range, the rows of the nearest snapshot stand for what came before.

/// Makes a report. Blocks the thread; one report.
public final class Audit {
    private let log: ReadOnlyLog
    private let subject: AuditSubject
    private let range: Range<Position>
    private let eventsMax: Int
    private let decoder = FactDecoder()
    private var folds: [ChangeTrackingFold]
    /// Rows that stand for everything before `begin`, by projection.
    private let base: [String: RowFiles]
    private let begin: Position
    /// Stretches that cannot be read.
    private var lost: [Range<Position>] = []
    private var report: AuditReport

    /// - Parameters:
    ///   - range: events behind the log's checkpoint are left out, since nobody could check them.
    ///   - eventsMax: more are refused: a report is for people.
    ///   - snapshots: where to begin when the log's beginning was removed.
    ///   - key: the log's public key; with it the checkpoint is checked first.
    /// - Throws: `LogError`, `AuditError`, `EvidenceError`.
    public static func run(
        _ subject: AuditSubject, in range: Range<Position>, of log: ReadOnlyLog, eventsMax: Int = 100_000,
        snapshots: SnapshotFolder? = nil, key: VerifierKey?, madeAt: Timestamp
    ) throws -> AuditReport {
        guard let bytes = try log.storedCheckpoint() else {
            throw AuditError(.usage, "nothing of this log was signed yet: a running refold signs every second")
        }
        let note = try SignedNote(parsing: bytes)
        let checkpoint = try key.map { try note.checkpoint(verifiedBy: $0) } ?? note.checkpoint()
        guard checkpoint.origin == log.origin else {
            throw AuditError(.no, "the stored checkpoint is of \(checkpoint.origin), this log is \(log.origin)")
        }
        guard range.lowerBound.rawValue <= checkpoint.size else {
            throw AuditError(
                .usage,
                "only the positions below \(checkpoint.size) are signed so far: nothing from "
                    + "\(range.lowerBound) on can be proved yet")
        }
        let end = min(range.upperBound, Position(checkpoint.size))
        var report = AuditReport(
            subject: subject, range: range.lowerBound..<max(range.lowerBound, end), origin: log.origin, madeAt: madeAt,
            checkpoint: note)
        report.size = checkpoint.size
        report.isCutToCheckpoint = end < range.upperBound
        func run(_ file: SnapshotFile?) throws -> AuditReport {
            guard file != nil || log.horizon == Position(0) else {
                throw LogError(
                    .beforeHorizon,
                    "the log begins at position \(log.horizon), and no snapshot from before "
                        + "position \(range.lowerBound) says what was then: ask for what came later by --from, or name "
                        + "the archive (--restore-command)")
            }
            return try Audit(
                log: log, subject: subject, range: report.range, eventsMax: eventsMax, report: report, snapshot: file
            ).run()
        }
        guard let snapshots, log.horizon > Position(0) || subject == .range && range.lowerBound > Position(0) else {
            return try run(nil)
        }
        let entries = subject.projections
        return try snapshots.withNewest(
            atOrBefore: range.lowerBound, where: { file in entries.allSatisfy { file.holds($0.descriptor) } }, run)
    }

    init(
        log: ReadOnlyLog, subject: AuditSubject, range: Range<Position>, eventsMax: Int, report: AuditReport,
        snapshot: SnapshotFile?
    ) {
        self.log = log
        self.subject = subject
        self.range = range
        self.eventsMax = eventsMax
        self.report = report
        begin = snapshot?.end ?? Position(0)
        var base: [String: RowFiles] = [:]
        for entry in subject.projections where snapshot != nil {
            base[entry.name] = RowFiles(
                entry.descriptor, folder: NSTemporaryDirectory() + "refold-audit", base: snapshot)
        }
        self.base = base
        folds = subject.projections.map { ChangeTrackingFold($0, base: base[$0.name]) }
    }

    func run() throws -> AuditReport {
        try findGaps()
        switch subject {
        case .device(let tenant, let device): try auditDevice(tenant, device)
        case .campaign(let id): try auditCampaign(id)
        case .range: try auditRange()
        }
        for fold in folds {
            if let failure = fold.failure { throw failure }
            report.start += fold.start.compactMap { table, row in
                guard !subject.shows(row, of: table) else { return (table, row) }
                // A decision about many devices reads their rows too. Without a row, a device is no target. Events
                // about the device's own certificates read another device's row only in a log that breaks the rules.
                if case .device = subject, row.text("device_id", table) != nil, row.text("serial", table) == nil {
                    return nil
                }
                // Sums that others have a share in: not what they were, and of no account here.
                var row = row
                for (index, column) in table.columns.enumerated() where column.role == .delta {
                    row.values[index] = [UInt8](repeating: 0, count: 8)
                }
                return (table, row)
            }
        }
        try prove()
        return report
    }

    // MARK: what is missing

    private func findGaps() throws {
        for damage in try log.verify(Position(0)..<range.upperBound).damages where damage.lostEvents > 0 {
            let positions = damage.range.positions
            lost.append(positions)
            guard positions.lowerBound < range.upperBound else { continue }
            let accepted = damage.accepted.map {
                "given up by operator \($0.event.operatorName) at position \($0.position): \($0.event.reason)"
            }
            let devices =
                damage.devices.isEmpty
                ? ""
                : "; of devices "
                    + damage.devices.prefix(20).joined(separator: ", ")
                    + (damage.devicesAreComplete ? "" : " and perhaps others")
            report.gaps.append(
                AuditReport.Gap(
                    kind: accepted == nil ? .damage : .accepted, from: positions.lowerBound.rawValue,
                    to: positions.upperBound.rawValue - 1,
                    text: (accepted ?? "\(damage.range.segment): \(damage.range.reason)") + devices))
        }
    }

    /// What is left of a stretch.
    private func readable(_ range: Range<Position>) -> [Range<Position>] {
        var pieces: [Range<Position>] = [], next = range.lowerBound
        for gap in lost where gap.upperBound > next && gap.lowerBound < range.upperBound {
            if gap.lowerBound > next { pieces.append(next..<gap.lowerBound) }
            next = max(next, gap.upperBound)
        }
        if next < range.upperBound { pieces.append(next..<range.upperBound) }
        return pieces
    }

    // MARK: reading

    private func readSelected(
        _ selection: EventSelection, in range: Range<Position>, _ body: (RecordView, Position) throws -> Void
    ) throws {
        // What is not on this disk has no posting lists here: all of it is fetched.
        let kept = min(max(log.firstPosition, range.lowerBound), range.upperBound)
        if range.lowerBound < kept {
            try readAll(range.lowerBound..<kept) { block, range in
                try block.forEach { record, position in
                    if range.contains(position), Self.isSelected(record, selection) { try body(record, position) }
                }
            }
        }
        for piece in readable(kept..<range.upperBound) {
            let reader = log.events(selection, in: piece)
            var failure: (any Error)?
            while try reader.read({ record, position in
                guard failure == nil else { return }
                do { try body(record, position) } catch { failure = error }
            }) {
                if let failure { throw failure }
            }
            if let failure { throw failure }
        }
    }

    private static func isSelected(_ record: RecordView, _ selection: EventSelection) -> Bool {
        switch selection {
        case .device(let tenant, let device):
            guard record.kind == .message || record.kind == .rejection, let topic = DeviceTopic(record.topic)
            else { return false }
            return record.topic[topic.tenant].elementsEqual(tenant.utf8)
                && record.topic[topic.device].elementsEqual(device.utf8)
        case .schema(let name):
            return record.kind != .message && record.kind != .rejection && record.topic.elementsEqual(name.utf8)
        case .anyTenant: return false
        }
    }

    private func readAll(
        _ range: Range<Position>, _ body: (EventBlock, Range<Position>) throws -> Void
    ) throws {
        for piece in readable(range) {
            let reader = try log.reader(from: piece.lowerBound), block = EventBlock()
            var next = piece.lowerBound
            while next < piece.upperBound, try reader.read(into: block, atLeast: 1) {
                try body(block, max(next, block.base)..<min(block.end, piece.upperBound))
                next = block.end
            }
        }
    }

    private struct Kept {
        let position: Position
        let record: [UInt8]
        var isContext = false
    }

    /// Copies of the events of some schemas that are wanted, in order.
    private func keep(
        _ schemas: [String], in range: Range<Position>, isContext: Bool = false,
        where isWanted: (RecordView, Position) -> Bool = { _, _ in true }
    ) throws -> [Kept] {
        var kept: [Kept] = []
        for schema in schemas {
            try readSelected(.schema(schema), in: range) { record, position in
                guard isWanted(record, position) else { return }
                kept.append(Kept(position: position, record: Array(record.bytes), isContext: isContext))
            }
        }
        return kept.sorted { $0.position < $1.position }
    }

    /// What says something about the record itself: messages that a broker lost, losses, steps of the clock.
    private func context() throws -> [Kept] {
        let alarms = try keep([BrokerEvent.Schema.alarmRaised.rawValue], in: range, isContext: true) { record, _ in
            guard case .broker(let schema, let event) = decoder.decodeInternal(record) else { return false }
            return EventWords.isLoss(schema, event)
        }
        return try alarms
            + keep(
                [
                    BrokerEvent.Schema.sessionLost.rawValue, LogSchema.lossAccepted.rawValue,
                    LogSchema.clockStepped.rawValue,
                ],
                in: range, isContext: true)
    }

    // MARK: the subjects

    private func auditDevice(_ tenant: String, _ device: String) throws {
        let everything = begin..<max(begin, range.upperBound)
        let selection = EventSelection.device(tenant: tenant, device: device)
        // The campaigns that it was a target of, or reported for.
        var targeted = try targetedBefore(tenant, device), reported: Set<Int64> = []
        try readSelected(selection, in: everything) { record, _ in
            guard let topic = DeviceTopic(record.topic), topic.topicClass == .otaStatus, record.kind == .message,
                case .otaStatus(let report) = decoder.decode(record, topic: topic)
            else { return }
            reported.insert(report.campaignID)
        }
        try readSelected(.schema(CampaignSchema.campaignTargets.rawValue), in: everything) { record, _ in
            guard let event = decoder.decodeInternal(record).decision as? CampaignTargets, event.tenantID == tenant,
                event.devices.contains(device)
            else { return }
            targeted.insert(event.campaignID)
        }
        var firmware: Set<Int64> = [], dispatches: Set<UInt64> = []
        let campaigns = Set(targeted.union(reported).map { "campaign:\($0)" })
        // Dispatches before publications, which refer to them: schemas are in alphabetical order.
        var others = try keep(DecisionCatalog.campaigns.schemas, in: everything) { record, position in
            guard let decision = decoder.decodeInternal(record).decision else { return false }
            let envelope = decision.envelope
            guard campaigns.contains(envelope.subject) else { return false }
            guard envelope.tenantID == tenant else {
                // Of another tenant's it is enough to know that it is another's, and until when there was one.
                return decision is CampaignCreated || record.topicString == CampaignSchema.campaignDeleted.rawValue
            }
            if let event = decision as? CampaignCreated { firmware.insert(event.firmwareVersionID) }
            if let event = decision as? CampaignPublished {
                return event.batches.contains { $0.devices?.contains(device) ?? dispatches.contains($0.command) }
            }
            guard envelope.devices?.contains(device) ?? true else { return false }
            if decision is CampaignDispatched { dispatches.insert(position.rawValue) }
            return true
        }
        others += try keep([CampaignSchema.firmwareAdded.rawValue], in: everything) { record, _ in
            guard let event = decoder.decodeInternal(record).decision as? FirmwareAdded else { return false }
            return firmware.contains(event.id) && event.tenantID == tenant
        }
        others += try certificateDecisions(tenant, device, in: everything)
        others += try context()
        others.sort { $0.position < $1.position }
        try follow(others) { body in try readSelected(selection, in: everything, body) }
    }

    /// Decisions about the certificates that the device has or had. A certificate is identified by its authority and
    /// serial number: decisions with the same ones count, whichever device they name.
    private func certificateDecisions(_ tenant: String, _ device: String, in range: Range<Position>) throws -> [Kept] {
        let schemas =
            CertificateAdded.schemas + CertificateChanged.schemas + ClientCut.schemas + ClientBanLifted.schemas
            + CertificateRenewal.schemas
        var subjects: Set<String> = []
        try forEachBaseRow(of: "device_certificates", in: "certificates") { row, table in
            guard row.text("tenant_id", table) == tenant, row.text("device_id", table) == device,
                let authority = row.text("authority_id", table), let serial = row.text("serial", table)
            else { return }
            subjects.insert("certificate:\(authority)/\(serial)")
        }
        func envelope(_ record: RecordView) -> Envelope? { decoder.decodeInternal(record).decision?.envelope }
        for schema in schemas {
            try readSelected(.schema(schema), in: range) { record, _ in
                guard let envelope = envelope(record), envelope.tenantID == tenant,
                    envelope.devices?.contains(device) == true
                else { return }
                subjects.insert(envelope.subject)
            }
        }
        guard !subjects.isEmpty else { return [] }
        return try keep(schemas, in: range) { record, _ in
            envelope(record).map { subjects.contains($0.subject) } ?? false
        }
    }

    /// The campaigns that a device was a target of before the beginning.
    private func targetedBefore(_ tenant: String, _ device: String) throws -> Set<Int64> {
        var found: Set<Int64> = []
        try forEachBaseRow(of: "ota_device_status") { row, table in
            guard row.text("tenant_id", table) == tenant, row.text("device_id", table) == device,
                let campaign = row.int8("campaign_id", table)
            else { return }
            found.insert(campaign)
        }
        return found
    }

    private func forEachBaseRow(
        of prefix: String, in projection: String = "campaigns", _ body: (AuditRow, StoredTable) -> Void
    ) throws {
        guard let rows = base[projection],
            let table = rows.projection.storedTables.first(where: { $0.name.hasPrefix(prefix) })
        else { return }
        let cursor = try rows.cursor(of: table.name)
        while try cursor.next() {
            cursor.withRow { tuple in
                if let row = AuditRow(tuple: Array(tuple), of: table) { body(row, table) }
            }
        }
    }

    private func auditCampaign(_ id: Int64) throws {
        let everything = begin..<max(begin, range.upperBound)
        var created: (position: Position, firmware: Int64, tenant: String?)?
        try forEachBaseRow(of: "ota_campaigns") { row, table in
            guard row.int8("id", table) == id else { return }
            created = (begin, row.int8("firmware_version_id", table) ?? -1, row.text("tenant_id", table))
        }
        try readSelected(.schema(CampaignSchema.campaignCreated.rawValue), in: everything) { record, position in
            guard created == nil, let event = decoder.decodeInternal(record).decision as? CampaignCreated,
                event.id == id
            else { return }
            created = (position, event.firmwareVersionID, event.tenantID)
        }
        guard let created else {
            throw AuditError(.usage, "there is no campaign \(id) in the log before position \(range.upperBound)")
        }
        // Another tenant's refused commands may name it too.
        var others = try keep(DecisionCatalog.campaigns.schemas, in: everything) { record, _ in
            guard let envelope = decoder.decodeInternal(record).decision?.envelope else { return false }
            return envelope.subject == "campaign:\(id)" && envelope.tenantID == created.tenant
        }
        others += try keep([CampaignSchema.firmwareAdded.rawValue], in: everything) { record, _ in
            guard let event = decoder.decodeInternal(record).decision as? FirmwareAdded else { return false }
            return event.id == created.firmware
        }
        others += try context()
        others.sort { $0.position < $1.position }
        // Reports may come from any device, targets or not: every event since its creation is looked at.
        try follow(others) { body in
            try readAll(created.position..<max(created.position, range.upperBound)) { block, range in
                try block.forEach { record, position in
                    guard range.contains(position), record.kind == .message, record.verdict == .accepted,
                        !record.flags.contains(.retained), let topic = DeviceTopic(record.topic),
                        topic.topicClass == .otaStatus,
                        case .otaStatus(let report) = decoder.decode(record, topic: topic),
                        report.campaignID == id
                    else { return }
                    try body(record, position)
                }
            }
        }
    }

    /// Feeds the subject's events and the kept others to the folds, in the order of the log; what lies in the range is
    /// reported.
    private func follow(
        _ others: [Kept], _ read: ((RecordView, Position) throws -> Void) throws -> Void
    ) throws {
        var next = 0, isWatching = false
        func feed(_ record: RecordView, _ position: Position, isContext: Bool) throws {
            guard position >= range.lowerBound else {
                for fold in folds { fold.pass(record, position) }
                return
            }
            if !isWatching {
                for fold in folds { fold.beginWatching() }
                isWatching = true
            }
            try add(record, position, isContext: isContext, with: folds)
        }
        func feedOthers(before position: Position) throws {
            while next < others.count, others[next].position < position {
                let kept = others[next]
                next += 1
                try kept.record.withUnsafeBytes {
                    try feed(RecordView(unchecked: $0.baseAddress!), kept.position, isContext: kept.isContext)
                }
            }
        }
        try read { record, position in
            try feedOthers(before: position)
            try feed(record, position, isContext: false)
        }
        try feedOthers(before: range.upperBound)
    }

    private func auditRange() throws {
        if range.lowerBound > begin {
            // Only what the range touches need be known before it.
            var keys: Set<FoldKey> = []
            try readAll(range) { block, range in
                block.forEach { record, position in
                    guard range.contains(position) else { return }
                    if let topic = DeviceTopic(record.topic) { keys.insert(FoldKey(record.topic[topic.address])) }
                    if !record.broker.isEmpty { keys.insert(FoldKey(record.broker)) }
                    if record.kind == .decision { for fold in folds { keys.formUnion(fold.keys(of: record)) } }
                }
            }
            let scoped = subject.projections.map {
                ChangeTrackingFold($0, scope: $0.name == "campaigns" ? .all : .only(keys), base: base[$0.name])
            }
            try readAll(begin..<range.lowerBound) { block, range in
                for fold in scoped { fold.pass(block, in: range) }
            }
            folds = scoped
        }
        for fold in folds { fold.beginWatching() }
        try readAll(range) { block, range in
            try block.forEach { record, position in
                guard range.contains(position) else { return }
                try add(record, position, isContext: false, with: folds)
            }
        }
    }

    private func add(
        _ record: RecordView, _ position: Position, isContext: Bool, with folds: [ChangeTrackingFold]
    ) throws {
        guard report.events.count < eventsMax else {
            throw AuditError(
                .usage,
                "there are more than \(eventsMax) events: ask for less by --from and --until, or "
                    + "raise --limit")
        }
        let changes = Self.changes(record, position, folds, subject)
        let words = EventWords(record, decoder: decoder)
        report.events.append(
            AuditReport.Event(
                position: position, receivedAt: record.receivedAt, who: words.who, what: words.what,
                isContext: isContext,
                reportsBrokerLoss: words.reportsBrokerLoss, record: Array(record.bytes), changes: changes))
    }

    /// What an event changes in the subject's rows.
    static func changes(
        _ record: RecordView, _ position: Position, _ folds: [ChangeTrackingFold], _ subject: AuditSubject
    ) -> [RowChange] {
        folds.flatMap { $0.watch(record, position) }.filter { subject.shows($0.after, of: $0.table) }
    }

    // MARK: the proof

    private func prove() throws {
        let tree = try log.tree()
        let positions = report.events.map(\.position.rawValue)
        do {
            report.proof = try TreeProofs.several(positions, size: report.size) { try tree.range($0, $1) }
        } catch {
            guard (error as? LogError)?.code == .corrupt, report.gaps.contains(where: { $0.kind == .damage }) else {
                throw error
            }
            // Leaves that nobody kept are lost with their events. What is left can still be told.
            report.proofProblem = "the log is damaged, and the hashes of what is lost are lost with it (\(error))"
            return
        }
        // As an outsider will: a proof that does not hold is never handed out.
        let leaves = report.events.map { event in
            (
                position: event.position.rawValue,
                leaf: event.record.withUnsafeBytes {
                    LeafHasher().leaf(RecordView(unchecked: $0.baseAddress!))
                }
            )
        }
        let root = try report.checkpoint.checkpoint().root
        guard TreeProofs.root(of: leaves, size: report.size, hashes: report.proof) == root else {
            throw LogError(
                .corrupt,
                "the log does not hold what its checkpoint of \(report.size) events was signed "
                    + "for: it was changed since. refold log verify --deep says where")
        }
    }
}
