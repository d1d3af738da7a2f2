import EventLog
import EventModel
import Hummingbird
import PKI
import Testing
@testable import ControlAPI

/// A past in which one device and one campaign were.
struct PastStandIn: HistoricalQueries, SnapshotKeeping {
    func device(tenant: String, device: String, at moment: PointInTime) async throws -> PastAnswer? {
        guard device == "d1" else { return nil }
        return PastAnswer(row: JSONRow(#"{"device_id":"d1"}"#), position: 41, time: try Self.time(moment))
    }

    func campaign(tenant: String, id: Int64, at moment: PointInTime) async throws -> PastAnswer? {
        id == 1 ? PastAnswer(row: JSONRow(#"{"id":1}"#), position: nil, time: try Self.time(moment)) : nil
    }

    func crl(_ authority: String, at moment: PointInTime) async throws -> PastCRL? {
        if case .position(8) = moment { throw PKIError(.malformed, "CRL 3 of \(authority): its signature is cut") }
        _ = try Self.time(moment)
        return nil
    }

    private static func time(_ moment: PointInTime) throws -> String {
        switch moment {
        case .position(7): throw LogError(.beforeHorizon, "position 7 lies before the horizon")
        case .position(let position) where position > 100: throw LogError(.outOfRange, "there is no such event yet")
        case .position(let position): return "behind \(position)"
        case .time(let time): return "\(time)"
        }
    }

    func snapshots() async throws -> [SnapshotRow] { [SnapshotRow(file: "a.snapshot", end: 5)] }
    func createSnapshot() async throws -> SnapshotRow? { nil }
}

@Suite struct PastTests {
    private func get(_ path: String) async throws -> (status: Int, body: String) {
        try await RouterClient(StandIn().api().router()).execute(uri: path, method: .get) { response in
            (response.status.code, String(buffer: response.body))
        }
    }

    @Test func rowsOfThePastSayOfWhen() async throws {
        let device = try await get("/api/v1/tenants/t/devices/d1?at=41")
        #expect(device.status == 200)
        #expect(
            device.body == #"{"device":{"device_id":"d1"},"gate":null,"as_of":{"position":41,"time":"behind 41"}}"#
                + "\n")
        let campaign = try await get("/api/v1/tenants/t/campaigns/1?at=2026-11-21T08:00:00Z")
        #expect(
            campaign.body
                == #"{"id":1,"as_of":{"position":null,"time":"2026-11-21T08:00:00.000000Z"}}"# + "\n")
    }

    @Test func whatCannotBeToldIsAProblem() async throws {
        for (query, status, code) in [
            ("at=7", 410, "before_horizon"), ("at=101", 404, "no_such_event"), ("at=noon", 400, "query_invalid"),
            ("at=5&min_position=3", 400, "query_invalid"), ("at=-1", 400, "query_invalid"),
        ] {
            let answer = try await get("/api/v1/tenants/t/devices/d1?\(query)")
            #expect(answer.status == status && answer.body.contains(#""code":"\#(code)""#), "\(query): \(answer)")
        }
        #expect(try await get("/api/v1/tenants/t/devices/d2?at=5").status == 404)
    }

    @Test func snapshotsAreListed() async throws {
        #expect(try await get("/api/v1/snapshots").body == #"{"items":[{"end":5,"file":"a.snapshot"}]}"# + "\n")
    }
}
