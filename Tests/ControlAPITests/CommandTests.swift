import Campaigns
import EventModel
import Foundation
import Logging
import Testing
@testable import ControlAPI

/// The verbs, run as programs, against the API on a port of loopback.
@Suite struct CommandTests {
    let system = StandIn()

    struct Outcome: Sendable {
        let code: Int32
        let out: String
        let err: String
    }

    /// `body` is given a way to run `refold` with arguments, against a server that lives as long as it.
    func withServer<T: Sendable>(
        _ body: @escaping @Sendable (@escaping @Sendable ([String]) async throws -> Outcome) async throws -> T
    ) async throws -> T {
        let (ports, listening) = AsyncStream<Int>.makeStream()
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        let server = system.api().server(host: "127.0.0.1", port: 0, logger: logger) { listening.yield($0) }
        return try await withThrowingTaskGroup(of: T?.self) { group in
            group.addTask {
                try await server.run()
                return nil
            }
            group.addTask {
                guard let port = await ports.first(where: { _ in true }) else { throw CancellationError() }
                return try await body { try await Self.refold($0, http: "127.0.0.1:\(port)") }
            }
            defer { group.cancelAll() }
            while let result = try await group.next() {
                if let result { return result }
            }
            throw CancellationError()
        }
    }

    static func refold(
        _ arguments: [String], http: String, token: String? = StandIn.token
    ) async throws -> Outcome {
        let process = Process()
        // The executable lies beside the bundle of the tests.
        process.executableURL = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
            .appendingPathComponent("refold")
        process.arguments = arguments
        // A proxy for the outside world must not be asked for loopback.
        process.environment = ["REFOLD_HTTP": http, "http_proxy": "http://127.0.0.1:9", "HOME": "/"]
        process.environment?["REFOLD_TOKEN"] = token
        let out = Pipe(), err = Pipe()
        process.standardOutput = out
        process.standardError = err
        process.standardInput = FileHandle.nullDevice
        return try await withCheckedThrowingContinuation { continuation in
            process.terminationHandler = { process in
                let outText = String(decoding: (try? out.fileHandleForReading.readToEnd()) ?? Data(), as: UTF8.self)
                let errText = String(decoding: (try? err.fileHandleForReading.readToEnd()) ?? Data(), as: UTF8.self)
                continuation.resume(returning: Outcome(code: process.terminationStatus, out: outText, err: errText))
            }
            do {
                try process.run()
            } catch {
                continuation.resume(throwing: error)
            }
        }
    }

    /// The first token closed `/metrics` without a word.
    @Test func theFirstTokenSaysWhatItChanges() async throws {
        try await withServer { refold in
            let create = ["token", "create", "--role", "viewer", "--all-tenants", "--name"]
            let first = try await refold(create + ["a"])
            #expect(first.code == 0 && first.out == "refold_secret_of_a\n")
            for text in ["every read needs one, /metrics included", "credentials_file"] {
                #expect(first.err.contains(text))
            }
            let second = try await refold(create + ["b"])
            #expect(second.code == 0 && !second.err.contains("/metrics"))
        }
    }

    /// `--http 0.0.0.0:PORT` served tokens in plain HTTP without a word.
    @Test func whatIsReachedFromElsewhereNeedsADeclaredProxy_F29() async throws {
        let folder = FileManager.default.temporaryDirectory.path + "/refold-exposed-\(UUID().uuidString)"
        for address in ["0.0.0.0:0", "[::]:0", "10.9.8.7:0"] {
            let refused = try await Self.refold(["run", "--data", folder, "--http", address], http: "127.0.0.1:1")
            #expect(refused.code == 2 && refused.err.contains("http_proxies"), "\(refused)")
        }
        #expect(!FileManager.default.fileExists(atPath: folder))
        let check = ["config", "check", "--http", "0.0.0.0:7480", "--set"]
        let declared = try await Self.refold(check + ["http_proxies=10.0.0.0/8"], http: "127.0.0.1:1")
        #expect(declared.code == 0, "\(declared)")
        for wrong in ["http_proxies=10.0.0.0/99", "http_hosts=a/b"] {
            #expect(try await Self.refold(check + [wrong], http: "127.0.0.1:1").code == 2)
        }
    }

