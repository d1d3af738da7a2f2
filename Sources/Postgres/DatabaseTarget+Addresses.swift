import Glibc

extension DatabaseTarget {
    /// One address of the server, as keywords that override the URL's.
    struct Address: Equatable {
        var keywords: [(String, String)] = []
        /// For errors; empty when the URL's own way is taken.
        var description = ""

        static func == (one: Address, other: Address) -> Bool {
            one.description == other.description && one.keywords.elementsEqual(other.keywords, by: ==)
        }
    }

    /// Every address that the URL names, in its order: `host1,host2`, and all that a name resolves to. One that
    /// overrides nothing when there is no choice, or when libpq has to find the host itself (a service file, PGHOST).
    func addresses() throws(PostgresError) -> [Address] {
        let options = try options()
        func list(_ name: String) -> [String] {
            options[name].map { $0.split(separator: ",", omittingEmptySubsequences: false).map(String.init) } ?? []
        }
        let hosts = list("host"), numeric = list("hostaddr"), ports = list("port")
        var addresses: [Address] = []
        for index in 0..<max(hosts.count, numeric.count) {
            let host = index < hosts.count ? hosts[index] : "", given = index < numeric.count ? numeric[index] : ""
            let port = ports.count == 1 ? ports[0] : index < ports.count ? ports[index] : ""
            let resolved = given.isEmpty ? Self.resolve(host) : [given]
            for address in resolved.isEmpty ? [""] : resolved {
                var keywords = [("host", host.isEmpty && address.isEmpty ? Self.socketFolder : host)]
                if !address.isEmpty { keywords.append(("hostaddr", address)) }
                // An empty value would leave the URL's list in force.
                if !ports.isEmpty { keywords.append(("port", port.isEmpty ? "5432" : port)) }
                keywords.removeAll { $0.1.isEmpty }
                let name = host.isEmpty ? address : host
                let shown = address.isEmpty || address == name ? name : "\(name) (\(address))"
                addresses.append(Address(keywords: keywords, description: shown + (port.isEmpty ? "" : ":\(port)")))
            }
        }
        return addresses.count > 1 ? addresses : [Address()]
    }

    /// libpq's own default on Debian.
    private static let socketFolder = "/var/run/postgresql"

    /// Numeric addresses of a host name; none for a socket's folder, and where resolving fails: libpq then says why.
    private static func resolve(_ host: String) -> [String] {
        guard !host.isEmpty, !host.hasPrefix("/"), !host.hasPrefix("@") else { return [] }
        var hints = addrinfo(), found: UnsafeMutablePointer<addrinfo>?
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        guard getaddrinfo(host, nil, &hints, &found) == 0 else { return [] }
        defer { freeaddrinfo(found) }
        var addresses: [String] = [], next = found
        while let entry = next {
            var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
            if getnameinfo(
                entry.pointee.ai_addr, entry.pointee.ai_addrlen, &text, socklen_t(text.count), nil, 0, NI_NUMERICHOST)
                == 0
            {
                let address = String(decoding: text.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
                if !addresses.contains(address) { addresses.append(address) }
            }
            next = entry.pointee.ai_next
        }
        return addresses
    }
}
