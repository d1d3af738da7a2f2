/// Maps a schema to its payload type.
public struct DecisionCatalog: Sendable {
    /// All deciders' decisions.
    public static let all = DecisionCatalog(campaignDecisions + accessDecisions + certificateDecisions + jobDecisions)

    private let types: [String: any Decision.Type]

    /// - Precondition: no schema has two types.
    public init(_ types: [any Decision.Type]) {
        let pairs = types.flatMap { type in type.schemas.map { ($0, type) } }
        self.types = Dictionary(uniqueKeysWithValues: pairs)
    }

    /// In alphabetical order.
    public var schemas: [String] { types.keys.sorted() }

    /// Nil for a schema that this version does not know.
    public func type(of schema: String) -> (any Decision.Type)? { types[schema] }
}