    @Test func statusForPeopleAndPrograms() async throws {
        try await withServer { refold in
            let people = try await refold(["status"])
            #expect(people.code == 1 && people.err.isEmpty, "\(people.err)")
            #expect(people.out.hasPrefix("degraded\n  PostgreSQL cannot be reached\n"))
            #expect(people.out.contains("log       11 events durable (head 12), 1 segments, 4.0 KiB\n"))
            #expect(
                people.out.contains(
                    """
                    PROJECTION     VERSION  POSITION  LAG EVENTS  LAG S  STATE    LAST ERROR
                    device_status        1         -          11  1.5    running           -
                    """))
            let programs = try await refold(["status", "--json"])
            let status = try JSONDecoder().decode(SystemStatus.self, from: Data(programs.out.utf8))
            #expect(status.log.durable == 11 && programs.out.filter(\.isNewline).count == 1)
        }
    }

    @Test func campaignsAreCreatedFromListsAndFiles() async throws {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("devices-\(UUID().uuidString)")
        try Data("d1\n\n  d2 \r\nd3".utf8).write(to: file)
        defer { try? FileManager.default.removeItem(at: file) }
        try await withServer { refold in
            let flags = ["campaign", "create", "--tenant", "t1", "--name", "night", "--firmware", "3"]
            let list = try await refold(
                flags + ["--devices", "a, b,c", "--rate", "5", "--abort-threshold", "0.1", "--idempotency-key", "k"])
            #expect(
                list.code == 0 && list.out.hasPrefix("campaign 7 created, position 41; start it with"),
                "\(list.err)")
            let fromFile = try await refold(flags + ["--devices-file", file.path, "--strategy", "canary", "--json"])
            #expect(fromFile.out == #"{"id":7,"position":41,"status":"CREATED"}"# + "\n", "\(fromFile.err)")
        }
        #expect(
            system.requests == [
                CommandRequest(
                    tenantID: "t1", actor: "admin", idempotencyKey: "k",
                    command: .createCampaign(
                        CampaignSpec(
                            name: "night", firmwareVersionID: 3, devices: ["a", "b", "c"], rolloutRate: 5,
                            abortThreshold: 0.1))),
                CommandRequest(
                    tenantID: "t1", actor: "admin",
                    command: .createCampaign(
                        CampaignSpec(
                            name: "night", firmwareVersionID: 3, devices: ["d1", "d2", "d3"], rolloutStrategy: "canary")
                    )),
            ])
    }

    @Test func verbsReachTheirCommands() async throws {
        try await withServer { refold in
            let verbs = [
                ["firmware", "add", "--tenant", "t1", "--version", "1", "--url", "https://h/f", "--size", "9"],
                ["campaign", "start", "7", "--tenant", "a:b"],
                ["campaign", "pause", "7", "--tenant", "t1", "--reason", "noise"],
                ["campaign", "resume", "7", "--tenant", "t1"],
                ["campaign", "abort", "7", "--tenant", "t1"],
                ["projection", "pause", "device_status"],
                ["projection", "list"],
                ["firmware", "list", "--tenant", "t1"],
                ["firmware", "show", "1", "--tenant", "t1"],
                ["campaign", "list", "--tenant", "t1", "--status", "running"],
                ["campaign", "show", "1", "--tenant", "t1"],
                ["dead-letters", "list", "--reason", "INVALID_JSON", "--limit", "2"],
                ["dead-letters", "show", "5"],
                ["dead-letters", "parked"],
                ["dead-letters", "retry", "--tenant", "acme", "--device", "d1"],
            ]
            for verb in verbs {
                let people = try await refold(verb)
                #expect(people.code == 0 && !people.out.isEmpty, "\(verb): \(people.err)")
                guard verb[1] == "list" || verb[1] == "show" else { continue }
                let programs = try await refold(verb + ["--json"])
                for line in programs.out.split(whereSeparator: \.isNewline) {
                    #expect(throws: Never.self) { try JSONSerialization.jsonObject(with: Data(line.utf8)) }
                }
                #expect(programs.code == 0 && programs.out.hasPrefix("{"), "\(verb): \(programs.err)")
            }
        }
        #expect(
            system.requests.map(\.command) == [
                .addFirmware(FirmwareSpec(version: "1", fileURL: "https://h/f", fileSizeBytes: 9)), .start(campaign: 7),
                .pause(campaign: 7, reason: "noise"), .resume(campaign: 7), .abort(campaign: 7, reason: nil),
            ])
        #expect(system.requests[1].tenantID == "a:b")
    }

    @Test func listsFollowThePages() async throws {
        try await withServer { refold in
            let all = try await refold(["firmware", "list", "--tenant", "t1", "--json"])
            #expect(all.out == "{\"id\":1}\n{\"id\":2}\n{\"id\":3}\n")
            let two = try await refold(["dead-letters", "list", "--limit", "2", "--json"])
            #expect(two.out == "{\"id\":1}\n{\"id\":2}\n")
        }
    }

    @Test func exitCodes() async throws {
        try await withServer { [system] refold in
            let start = ["campaign", "start", "7", "--tenant", "t1"]
            system.set {
                $0.answer = .rejected(position: Position(3), code: .illegalTransition, reason: "it is PAUSED")
            }
            let refused = try await refold(start)
            #expect(refused.code == 1 && refused.err == "refold: it is PAUSED\n" && refused.out.isEmpty)
            let json = try await refold(start + ["--json"])
            #expect(json.code == 1 && json.out.contains(#""code":"illegal_transition""#))
            #expect(try await refold(["campaign", "show", "2", "--tenant", "t1"]).code == 1)
            #expect(try await refold(["campaign", "start", "7"]).code == 2, "wrong usage")
            #expect(
                try await refold(["campaign", "create", "--tenant", "t", "--name", "n", "--firmware", "1"])
                    .code == 2)
            system.set { $0.queryError = .unavailable("away") }
            #expect(try await refold(["campaign", "list", "--tenant", "t1", "--data", "/nonexistent"]).code == 3)
        }
    }

    @Test(arguments: [
        ["status"], ["projection", "list"], ["campaign", "start", "7", "--tenant", "t1"], ["dead-letters", "list"],
    ])
    func withoutADaemonTheVerbsSayWhatToDo(verb: [String]) async throws {
        // Port 1 of loopback: nobody listens there.
        let outcome = try await Self.refold(verb + ["--data", "/nonexistent"], http: "127.0.0.1:1")
        #expect(outcome.code == 3 && outcome.out.isEmpty)
        #expect(
            outcome.err == "refold: no daemon answers at http://127.0.0.1:1 (Connection refused); "
                + "start one with `refold run`, or name it with --http\n")
    }

    @Test func withoutATokenNothingIsWritten() async throws {
        let verb = ["campaign", "start", "7", "--tenant", "t1", "--data", "/nonexistent"]
        let outcome = try await Self.refold(verb, http: "127.0.0.1:1", token: nil)
        #expect(outcome.code == 2 && outcome.err.contains("/nonexistent/token"))
    }
}
