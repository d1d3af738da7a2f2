import Foundation
import Testing
@testable import Settings

/// Settings from a YAML text, flags and an environment, as the daemon would resolve them.
private func settings(
    yaml: String? = nil, flags: [String: String] = [:], environment: [String: String] = [:]
) async throws -> Settings {
    var file: String?
    if let yaml {
        file = NSTemporaryDirectory() + "refold-\(UUID().uuidString).yaml"
        try yaml.write(toFile: file!, atomically: true, encoding: .utf8)
    }
    defer { if let file { try? FileManager.default.removeItem(atPath: file) } }
    let source = try await SettingsSource(file: file, flags: flags, environment: environment)
    return try Settings(from: source)
}

private func problems(
    yaml: String? = nil, flags: [String: String] = [:], environment: [String: String] = [:]
) async throws -> String {
    do {
        _ = try await settings(yaml: yaml, flags: flags, environment: environment)
        return ""
    } catch let error as SettingsError {
        return error.description
    }
}

@Suite struct SettingsTests {
    /// docs/settings.md lists every key once, with its default and its range.
    @Test func thePageListsEverySetting() throws {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let page = try String(contentsOf: root.appending(path: "docs/settings.md"), encoding: .utf8)
        let rows = page.split(separator: "\n").filter { $0.hasPrefix("| `") }.map { row in
            row.split(separator: "|").map { $0.trimmingCharacters(in: CharacterSet(charactersIn: " `")) }
        }
        #expect(rows.allSatisfy { $0.count == 5 })
        let settings = SettingsCatalog.all(brokers: [])
        #expect(rows.compactMap(\.first).sorted() == settings.map(\.key).sorted())
        for setting in settings {
            let row = try #require(rows.first(where: { $0.first == setting.key }))
            #expect(row[3] == (setting.fallback.isEmpty ? "–" : setting.fallback), "\(setting.key)")
            switch setting.kind {
            case .int(let range): #expect(row[4] == "\(range.lowerBound)–\(range.upperBound)", "\(setting.key)")
            case .choice(let words): #expect(row[4] == words.joined(separator: ", "), "\(setting.key)")
            default: break
            }
        }
    }

    @Test func defaults() async throws {
        let all = try await settings()
        #expect(all.data == "./data")
        #expect(all.node == nil)
        #expect(all.brokers.isEmpty)
        #expect(all.databaseURL == nil)
        #expect((all.httpHost, all.httpPort) == ("127.0.0.1", 7480))
        #expect(all.resolved.allSatisfy { $0.origin == "default" })
    }

    @Test func orderOfPrecedence() async throws {
        let yaml = "broker:\n  url: mqtt://file:1\ndatabase:\n  url: postgresql://file/x\n"
        let old = [
            "MQTT_BROKER_URL": "mqtt://old:2", "MQTT_USERNAME": "u", "MQTT_PASSWORD": "p",
            "DATABASE_URL": "postgresql://old/x",
        ]
        #expect(try await settings(yaml: yaml).brokers.first?.address.host == "file")
        let aliased = try await settings(yaml: yaml, environment: old)
        #expect(aliased.brokers.first?.address.host == "old")
        #expect(aliased.brokers.first?.username == "u")
        #expect(aliased.databaseURL == "postgresql://old/x")
        let variable = try await settings(
            yaml: yaml, environment: old.merging(["REFOLD_BROKER_URL": "mqtt://env"]) { $1 })
        #expect(variable.brokers.first?.address.host == "env")
        let flag = try await settings(
            yaml: yaml, flags: ["broker.url": "mqtt://flag"], environment: ["REFOLD_BROKER_URL": "mqtt://env"]
        )
        #expect(flag.brokers.first?.address.host == "flag")
        #expect(flag.resolved.first { $0.setting.key == "broker.url" }?.origin == "--broker-url")
    }

