import Certificates
import Deciding
import Decisions
import EventLog
import EventModel
import FoundationEssentials
import PKI
import Primitives
import Threading

/// Answers what devices send for the renewal of their certificates: verifies requests, signs, and puts on the record
/// what was issued, refused or installed. The registry decides when devices are asked; it has the positions of their
/// messages, so that a restart goes on with what was not handled.
public actor RenewalService {
    private let service: CertificateService
    private let policy: RenewalPolicy
    private let executor: ThreadExecutor

    public nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    private static let actor = EngineActor.name
    private static let answersMax = 100
    /// After a failure, such as a missing key.
    private static let pauseMilliseconds = 10_000
    private static let restMilliseconds = 60_000

    /// - Parameters:
    ///   - policy: the settings; put on the record where they differ from the last ones.
    ///   - executor: the service's thread; the caller wakes it when a device has answered.
    public init(_ service: CertificateService, policy: RenewalPolicy, executor: ThreadExecutor) {
        (self.service, self.policy, self.executor) = (service, policy, executor)
    }

    /// Until the task is cancelled.
    /// - Parameter report: called after each round with what failed; nil when nothing did.
    public func run(report: @Sendable ((any Error)?) -> Void) async {
        await withTaskCancellationHandler {
            while !Task.isCancelled {
                var failure: (any Error)?
                do {
                    try await setPolicy()
                    try await round()
                } catch {
                    failure = error
                }
                if Task.isCancelled { return }
                report(failure)
                executor.rest(milliseconds: failure == nil ? Self.restMilliseconds : Self.pauseMilliseconds)
                await Task.yield()
            }
        } onCancel: { [executor] in
            executor.wake()
        }
    }

    private func setPolicy() async throws {
        guard try await service.registry.query({ $0.renewalPolicy }) != policy else { return }
        _ = try await execute(.setRenewalPolicy(policy), Envelope.everyTenant)
    }

    /// Handles the messages that wait, in batches: one commit for the certificates of a tenant.
    /// - Throws: `PKIError` when a tenant's certificates cannot be signed: its messages wait, and those of other
    ///   tenants are handled. `LogError` when a message cannot be read: it waits, and those of other devices are
    ///   handled. Else as `DeciderRuntime.execute`.
    func round() async throws {
        var blocked: Set<String> = [], skipped: Set<Position> = [], failure: (any Error)?
        while !Task.isCancelled {
            var new: [String: [NewAnswer]] = [:]
            let (all, unreadable) = try await received(exceptOf: blocked, behind: skipped)
            if all.isEmpty, unreadable.isEmpty { break }
            for (position, error) in unreadable {
                skipped.insert(position)
                failure = failure ?? error
            }
            for received in all {
                if let item = try await handle(received) {
                    new[received.answer.renewal.tenantID, default: []].append(item)
                }
            }
            for (tenant, items) in new.sorted(by: { $0.key < $1.key }) {
                do {
                    try await issue(items, ofTenant: tenant)
                } catch let error as PKIError {
                    blocked.insert(tenant)
                    failure = failure ?? error
                }
            }
        }
        if let failure { throw failure }
    }

    /// A message, and what the certificate to renew has.
    private struct Received: Sendable {
        let answer: RenewalAnswer
        /// Nil: its segment is gone.
        let message: DeviceMessage?
        let alternativeNames: [AlternativeName]
        /// Of a request: the event of the certificate that was issued in this renewal; nil: none was, or its segment is
        /// gone.
        let issued: CertificateAdded?
    }
    private typealias NewAnswer = (answer: RenewalAnswer, new: NewCertificate)

    /// - Returns: the messages that wait, and why some cannot be read.
    private func received(
        exceptOf blocked: Set<String>, behind skipped: Set<Position>
    ) async throws -> (all: [Received], unreadable: [(position: Position, error: any Error)]) {
        let waiting = try await service.registry.query { registry in
            registry.answers(limit: Self.answersMax, exceptOf: blocked, behind: skipped).map { answer in
                (
                    answer, registry.certificate(answer.renewal.certificate),
                    answer.renewal.issued.flatMap(registry.certificate)
                )
            }
        }
        return try await onOwnThread("renewal") { [service] in
            var all: [Received] = [], unreadable: [(position: Position, error: any Error)] = []
            for (answer, old, issued) in waiting {
                do {
                    let message = try DeviceMessage(at: answer.position, of: service.source)
                    var names: [AlternativeName] = [], event: CertificateAdded?
                    if case .request? = message {
                        if let issued {
                            event = try service.event(of: issued)
                        } else if let old {
                            names = try Self.names(of: old, service)
                        }
                    }
                    all.append(Received(answer: answer, message: message, alternativeNames: names, issued: event))
                } catch {
                    unreadable.append((answer.position, error))
                }
            }
            return (all, unreadable)
        }
    }

    /// Alternative names that can be issued, as the old certificate has them; none where the log no longer has it.
    private static func names(of old: DeviceCertificate, _ service: CertificateService) throws -> [AlternativeName] {
        guard let der = try service.event(of: old).flatMap({ Base64.decode($0.certificate.utf8) }) else { return [] }
        // An imported one may be beyond what this library reads.
        guard let certificate = try? Certificate(der: der) else { return [] }
        return certificate.alternativeNames.filter { name in
            switch name {
            case .dns, .uri: true
            default: false
            }
        }
    }

    /// - Returns: the certificate to issue; nil: the message is dealt with.
    private func handle(_ received: Received) async throws -> NewAnswer? {
        let answer = received.answer, renewal = answer.renewal
        switch received.message {
        case nil: try await refuse(answer, "the message is no longer in the log")
        case .malformed(let reason): try await refuse(answer, reason)
        case .request(let message):
            guard message.renewal == renewal.id.rawValue else {
                try await refuse(answer, "renewal_id \(message.renewal) is not that of the open renewal, \(renewal.id)")
                return nil
            }
            let request: CertificateRequest
            do throws(PKIError) {
                request = try CertificateRequest(pem: Array(message.csr.utf8))
            } catch {
                try await refuse(answer, error.description)
                return nil
            }
            if let issued = renewal.issued {
                try await resend(answer, request, issued, received.issued)
                return nil
            }
            var new = NewCertificate(
                tenantID: renewal.tenantID, deviceID: renewal.deviceID, key: .request(request.der))
            new.renews = renewal.certificate
            new.alternativeNames = received.alternativeNames
            new.answers = (renewal.id, answer.position)
            return (answer, new)
        case .installed(let report):
            guard report.renewal == renewal.id.rawValue, let issued = renewal.issued,
                SerialNumber(report.serial) == issued.serial
            else {
                let expected = renewal.issued.map { "\($0.serial)" } ?? "none, because none was issued yet"
                try await refuse(
                    answer,
                    "it reports \(report.serial.prefix(64)) for the renewal \(report.renewal) as installed; "
                        + "expected: \(expected)")
                return nil
            }
            try await record(.installed, answer) { $0.issued = issued.description }
        }
        return nil
    }

    /// All in one commit; where one of them is refused, each by itself.
    private func issue(_ items: [NewAnswer], ofTenant tenantID: String) async throws {
        guard try await service.canIssue(forTenant: tenantID) else {
            for (answer, _) in items {
                try await refuse(
                    answer,
                    "no authority issues certificates of the tenant \(tenantID); create one with `refold ca init`")
            }
            return
        }
        let reason: String
        do {
            switch try await service.issue(items.map(\.new), by: by(tenantID)) {
            case .issued, .repeated: return
            case .refused(_, _, let text): reason = text
            }
        } catch let error as PKIError where error.isAboutTheRequest {
            reason = error.description
        }
        guard items.count > 1 else { return try await refuse(items[0].answer, reason) }
        for item in items { try await issue([item], ofTenant: tenantID) }
    }

    /// The device has not seen the certificate that it was sent. With another request it would get a second one for the
    /// same renewal, and so on without end.
    private func resend(
        _ answer: RenewalAnswer, _ request: CertificateRequest, _ issued: CertificateReference,
        _ event: CertificateAdded?
    ) async throws {
        guard let certificate = try await service.certificate(issued, tenantID: answer.renewal.tenantID),
            certificate.spkiSHA256 == request.spkiSHA256
        else {
            return try await refuse(answer, "the certificate \(issued) was issued for another key in this renewal")
        }
        guard let event else {
            return try await refuse(answer, "the certificate \(issued) is no longer in the log")
        }
        try await record(.resent, answer) { step in
            step.issued = issued.description
            (step.certificate, step.chain) = (event.certificate, event.renewal?.chain)
        }
    }

    private func refuse(_ answer: RenewalAnswer, _ reason: String) async throws {
        try await record(.refused, answer) { $0.reason = String(reason.prefix(500)) }
    }

    private func record(
        _ step: CertificateRenewal.Step, _ answer: RenewalAnswer, _ change: (inout CertificateRenewal) -> Void
    ) async throws {
        let renewal = answer.renewal
        var event = CertificateRenewal(
            step, authority: renewal.certificate.authority, serial: renewal.certificate.serial.description,
            tenantID: renewal.tenantID, deviceID: renewal.deviceID, renewal: renewal.id.rawValue, actor: Self.actor)
        event.cause = answer.position.rawValue
        change(&event)
        // A refusal of the step itself means that the renewal has ended meanwhile.
        _ = try await execute(.renewal(event), renewal.tenantID)
    }

    private func by(_ tenantID: String) -> Operator { Operator(actor: Self.actor, tenantID: tenantID) }

    private func execute(_ command: RegistryCommand, _ tenantID: String) async throws -> RegistryAnswer {
        try await service.execute(command, by(tenantID))
    }
}

