import Foundation
import TestSupport
import Testing

/// kill -9 of the whole daemon while a campaign runs, again and again. The devices write down what they are told and
/// what they say: each is told, none is told again what the log knows to have arrived, and the campaign ends as the
/// devices say that it did.
@Suite(.serialized) struct CampaignKillTests {
    /// 10 kills; CAMPAIGN_TEST_KILLS changes that.
    static let kills = ProcessInfo.processInfo.environment["CAMPAIGN_TEST_KILLS"].flatMap { Int($0) } ?? 10
    private static let devices = 400

    /// One line of the devices' ledger.
    private struct Line: Decodable {
        var at: Date
        var event: String
        var device: String
        var command_id: UInt64?
        var status: String?
    }

    private struct Command: Hashable {
        var device: String
        var id: UInt64
    }

    @Test func aCampaignSurvivesKillsAtAnyMoment() async throws {
        let world = try World(postgres: PostgresServer())
        try world.startDaemon()
        try await world.untilSubscribed()
        let told = world.folder + "/told.ndjson"
        let fleet = try world.startFleet([
            "--devices", "\(Self.devices)", "--tenants", "1", "--rate", "50", "--ota-step", "0.1",
            "--ota-failures", "0.05", "--ota-ledger", told,
        ])
        // Births tell that they are there to be told.
        #expect(await eventually(within: 60) { (world.status()?.log.durable ?? 0) > Self.devices })
        let campaign = try await begin(world)

        var random = Moments(seed: 20_261_122), starts: [Date] = []
        for _ in 0..<Self.kills {
            try await Task.sleep(for: .milliseconds(random.next(20...900)))
            world.killDaemon()
            starts.append(Date())
            try world.startDaemon()
        }
        #expect(try await eventually(within: 120) { try ended(world, campaign) != nil })
        fleet.kill(SIGTERM)
        try await world.untilEnded(fleet)

        let lines = try read(told)
        var deliveries: [Command: [Date]] = [:], last: [String: String] = [:]
        for line in lines {
            if let status = line.status { last[line.device] = status }
            guard line.event == "command", let id = line.command_id else { continue }
            deliveries[Command(device: line.device, id: id), default: []].append(line.at)
        }
        #expect(Set(deliveries.keys.map(\.device)).count == Self.devices, "each device is told")
        #expect(deliveries.count == Self.devices, "and of one decision only")
        let known = try known(world)
        #expect(known.count == Self.devices)
        for (command, times) in deliveries {
            for time in times.dropFirst() {
                let begun = starts.last { $0 <= time } ?? .distantPast
                let isKnown = known[command].map { $0 < begun } ?? false
                #expect(!isKnown, "\(command.device) was told \(command.id) again at \(time)")
            }
        }
        let counts = try #require(try ended(world, campaign))
        #expect(counts.succeeded == last.values.filter { $0 == "SUCCESS" }.count)
        #expect(counts.failed == last.values.filter { $0 == "FAILED" }.count)
        #expect(counts.succeeded + counts.failed == Self.devices)
        try await world.untilQuiet()
        let differences = try world.naiveFoldDifferences()
        #expect(differences == nil, "\(differences ?? "")")
        world.killDaemon()
    }

    /// Creates and starts it. Without a rate all would be told at once: by it, 40 a second.
    private func begin(_ world: World) async throws -> Int {
        let names = (1...Self.devices).map { "dev-" + String(repeating: "0", count: 4 - "\($0)".count) + "\($0)" }
        let tenant = "/api/v1/tenants/acme"
        let firmware = try await world.post(
            "\(tenant)/firmware",
            [
                "version": "2.0.0", "file_url": "https://firmware.example/2.bin",
            ])
        let campaign = try await world.post(
            "\(tenant)/campaigns",
            [
                "name": "killed", "firmware_version_id": firmware["id"] ?? 0, "devices": names, "rollout_rate": 400,
            ])
        let id = try #require(campaign["id"] as? Int)
        _ = try await world.post("\(tenant)/campaigns/\(id)/start", [:])
        return id
    }

