import Deciding
import Decisions

extension DeciderService<CampaignState> {
    /// What finds the group's devices; nil when it is a list, or when the tenant has no such group.
    /// - Throws: `LogError`, `UnreadableDecision`.
    public func groupQuery(tenant: String, id: Int64) throws -> GroupQuery? {
        guard let group = try recover().groups[id], group.tenantID == tenant else { return nil }
        return group.query
    }
}
