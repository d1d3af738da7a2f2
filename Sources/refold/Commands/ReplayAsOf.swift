import ArgumentParser
import EventLog
import EventModel
import Foundation
import History
import Snapshots

/// `refold replay as-of`: works on the files alone, daemon and PostgreSQL up or down.
struct ReplayAsOf: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "as-of", abstract: "Rows as they stood at a moment.",
        discussion: """
            From the log and the nearest snapshot before the moment. --position P is the state behind event P; \
            --at TIME the state behind all events received at or before it. --diff shows what changed between the two \
            moments. Presence is that of the moment, by the thresholds given. Exit code 1: there was no such thing \
            then, or the events that it needs are damaged or gone.
            """)
    @Argument(
        help: ArgumentHelp(
            """
            device TENANT DEVICE, fleet --tenant TENANT, campaign ID, broker NAME, authority ID, \
            certificate AUTHORITY SERIAL, or enforcement BROKER AUTHORITY CRL-NUMBER.
            """, valueName: "subject"))
    var subject: [String]
    @Option(help: "The tenant of a fleet; of a campaign: only when it is this tenant's.") var tenant: String?
    @Flag(help: "With a campaign: its devices' parts in it too (rows of ota_device_status).") var devices = false
    @OptionGroup var options: Options

    private enum Subject {
        case device(String, String), fleet(String), campaign(Int64), broker(String), authority(String)
        case certificate(authority: String, serial: String), enforcement(String, String, Int64)
    }

    private func parsed() throws -> Subject {
        switch (subject.first, subject.count) {
        case ("device", 3): return .device(subject[1], subject[2])
        case ("fleet", 1):
            guard let tenant else { throw ValidationError("fleet needs --tenant") }
            return .fleet(tenant)
        case ("campaign", 2):
            guard let id = Int64(subject[1]) else { throw ValidationError("campaign \(subject[1]): must be a number") }
            return .campaign(id)
        case ("broker", 2): return .broker(subject[1])
        case ("authority", 2): return .authority(subject[1])
        case ("certificate", 3): return .certificate(authority: subject[1], serial: subject[2].lowercased())
        case ("enforcement", 4):
            guard let number = Int64(subject[3]) else {
                throw ValidationError("CRL-NUMBER \(subject[3]): must be a whole number")
            }
            return .enforcement(subject[1], subject[2], number)
        default:
            throw ValidationError(
                """
                say of what: device TENANT DEVICE, fleet --tenant TENANT, campaign ID, broker NAME, authority ID, \
                certificate AUTHORITY SERIAL, enforcement BROKER AUTHORITY CRL-NUMBER
                """)
        }
    }

    func validate() throws { _ = try parsed() }

    func run() throws {
        switch try parsed() {
        case .device(let tenant, let device):
            try options.run(
                { try $0.device(tenant: tenant, device: device, at: $1).map { [$0] } ?? [] },
                key: ["tenant_id", "device_id"], nothing: "nothing had been heard of the device")
        case .fleet(let tenant):
            try options.run(
                { asOf, moment in
                    var rows: [NamedRow] = []
                    try asOf.fleet(tenant: tenant, at: moment) { rows.append($0) }
                    return rows
                }, key: ["tenant_id", "device_id"], nothing: "nothing had been heard of any device")
        case .campaign(let id):
            try options.run(
                { asOf, moment in
                    guard let found = try asOf.campaign(id, tenant: tenant, at: moment) else { return [] }
                    return [found.campaign] + (devices ? found.devices : [])
                }, key: ["campaign_id", "device_id", "id"], nothing: "there was no such campaign")
        case .broker(let name):
            try options.run(
                { try $0.broker(name, at: $1).map { [$0] } ?? [] }, key: ["broker_name"],
                nothing: "there had been no connection of this name")
        case .authority(let id):
            try options.run(
                { try $0.authority(id, at: $1).map { [$0] } ?? [] }, key: ["id"], nothing: "there was no such authority"
            )
        case .certificate(let authority, let serial):
            try options.run(
                { try $0.certificate(authority: authority, serial: serial, at: $1).map { [$0] } ?? [] },
                key: ["authority_id", "serial"], nothing: "there was no such certificate")
        case .enforcement(let broker, let authority, let number):
            try options.run(
                { asOf, moment in
                    try asOf.enforcement(broker: broker, authority: authority, number: number, at: moment)
                        .map { [$0] } ?? []
                }, key: ["broker", "authority_id", "number"], nothing: "the CRL had not been written for the broker")
        }
    }

    /// When, and how it is shown.
    struct Options: ParsableArguments {
        @Option(help: "The moment as a time (RFC 3339).") var at: String?
        @Option(help: "The moment as a position.") var position: UInt64?
        @Option(help: "Another moment, a time or a position: show what changed between the two.") var diff: String?
        @Option(name: .customLong("stale-seconds"), help: "A device was STALE after so long.")
        var staleSeconds = PresenceThresholds().staleSeconds
        @Option(name: .customLong("offline-seconds"), help: "And OFFLINE after so long.")
        var offlineSeconds = PresenceThresholds().offlineSeconds
        @OptionGroup var data: DataOption
        @Flag(help: "Print JSON, one object a line.") var json = false

        func validate() throws {
            guard (at == nil) != (position == nil) else {
                throw ValidationError("name the moment: --at TIME or --position P")
            }
            _ = try (moment(), other())
            guard staleSeconds >= 0, offlineSeconds >= staleSeconds else {
                throw ValidationError("--offline-seconds must not be less than --stale-seconds")
            }
        }

        func moment() throws -> PointInTime {
            if let position { return .position(position) }
            guard let at, let time = Timestamp(rfc3339: at) else {
                throw ValidationError("--at \(at ?? ""): must be RFC 3339, such as 2026-11-21T08:00:00Z")
            }
            return .time(time)
        }

        func other() throws -> PointInTime? {
            guard let diff else { return nil }
            guard let name = PointInTime(diff) else {
                throw ValidationError("--diff \(diff): must be a position, or a time in RFC 3339")
            }
            return name
        }

        /// Asks at one moment, or at two, the earlier first, and prints.
        func run(_ ask: (AsOf, Moment) throws -> [NamedRow], key: [String], nothing: String) throws {
            let log = try data.openLog()
            var asOf = AsOf.offline(log, data.folder)
            asOf.thresholds.staleSeconds = staleSeconds
            asOf.thresholds.offlineSeconds = offlineSeconds
            try reporting {
                let moment = try asOf.moment(try self.moment())
                guard let other = try other() else {
                    let rows = try ask(asOf, moment)
                    guard !rows.isEmpty else { return try none(nothing, moment) }
                    return show(rows, moment)
                }
                let moments = [moment, try asOf.moment(other)].sorted { ($0.end, $0.time) < ($1.end, $1.time) }
                let rows = try moments.map { try ask(asOf, $0) }
                guard !rows[0].isEmpty || !rows[1].isEmpty else { return try none(nothing, moments[1]) }
                difference(rows[0], rows[1], moments, key)
            }
        }

        private func none(_ nothing: String, _ moment: Moment) throws {
            throw ExitCode(1, printing: "\(nothing) at \(moment.text)")
        }

        private func show(_ rows: [NamedRow], _ moment: Moment) {
            if !json { print("as of \(moment.text)") }
            for row in rows {
                if json {
                    printJSON(row.json.dropLast() + ",\"as_of\":\(moment.json)}")
                } else {
                    let width = row.fields.map(\.name.count).max() ?? 0
                    print("")
                    for field in row.fields {
                        print(
                            field.name.padding(toLength: width, withPad: " ", startingAt: 0) + "  "
                                + TextTable.cell(field.json))
                    }
                }
            }
        }

        private func difference(_ before: [NamedRow], _ after: [NamedRow], _ moments: [Moment], _ key: [String]) {
            func name(_ row: NamedRow) -> String { key.map { row[$0] ?? "null" }.joined(separator: " ") }
            let old = Dictionary(before.map { (name($0), $0) }) { first, _ in first }
            let new = Dictionary(after.map { (name($0), $0) }) { first, _ in first }
            if !json { print("from \(moments[0].text) to \(moments[1].text)") }
            for subject in Set(old.keys).union(new.keys).sorted() {
                let changes = NamedRow.changes(from: old[subject], to: new[subject])
                guard !changes.isEmpty else { continue }
                if json {
                    let members = changes.map { "\"\($0.name)\":[\($0.from),\($0.to)]" }.joined(separator: ",")
                    let names = key.map { "\"\($0)\":\((new[subject] ?? old[subject])?[$0] ?? "null")" }
                    printJSON(
                        "{\(names.joined(separator: ",")),\"from\":\(moments[0].json),\"to\":\(moments[1].json),"
                            + "\"changes\":{\(members)}}")
                } else {
                    print("\n\(TextTable.cell(subject))" + (old[subject] == nil ? " (new)" : ""))
                    for change in changes {
                        print("  \(change.name): \(TextTable.cell(change.from)) → \(TextTable.cell(change.to))")
                    }
                }
            }
        }
    }
}

extension Moment {
    var text: String {
        end == Position(0) ? "\(time), before the first event" : "position \(end.rawValue - 1), \(time)"
    }

    var json: String {
        let position = end == Position(0) ? "null" : String(end.rawValue - 1)
        return "{\"position\":\(position),\"time\":\"\(time)\"}"
    }
}
