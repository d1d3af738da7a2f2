import Foundation
import TestSupport
import Testing

/// `schemas/openapi.yaml` against a whole daemon: schemathesis makes up requests by it, and answers must be as it says.
/// `make test` installs the program.
@Suite struct APIContractTests {
    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    static let program = root.appendingPathComponent(".build/schemathesis/bin/schemathesis").path
    static var isInstalled: Bool { FileManager.default.isExecutableFile(atPath: program) }

    /// What would end or rebuild what the other requests rely on, and answers that have no end.
    static let excluded = [
        "/stream$", "/rebuilds", "/rollbacks", "/snapshots", "/projections/.*/(pause|resume)", "/log(in|out)$",
        "/jobs/lease$",  // a long poll waits longer than the client
    ]

    @Test(.enabled(if: isInstalled, "make test installs schemathesis"))
    func answersAreAsTheDocumentSays() async throws {
        let world = try World(postgres: PostgresServer.shared.get())
        try world.startDaemon()
        defer { world.killDaemon() }
        try await world.untilSubscribed()
        let flags = ["--http", world.http, "--data", world.data]
        // Something to find, and a token, so that nothing is open to those who have none.
        for verb in [
            ["firmware", "add", "--tenant", "acme", "--version", "1", "--url", "https://h/f"],
            ["group", "create", "--tenant", "acme", "--name", "g", "--devices", "d1,d2"],
            ["group", "create", "--tenant", "acme", "--name", "q", "--site", "s1"],
            ["campaign", "create", "--tenant", "acme", "--name", "n", "--firmware", "1", "--group", "1"],
            ["token", "create", "--name", "other", "--role", "admin", "--tenant", "other"],
        ] {
            let made = try world.run(verb + flags)
            try #require(made.code == 0, "\(verb): \(made.error)")
        }
        let token = try String(contentsOfFile: world.data + "/token", encoding: .utf8)
            .trimmingCharacters(in: .whitespacesAndNewlines)
        for (path, body) in [
            ("authorities", #"{"id":"root"}"#), ("authorities", #"{"id":"issuing-2026","issued_by":"root"}"#),
            ("tenants/acme/certificates", #"{"device":"d1","generate_key":"P-256"}"#),
        ] {
            let made = try await HTTP.send(
                "POST", "http://\(world.http)/api/v1/\(path)", headers: ["Authorization": "Bearer \(token)"],
                json: Data(body.utf8))
            try #require(made.status == 201, "\(path): \(String(decoding: made.body, as: UTF8.self))")
        }
        let log = world.folder + "/schemathesis.log"
        let child = try ChildProcess(
            [
                Self.program, "--config-file",
                Self.root.appendingPathComponent("Tests/IntegrationTests/schemathesis.toml").path,
                "run", Self.root.appendingPathComponent("schemas/openapi.yaml").path,
                "--url", "http://\(world.http)", "--header", "Authorization: Bearer \(token)",
                "--phases", "examples,coverage", "--seed", "5",
                "--exclude-path-regex", Self.excluded.joined(separator: "|"),
                // What a document cannot say: a campaign that has ended is not started (409), "x" is no time zone.
                "--exclude-checks", "positive_data_acceptance", "--request-timeout", "30", "--continue-on-failure",
                "--generation-database", "none", "--no-color",
            ], log: log)
        child.wait()
        let said = (try? String(contentsOfFile: log, encoding: .utf8)) ?? ""
        #expect(child.exitCode == 0, "\(said.suffix(8_000))")
        #expect(world.status()?.brokers.first?.connected == nil, "without a token nothing is told any more")
    }
}
