import ArgumentParser
import Decisions
import Foundation

struct CertificateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cert", abstract: "Issue, import, list, renew, revoke and audit device certificates.",
        subcommands: [
            Issue.self, Import.self, List.self, Expiring.self, Missing.self, Show.self, Renew.self, Revoke.self,
            Hold.self, Release.self, AccessRules.self, Audit.self,
        ])

    static func path(_ tenant: String) -> String { "/api/v1/tenants/\(DaemonClient.escape(tenant))/certificates" }

    struct Issue: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Issue a device's certificate.",
            discussion: """
                From a certificate request, so that the key never leaves the device; or, for benches and labs, with a \
                key that is generated here and handed out once.

                Example: refold cert issue --tenant acme --device d1 --csr d1.csr > d1.pem
                """)
        @OptionGroup var write: WriteOptions
        @Option(help: "The device.") var device: String
        @Option(help: "PEM file of its certificate request; -: standard input.") var csr: String?
        @Option(name: .customLong("generate-key"), help: "Algorithm of a key to generate: P-256, Ed25519, …")
        var generateKey: String?
        @Option(help: "Folder for DEVICE.pem and DEVICE.key. Default: the certificate goes to standard output.")
        var out: String?
        @Option(help: "The authority. Default: the tenant's newest.") var authority: String?
        @Option(name: .customLong("valid-days"), help: "Its validity. Default: certificates.valid_days.")
        var validDays: Int?
        @Option(help: "A DNS name of the device; may be repeated.") var dns: [String] = []
        @Option(help: "A URI of the device; may be repeated.") var uri: [String] = []
        @Option(help: "The certificate that it replaces: AUTHORITY/SERIAL.") var renews: String?
        @OptionGroup var daemon: DaemonOptions

        func validate() throws {
            guard (csr == nil) != (generateKey == nil) else {
                throw ValidationError("give either --csr or --generate-key")
            }
            if generateKey != nil, out == nil, !daemon.json {
                throw ValidationError("name a folder for the generated key with --out")
            }
        }

        func run() async throws {
            var body: [String: Any] = ["device": device]
            body["csr"] = try csr.map(CertificateFile.read)
            body["generate_key"] = generateKey
            body["authority"] = authority
            body["valid_days"] = validDays
            body["renews"] = renews
            if !dns.isEmpty { body["dns"] = dns }
            if !uri.isEmpty { body["uris"] = uri }
            // The key of a certificate that is issued and cannot be saved would be lost.
            if let out {
                do {
                    try FileManager.default.createDirectory(atPath: out, withIntermediateDirectories: true)
                    guard access(out, W_OK) == 0 else { throw CocoaError(.fileWriteNoPermission) }
                } catch {
                    printError("cannot write into the folder \(out): \(error.localizedDescription); nothing is issued")
                    throw ExitCode(1)
                }
            }
            let answer = try await daemon.asking {
                try await $0.post(CertificateCommand.path(write.tenant), body, key: write.idempotencyKey).object()
            }
            if daemon.json { return print(jsonLine(answer)) }
            guard let item = (answer["items"] as? [[String: Any]])?.first else { return }
            let name = "\(TextTable.cell(item["authority"]))/\(TextTable.cell(item["serial"]))"
            printError("certificate \(name) issued, valid until \(TextTable.cell(item["not_after"]))")
            guard let certificate = item["certificate"] as? String else {
                return printError("it was issued before; `refold cert show \(name)` prints it")
            }
            guard let out else { return print(certificate, terminator: "") }
            try save(certificate, "\(out)/\(device).pem")
            if let key = item["private_key"] as? String { try save(key, "\(out)/\(device).key") }
        }

        private func save(_ text: String, _ path: String) throws {
            do {
                try writePrivately(Array(text.utf8), to: path)
            } catch {
                printError("cannot write \(path): \(error.localizedDescription)")
                throw ExitCode(1)
            }
            print(path)
        }
    }

    struct Import: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Import certificates that were issued elsewhere.",
            discussion: """
                Import their authority first: `refold ca import`.

                Example: refold cert import --tenant acme certs/*.pem
                """)
        @OptionGroup var write: WriteOptions
        @Option(help: "The device. Default: by the common name of each.") var device: String?
        @Argument(help: "PEM files, each with one or more certificates.") var files: [String]
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let items = try files.map { file in
                var item: [String: Any] = ["certificates": try CertificateFile.read(file)]
                item["device"] = device
                return item
            }
            let answer = try await daemon.asking {
                try await $0.post(
                    "\(CertificateCommand.path(write.tenant))/import", ["items": items], key: write.idempotencyKey
                ).object()
            }
            try CertificateCommand.report(answer, "imported", daemon)
        }
    }

    private static func printCertificates(_ rows: [[String: Any]], json: Bool, none: String) {
        let named = rows.map { row in
            row.merging(["certificate": "\(TextTable.cell(row["authority"]))/\(TextTable.cell(row["serial"]))"]) { $1 }
        }
        printRows(
            json ? rows : named, json: json,
            columns: [
                .init("device", "device"), .init("certificate", "certificate"), .init("status", "status"),
                .init("valid until", "not_after"), .init("reason", "reason"), .init("changed", "changed_at"),
            ], none: none)
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List a tenant's certificates.",
            discussion: "Example: refold cert list --tenant acme --status HELD")
        @Option(help: "The tenant.") var tenant: String
        @Option(help: "Those of one device.") var device: String?
        @Option(help: "ACTIVE, SUPERSEDED, HELD, REVOKED or EXPIRED.") var status: String?
        @Option(help: "Those of one authority.") var authority: String?
        @Flag(help: "Those with an open renewal, with its status.") var renewing = false
        @Option(help: "Maximum number of certificates.") var limit: Int?
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let rows = try await daemon.asking {
                try await $0.pages(
                    CertificateCommand.path(tenant),
                    [
                        ("device", device), ("status", status), ("authority", authority),
                        ("renewing", renewing ? "true" : nil),
                    ], limit: limit)
            }
            if renewing, !daemon.json { return printRenewals(rows) }
            let nothing = rows.isEmpty && !daemon.json ? try await AuthorityCommand.nothing(of: tenant, daemon) : nil
            CertificateCommand.printCertificates(
                rows, json: daemon.json, none: nothing ?? "no such certificates; issue one with `refold cert issue`")
        }

        private func printRenewals(_ rows: [[String: Any]]) {
            let columns: [TextTable.Column] = [
                .init("device", "device"), .init("certificate", "certificate"), .init("expires", "not_after"),
                .init("renewal", "status"), .init("attempt", "attempt"), .init("requested", "requested_at"),
                .init("new certificate", "issued"), .init("error", "error"),
            ]
            // The certificate to renew and the new one may both be listed, or one of them.
            var renewals: [[String: Any]] = [], known: [Int: Int] = [:]
            for row in rows {
                guard var renewal = row["renewal"] as? [String: Any], let id = renewal["id"] as? Int else { continue }
                let name = "\(TextTable.cell(row["authority"]))/\(TextTable.cell(row["serial"]))"
                let isOld = renewal["certificate"] as? String == name
                renewal["device"] = row["device"]
                renewal["not_after"] = isOld ? row["not_after"] : nil
                if let index = known[id] {
                    if isOld { renewals[index] = renewal }
                } else {
                    known[id] = renewals.count
                    renewals.append(renewal)
                }
            }
            printRows(renewals, json: false, columns: columns, none: "no renewal is open")
        }
    }

    struct Expiring: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List active certificates that expire soon.",
            discussion: "Example: refold cert expiring --tenant acme --days 14")
        @Option(help: "The tenant.") var tenant: String
        @Option(help: "Number of days until they expire.") var days = 30
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let rows = try await daemon.asking {
                try await $0.pages(
                    CertificateCommand.path(tenant), [("expiring_days", String(days)), ("status", "ACTIVE")], limit: nil
                )
            }
            let nothing = rows.isEmpty && !daemon.json ? try await AuthorityCommand.nothing(of: tenant, daemon) : nil
            CertificateCommand.printCertificates(
                rows.sorted { ($0["not_after"] as? String ?? "") < ($1["not_after"] as? String ?? "") },
                json: daemon.json, none: nothing ?? "none expires within \(counted(days, "day"))")
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show one certificate.", discussion: "Example: refold cert show --tenant acme fleet/5f6505…")
        @Argument(help: "AUTHORITY/SERIAL.") var certificate: String
        @Option(help: "The tenant.") var tenant: String
        @Flag(help: "Print only the PEM, with the authorities above it.") var pem = false
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            var row = try await daemon.asking {
                try await $0.get("\(CertificateCommand.path(tenant))/\(try Change.escape(certificate))").object()
            }
            if pem { return print(row["certificate"] as? String ?? "", terminator: "") }
            if daemon.json { return print(jsonLine(row)) }
            row["certificate"] = nil
            print(TextTable.record(row, order: ["authority", "serial", "tenant", "device", "status", "reason"]))
        }
    }

    struct Renew: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Renew a device's certificate over MQTT now, or all of an authority.",
            discussion: """
                Refold asks the device for a certificate request with a new key, and sends the certificate back. At \
                most 200 devices are asked in a second. Renew an authority's certificates after its rotation, or \
                before you revoke them.

                Example: refold cert renew --tenant acme --device d1
                         refold cert renew --tenant acme --authority fleet
                """)
        @Option(help: "The device: its newest active certificate.") var device: String?
        @Option(help: "All active certificates of this authority.") var authority: String?
        @OptionGroup var write: WriteOptions
        @OptionGroup var daemon: DaemonOptions

        func validate() throws {
            guard (device == nil) != (authority == nil) else {
                throw ValidationError("name a device with --device, or an authority with --authority")
            }
        }

        func run() async throws {
            let tenant = "/api/v1/tenants/\(DaemonClient.escape(write.tenant))"
            if let device {
                let answer = try await daemon.asking {
                    try await $0.post(
                        "\(tenant)/devices/\(DaemonClient.escape(device))/certificates/renew", [:],
                        key: write.idempotencyKey
                    ).object()
                }
                try CertificateCommand.report(answer, "is being renewed", daemon)
            } else {
                let name = authority ?? ""
                let answer = try await daemon.asking {
                    try await $0.post(
                        "\(tenant)/authorities/\(DaemonClient.escape(name))/renew", [:], key: write.idempotencyKey
                    ).object()
                }
                if daemon.json { return print(jsonLine(answer)) }
                print(
                    "the certificates of \(name) are being renewed; watch with `refold cert list --renewing --tenant "
                        + "\(write.tenant)`")
            }
        }
    }

    struct Revoke: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Revoke a certificate for good, or all of a device.",
            discussion: """
                Example: refold cert revoke --tenant acme fleet/5f6505… --reason keyCompromise
                         refold cert revoke --tenant acme --device d1 --reason cessationOfOperation
                """)
        @Option(
            help: """
                unspecified, keyCompromise, cACompromise, affiliationChanged, superseded, cessationOfOperation, \
                privilegeWithdrawn or aACompromise (RFC 5280, 5.3.1).
                """)
        var reason = "unspecified"
        @OptionGroup var change: Change

        func run() async throws { try await change.run("revoke", "revoked", ["reason": reason]) }
    }

    struct Hold: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Put a certificate on hold: brokers refuse it until it is released.",
            discussion: "Example: refold cert hold --tenant acme --device d1 --note 'lost, ticket 4711'")
        @OptionGroup var change: Change

        func run() async throws { try await change.run("hold", "on hold", [:]) }
    }

    struct Release: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make a certificate on hold valid again.",
            discussion: "Example: refold cert release --tenant acme --device d1 --note 'found, ticket 4711'")
        @OptionGroup var change: Change

        func run() async throws { try await change.run("release", "released", [:]) }
    }

    /// What changes a certificate, or all of a device to which the change applies.
    struct Change: ParsableArguments {
        @Argument(help: "AUTHORITY/SERIAL.") var certificate: String?
        @Option(help: "All certificates of this device.") var device: String?
        @Option(help: "Free text that is stored with the change.") var note: String?
        @OptionGroup var write: WriteOptions
        @OptionGroup var daemon: DaemonOptions

        func validate() throws {
            guard (certificate == nil) != (device == nil) else {
                throw ValidationError("name one certificate as AUTHORITY/SERIAL, or a device with --device")
            }
        }

        func run(_ verb: String, _ done: String, _ fields: [String: Any]) async throws {
            var body = fields
            body["note"] = note
            let path: String
            if let device {
                let tenant = DaemonClient.escape(write.tenant)
                path = "/api/v1/tenants/\(tenant)/devices/\(DaemonClient.escape(device))/certificates/\(verb)"
            } else {
                path = "\(CertificateCommand.path(write.tenant))/\(try Self.escape(certificate ?? ""))/\(verb)"
            }
            let answer = try await daemon.asking {
                try await $0.post(path, body, key: write.idempotencyKey).object()
            }
            try CertificateCommand.report(answer, done, daemon)
        }

        static func escape(_ certificate: String) throws -> String {
            let parts = certificate.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
            guard parts.count == 2 else {
                printError("'\(certificate)' is not AUTHORITY/SERIAL, as `refold cert list` shows them")
                throw ExitCode(2)
            }
            return parts.map(DaemonClient.escape).joined(separator: "/")
        }
    }

    private static func report(_ answer: [String: Any], _ done: String, _ daemon: DaemonOptions) throws {
        if daemon.json { return print(jsonLine(answer)) }
        for item in answer["items"] as? [[String: Any]] ?? [] {
            let name = "\(TextTable.cell(item["authority"]))/\(TextTable.cell(item["serial"]))"
            print("certificate \(name) of \(TextTable.cell(item["device"])) \(done)")
        }
        printError("position \(TextTable.cell(answer["position"]))")
    }
}
