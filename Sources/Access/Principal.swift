// Access: who may use the API, decided and put on the record.
//
// `AccessState` is the `Decider`; `DeciderService` runs it (Sources/Deciding/Decider.swift). The state is in memory, so
// that a token is known without a database, and as soon as the decision about it is durable.
//
// Invariants. A secret is told once, to whoever created it, and is nowhere else: the log, the tables and the snapshots
// have its SHA-256. A token never gives more than its creator had, nor for longer: it expires with its creator at the
// latest, and the revocation of its creator revokes it (as in HashiCorp Vault's token hierarchies). One that was
// revoked or has expired opens nothing. Once a token was created, nothing is open without one, for good.
import Decisions
import EventModel

/// What a token allows; each includes those before it.
public enum Role: String, Codable, Sendable, CaseIterable, Comparable {
    /// Reads.
    case viewer
    /// And commands: firmware, groups, campaigns.
    case `operator`
    /// And tokens; with all tenants also the log, snapshots, rebuilds and projections.
    case admin

    public static func < (a: Role, b: Role) -> Bool { a.rank < b.rank }
    private var rank: Int { Self.allCases.firstIndex(of: self) ?? 0 }
}

/// The authenticated caller: a token of the log, or the data folder's token.
public struct Principal: Sendable, Equatable {
    /// The `actor` of what is done.
    public var name: String
    public var role: Role
    /// Nil: all tenants, and the system itself.
    public var tenantID: String?
    /// Nil: the data folder's token.
    public var tokenID: Int64?

    public init(name: String, role: Role, tenantID: String? = nil, tokenID: Int64? = nil) {
        self.name = name
        self.role = role
        self.tenantID = tenantID
        self.tokenID = tokenID
    }

    /// Whoever can read the data folder's token.
    public static let folderAdmin = Principal(name: "admin", role: .admin)

    /// Actor names that no token may have: its actions would be attributed to them.
    static let reservedNames: Set<String> = ["admin", EngineActor.name, "abort-rule", "retention", "anonymous"]

    public func mayAct(for tenant: String) -> Bool { tenantID == nil || tenantID == tenant }
}
