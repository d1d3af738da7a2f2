import Certificates

/// By which names a broker knows a device's client. `{tenant}`, `{device}` and `{common_name}` are replaced.
public struct ClientNames: Sendable {
    let clientID: NamePattern
    let username: NamePattern
    /// Of certificates that are issued here.
    let commonName: NamePattern

    public init(clientID: String, username: String, commonName: String) {
        (self.clientID, self.username) = (NamePattern(clientID), NamePattern(username))
        self.commonName = NamePattern(commonName)
    }

    fileprivate static let commonName = "{common_name}"

    /// With the pattern of common names in place of `{common_name}`.
    func expanded(_ pattern: NamePattern) -> NamePattern {
        NamePattern(pattern.text.replacing(Self.commonName, with: commonName.text))
    }

    /// Nil: it needs the common name, and that is not known.
    private func name(_ pattern: NamePattern, _ tenantID: String, _ deviceID: String, _ commonName: String?) -> String?
    {
        let name = pattern.name(tenantID: tenantID, deviceID: deviceID)
        guard pattern.needsCommonName else { return name }
        return commonName.map { name.replacing(Self.commonName, with: $0) }
    }

    func target(tenantID: String, deviceID: String, commonName: String?) -> ClientTarget {
        ClientTarget(
            clientID: name(clientID, tenantID, deviceID, commonName),
            username: name(username, tenantID, deviceID, commonName))
    }
}

extension NamePattern {
    var needsCommonName: Bool { text.contains(ClientNames.commonName) }
}

/// Why a client is not disconnected by its names.
struct UnusableNames: Error, Equatable, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}
