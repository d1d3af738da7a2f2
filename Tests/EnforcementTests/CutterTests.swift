import Foundation
import MQTT
import TestSupport
import Testing
@testable import Enforcement

/// Connected clients of a real Mosquitto, cut.
struct CutterTests {
    // MARK: Takeover

    @Test(arguments: [BrokerSettings.ProtocolPreference.v311, .v5])
    func aTakeoverCutsAtOnce(version: BrokerSettings.ProtocolPreference) throws {
        let lab = try MosquittoLab()
        let client = try lab.connect(lab.first, "dev-1"), bystander = try lab.connect(lab.second, "dev-2")
        var settings = lab.internalSettings
        settings.protocolPreference = version
        let began = ContinuousClock.now
        let outcome = TakeoverCutter(settings).cut(ClientTarget(clientID: "dev-1", username: "acme/first"))
        let took = ContinuousClock.now - began
        guard case .cut = outcome else {
            Issue.record("\(outcome)")
            return
        }
        #expect(!lab.isAlive(client) && lab.isAlive(bystander))
        #expect(took < .seconds(1), "\(took)")
    }

    /// The broker does not report whether there was a connection.
    @Test func aTakeoverOfNobody() throws {
        let lab = try MosquittoLab()
        guard case .cut = TakeoverCutter(lab.internalSettings).cut(ClientTarget(clientID: "nobody")) else {
            Issue.record("a takeover of an unknown client id succeeds")
            return
        }
    }

    @Test func takeoversThatFail() throws {
        let lab = try MosquittoLab()
        func error(_ settings: BrokerSettings, _ target: ClientTarget) -> String {
            if case .failed(let error) = TakeoverCutter(settings).cut(target) { error } else { "" }
        }
        let settings = lab.internalSettings, client = ClientTarget(clientID: "dev-1")
        #expect(error(settings, ClientTarget(username: "acme/first")).contains("no client id is known"))
        #expect(error(settings, ClientTarget(clientID: "")).contains("no client id is known"))
        var away = settings
        away.port = freeLoopbackPort()
        #expect(error(away, client).contains("Connection refused"))
        let long = String(repeating: "x", count: 70_000)
        #expect(error(settings, ClientTarget(clientID: long)).contains("65,535"))
        // The listener for devices asks for a certificate.
        #expect(error(lab.settings, client).contains("alert 116"), "\(error(lab.settings, client))")
        let strict = try MosquittoServer(allowAnonymous: false)
        away.port = strict.port
        #expect(error(away, client).contains("CONNACK 5"))
    }

    // MARK: Dynamic security

    private func dynsecLab() throws -> (lab: MosquittoLab, settings: BrokerSettings, configuration: () -> String) {
        let plugin = try DynsecFiles()
        let lab = try MosquittoLab(
            lines: plugin.lines, files: ["dynsec.json": plugin.configuration], anonymous: false)
        var settings = lab.internalSettings
        (settings.username, settings.password) = ("admin", "secret")
        let path = lab.server.folder + "/dynsec.json"
        return (lab, settings, { (try? String(contentsOfFile: path, encoding: .utf8)) ?? "" })
    }

    @Test(arguments: [BrokerSettings.ProtocolPreference.v311, .v5])
    func dynamicSecurityCuts(version: BrokerSettings.ProtocolPreference) throws {
        let (lab, plain, configuration) = try dynsecLab()
        var settings = plain
        settings.protocolPreference = version
        let one = try lab.connect(lab.first, "dev-1"), two = try lab.connect(lab.first, "dev-1-again")
        let bystander = try lab.connect(lab.second, "dev-2")
        let began = ContinuousClock.now
        let outcome = DynsecCutter(settings).cut(ClientTarget(username: "acme/first"))
        let took = ContinuousClock.now - began
        guard case .cut(let evidence) = outcome else {
            Issue.record("\(outcome)")
            return
        }
        #expect(evidence.contains("disableClient") && took < .seconds(1), "\(took)")
        #expect(!lab.isAlive(one) && !lab.isAlive(two) && lab.isAlive(bystander))
        // As before: the user was unknown.
        #expect(!configuration().contains("acme/first"))
        // Nothing but the CRL keeps it out.
        #expect(try lab.isAlive(lab.connect(lab.first, "dev-1")))
    }

