// How CRLs come into force at a broker, and how clients of revoked certificates are disconnected there.

extension Settings.Broker {
    public struct CRL: Sendable {
        /// Nil: the broker fetches CRLs over HTTP (EMQX).
        public var file: String?
        public var reloadCommand: String?
        /// Nil: nothing is proved.
        public var probe: BrokerAddress?
        public var probeCAFile: String?
        /// Nil: clients stay connected until they reconnect.
        public var cut: Cut?
    }

    public struct Cut: Sendable {
        public enum Method: Sendable {
            /// By Mosquitto's dynamic security plugin, as its administrator.
            case dynsec(BrokerAddress)
            /// By a takeover of the client id, at a listener that does not ask for the client's certificate.
            case takeover(BrokerAddress)
            case emqx(EMQX)
        }

        public struct EMQX: Sendable {
            public var url: String
            public var user: String
            public var password: String
            /// EMQX's `crl_cache.refresh_interval`.
            public var refreshSeconds: Int
        }

        public var method: Method
        /// By which names the broker knows a device; `{tenant}`, `{device}` and `{common_name}` are replaced.
        public var clientID: String
        public var username: String

        var emqx: EMQX? { if case .emqx(let emqx) = method { emqx } else { nil } }
    }
}

extension Settings {
    static func crl(
        _ prefix: String, _ text: (String) -> String, _ broker: Broker, _ problems: inout [String]
    ) -> Broker.CRL? {
        func optional(_ key: String) -> String? { text(key).isEmpty ? nil : text(key) }
        let file = optional("crl_file"), isEMQX = text("crl_cut") == "emqx"
        guard file != nil || isEMQX else {
            for key in ["crl_reload_command", "crl_probe_url", "crl_probe_ca_file"] where optional(key) != nil {
                problems.append("\(prefix).\(key) is set without \(prefix).crl_file")
            }
            if text("crl_cut") != "none" { problems.append("\(prefix).crl_cut is set without \(prefix).crl_file") }
            return nil
        }
        if file != nil, isEMQX {
            problems.append(
                "\(prefix).crl_file is set, and \(prefix).crl_cut is emqx, which reads no CRL file: remove one of them")
        }
        var crl = Broker.CRL(file: file, reloadCommand: optional("crl_reload_command"))
        if file == nil, crl.reloadCommand != nil {
            problems.append("\(prefix).crl_reload_command is set without \(prefix).crl_file")
        }
        if let url = optional("crl_probe_url") {
            crl.probe = BrokerAddress(url: url)
            if crl.probe?.tls != true {
                problems.append("\(prefix).crl_probe_url must be mqtts://host[:port]: a CRL is about TLS certificates")
            }
        }
        crl.probeCAFile = optional("crl_probe_ca_file") ?? broker.caFile
        if let file = crl.probeCAFile, !isReadable(file) {
            problems.append("\(prefix).crl_probe_ca_file: the file \(file) is missing or cannot be read")
        }
        crl.cut = cut(prefix, text, broker, &problems)
        if crl.cut != nil, crl.probe == nil {
            problems.append(
                "\(prefix).crl_cut needs \(prefix).crl_probe_url: a client that is disconnected before its CRL is "
                    + "proved connects again")
        }
        return crl
    }

    private static func cut(
        _ prefix: String, _ text: (String) -> String, _ broker: Broker, _ problems: inout [String]
    ) -> Broker.Cut? {
        func optional(_ key: String) -> String? { text(key).isEmpty ? nil : text(key) }
        let kind = text("crl_cut")
        var method: Broker.Cut.Method?
        switch kind {
        case "dynsec", "takeover":
            var address = broker.address
            (address.username, address.password) = (broker.username, broker.password)
            if let url = optional("crl_cut_url") {
                guard let found = BrokerAddress(url: url) else {
                    problems.append("\(prefix).crl_cut_url must be mqtt://[user[:password]@]host[:port]")
                    return nil
                }
                address = found
            }
            method = kind == "dynsec" ? .dynsec(address) : .takeover(address)
        case "emqx": method = emqx(prefix, text, &problems).map { .emqx($0) }
        default: break
        }
        let clientID = text("crl_client_id"), username = text("crl_username")
        if kind == "takeover", !clientID.contains("{device}"), !clientID.contains("{common_name}") {
            problems.append("\(prefix).crl_client_id must contain {device} or {common_name}")
        }
        if kind == "dynsec", !username.contains("{device}"), !username.contains("{common_name}") {
            problems.append("\(prefix).crl_username must contain {device} or {common_name}")
        }
        return method.map { Broker.Cut(method: $0, clientID: clientID, username: username) }
    }

    private static func emqx(
        _ prefix: String, _ text: (String) -> String, _ problems: inout [String]
    ) -> Broker.Cut.EMQX? {
        var password = text("emqx_api_password")
        let file = text("emqx_api_password_file")
        if !file.isEmpty {
            if !password.isEmpty {
                problems.append("\(prefix): both emqx_api_password and emqx_api_password_file are set; give one")
            }
            do {
                password = try readSecret(file)
            } catch {
                problems.append("\(prefix).emqx_api_password_file: \(error)")
            }
        }
        let url = text("emqx_api_url"), user = text("emqx_api_user")
        guard url.hasPrefix("http://") || url.hasPrefix("https://"), !user.isEmpty, !password.isEmpty else {
            problems.append(
                "\(prefix).crl_cut is emqx: set emqx_api_url (http://host:18083), emqx_api_user and emqx_api_password "
                    + "(EMQX_API_URL, EMQX_API_USER, EMQX_DASHBOARD_PASSWORD)")
            return nil
        }
        for (key, pattern) in [("crl_client_id", text("crl_client_id")), ("crl_username", text("crl_username"))] {
            // A ban of a name that several devices share would lock them all out.
            guard !pattern.contains("{device}"), !pattern.contains("{common_name}") else { continue }
            problems.append("\(prefix).\(key) must contain {device} or {common_name}")
        }
        return .init(url: url, user: user, password: password, refreshSeconds: Int(text("crl_refresh_seconds")) ?? 900)
    }
}
