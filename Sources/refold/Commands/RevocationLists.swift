import ArgumentParser
import Certificates
import EventLog
import EventModel
import Foundation
import History
import Issuing
import PKI
import Snapshots

struct RevocationListCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "crl", abstract: "List, show, check and issue certificate revocation lists.",
        subcommands: [List.self, Show.self, Check.self, Issue.self])

    static let columns: [TextTable.Column] = [
        .init("authority", "authority"), .init("number", "number"), .init("entries", "entries"),
        .init("this update", "this_update"), .init("next update", "next_update"), .init("in force at", "in_force"),
        .init("sha256", "sha256"),
    ]

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the newest CRL of each authority, and the brokers where it is in force.",
            discussion: "Example: refold crl list --tenant acme")
        @Option(help: "Authorities that certify this tenant's devices.") var tenant: String
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let rows = try await daemon.asking {
                try await $0.get("/api/v1/tenants/\(DaemonClient.escape(tenant))/crls").object()["items"]
                    as? [[String: Any]] ?? []
            }
            if daemon.json { return printRows(rows, json: true, columns: columns, none: "") }
            let nothing = try await AuthorityCommand.nothing(of: tenant, daemon)
            printRows(
                rows.map(Self.withBrokers), json: false, columns: columns,
                none: nothing ?? "no authority has a CRL yet; an authority without a key issues none")
            if !rows.isEmpty, let nothing { printError("these are authorities of all tenants: \(nothing)") }
        }

        /// Adds `in_force`: the brokers, each with what is not done there yet.
        private static func withBrokers(_ row: [String: Any]) -> [String: Any] {
            let brokers = row["brokers"] as? [[String: Any]] ?? []
            let texts = brokers.map { broker in
                var open: [String] = []
                switch broker["state"] as? String {
                case "PROVED": break
                case "UNUSED": open.append("no certificate in use")
                default:
                    let proved = broker["proved"] as? Int ?? 0
                    open.append(proved > 0 && proved != broker["number"] as? Int ? "CRL \(proved)" : "not proved")
                }
                for (key, text) in [("uncut", "to disconnect"), ("banned", "banned")] {
                    if let count = broker[key] as? Int, count > 0 { open.append("\(count) \(text)") }
                }
                let name = broker["broker"] as? String ?? ""
                return open.isEmpty ? name : "\(name) (\(open.joined(separator: ", ")))"
            }
            return row.merging(["in_force": texts.joined(separator: ", ")]) { $1 }
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print an authority's newest CRL in PEM, or the one of an earlier time.",
            discussion: """
                --at rebuilds the CRL from the log in --data, bit for bit; the daemon may be up or down. Exit code 1: \
                there was no CRL at that time, or the events that it needs are damaged or gone.

                Example: refold crl show fleet --at 2026-11-21T08:00:00Z | openssl crl -noout -text
                """)
        @Argument(help: "The authority.") var authority: String
        @Option(help: "A time (RFC 3339) or a position in the log.") var at: String?
        @OptionGroup var restore: RestoreOption
        @OptionGroup var daemon: DaemonOptions

        func validate() throws {
            if let at, PointInTime(at) == nil {
                throw ValidationError("--at \(at): must be RFC 3339, such as 2026-11-21T08:00:00Z, or a position")
            }
        }

        func run() async throws {
            guard let at = at.flatMap({ PointInTime($0) }) else {
                let answer = try await daemon.asking { try await $0.get("/crl/\(DaemonClient.escape(authority)).pem") }
                return print(String(decoding: answer.body, as: UTF8.self), terminator: "")
            }
            let asOf = AsOf.offline(try restore.openLog(in: daemon.dataFolder), daemon.dataFolder)
            try checkPast(at, asOf.log)
            let (moment, crl) = try reportingPKI {
                let moment = try asOf.moment(at)
                return (moment, try asOf.crl(of: authority, at: moment))
            }
            guard let crl else {
                let newest = try reporting { try asOf.certificateRegistry(at: Position(asOf.log.durableCount)) }
                let text =
                    newest.authority(authority) == nil
                    ? "there is no authority \(authority)" : "the authority \(authority) had no CRL at \(moment.text)"
                throw ExitCode(1, printing: text)
            }
            let pem = String(decoding: try reportingPKI { try crl.list.pem() }, as: UTF8.self)
            if daemon.json {
                return print(
                    jsonLine([
                        "authority": authority, "number": crl.event.number, "position": crl.position.rawValue,
                        "issued_at": "\(crl.issuedAt)", "this_update": "\(crl.event.thisUpdate)",
                        "next_update": "\(crl.event.nextUpdate)", "entries": crl.event.entries,
                        "sha256": crl.event.sha256, "pem": pem,
                    ]))
            }
            printError(
                "CRL \(crl.event.number), issued \(crl.issuedAt) at position \(crl.position), was the newest at "
                    + moment.text)
            print(pem, terminator: "")
        }

        /// The CRL that will be the newest at a future time is not known. The log's clock may be ahead of this one.
        private func checkPast(_ at: PointInTime, _ log: any PastLog) throws {
            guard case .time(let time) = at, time > wallClock(), log.durableCount > 0 else { return }
            let last = try reporting { try log.receivedAt(Position(log.durableCount - 1)) }
            if let last, time > last {
                throw ExitCode(2, printing: "--at \(time) is in the future; the log ends at \(last)")
            }
        }
    }

    struct Check: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Compare the CRLs in a file with those in the log.",
            discussion: """
                Finds the authority and the number of each CRL, rebuilds the CRL of this number from the log in \
                --data, and compares the bytes; the daemon may be up or down. Exit code 1: the log has no such CRL, it \
                differs, or the file has none. An older CRL gives 0.

                Example: refold crl check /var/lib/refold-crl/fleet.pem
                """)
        @Argument(help: "A file with CRLs in PEM, or with one in DER; -: standard input.") var file: String
        @OptionGroup var data: DataOption
        @Flag(help: "Print JSON, one object a line.") var json = false

        func run() throws {
            let bytes = try CertificateFile.bytes(file)
            let asOf = AsOf.offline(try data.openLog(), data.folder)
            let rows = try reportingPKI {
                // A SEQUENCE of more than 127 bytes (X.690, 8.1.3.5). Any text may precede PEM.
                let isDER = bytes.count > 1 && bytes[0] == 0x30 && bytes[1] > 0x80
                let lists =
                    isDER
                    ? [try RevocationList(der: bytes, what: file)] : try RevocationList.all(pem: bytes, what: file)
                let newest = try asOf.certificateRegistry(at: Position(asOf.log.durableCount))
                return try lists.map { try CheckedCRL($0, asOf, newest) }
            }
            printRows(
                rows.map(\.row), json: json,
                columns: [
                    .init("authority", "authority"), .init("number", "number"), .init("entries", "entries"),
                    .init("next update", "next_update"), .init("position", "position"), .init("result", "result"),
                ], none: "\(file) has no CRL")
            guard !rows.isEmpty, rows.allSatisfy(\.isOnRecord) else { throw ExitCode(1) }
        }
    }

    struct Issue: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Issue an authority's next CRL now.",
            discussion: """
                The daemon issues one after each revocation, and at half of the last one's life. Needs an admin of all \
                tenants.

                Example: refold crl issue fleet
                """)
        @Argument(help: "The authority.") var authority: String
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let row = try await daemon.asking {
                try await $0.post("/api/v1/authorities/\(DaemonClient.escape(authority))/crl").object()
            }
            if daemon.json { return print(jsonLine(row)) }
            print(
                "CRL \(TextTable.cell(row["number"])) of \(authority): \(TextTable.cell(row["entries"])) entries, "
                    + "valid until \(TextTable.cell(row["next_update"]))")
        }
    }
}