    @Test(arguments: ["", "# nothing but a comment\n"])
    func aFileThatSaysNothingMeansTheDefaults(yaml: String) async throws {
        #expect(try await settings(yaml: yaml).data == "./data")
    }

    /// Behind nginx every path was 421, and the text spoke of a setting that did not exist.
    @Test func proxiesAreDeclared_core63083() async throws {
        let none = try await settings()
        #expect(none.httpHosts == [] && none.httpProxies == [])
        let some = try await settings(
            yaml: "http_hosts: [fleet.example, 'fleet.example:8443']\nhttp_proxies: 10.0.0.0/8\n")
        #expect(some.httpHosts == ["fleet.example", "fleet.example:8443"] && some.httpProxies == ["10.0.0.0/8"])
        let variable = try await settings(environment: ["REFOLD_HTTP_HOSTS": "a.example, b.example"])
        #expect(variable.httpHosts == ["a.example", "b.example"])
    }

    /// `ps` shows what stands on a command line.
    @Test func passwordsComeFromFilesAndCredentials_F23() async throws {
        let folder = NSTemporaryDirectory() + "refold-secrets-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try "p@ss w/rd&\n".write(toFile: folder + "/db", atomically: true, encoding: .utf8)
        let flags = ["database.password_file": folder + "/db", "database.url": "postgresql://refold@a,b:5/fleet"]
        #expect(
            try await settings(flags: flags).databaseURL
                == "postgresql://refold@a,b:5/fleet?password=p%40ss%20w%2Frd%26")
        var more = flags
        more["database.url"] = "postgresql://h/x?sslmode=require"
        #expect(
            try await settings(flags: more).databaseURL?.hasSuffix("?sslmode=require&password=p%40ss%20w%2Frd%26")
                == true)
        #expect(
            try await problems(flags: ["database.password_file": folder + "/db"])
                .contains("database.password_file is set without database.url"))
        more["database.password_file"] = folder + "/missing"
        #expect(try await problems(flags: more).contains("database.password_file"))
        for (key, value, isExposed) in [
            ("database.url", "postgresql://u:p@h/x", true), ("database.url", "postgresql://u@h/x", false),
            ("database.url", "postgresql:///x?host=h&password=p", true), ("broker.url", "mqtt://u:p@h", true),
            ("broker.url", "mqtt://h", false),
        ] {
            let given = try await settings(flags: [key: value]).resolved.filter(\.isExposed).map(\.setting.key)
            #expect(given == (isExposed ? [key] : []), "\(value)")
            let variable = "REFOLD_" + key.uppercased().replacing(".", with: "_")
            #expect(try await settings(environment: [variable: value]).resolved.allSatisfy { !$0.isExposed })
        }
        #expect(try readSecret("db", environment: ["CREDENTIALS_DIRECTORY": folder]) == "p@ss w/rd&")
        #expect(throws: SettingsError.self) { try readSecret("db", environment: [:]) }
    }

    @Test func severalBrokers() async throws {
        let all = try await settings(
            yaml: """
                brokers:
                  north: {url: "mqtt://n", filters: ["a/#", "b/+"]}
                  south: {url: "mqtts://s", verify: false, share_group: g}
                """)
        #expect(all.brokers.map(\.name) == ["north", "south"])
        #expect(all.brokers.map(\.address.port) == [1883, 8883])
        #expect(all.brokers[0].filters == ["a/#", "b/+"])
        #expect(all.brokers[1].verify == false)
        #expect(all.brokers[1].shareGroup == "g")
    }

    @Test(arguments: [
        ("gate:\n  brust: 3\n", ":2: unknown key 'gate.brust'; did you mean 'gate.burst'?"),
        ("gate:\n  burst: many\n", "gate.burst is 'many': must be a whole number"),
        ("gate:\n  burst: [1, 2]\n", "gate.burst must be a whole number"),
        ("gate:\n  burst: 0\n", "must be a whole number from 1 to"),
        ("broker:\n  url: ftp://x\n", "broker.url must be mqtt://"),
        ("broker:\n  username: u\n", "broker.url is missing"),
        ("broker:\n  url: mqtt://x\nbrokers:\n  a:\n    url: mqtt://y\n", "both 'broker' and 'brokers' are set"),
        ("broker:\n  url: mqtt://x\n  ca_file: /etc/hosts\n", "the URL is plain; use mqtts://"),
        ("broker:\n  url: mqtts://x\n  ca_file: /nowhere.pem\n", "/nowhere.pem is missing or cannot be read"),
        ("broker:\n  url: mqtts://x\n  cert_file: /etc/hosts\n", "cert_file and key_file go together"),
        ("broker:\n  url: mqtt://x\n  filters: [a/#/b]\n", "'a/#/b' is no MQTT topic filter"),
        ("broker:\n  url: mqtt://x\n  filters: [a/+/b, a/#]\n", "'a/+/b' and 'a/#' overlap"),
        ("broker:\n  url: mqtt://x\n  password_file: /nowhere\n", "/nowhere is missing"),
        ("broker:\n  url: mqtt://x\n  verify: perhaps\n", "must be true or false"),
        ("presence:\n  stale_seconds: 90\n  offline_seconds: 90\n", "must be more than presence.stale_seconds"),
        ("http: nine\n", "must be HOST:PORT"),
        ("database:\n  url: mysql://x\n", "must begin with postgresql://"),
        ("- a\n", "must be a mapping"),
        ("a: [\n", "not valid YAML"),
        ("logging:\n  format: xml\n", "must be one of auto, text, json"),
        ("broker:\n  url: mqtt://u:a@x\n  password: b\n", "a password stands in url and another beside it"),
        ("broker:\n  url: mqtt://u@x\n  username: v\n", "url and username name two users"),
    ])
    func refused(yaml: String, expected: String) async throws {
        let text = try await problems(yaml: yaml)
        #expect(text.contains(expected), "\(text)")
    }

    @Test func clientsAreCutAtABroker() async throws {
        let base = [
            "broker.url": "mqtt://refold:secret@h", "broker.crl_file": "/crl", "broker.crl_probe_url": "mqtts://h",
        ]
        func cut(_ more: [String: String], _ environment: [String: String] = [:]) async throws -> Settings.Broker.Cut? {
            try await settings(flags: base.merging(more) { $1 }, environment: environment).brokers.first?.crl?.cut
        }
        #expect(try await cut([:]) == nil)
        let takeover = try #require(try await cut(["broker.crl_cut": "takeover"]))
        guard case .takeover(let own) = takeover.method else {
            Issue.record("\(takeover)")
            return
        }
        #expect(own.host == "h" && own.username == "refold" && own.password == "secret", "as refold itself by default")
        #expect(takeover.clientID == "{device}" && takeover.username == "{common_name}")
        let dynsec = try await cut(["broker.crl_cut": "dynsec", "broker.crl_cut_url": "mqtt://admin:pw@h:1884"])
        guard case .dynsec(let listener)? = dynsec?.method else {
            Issue.record("\(String(describing: dynsec))")
            return
        }
        #expect(listener.port == 1884 && listener.username == "admin" && listener.password == "pw")
        // The variables of the fleet; EMQX reads no file.
        let fleet = [
            "EMQX_API_URL": "http://emqx:18083", "EMQX_API_USER": "admin", "EMQX_DASHBOARD_PASSWORD": "public",
        ]
        let emqx = try await cut(
            ["broker.crl_file": "", "broker.crl_cut": "emqx", "certificates.crl_url": "http://h:7480"], fleet)
        guard case .emqx(let api)? = emqx?.method else {
            Issue.record("\(String(describing: emqx))")
            return
        }
        #expect(api.url == "http://emqx:18083" && api.user == "admin" && api.password == "public")
        #expect(api.refreshSeconds == 900)
        #expect(try await cut([:], fleet) == nil, "the variables alone change nothing")
    }

    @Test(
        arguments: [
            (["crl_cut": "takeover", "crl_file": ""], "broker.crl_cut is set without broker.crl_file"),
            (["crl_cut": "takeover", "crl_probe_url": ""], "needs broker.crl_probe_url"),
            (["crl_cut": "takeover", "crl_client_id": "all"], "broker.crl_client_id must contain"),
            (["crl_cut": "dynsec", "crl_username": "{tenant}"], "broker.crl_username must contain"),
            (["crl_cut": "dynsec", "crl_cut_url": "http://h"], "broker.crl_cut_url must be mqtt://"),
            (["crl_cut": "emqx"], "set emqx_api_url"),
            (["crl_cut": "emqx"], "broker.crl_cut is emqx, which reads no CRL file"),
            (
                ["crl_cut": "emqx", "emqx_api_url": "http://e", "emqx_api_user": "u", "emqx_api_password": "p"],
                "set certificates.crl_url"
            ),
            (["crl_cut": "kick"], "crl_cut"),
        ] as [([String: String], String)])
    func cutsThatCannotBe(more: [String: String], said: String) async throws {
        var flags = ["broker.url": "mqtt://h", "broker.crl_file": "/crl", "broker.crl_probe_url": "mqtts://h"]
        for (key, value) in more { flags["broker.\(key)"] = value }
        #expect(try await problems(flags: flags).contains(said))
    }

    @Test func unknownVariableAndFlag() async throws {
        #expect(
            try await problems(environment: ["REFOLD_BROKR_URL": "x"]).contains(
                "did you mean 'REFOLD_BROKER_URL'?"))
        #expect(try await problems(flags: ["gate.brust": "1"]).contains("did you mean 'gate.burst'?"))
    }

    @Test func secretsAreMasked() async throws {
        let all = try await settings(
            flags: [
                "broker.url": "mqtt://u:secret1@h", "broker.password": "secret1",
                "database.url": "postgresql://u:secret3@h/d?password=secret4",
            ])
        let shown = all.resolved.map(\.shown).joined(separator: " ")
        #expect(!shown.contains("secret"))
        #expect(shown.contains("mqtt://u:***@h"))
        #expect(!(try await problems(flags: ["database.url": "mysql://u:secret@h"])).contains("secret"))
    }

    @Test(
        arguments: [
            ("mqtt://h", "h", 1883, false), ("h:99", "h", 99, false), ("tcp://h", "h", 1883, false),
            ("ssl://h", "h", 8883, true),
            ("mqtts://u:p%40w@h:1", "h", 1, true), ("mqtt://[::1]:5", "::1", 5, false),
        ] as [(String, String, Int, Bool)])
    func addresses(url: String, host: String, port: Int, tls: Bool) throws {
        let address = try #require(BrokerAddress(url: url))
        #expect((address.host, address.port, address.tls) == (host, port, tls))
        if url.contains("@") { #expect((address.username, address.password) == ("u", "p@w")) }
    }

    @Test(arguments: ["", "mqtt://", "http://h", "mqtt://h/path", "mqtt://h:0", "mqtt://h:99999"])
    func badAddresses(url: String) { #expect(BrokerAddress(url: url) == nil) }

    @Test(arguments: [
        ("a/#", "a", true), ("a/#", "a/b/c", true), ("#", "a/b", true), ("a/+", "a/b", true), ("a/+/c", "+/b/c", true),
        ("a/b", "a/b", true), ("a/+", "a", false), ("a/+", "a/b/c", false), ("a/b/#", "a/c/#", false),
        ("a/+/c", "a/b/d", false), ("a/#", "b", false), ("a", "a/b", false),
    ])
    func filtersOverlapWhereATopicMatchesBoth(a: String, b: String, expected: Bool) {
        #expect(Settings.overlap(a, b) == expected)
        #expect(Settings.overlap(b, a) == expected)
    }
}
