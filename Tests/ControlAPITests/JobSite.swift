import Access
import Deciding
import Decisions
import EventLog
import EventModel
import Foundation
import HTTPTypes
import Jobs
import NIOCore
import Synchronization
import Working
@testable import ControlAPI

/// The routes in front of the real queue, on a real log.
struct JobSite: Sendable {
    let system = StandIn()
    let service: JobService
    let clock: TestClock
    private let client: RouterClient

    final class TestClock: Sendable {
        private let time = Mutex(CertificateSite.now)
        var now: Timestamp { time.withLock { $0 } }
        func pass(seconds: Int64) { time.withLock { $0 = $0.moved(by: seconds * 1_000_000) } }
    }

    static func with(_ body: (JobSite) async throws -> Void) async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("refold-api-\(UUID().uuidString)")
        let log = try FileLog.open(directory: folder.path)
        defer {
            log.close()
            try? FileManager.default.removeItem(at: folder)
        }
        let clock = TestClock()
        let queues = DeciderService<JobQueues>(
            writer: DecisionWriter(log), source: log, clock: { clock.now }, snapshot: { nil })
        let service = JobService(queues: queues) { clock.now }
        let running = Task { await service.run { _ in } }
        do {
            try await body(JobSite(service, clock))
            running.cancel()
            await running.value
        } catch {
            running.cancel()
            await running.value
            throw error
        }
    }

    private init(_ service: JobService, _ clock: TestClock) {
        (self.service, self.clock) = (service, clock)
        var access = system.api().system
        access.jobs = service
        client = RouterClient(ControlAPI(system: access, policy: system.api().policy).router())
    }

    /// - Parameters:
    ///   - path: behind `/api/`.
    ///   - token: nil: the data folder's.
    func send(
        _ method: HTTPRequest.Method, _ path: String, _ body: String? = nil, token: String? = nil, key: String? = nil
    ) async throws -> CertificateSite.Answer {
        var headers: HTTPFields = [.authorization: "Bearer \(token ?? StandIn.token)"]
        if body != nil { headers[.contentType] = "application/json" }
        headers[.idempotencyKey] = key
        let response = try await client.execute(
            uri: "/api/\(path)", method: method, headers: headers, body: body.map { ByteBuffer(string: $0) })
        return .init(status: response.status.code, headers: response.headers, body: response.body)
    }

    /// Queues a job of the tenant acme; returns its id.
    func queue(_ fields: String = #""kind":"report""#, tenant: String = "acme") async throws -> Int {
        let answer = try await send(.post, "v1/tenants/\(tenant)/jobs", "{\(fields)}")
        return answer.json["items"].items.first?["id"].integer ?? -1
    }

    /// Leases one job.
    func lease(_ fields: String = "", worker: String = "w") async throws -> CertificateSite.JSONObject {
        try await send(.post, "v1/jobs/lease", #"{"worker":"\#(worker)"\#(fields)}"#).json["items"].items.first
            ?? .init(nil)
    }

    func report(_ job: CertificateSite.JSONObject, _ fields: String) async throws -> CertificateSite.Answer {
        let id = job["id"].integer ?? -1, token = job["token"].integer ?? -1
        return try await send(.post, "v1/jobs/\(id)/result", #"{"worker":"w","token":\#(token),\#(fields)}"#)
    }
}
