import Certificates
import Decisions
import FoundationEssentials
import Jobs
import Working

/// Asks a device for the certificate request that renews its certificate. What follows is a step of the renewal, which
/// has its own retries: the device answers when it can.
public struct CertificateRenewalJob: JobHandler {
    public static let kind = "certificate.renew"

    private struct Arguments: Codable {
        let deviceID: String

        enum CodingKeys: String, CodingKey { case deviceID = "device_id" }
    }

    private let certificates: CertificateService

    public init(_ certificates: CertificateService) { self.certificates = certificates }

    public var kind: String { Self.kind }

    /// The job that renews a device's certificate. While one is open, a device gets no second one.
    public static func job(deviceID: String) -> NewJob {
        var job = NewJob(kind, key: deviceID)
        let encoder = JSONEncoder()
        encoder.outputFormatting = .withoutEscapingSlashes
        job.arguments = (try? encoder.encode(Arguments(deviceID: deviceID))).map { String(decoding: $0, as: UTF8.self) }
        return job
    }

    public func run(_ job: LeasedJob) async throws -> AttemptReport.Outcome {
        guard let text = job.arguments,
            let arguments = try? JSONDecoder().decode(Arguments.self, from: Data(text.utf8))
        else {
            return .failed(#"the arguments are no JSON object with a device: {"device_id": "D"}"#, isFinal: true)
        }
        // Under this key a second attempt finds what the first one did.
        let by = Operator(
            actor: EngineActor.name, tenantID: job.tenantID, idempotencyKey: "job:\(job.attempt.id)",
            sent: Array(arguments.deviceID.utf8))
        switch try await certificates.renew(device: arguments.deviceID, by: by) {
        case .accepted(let position, _, let certificates, _):
            let names = certificates.map(\.description).joined(separator: ", ")
            return .succeeded("asked the device to renew \(names), at position \(position)")
        case .rejected(_, _, let reason): return .failed(reason, isFinal: true)
        }
    }
}