    private struct Event: Decodable {
        var kind: String
        var topic: String
        var position: UInt64
        var received_at: Date
        var payload_base64: String?

        func body<T: Decodable>(_ type: T.Type) throws -> T {
            try JSONDecoder().decode(type, from: Data(base64Encoded: payload_base64 ?? "") ?? Data())
        }
    }

    private func events(_ world: World) throws -> [Event] {
        try lines(try world.writeEvents()).map { try Self.decoder.decode(Event.self, from: $0) }
    }

    private func decisions(_ world: World, _ schema: String) throws -> [Event] {
        try events(world).filter { $0.kind == "decision" && $0.topic == schema }
    }

    private struct Counts: Decodable {
        var succeeded: Int
        var failed: Int
    }

    /// How the campaign's devices stood when it was completed; nil: it is not.
    private func ended(_ world: World, _ campaign: Int) throws -> Counts? {
        struct Body: Decodable {
            var campaign_id: Int
            var counts: Counts
        }
        return try decisions(world, "campaign.completed/1").map { try $0.body(Body.self) }
            .first { $0.campaign_id == campaign }?.counts
    }

    /// Since when the log says of each command that it has arrived: by the broker's acknowledgement, or by what the
    /// device says of it, whichever was first.
    private func known(_ world: World) throws -> [Command: Date] {
        struct Dispatched: Decodable { var devices: [String] }
        struct Published: Decodable {
            struct Batch: Decodable {
                var command: UInt64
                var devices: [String]?
            }
            var batches: [Batch]
        }
        var devices: [UInt64: [String]] = [:], times: [Command: Date] = [:]
        for event in try decisions(world, "campaign.dispatched/2") {
            devices[event.position] = try event.body(Dispatched.self).devices
        }
        for event in try decisions(world, "campaign.published/1") {
            for batch in try event.body(Published.self).batches {
                for device in batch.devices ?? devices[batch.command] ?? [] {
                    times[Command(device: device, id: batch.command)] = event.received_at
                }
            }
        }
        struct Report: Decodable { var command_id: UInt64 }
        for event in try events(world) where event.kind == "message" && event.topic.hasSuffix("/ota/status") {
            let command = Command(
                device: String(event.topic.split(separator: "/")[3]), id: try event.body(Report.self).command_id)
            times[command] = min(times[command] ?? .distantFuture, event.received_at)
        }
        return times
    }

    private func read(_ path: String) throws -> [Line] {
        try lines(path).map { try Self.decoder.decode(Line.self, from: $0) }
    }

    private func lines(_ path: String) throws -> [Data] {
        try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n").map { Data($0.utf8) }
    }

    private static let decoder = {
        let decoder = JSONDecoder()
        decoder.dateDecodingStrategy = .custom { decoder in
            let text = try decoder.singleValueContainer().decode(String.self)
            return try Date(text, strategy: Date.ISO8601FormatStyle(includingFractionalSeconds: true))
        }
        return decoder
    }()
}

extension World {
    /// A command of an operator, by the token in the data folder.
    func post(_ path: String, _ body: [String: Any]) async throws -> [String: Any] {
        let token = try String(contentsOfFile: data + "/token", encoding: .utf8)
        let (status, answer) = try await HTTP.send(
            "POST", "http://\(http)\(path)",
            headers: ["Authorization": "Bearer " + token.trimmingCharacters(in: .whitespacesAndNewlines)],
            json: JSONSerialization.data(withJSONObject: body))
        let text = String(decoding: answer, as: UTF8.self)
        guard (200..<300).contains(status),
            let object = try JSONSerialization.jsonObject(with: answer) as? [String: Any]
        else { throw SystemError("\(path): \(text)") }
        return object
    }
}
