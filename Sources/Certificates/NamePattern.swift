import EventModel

/// How a device is named, as a common name, client id or user name: `{tenant}` and `{device}` are replaced.
public struct NamePattern: Sendable {
    public let text: String
    /// The literal parts around `{device}`, each split again at `{tenant}`.
    private let parts: [[String]]

    public init(_ text: String) {
        self.text = text
        parts = text.split(separator: "{device}", omittingEmptySubsequences: false)
            .map { $0.split(separator: "{tenant}", omittingEmptySubsequences: false).map(String.init) }
    }

    public func name(tenantID: String, deviceID: String) -> String {
        literals(tenantID).joined(separator: deviceID)
    }

    /// The device of a tenant that has the name; nil: none has.
    public func device(named name: String, ofTenant tenantID: String) -> String? {
        Self.device(named: name, literals(tenantID))
    }

    fileprivate var hasTenant: Bool { parts.contains { $0.count > 1 } }

    fileprivate func literals(_ tenantID: String) -> [String] {
        parts.map { $0.count == 1 ? $0[0] : $0.joined(separator: tenantID) }
    }

    fileprivate static func device(named name: String, _ literals: [String]) -> String? {
        let count = literals.count - 1, rest = name.utf8.count - literals.reduce(0) { $0 + $1.utf8.count }
        guard count > 0, rest > 0, rest % count == 0, name.utf8.starts(with: literals[0].utf8) else { return nil }
        let device = String(name.utf8.dropFirst(literals[0].utf8.count).prefix(rest / count)) ?? ""
        return name.utf8.elementsEqual(literals.joined(separator: device).utf8) ? device : nil
    }
}

extension CertificateRegistry {
    /// Whether a device of another tenant, with a live certificate, has the same name by the pattern.
    /// - Parameter names: each with the tenant that it is of.
    public func areShared(
        _ names: [(name: String, tenantID: String)], by pattern: NamePattern, at now: Timestamp
    ) -> [Bool] {
        var shared = names.map { _ in false }
        let common = pattern.hasTenant ? nil : pattern.literals("")
        for tenant in store.tenantIDs {
            let literals = common ?? pattern.literals(tenant)
            for (index, name) in names.enumerated() where !shared[index] && name.tenantID != tenant {
                guard let device = NamePattern.device(named: name.name, literals) else { continue }
                shared[index] = hasLiveCertificate(tenantID: tenant, deviceID: device, at: now)
            }
        }
        return shared
    }
}