extension PKIError {
    /// It would fail again for this device, whatever happens to the authority's key.
    fileprivate var isAboutTheRequest: Bool {
        switch code {
        case .invalid, .weak, .unsupported, .malformed: true
        case .untrusted, .passphrase, .file, .command, .crypto: false
        }
    }
}

/// What a device says about its renewal.
private enum DeviceMessage: Sendable {
    case request(RenewalRequest)
    case installed(InstallReport)
    case malformed(String)

    /// Nil: its segment is gone.
    init?(at position: Position, of source: any LogSource) throws {
        guard let reader = try source.readerUnlessRemoved(from: position) else { return nil }
        let block = EventBlock()
        guard try reader.read(into: block, atLeast: 1) else { return nil }
        var found: DeviceMessage?
        block.forEach { record, at in
            if at == position { found = DeviceMessage(record) }
        }
        guard let found else { return nil }
        self = found
    }

    private init(_ record: RecordView) {
        let json = Data(record.payload)
        do {
            switch DeviceTopic(record.topic)?.topicClass {
            case .certificateRequest: self = .request(try JSONDecoder().decode(RenewalRequest.self, from: json))
            case .certificateInstalled: self = .installed(try JSONDecoder().decode(InstallReport.self, from: json))
            default: self = .malformed("the message has another topic")
            }
        } catch {
            let fields = record.topicString.hasSuffix("/request") ? "renewal_id and csr" : "renewal_id and serial"
            self = .malformed("the payload is not a JSON object with \(fields)")
        }
    }
}