/// A CRL from a file beside the one of its number in the log.
private struct CheckedCRL {
    let row: [String: Any]
    let isOnRecord: Bool

    init(_ list: RevocationList, _ asOf: AsOf, _ newest: CertificateRegistry) throws {
        var row: [String: Any] = [
            "issuer": list.issuerText, "entries": list.entries.count,
            "this_update": "\(Timestamp(seconds: list.thisUpdate))",
            "next_update": "\(Timestamp(seconds: list.nextUpdate))",
        ]
        row["number"] = list.number
        let authority = newest.authorities.first { authority in
            guard let certificate = try? Certificate(authority.added) else { return false }
            return (try? list.verify(signedBy: certificate)) != nil
        }
        row["authority"] = authority?.added.id
        (row["result"], isOnRecord) = try Self.compare(list, authority, asOf, &row)
        self.row = row
    }

    private static func compare(
        _ list: RevocationList, _ authority: CertificateAuthority?, _ asOf: AsOf, _ row: inout [String: Any]
    ) throws -> (result: String, isOnRecord: Bool) {
        guard let authority else { return ("no authority in the log signed it; issuer: \(list.issuerText)", false) }
        let id = authority.added.id
        let last = authority.lastCRL?.number, issued: RevocationList
        if let event = authority.lastCRL, event.number == list.number, let draft = authority.lastDraft {
            row["position"] = authority.lastCRLPosition?.rawValue
            issued = try CRLService.rebuild(event, draft)
        } else if let number = list.number, let position = try asOf.position(ofCRL: number, of: id) {
            row["position"] = position.rawValue
            guard let past = try asOf.crl(of: id, at: try asOf.moment(.position(position.rawValue))),
                past.event.number == number
            else { return ("the log does not show this CRL as issued", false) }
            issued = past.list
        } else {
            return ("the log on this disk has no CRL of this number", false)
        }
        guard issued == list else {
            let differences = list.differences(from: issued)
            return (
                "differs from the log: \(differences.added.count) entries added, \(differences.removed.count) removed",
                false
            )
        }
        guard let last, last != list.number else { return ("as issued; the newest", true) }
        return ("as issued; superseded by CRL \(last)", true)
    }
}

extension AsOf {
    /// For verbs that work on the files alone.
    static func offline(_ log: ReadOnlyLog, _ dataFolder: String) -> AsOf {
        var asOf = AsOf(log: log, snapshots: .of(dataFolder: dataFolder, logID: log.logID))
        asOf.note = { printError("a damaged snapshot is passed over: \($0)") }
        return asOf
    }
}

/// Prints errors about certificates and CRLs as well, and ends the command.
func reportingPKI<T>(_ body: () throws -> T) throws -> T {
    do {
        return try reporting(body)
    } catch let error as PKIError {
        throw ExitCode(1, printing: error.description)
    }
}
