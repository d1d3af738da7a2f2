import ArgumentParser
import ControlAPI
import Foundation

/// `refold dead-letters parked`: keys whose events wait, because the database refused their rows.
struct ParkedList: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "parked", abstract: "Keys whose events wait because the database refused their rows.",
        discussion: """
            A row that the database refuses parks its key (a device, a broker, a campaign) for that projection: from \
            that event on the key's events wait in the log, and everything else goes on. Exit code 3 when no daemon \
            answers.
            """)
    @Option(help: "Only this projection's.") var projection: String?
    @OptionGroup var daemon: DaemonOptions

    static let columns: [TextTable.Column] = [
        .init("projection", "projection"), .init("key", "key"), .init("position", "position"),
        .init("reason", "reason"),
    ]

    func run() async throws {
        let answer = try await daemon.asking {
            try await $0.get("/api/v1/parked-keys", query: [("projection", projection)])
        }
        printRows(
            try answer.object()["items"] as? [[String: Any]] ?? [], json: daemon.json, columns: Self.columns,
            none: "no key is parked")
    }
}

/// `refold dead-letters retry`: takes parked keys up again.
struct ParkedRetryVerb: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "retry", abstract: "Fold the waiting events of parked keys after the cause is fixed.",
        discussion: """
            Folds the events that wait, up to where the projection stands, and unparks the keys whose rows are now \
            taken: the tables are then as if nothing had been refused. Keys that are refused again stay parked, from \
            that event on. Exit code 0: no key of those asked for waits any more; 1: some do; 3: no daemon answers.
            """)
    @Option(help: "Only this projection's keys.") var projection: String?
    @Option(help: "Only this key, as `parked` shows it.") var key: String?
    @Option(help: "With --device: only this tenant's device.") var tenant: String?
    @Option(help: "With --tenant: only this device.") var device: String?
    @OptionGroup var daemon: DaemonOptions

    func validate() throws {
        guard (tenant == nil) == (device == nil) else { throw ValidationError("--tenant and --device go together") }
        if key != nil, device != nil { throw ValidationError("--key, or --tenant and --device, not both") }
    }

    func run() async throws {
        var body: [String: Any] = [:]
        body["projection"] = projection
        body["key"] = key ?? device.map { "tenant/\(tenant ?? "")/device/\($0)" }
        let answer = try await daemon.asking { [body] in try await $0.post("/api/v1/parked-keys/retry", body) }
        let result = try JSONDecoder().decode(ParkedRetryAnswer.self, from: answer.body)
        if daemon.json {
            print(jsonLine(try answer.object()))
        } else {
            print("\(result.unparked.count) keys were taken up again, \(result.parked.count) still wait")
            let rows = try answer.object()["parked"] as? [[String: Any]] ?? []
            if !rows.isEmpty { print(TextTable(columns: ParkedList.columns).text(rows)) }
        }
        for error in result.errors { printError(error) }
        if !result.parked.isEmpty || !result.errors.isEmpty { throw ExitCode(1) }
    }
}
