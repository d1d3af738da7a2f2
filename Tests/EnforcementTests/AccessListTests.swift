import Foundation
import MQTT
import TestSupport
import Testing
@testable import Enforcement

struct AccessListTests {
    private let devices = [
        DeviceAccess(username: "acme/first", tenant: "acme", device: "first"),
        DeviceAccess(username: "acme/second", tenant: "acme", device: "second"),
    ]

    @Test func theLines() throws {
        let topics = DeviceTopics(published: ["telemetry", "ota/status"], subscribed: ["ota"])
        #expect(
            try AccessList.mosquitto(devices.reversed(), topics: topics) == """
                user acme/first
                topic write tenant/acme/device/first/telemetry
                topic write tenant/acme/device/first/ota/status
                topic read tenant/acme/device/first/ota

                user acme/second
                topic write tenant/acme/device/second/telemetry
                topic write tenant/acme/device/second/ota/status
                topic read tenant/acme/device/second/ota


                """)
        #expect(
            try AccessList.emqx(devices + devices, topics: topics) == """
                {allow, {username, "acme/first"}, publish, ["tenant/acme/device/first/telemetry", \
                "tenant/acme/device/first/ota/status"]}.
                {allow, {username, "acme/first"}, subscribe, ["tenant/acme/device/first/ota"]}.
                {allow, {username, "acme/second"}, publish, ["tenant/acme/device/second/telemetry", \
                "tenant/acme/device/second/ota/status"]}.
                {allow, {username, "acme/second"}, subscribe, ["tenant/acme/device/second/ota"]}.

                """)
        #expect(
            try AccessList.mosquitto([], refoldUser: "refold") == """
                user refold
                topic read tenant/+/device/+/#
                topic read $SYS/broker/#
                topic write tenant/+/device/+/ota
                topic write tenant/+/device/+/certificate
                topic write refold/+/checkpoint
                topic readwrite refold/+/handover


                """)
        #expect(
            try AccessList.emqx([], refoldUser: "refold").hasPrefix(
                "{allow, {username, \"refold\"}, subscribe, [\"tenant/+/device/+/#\"]}.\n"))
        #expect(throws: AccessListError.self) { _ = try AccessList.mosquitto([], refoldUser: "a\ntopic #") }
        #expect(try AccessList.mosquitto([]) == "" && AccessList.emqx([]) == "")
    }

    @Test(arguments: [
        "", " ", "a b", "a\nuser admin", "a\r", "a\tb", "#", "+", "a/#", "a\"b", "a\\b", "%u", "${username}", "a\0b",
        "ä", "a'b",
    ])
    func namesThatAreRefused(name: String) {
        for device in [
            DeviceAccess(username: name, tenant: "t", device: "d"),
            DeviceAccess(username: "u", tenant: name, device: "d"),
            DeviceAccess(username: "u", tenant: "t", device: name),
        ] {
            #expect(throws: AccessListError.self) { _ = try AccessList.mosquitto(devices + [device]) }
            let error = #expect(throws: AccessListError.self) { _ = try AccessList.emqx(devices + [device]) }
            #expect(error?.devices == [device] && error?.description.contains("letters, digits") == true)
        }
        #expect(throws: AccessListError.self) {
            _ = try AccessList.mosquitto([DeviceAccess(username: "u", tenant: "t/x", device: "d")])
        }
    }

    /// A Mosquitto with the list: each device writes and reads its own topics, and no other's.
    @Test func mosquittoKeepsDevicesApart() throws {
        let lab = try MosquittoLab(
            lines: ["acl_file $folder/acl"],
            files: ["acl": "topic read tenant/#\n\n" + (try AccessList.mosquitto(devices))])
        let witness = try MQTTExchange(lab.internalSettings, deadline: Deadline(in: .seconds(10)))
        #expect(try witness.connect(clientID: "witness", username: nil, password: nil) == 0)
        try witness.subscribe("tenant/#")
        // Mosquitto 2.0 ends the connection of a 3.1.1 client whose publish it denies.
        func publish(_ issued: TestAuthority.Issued, _ topic: String, _ text: String) throws {
            let client = try lab.connect(issued, "device")
            try client.publish("tenant/acme/device/\(topic)", Array(text.utf8))
            _ = lab.isAlive(client)
        }
        try publish(lab.first, "second/telemetry", "forged")
        try publish(lab.first, "first/ota", "forged command")
        try publish(lab.first, "first/telemetry", "own")
        #expect(try witness.receiveMessage() == Array("own".utf8))
        try publish(lab.second, "second/shadow/reported", "own too")
        #expect(try witness.receiveMessage() == Array("own too".utf8))
    }

    /// EMQX reads the rules as Erlang terms: so does Erlang.
    @Test func emqxRulesAreErlangTerms() throws {
        let folder = try makeTemporaryFolder("acl")
        try AccessList.emqx(devices, refoldUser: "refold").write(
            toFile: folder + "/acl.conf", atomically: true, encoding: .utf8)
        let script = "{ok, T} = file:consult(\"\(folder)/acl.conf\"), io:format(\"~p\", [length(T)]), halt()."
        let child = try ChildProcess(["/usr/bin/erl", "-noshell", "-eval", script], log: folder + "/log")
        child.wait()
        #expect(child.exitCode == 0)
        #expect(try String(contentsOfFile: folder + "/log", encoding: .utf8) == "10")
    }
}
