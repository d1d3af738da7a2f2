import EventModel
import Foundation
import Ingest
import MQTT
import Synchronization
import TestSupport
import Testing

/// Getting in, staying in, and saying what is wrong.
@Suite(.serialized) struct ConnectionTests {
    @Test func tlsWithAClientCertificate() async throws {
        let broker = try MosquittoServer(tls: true, clientCertificates: true)
        let files = try #require(broker.certificates)
        let rig = try Rig(port: broker.port) {
            $0.host = "localhost"
            $0.tls = .init(caFile: files.ca, certFile: files.clientCert, keyFile: files.clientKey)
        }
        try await rig.subscribed()
        await rig.stop()
    }

    enum BadTLS: String, CaseIterable { case strangerCA, systemCA, wrongHost, noClientCertificate }

    @Test(arguments: BadTLS.allCases)
    func tlsThatCannotBeTrustedIsRefused(_ fault: BadTLS) async throws {
        let broker = try MosquittoServer(
            tls: true, serverNames: fault == .wrongHost ? "DNS:elsewhere.example" : "IP:127.0.0.1",
            clientCertificates: fault == .noClientCertificate)
        let files = try #require(broker.certificates)
        let rig = try Rig(port: broker.port) {
            $0.tls = .init(caFile: fault == .strangerCA ? files.strangerCA : fault == .systemCA ? nil : files.ca)
        }
        #expect(await eventually { rig.status.reconnects >= 2 })
        #expect(!rig.status.connected)
        #expect(rig.log.events(.connected).isEmpty)
        let text = try #require(rig.status.lastError)
        #expect(text.contains("cannot connect to"), "\(text)")
        await rig.stop()
    }

    @Test func withoutVerificationAnyCertificateWillDo() async throws {
        let broker = try MosquittoServer(tls: true)
        let files = try #require(broker.certificates)
        let rig = try Rig(port: broker.port) { $0.tls = .init(caFile: files.strangerCA, verify: false) }
        try await rig.subscribed()
        await rig.stop()
    }

    /// Never a silent fall back to a plain connection.
    @Test(arguments: ["ca_file", "cert_file", "key_file"])
    func aCertificateFileThatIsMissingOrNoneIsAnErrorAtStart(field: String) throws {
        let folder = try makeTemporaryFolder("tls")
        let files = try TestCertificates(folder: folder)
        let garbage = folder + "/garbage.pem"
        try "nothing".write(toFile: garbage, atomically: true, encoding: .utf8)
        for bad in [folder + "/missing.pem", garbage] {
            var tls = BrokerSettings.TLS(caFile: files.ca, certFile: files.clientCert, keyFile: files.clientKey)
            switch field {
            case "ca_file": tls.caFile = bad
            case "cert_file": tls.certFile = bad
            default: tls.keyFile = bad
            }
            let error = #expect(throws: BrokerSettingsError.self) { try Rig(port: 1) { $0.tls = tls } }
            #expect(error?.field == field)
            #expect(error?.description.contains(bad) == true)
        }
        var strange = BrokerSettings.TLS(caFile: files.ca, certFile: files.clientCert, keyFile: files.serverKey)
        #expect(throws: BrokerSettingsError.self) { try Rig(port: 1) { $0.tls = strange } }
        strange.keyFile = nil
        #expect(throws: BrokerSettingsError.self) { try Rig(port: 1) { $0.tls = strange } }
    }

    @Test(
        arguments: [
            ("name", { @Sendable (s: inout BrokerSettings) in s.name = String(repeating: "x", count: 256) }),
            ("host", { s in s.host = "" }), ("port", { s in s.port = 65_536 }), ("client_id", { s in s.clientID = "" }),
            ("username", { s in s.password = "p" }), ("keepalive", { s in s.keepaliveSeconds = 1 }),
            ("filters", { s in s.filters = [] }), ("filters", { s in s.filters = ["a/#/b"] }),
            ("filters", { s in s.filters = ["a+"] }), ("receive_maximum", { s in s.receiveMaximum = 0 }),
            ("linger", { s in s.lingerMicros = -1 }),
        ] as [(String, @Sendable (inout BrokerSettings) -> Void)])
    func settingsThatCannotWorkAreRefused(field: String, change: @Sendable (inout BrokerSettings) -> Void) {
        let error = #expect(throws: BrokerSettingsError.self) { try Rig(port: 1, change) }
        #expect(error?.field == field)
    }

