import Deciding
import Decisions
import EventModel
import PKI
import Primitives
@testable import Access
@testable import Campaigns
@testable import Certificates

/// What a decider is asked in `DeciderTests`.
protocol DeciderScript {
    associatedtype D: Decider
    /// Each is accepted behind those before it. The first has an idempotency key, and the second does not depend on it.
    static var accepted: [D.Request] { get }
    /// Another request under the first one's key.
    static var underTheSameKey: D.Request { get }
    /// On an empty log.
    static var refused: D.Request { get }
    /// Schema of a decision of its own.
    static var schema: String { get }
    static func summary(_ answer: D.Answer) -> (position: Position, isRefusal: Bool)
}

enum NoteScript: DeciderScript {
    typealias D = Notes

    static var accepted: [Notes.Request] { [.leave("one", key: "k"), .leave("two", key: nil), .remove(1)] }
    static var underTheSameKey: Notes.Request { .leave("three", key: "k") }
    static var refused: Notes.Request { .remove(7) }
    static var schema: String { NoteLeft.schema }

    static func summary(_ answer: Notes.Answer) -> (position: Position, isRefusal: Bool) {
        switch answer {
        case .done(let position, _): (position, false)
        case .refused(let position, _): (position, true)
        }
    }
}

enum AccessScript: DeciderScript {
    typealias D = AccessState

    private static func request(_ command: AccessCommand, key: String? = nil) -> NewSecret {
        NewSecret(
            for: AccessRequest(principal: .folderAdmin, idempotencyKey: key, command: command), secret: "s\(command)")
    }

    static var accepted: [NewSecret] {
        [
            request(.create(TokenSpec(name: "one", role: .admin)), key: "k"),
            request(.create(TokenSpec(name: "two", role: .viewer, tenantID: "t"))), request(.revoke(1)),
        ]
    }
    static var underTheSameKey: NewSecret { request(.create(TokenSpec(name: "three", role: .viewer)), key: "k") }
    static var refused: NewSecret { request(.revoke(7)) }
    static var schema: String { AccessSchema.tokenCreated.rawValue }

    static func summary(_ answer: AccessAnswer) -> (position: Position, isRefusal: Bool) {
        switch answer {
        case .created(let position, _, _), .revoked(let position, _, _): (position, false)
        case .rejected(let position, _, _): (position, true)
        }
    }
}

enum CampaignScript: DeciderScript {
    typealias D = CampaignState

    private static func request(_ command: CampaignCommand, key: String? = nil) -> CommandRequest {
        CommandRequest(tenantID: "t", actor: "op", idempotencyKey: key, command: command)
    }

    static var accepted: [CommandRequest] {
        [
            request(.addFirmware(FirmwareSpec(version: "1", fileURL: "https://h/f")), key: "k"),
            request(.createGroup(GroupSpec(name: "g", devices: ["d1", "d2"]))),
            request(.createCampaign(CampaignSpec(name: "c", firmwareVersionID: 1, devices: ["d1"]))),
            request(.start(campaign: 1)), request(.pause(campaign: 1, reason: nil)),
        ]
    }
    static var underTheSameKey: CommandRequest {
        request(.addFirmware(FirmwareSpec(version: "2", fileURL: "https://h/f")), key: "k")
    }
    static var refused: CommandRequest { request(.start(campaign: 7)) }
    static var schema: String { CampaignSchema.campaignCreated.rawValue }

    static func summary(_ answer: CommandAnswer) -> (position: Position, isRefusal: Bool) {
        switch answer {
        case .accepted(let position, _, _): (position, false)
        case .rejected(let position, _, _): (position, true)
        }
    }
}

enum CertificateScript: DeciderScript {
    typealias D = CertificateRegistry

    private static func request(_ command: RegistryCommand, key: String? = nil) -> RegistryRequest {
        RegistryRequest(
            tenantID: Envelope.everyTenant, actor: "op", idempotencyKey: key, sent: Array("\(command)".utf8),
            command: command)
    }

    private static func authority(_ id: String) -> RegistryCommand {
        .addAuthority(
            AuthorityAdded(
                id: id, tenantID: Envelope.everyTenant, subject: "CN=\(id)", certificate: id,
                spkiSHA256: SHA256.digest(id.utf8).description, key: .file, notBefore: Timestamp(microseconds: 0),
                notAfter: Timestamp(microseconds: 1 << 60), actor: ""))
    }

    private static func certificate(_ serial: String, _ device: String) -> CertificateAdded {
        CertificateAdded(
            .issued, authority: "one", serial: serial, tenantID: "t", deviceID: device, commonName: "t/\(device)",
            certificate: "", sha256: "", spkiSHA256: SHA256.digest(serial.utf8).description, keyAlgorithm: "P-256",
            notBefore: Timestamp(microseconds: 0), notAfter: Timestamp(microseconds: 1 << 60), actor: "")
    }

    static var accepted: [RegistryRequest] {
        let first = CertificateReference(authority: "one", serial: SerialNumber(1)!)
        return [
            request(authority("one"), key: "k"), request(authority("two")),
            request(.add([certificate("01", "d"), certificate("02", "e")])),
            request(.change(first, CertificateChange(.hold))),
            request(.change(first, CertificateChange(.revoke(.keyCompromise)))),
            request(.retireAuthority("two")), request(.setRenewalPolicy(policy)),
            RegistryRequest(tenantID: "t", actor: "op", command: .renewDevice("e")),
            RegistryRequest(tenantID: "t", actor: "op", command: .renewDevice("e")), request(.renewAuthority("one")),
        ]
    }
    private static var policy: RenewalPolicy {
        var policy = RenewalPolicy()
        policy.isEnabled = true
        return policy
    }
    static var underTheSameKey: RegistryRequest { request(authority("three"), key: "k") }
    static var refused: RegistryRequest { request(.retireAuthority("seven")) }
    static var schema: String { CertificateSchema.certificateIssued.rawValue }

    static func summary(_ answer: RegistryAnswer) -> (position: Position, isRefusal: Bool) {
        switch answer {
        case .accepted(let position, _, _, _): (position, false)
        case .rejected(let position, _, _): (position, true)
        }
    }
}
