import Decisions
import EventModel
import PKI
import Primitives

/// What operators and the services around the registry ask for. New authorities, certificates and CRLs come signed and
/// checked; whether they are put on the record is decided here.
public enum RegistryCommand: Sendable, Equatable {
    /// Actor and idempotency key of the event are set by the registry, here and below.
    case addAuthority(AuthorityAdded)
    case retireAuthority(String)
    /// All of them, or none.
    case add([CertificateAdded])
    case change(CertificateReference, CertificateChange)
    /// All certificates of a device to which the change applies.
    case changeDevice(String, CertificateChange)
    case issueCRL(CRLIssued)
    case refuseCRL(CRLRefused)
    case enforce(CRLEnforced)
    /// Those that wait for it; milliseconds and number of the remaining ones are set by the registry.
    case cut([ClientCut])
    case liftBans([ClientBanLifted])
    case setRenewalPolicy(RenewalPolicy)
    /// The device's newest active certificate.
    case renewDevice(String)
    /// All active certificates of an authority.
    case renewAuthority(String)
    /// What follows from a device's message: refused, resent or installed.
    case renewal(CertificateRenewal)

    /// The name on the record (`command.rejected/1`).
    public var name: String {
        switch self {
        case .addAuthority: "authority.add"
        case .retireAuthority: "authority.retire"
        case .add(let events): events.first?.origin == .imported ? "certificate.import" : "certificate.issue"
        case .change(_, let change), .changeDevice(_, let change): "certificate.\(change.verb)"
        case .issueCRL, .refuseCRL: "crl.issue"
        case .enforce: "crl.enforce"
        case .cut: "client.cut"
        case .liftBans: "client.ban_lift"
        case .setRenewalPolicy: "certificate.renewal_policy"
        case .renewDevice: "certificate.renew"
        case .renewAuthority: "authority.renew"
        case .renewal(let event): "certificate.renewal_\(event.step.rawValue)"
        }
    }

    /// The object of the command; empty when the command creates it.
    var subject: String {
        switch self {
        case .addAuthority, .add, .cut, .liftBans: ""
        case .retireAuthority(let id): "authority:\(id)"
        case .change(let reference, _): "certificate:\(reference)"
        case .changeDevice(let device, _): "device:\(device)"
        case .issueCRL(let event): "crl:\(event.authority)"
        case .refuseCRL(let event): "crl:\(event.authority)"
        case .enforce(let event): event.envelope.subject
        case .setRenewalPolicy: "renewal:policy"
        case .renewDevice(let device): "device:\(device)"
        case .renewAuthority(let id): "authority:\(id)"
        case .renewal(let event): event.envelope.subject
        }
    }
}

/// A change that a command asks for.
public struct CertificateChange: Sendable, Equatable {
    public enum Kind: Sendable, Equatable {
        case revoke(RevocationReason)
        case hold
        case release
        /// A newer certificate of the device has been seen in use.
        case supersede(by: CertificateReference)
    }

    public var kind: Kind
    /// For people.
    public var note: String?

    public init(_ kind: Kind, note: String? = nil) { (self.kind, self.note) = (kind, note) }

    var verb: String {
        switch kind {
        case .revoke: "revoke"
        case .hold: "hold"
        case .release: "release"
        case .supersede: "supersede"
        }
    }
}

/// A command with its actor, its tenant and its idempotency key.
public struct RegistryRequest: Sendable {
    /// Whose certificates; `Envelope.everyTenant`: any tenant's.
    public var tenantID: String
    public var actor: String
    public var idempotencyKey: String?
    /// SHA-256 of what the caller sent, in hex. A command with a new certificate in it differs each time.
    public var digest: String?
    public var command: RegistryCommand

    /// - Parameter sent: the caller's request, where `idempotencyKey` is given.
    public init(
        tenantID: String, actor: String, idempotencyKey: String? = nil, sent: [UInt8] = [], command: RegistryCommand
    ) {
        (self.tenantID, self.actor, self.command) = (tenantID, actor, command)
        self.idempotencyKey = idempotencyKey
        digest = idempotencyKey.map { _ in Self.digest(command.name, sent) }
    }

    /// Of a command by its name, and what the caller sent.
    public static func digest(_ name: String, _ sent: [UInt8]) -> String {
        SHA256.digest(Array("\(name)\n".utf8) + sent).description
    }
}

/// The result of a command, returned once its events are durable.
public enum RegistryAnswer: Sendable, Equatable {
    /// `authority` is set where the command was about one, and `certificates` are those added or changed.
    /// `isRepeated`: the same request was answered before, under the same idempotency key.
    case accepted(
        position: Position, authority: String?, certificates: [CertificateReference], isRepeated: Bool)
    case rejected(position: Position, code: RegistryRefusal.Code, reason: String)
}

public struct RegistryRefusal: Error, Sendable, Equatable {
    public enum Code: String, Sendable {
        case notFound = "not_found", invalidValue = "invalid_value", alreadyExists = "already_exists"
        case illegalTransition = "illegal_transition", keyReused = "idempotency_key_reused"
        /// The state has changed since the command was prepared: prepare it again.
        case outdated
        case limitReached = "limit_reached"
    }

    public let code: Code
    public let reason: String

    init(_ code: Code, _ reason: String) { (self.code, self.reason) = (code, reason) }
}