    @Test(arguments: [BrokerSettings.ProtocolPreference.v5, .v311])
    func aWrongPasswordSaysSo(version: BrokerSettings.ProtocolPreference) async throws {
        let broker = try MosquittoServer(
            allowAnonymous: false, lines: ["password_file $folder/passwords"], files: ["passwords": "joe:$6$x$y\n"])
        let rig = try Rig(port: broker.port) {
            $0.username = "joe"
            $0.password = "wrong"
            $0.protocolPreference = version
        }
        #expect(await eventually { rig.status.lastError?.contains("Check the user name and password") == true })
        #expect(!rig.status.connected)
        await rig.stop()
        #expect(rig.log.entries.map(\.topic) == [BrokerEvent.Schema.connecting.rawValue])
    }

    @Test(arguments: [BrokerSettings.ProtocolPreference.v5, .v311])
    func aRefusedSubscriptionIsAnEventAndAnAlarm(version: BrokerSettings.ProtocolPreference) async throws {
        let rules = """
            {"defaultACLAccess": {"publishClientSend": true, "publishClientReceive": true, "subscribe": false, \
            "unsubscribe": true}}
            """
        let broker = try MosquittoServer(
            lines: ["plugin \(try dynamicSecurity())", "plugin_opt_config_file $folder/rules.json"],
            files: ["rules.json": rules])
        let rig = try Rig(port: broker.port) { $0.protocolPreference = version }
        #expect(await eventually { rig.log.events(.subscriptionRefused).count >= 1 })
        #expect(!rig.status.subscribed)
        #expect(rig.status.has(.subscriptionRefused))
        let event = try #require(rig.log.events(.subscriptionRefused).first)
        #expect(event.filters == ["tenant/+/device/+/#"])
        #expect(event.granted?.allSatisfy { $0 >= 128 } == true)
        await rig.stop()
    }

    private func dynamicSecurity() throws -> String {
        let paths = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"]
            .map { $0 + "/mosquitto_dynamic_security.so" }
        return try #require(paths.first { FileManager.default.fileExists(atPath: $0) })
    }

    @Test func aBrokerThatRefusesMQTT5IsSpokenToIn311() async throws {
        let levels = Mutex<[UInt8]>([])
        let peer = try ScriptedBroker { connection in
            guard let level = connection.receiveConnect() else { return }
            levels.withLock { $0.append(level) }
            try connection.send([0x20, 2, 0, level == 5 ? 1 : 0])
            if level == 4 { try connection.serve(level: level) }
        }
        let rig = try Rig(port: peer.port)
        try await rig.subscribed()
        #expect(levels.withLock { $0 } == [5, 4])
        #expect(rig.status.protocolVersion == "3.1.1")
        await rig.stop()
    }

    @Test func aBrokerThatHangsUpOnMQTT5IsSpokenToIn311() async throws {
        let peer = try ScriptedBroker { connection in
            guard let level = connection.receiveConnect(), level == 4 else { return }
            try connection.send([0x20, 2, 0, 0])
            try connection.serve(level: level)
        }
        let rig = try Rig(port: peer.port)
        try await rig.subscribed()
        #expect(rig.status.protocolVersion == "3.1.1")
        await rig.stop()
    }

    /// RabbitMQ 3.10 closes a connection that offers 5.0, without a CONNACK. Once it had accepted 3.1.1 and was
    /// restarted, it was offered 5.0 again and nothing else.
    @Test func aBrokerThatHangsUpOn5IsReachedAgain() async throws {
        let accepted = Mutex(0)
        let peer = try ScriptedBroker { connection in
            guard let level = connection.receiveConnect(), level == 4 else { return }
            let count = accepted.withLock {
                $0 += 1; return $0
            }
            try connection.send([0x20, 2, count > 1 ? 1 : 0, 0])
            if count == 1 { _ = connection.receive() } else { try connection.serve(level: level) }
        }
        let rig = try Rig(port: peer.port)
        #expect(await eventually { accepted.withLock { $0 } == 2 })
        try await rig.subscribed()
        #expect(rig.status.protocolVersion == "3.1.1")
        await rig.stop()
    }

    @Test func aResumed311SessionIsNotSubscribedToAgain() async throws {
        let broker = try MosquittoServer(persistent: true)
        let publisher = try TestPublisher(port: broker.port)
        try publisher.publish(device("d", "shadow/reported"), "retained", retain: true)
        try await publisher.flush()
        let log = MemoryLog()
        for round in 0..<2 {
            let rig = try Rig(port: broker.port, log: log) { $0.protocolPreference = .v311 }
            try await rig.subscribed()
            #expect(rig.status.sessionPresent == (round == 1))
            try publisher.publish(device("d"), "m\(round)")
            #expect(await eventually { log.payloads.last == "m\(round)" })
            await rig.stop()
        }
        #expect(log.payloads == ["retained", "m0", "m1"])
        #expect(log.events(.subscribed).count == 1)
        // Other filters: subscribed to again, and the old ones are given up.
        let changed = try Rig(port: broker.port, log: log) {
            $0.protocolPreference = .v311
            $0.filters = ["tenant/+/device/+/heartbeat"]
        }
        #expect(await eventually { log.events(.subscribed).count == 2 })
        try publisher.publish(device("d"), "unwanted")
        try publisher.publish(device("d", "heartbeat"), "wanted")
        #expect(await eventually { log.payloads.last == "wanted" })
        #expect(!log.payloads.contains("unwanted"))
        await changed.stop()
    }