    /// A user that the plugin knows is enabled afterwards, unless it was disabled before.
    @Test(arguments: [false, true]) func aKnownUserStaysAsItWas(isDisabled: Bool) throws {
        let (lab, settings, configuration) = try dynsecLab()
        let commands = [
            ["createClient", "acme/first", "-p", "pw"], [isDisabled ? "disableClient" : "enableClient", "acme/first"],
        ]
        for command in commands {
            let child = try ChildProcess(
                [
                    "/usr/bin/mosquitto_ctrl", "-h", "127.0.0.1", "-p", "\(lab.internalPort)", "-u", "admin", "-P",
                    "secret",
                    "dynsec",
                ] + command, log: lab.server.folder + "/ctrl.log")
            child.wait()
            #expect(child.exitCode == 0)
        }
        let client = try lab.connect(lab.first, "dev-1")
        guard case .cut = DynsecCutter(settings).cut(ClientTarget(username: "acme/first")) else {
            Issue.record("a known user is cut")
            return
        }
        #expect(!lab.isAlive(client))
        let text = configuration()
        #expect(text.contains("acme/first"))
        #expect(text.replacing(/\s/, with: "").contains("\"disabled\":true") == isDisabled, "\(text)")
    }

    @Test func manyAreCutOverOneConnection() throws {
        let (lab, settings, _) = try dynsecLab()
        let clients = [try lab.connect(lab.first, "a"), try lab.connect(lab.second, "b")]
        let targets = [
            ClientTarget(username: "acme/first"), ClientTarget(clientID: "b"), ClientTarget(username: "acme/second"),
            ClientTarget(username: "acme/none"),
        ]
        let outcomes = DynsecCutter(settings).cut(targets)
        #expect(clients.allSatisfy { !lab.isAlive($0) } && outcomes.count == 4)
        #expect(outcomes[1] == .failed(error: "no username is known: dynamic security disconnects by username only"))
        #expect(lab.server.logText.split(separator: "as refold-cutter ").count == 2)
    }

    @Test func dynamicSecurityThatFails() throws {
        let (lab, settings, _) = try dynsecLab()
        let target = ClientTarget(username: "acme/first")
        func error(_ settings: BrokerSettings, seconds: Double = 5) -> String {
            let outcome = DynsecCutter(settings, timeout: .seconds(seconds)).cut([target, target])
            guard outcome.count == 2, outcome[0] == outcome[1], case .failed(let error) = outcome[0] else { return "" }
            return error
        }
        var wrong = settings
        wrong.password = "wrong"
        #expect(error(wrong).contains("not authorised"), "\(error(wrong))")
        wrong.port = freeLoopbackPort()
        #expect(error(wrong).contains("Connection refused"))
        // Without the plugin nothing answers.
        let plain = try MosquittoServer()
        wrong.port = plain.port
        #expect(error(wrong, seconds: 0.5).contains("is the plugin loaded"), "\(error(wrong, seconds: 0.5))")
        lab.server.freeze()
        defer { lab.server.thaw() }
        #expect(error(settings, seconds: 0.5).contains("did not answer in time"))
    }

    /// A scripted broker, because Debian's Mosquitto 2.0 does not report connections: 2.1 does.
    @Test(arguments: [[0], [2, 0], [2, 1, 0], [1, 1, 1, 1]] as [[Int]])
    func connectionsThatTheBrokerReports(counts: [Int]) throws {
        let broker = try ScriptedBroker { connection in
            var counts = counts
            try connection.accept()
            while let packet = connection.receive() {
                if packet.header == 0x82 { try connection.send([0x90, 3, 0, 1, 0]) }
                guard packet.header == 0x30 else { continue }
                let topic = Int(packet.body[1]), json = Data(packet.body.dropFirst(2 + topic))
                let request = try JSONSerialization.jsonObject(with: json) as? [String: [[String: String]]]
                var response = request?["commands"]?.first as [String: Any]? ?? [:]
                if response["command"] as? String == "getClient" {
                    let count = counts.count > 1 ? counts.removeFirst() : counts[0]
                    let connections = Array(repeating: ["address": "127.0.0.1"], count: count)
                    response["data"] = ["client": ["username": "u", "connections": connections]]
                }
                let payload = try JSONSerialization.data(withJSONObject: ["responses": [response]])
                // An answer to somebody else, and garbage, come first.
                for bytes in [Array("{\"responses\":[{\"correlationData\":\"x\"}]}".utf8), [0xFF, 0], Array(payload)] {
                    try connection.send(MQTTExchange.packet(0x30, MQTTExchange.string("r") + bytes))
                }
            }
        }
        let settings = BrokerSettings(name: "north", host: "127.0.0.1", port: broker.port, clientID: "cutter")
        let outcome = DynsecCutter(settings, timeout: .seconds(counts.last == 0 ? 5 : 0.3)).cut(
            ClientTarget(username: "u"))
        switch counts {
        case [0]: #expect(outcome == .wasNotConnected)
        case [1, 1, 1, 1]: #expect(outcome == .stillConnected(reason: "the broker reports 1 connections"))
        default:
            #expect(outcome == .cut(evidence: "disableClient closed 2 connections, getClient reports none"))
        }
    }
}
