import Certificates
import Decisions
import EventModel
import FoundationEssentials
import Jobs
import Working

/// Queues a renewal for each device of a tenant whose certificate expires soon, the nearest expiry first.
public struct BatchRenewalJob: JobHandler {
    public static let kind = "certificate.renew_batch"

    private struct Arguments: Codable {
        let expiringDays: Int64

        enum CodingKeys: String, CodingKey { case expiringDays = "expiring_days" }
    }

    public static let daysMax: Int64 = 3_650
    private static let pageCount = 500

    private let certificates: CertificateService
    private let jobs: JobService
    private let clock: @Sendable () -> Timestamp

    /// - Parameter clock: the log's.
    public init(_ certificates: CertificateService, _ jobs: JobService, clock: @escaping @Sendable () -> Timestamp) {
        (self.certificates, self.jobs, self.clock) = (certificates, jobs, clock)
    }

    public var kind: String { Self.kind }

    public static func job(expiringDays: Int64) -> NewJob {
        var job = NewJob(kind, key: "expiring-\(expiringDays)")
        job.arguments = #"{"expiring_days":\#(expiringDays)}"#
        return job
    }

    /// Where a certificate waits that expires in so many seconds.
    static func queue(secondsLeft: Int64) -> JobQueue {
        switch secondsLeft {
        case ...(7 * 86_400): .critical
        case ...(15 * 86_400): .high
        case ...(30 * 86_400): .normal
        default: .low
        }
    }

    /// May be run again from the beginning: devices with an open job are passed over.
    public func run(_ job: LeasedJob) async throws -> AttemptReport.Outcome {
        guard let text = job.arguments,
            let arguments = try? JSONDecoder().decode(Arguments.self, from: Data(text.utf8)),
            (1...Self.daysMax).contains(arguments.expiringDays)
        else {
            return .failed(
                #"the arguments are no JSON object with 1 to \#(Self.daysMax) days: {"expiring_days": 30}"#,
                isFinal: true)
        }
        var filter = CertificateFilter(), after: UInt32?, queued = 0, open = 0
        filter.status = .active
        repeat {
            try Task.checkCancellation()
            let page = try await certificates.list(
                tenantID: job.tenantID, filter, expiringWithinSeconds: arguments.expiringDays * 86_400, after: after,
                limit: Self.pageCount)
            let result = try await queue(page.certificates, job)
            (queued, open, after) = (queued + result.queued, open + result.open, page.next)
        } while after != nil
        return .succeeded("queued \(queued) renewals; \(open) devices had one already")
    }

    private func queue(
        _ certificates: [DeviceCertificate], _ job: LeasedJob
    ) async throws -> (queued: Int, open: Int) {
        let now = clock().wholeSeconds
        var renewals: [String: NewJob] = [:]
        for certificate in certificates where certificate.renewal == nil && certificate.replacedBy == nil {
            var renewal = CertificateRenewalJob.job(deviceID: certificate.deviceID)
            renewal.deadline = certificate.notAfter
            renewal.scope = certificate.reference.authority
            renewal.queue = Self.queue(secondsLeft: certificate.notAfter.wholeSeconds.saturatingSubtracting(now))
            if let other = renewals[certificate.deviceID]?.deadline, other < certificate.notAfter { continue }
            renewals[certificate.deviceID] = renewal
        }
        guard !renewals.isEmpty else { return (0, 0) }
        let command = JobCommand.queue(
            renewals.sorted { $0.key < $1.key }.map(\.value), cause: "job:\(job.attempt.id)")
        switch try await jobs.execute(JobRequest(tenantID: job.tenantID, command: command)) {
        case .queued(let jobs, _, _):
            let new = jobs.count(where: \.isNew)
            return (new, jobs.count - new)
        case .rejected(_, _, let reason): throw BatchRefused(description: reason)
        case .done, .leased, .reported, .deferred: return (0, 0)
        }
    }
}

private struct BatchRefused: Error, CustomStringConvertible {
    let description: String
}