    @Test func aTakenOverSessionBacksOffAndDoesNotFight() async throws {
        let connections = Mutex(0)
        let peer = try ScriptedBroker { connection in
            connections.withLock { $0 += 1 }
            guard try connection.accept() != nil else { return }
            try connection.send([0xE0, 1, 0x8E])
            while connection.receive() != nil {}
        }
        let rig = try Rig(port: peer.port)
        #expect(await eventually { rig.status.has(.sessionTakenOver) && rig.status.state == .waiting })
        #expect(rig.log.events(.disconnected).first?.reasonCode == 0x8E)
        #expect(connections.withLock { $0 } == 1)
        #expect(await rig.stop(), "a stop does not wait for the pause to be over")
    }

    /// Mosquitto 2.0.11 sends no 0x8E, and MQTT 3.1.1 has no reason codes: the connection just ends, again and again.
    @Test(arguments: [BrokerSettings.ProtocolPreference.v5, .v311])
    func aFightForTheClientIDEndsByItself(version: BrokerSettings.ProtocolPreference) async throws {
        let broker = try MosquittoServer()
        let rig = try Rig(port: broker.port) { $0.protocolPreference = version }
        try await rig.subscribed()
        var options = TestPublisher.Options()
        options.clientID = "refold-test"
        // It comes back by itself each time that we throw it out.
        let other = try TestPublisher(port: broker.port, options: options)
        #expect(await eventually { rig.status.has(.closedEarly) })
        #expect(await eventually { (try? other.publish(device("d"), "still here")) != nil })
        #expect(await eventually { other.acknowledged > 0 })
        await rig.stop()
    }

    @Test func aBrokerThatRestartsIsFoundAgainWithItsSession() async throws {
        let broker = try MosquittoServer(persistent: true)
        let rig = try Rig(port: broker.port)
        try await rig.subscribed()
        broker.stop()
        #expect(await eventually { !rig.status.connected })
        try broker.start()
        #expect(await eventually { rig.status.subscribed })
        #expect(rig.status.sessionPresent)
        #expect(rig.log.events(.sessionLost).isEmpty)
        #expect(rig.log.events(.connected).map(\.sessionPresent) == [false, true])
        await rig.stop()
    }

    @Test(arguments: [false, true])
    func aLostSessionIsAnEventAndAnAlarm(restarted: Bool) async throws {
        let broker = try MosquittoServer(persistent: false)
        let log = MemoryLog()
        var rig = try Rig(port: broker.port, log: log)
        try await rig.subscribed()
        #expect(log.events(.sessionLost).isEmpty, "the first session ever is no lost one")
        if restarted { await rig.stop() }
        broker.kill()
        if !restarted { #expect(await eventually { !rig.status.connected }) }
        try broker.start()
        if restarted { rig = try Rig(port: broker.port, log: log) }
        #expect(await eventually { rig.status.subscribed && rig.status.has(.sessionLost) })
        #expect(log.events(.sessionLost).count == 1)
        await rig.stop()
    }

    @Test func nobodyListensThere() async throws {
        let rig = try Rig(port: freeLoopbackPort())
        #expect(await eventually { rig.status.reconnects >= 3 })
        #expect(rig.status.lastError?.contains("Connection refused") == true, "\(rig.status.lastError ?? "")")
        #expect(await rig.stop())
        #expect(rig.log.entries.isEmpty)
    }

    @Test func aSharedSubscriptionSharesTheLoad() async throws {
        let broker = try MosquittoServer()
        let rigs = try (0..<2).map { number in
            try Rig(port: broker.port) {
                $0.clientID = "refold-\(number)"
                $0.sharedGroup = "refold"
            }
        }
        for rig in rigs { try await rig.subscribed() }
        let publisher = try TestPublisher(port: broker.port)
        for index in 0..<100 { try publisher.publish(device("d"), "m\(index)") }
        try await publisher.flush()
        #expect(await eventually { rigs.reduce(0) { $0 + $1.log.messages.count } == 100 })
        for rig in rigs {
            #expect(!rig.log.messages.isEmpty)
            await rig.stop()
        }
    }

    @Test func whatTheBrokerDropsIsShownAndNotRecorded() async throws {
        let broker = try MosquittoServer(lines: ["sys_interval 1"])
        let rig = try Rig(port: broker.port)
        #expect(await eventually { rig.status.droppedByBroker != nil })
        await rig.stop()
        #expect(rig.log.messages.isEmpty)
    }
}
