import ArgumentParser
import Foundation
import PKI

struct AuthorityCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ca", abstract: "Create, import, rotate and retire certificate authorities.",
        discussion: """
            An authority signs device certificates and the lists of those revoked. Its private key is in the daemon's \
            data folder, in a file that only the daemon can read, or behind certificates.sign_command; the log never \
            has it.
            """,
        subcommands: [Init.self, Import.self, Rotate.self, List.self, Show.self, Retire.self])

    /// Whose authority it is.
    struct Scope: ParsableArguments {
        @Option(help: "The tenant whose devices it certifies. Default: every tenant's.") var tenant: String?
        @Option(
            name: .customLong("idempotency-key"),
            help: "The same key gets the same answer for 24 hours: makes a repeated call safe.")
        var idempotencyKey: String?

        var path: String {
            tenant.map { "/api/v1/tenants/\(DaemonClient.escape($0))/authorities" } ?? "/api/v1/authorities"
        }
    }

    struct Init: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Create an authority with a new key.",
            discussion: "Example: refold ca init fleet --organization 'Acme'")
        @Argument(help: "Its name: 1 to 64 of A-Z a-z 0-9 . _ -") var name: String
        @OptionGroup var scope: Scope
        @Option(name: .customLong("key-algorithm"), help: "P-256, P-384, RSA-2048, RSA-3072, RSA-4096 or Ed25519.")
        var keyAlgorithm = "P-256"
        @Option(name: .customLong("common-name"), help: "In its subject. Default: the name.") var commonName: String?
        @Option(help: "In its subject. Default: certificates.organization.") var organization: String?
        @Option(name: .customLong("valid-days"), help: "Its validity.") var validDays = 3_650
        @Option(name: .customLong("issued-by"), help: "The authority above it. Default: none, it is a root.")
        var issuedBy: String?
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            var body: [String: Any] = ["id": name, "key_algorithm": keyAlgorithm, "valid_days": validDays]
            body["common_name"] = commonName
            body["organization"] = organization
            body["issued_by"] = issuedBy
            try await AuthorityCommand.report(
                daemon, done: "created",
                try await daemon.asking { try await $0.post(scope.path, body, key: scope.idempotencyKey).object() })
        }
    }

    struct Rotate: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Create an authority that takes over from another.",
            discussion: """
                New certificates come from the new authority at once. The old one goes on to issue CRLs, so that its \
                certificates are accepted until they are renewed or expire. Right after this command, add the new \
                authority's certificate (refold ca show) to the CA file of every broker, beside the old one, and \
                reload the broker. To keep devices from renewing before that, set certificates.renew: false first.

                Example: refold ca rotate fleet --to fleet-2027
                """)
        @Argument(help: "The authority to replace.") var old: String
        @Option(name: .customLong("to"), help: "The new one's name.") var name: String
        @OptionGroup var scope: Scope
        @Option(name: .customLong("key-algorithm"), help: "As of `ca init`.") var keyAlgorithm = "P-256"
        @Option(name: .customLong("valid-days"), help: "Its validity.") var validDays = 3_650
        @Option(
            name: .customLong("issued-by"),
            help: "The authority above it. Default: the one above the old one; a root is replaced by a root.")
        var issuedBy: String?
        @Flag(name: .customLong("self-signed"), help: "Create a root, even if the old one is not.")
        var selfSigned = false
        @OptionGroup var daemon: DaemonOptions

        func validate() throws {
            if issuedBy != nil, selfSigned { throw ValidationError("give either --issued-by or --self-signed") }
        }

        func run() async throws {
            var body: [String: Any] = [
                "id": name, "key_algorithm": keyAlgorithm, "valid_days": validDays, "replaces": old,
            ]
            body["issued_by"] = if let issuedBy { issuedBy } else if selfSigned { nil } else { try await parent() }
            try await AuthorityCommand.report(
                daemon, done: "created, and replaces \(old)",
                try await daemon.asking { try await $0.post(scope.path, body, key: scope.idempotencyKey).object() })
        }

        /// The authority that issued the old one; nil: the old one is a root, or unknown, which the daemon refuses.
        private func parent() async throws -> String? {
            func certificate(_ row: [String: Any]) throws -> Certificate? {
                try reportingPKI { try Certificate.chain(pem: Array((row["certificate"] as? String ?? "").utf8)).first }
            }
            let rows = try await AuthorityCommand.all(daemon, scope.tenant)
            guard let row = rows.first(where: { $0["id"] as? String == old }), let own = try certificate(row),
                own.issuer != own.subject
            else { return nil }
            let parent = try rows.first { row in
                guard let above = try certificate(row) else { return false }
                return (try? own.verify(signedBy: above)) != nil
            }
            guard let parent, parent["status"] as? String == "ACTIVE" else {
                throw ExitCode(
                    1,
                    printing: "the authority \(old) was issued by \(parent?["id"] ?? own.issuerText), which issues no "
                        + "certificates here; name another authority with --issued-by, or create a root with "
                        + "--self-signed")
            }
            return parent["id"] as? String
        }
    }

    struct Import: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Take over an authority that was made elsewhere.",
            discussion: """
                With --key it issues certificates and CRLs from here. With --sign-command its key stays where it is, \
                and certificates.sign_command signs. With neither, only its certificates can be imported.

                Example: refold ca import old-fleet --certificates chain.pem --key ca.key --passphrase-file pass
                """)
        @Argument(help: "Its name here.") var name: String
        @OptionGroup var scope: Scope
        @Option(help: "PEM file: its certificate, then those above it.") var certificates: String
        @Option(help: "PEM file of its private key.") var key: String?
        @Option(name: .customLong("passphrase-file"), help: "File whose first line decrypts the key.")
        var passphraseFile: String?
        @Flag(name: .customLong("sign-command"), help: "certificates.sign_command signs for it.") var signCommand =
            false
        @Option(help: "The authority that it takes over from.") var replaces: String?
        @OptionGroup var daemon: DaemonOptions

        func validate() throws {
            if key != nil, signCommand { throw ValidationError("give either --key or --sign-command") }
            if passphraseFile != nil, key == nil {
                throw ValidationError("--passphrase-file decrypts --key; give both")
            }
        }

        func run() async throws {
            var body: [String: Any] = ["id": name, "certificates": try CertificateFile.read(certificates)]
            body["key"] = try key.map(CertificateFile.read)
            body["passphrase"] = try passphraseFile.map { file in
                String(try CertificateFile.read(file).prefix { $0 != "\n" && $0 != "\r\n" })
            }
            body["sign_command"] = signCommand
            body["replaces"] = replaces
            try await AuthorityCommand.report(
                daemon, done: "imported",
                try await daemon.asking {
                    try await $0.post("\(scope.path)/import", body, key: scope.idempotencyKey).object()
                })
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List authorities, retired ones included.", discussion: "Example: refold ca list --tenant acme")
        @Option(help: "Those that certify this tenant's devices. Default: all.") var tenant: String?
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            printRows(
                try await AuthorityCommand.all(daemon, tenant), json: daemon.json,
                columns: [
                    .init("authority", "id"), .init("tenant", "tenant"), .init("status", "status"),
                    .init("key", "key"), .init("valid until", "not_after"), .init("revoked", "revoked"),
                    .init("crl", "crl_number"), .init("crl valid until", "crl_next_update"),
                ], none: "no authorities; create one with `refold ca init`")
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print an authority's certificate and those above it, in PEM.",
            discussion: "Example: refold ca show fleet > /etc/mosquitto/certs/fleet-ca.pem")
        @Argument(help: "Its name.") var name: String
        @Option(
            help: "Search this tenant's authorities. Default: all, which needs an admin of all tenants.")
        var tenant: String?
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            guard let row = try await AuthorityCommand.all(daemon, tenant).first(where: { $0["id"] as? String == name })
            else {
                printError("there is no authority \(name); `refold ca list` lists them")
                throw ExitCode(1)
            }
            if daemon.json { return print(jsonLine(row)) }
            print(row["certificate"] as? String ?? "", terminator: "")
        }
    }

    struct Retire: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Stop an authority from issuing certificates. It continues to issue CRLs.",
            discussion: "Example: refold ca retire fleet-2025 --tenant acme")
        @Argument(help: "Its name.") var name: String
        @OptionGroup var scope: Scope
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            try await AuthorityCommand.report(
                daemon, done: "retired",
                try await daemon.asking {
                    try await $0.post(
                        "\(scope.path)/\(DaemonClient.escape(name))/retire", key: scope.idempotencyKey
                    ).object()
                })
        }
    }

    /// Why nothing is listed: the tenant may be mistyped; nil: it has a certificate or an authority of its own.
    static func nothing(of tenant: String, _ daemon: DaemonOptions) async throws -> String? {
        let certificates = try await daemon.asking {
            try await $0.pages(CertificateCommand.path(tenant), [], limit: 1)
        }
        guard certificates.isEmpty,
            try await !all(daemon, tenant).contains(where: { $0["tenant"] as? String == tenant })
        else { return nil }
        return "the tenant \(tenant) has no certificates and no authority of its own; check the name, or create an "
            + "authority with `refold ca init NAME --tenant \(tenant)`"
    }

    static func all(_ daemon: DaemonOptions, _ tenant: String?) async throws -> [[String: Any]] {
        let path = tenant.map { "/api/v1/tenants/\(DaemonClient.escape($0))/authorities" } ?? "/api/v1/authorities"
        return try await daemon.asking { try await $0.get(path).object()["items"] as? [[String: Any]] ?? [] }
    }

    private static func report(_ daemon: DaemonOptions, done: String, _ answer: [String: Any]) async throws {
        if daemon.json { return print(jsonLine(answer)) }
        let id = TextTable.cell(answer["id"]), until = TextTable.cell(answer["not_after"])
        print("authority \(id) \(done), position \(TextTable.cell(answer["position"])); valid until \(until)")
    }
}

/// A PEM file that the operator names.
enum CertificateFile {
    /// - Throws: `ExitCode`, after a line on standard error.
    static func read(_ path: String) throws -> String { String(decoding: try bytes(path), as: UTF8.self) }

    static func bytes(_ path: String) throws -> [UInt8] {
        do {
            return Array(
                path == "-"
                    ? FileHandle.standardInput.readDataToEndOfFile() : try Data(contentsOf: URL(fileURLWithPath: path)))
        } catch {
            printError("cannot read \(path): \(error.localizedDescription)")
            throw ExitCode(2)
        }
    }
}
