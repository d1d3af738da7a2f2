import ArgumentParser
import Foundation

struct TokenCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "token", abstract: "Create, list and revoke API tokens.",
        discussion: """
            Whoever can read the file `token` of the data folder is an admin of everything. Others get tokens of their \
            own: a role (viewer reads; operator also commands firmware, groups and campaigns; admin also tokens) and a \
            tenant, or all of them. From the first token on nothing is readable without one, whatever becomes of it. \
            A token ends with the token that created it, when that expires or is revoked.
            """,
        subcommands: [Create.self, List.self, Revoke.self])

    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Create a token. Its secret is printed once, and stored nowhere.")
        @Option(help: "Who acts with it: the actor on the record.") var name: String
        @Option(help: "viewer, operator or admin.") var role: String
        @Option(help: "The tenant that it is for.") var tenant: String?
        @Flag(name: .customLong("all-tenants"), help: "It is for all tenants, and for the system itself.")
        var allTenants = false
        @Option(help: "After so many days it expires. Default: when the token that creates it does, or is revoked.")
        var days: Double?
        @Option(
            name: .customLong("idempotency-key"),
            help: "The same key creates one token in 24 hours; its secret is answered the first time only.")
        var idempotencyKey: String?
        @OptionGroup var daemon: DaemonOptions

        func validate() throws {
            guard (tenant == nil) == allTenants else {
                throw ValidationError("say what it is for: either --tenant or --all-tenants")
            }
        }

        func run() async throws {
            var body: [String: Any] = ["name": name, "role": role]
            body["tenant"] = tenant
            body["lifetime_seconds"] = days.map { $0 * 86_400 }
            let answer = try await daemon.asking {
                try await $0.post("/api/v1/tokens", body, key: idempotencyKey).object()
            }
            if daemon.json { return print(jsonLine(answer)) }
            guard let secret = answer["token"] as? String else {
                let id = TextTable.cell(answer["id"])
                return print("token \(id) was created before; its secret is not known any more")
            }
            if (answer["id"] as? Int) == 1 { printError(Self.firstTokenNote(daemon.address)) }
            let expiry = (answer["expires_at"] as? String).map { ", expires at \($0)" } ?? ""
            printError("token \(TextTable.cell(answer["id"])) created\(expiry); this is shown once:")
            print(secret)
        }

        /// What the first token changes for programs that read without one, Prometheus before all.
        static func firstTokenNote(_ address: String) -> String {
            """
            this is the first token: from now on every read needs one, /metrics included. For Prometheus:
                refold token create --name prometheus --role viewer --all-tenants > /etc/prometheus/refold.token
                scrape_configs:
                  - job_name: refold
                    authorization: {credentials_file: /etc/prometheus/refold.token}
                    static_configs: [{targets: ["\(address)"]}]
            """
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Tokens, those revoked or expired included.")
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let rows = try await daemon.asking {
                try await $0.get("/api/v1/tokens").object()["items"] as? [[String: Any]] ?? []
            }
            printRows(
                rows, json: daemon.json,
                columns: [
                    .init("id", "id"), .init("name", "name"), .init("role", "role"), .init("tenant", "tenant"),
                    .init("created", "created_at"), .init("by", "created_by"), .init("expires", "expires_at"),
                    .init("revoked", "revoked_at"),
                ], none: "no tokens; the one in the data folder opens everything")
        }
    }

    struct Revoke: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Revoke a token immediately, with the tokens that it created.")
        @Argument(help: "Its id.") var id: Int64
        @Option(name: .customLong("idempotency-key"), help: "The same key gets the same answer for 24 hours.")
        var idempotencyKey: String?
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let answer = try await daemon.asking {
                try await $0.post("/api/v1/tokens/\(id)/revoke", key: idempotencyKey).object()
            }
            if daemon.json { return print(jsonLine(answer)) }
            print("token \(id) is revoked, position \(TextTable.cell(answer["position"]))")
            let also = (answer["also_revoked"] as? [Any] ?? []).map { "\($0)" }
            if !also.isEmpty { print("revoked with it, since it created them: \(also.joined(separator: ", "))") }
        }
    }
}
