import Foundation
import TestSupport
import Testing

@testable import FleetSimulator

/// What devices do with commands on their certificates, with keys and certificates of openssl.
@Suite struct DeviceIdentityTests {
    private let folder: String
    private var shape = FleetShape()

    init() throws {
        folder = try makeTemporaryFolder("identities")
        shape.devices = 1
        try openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=old -keyout KEY -out PEM")
    }

    private var device: String { "\(folder)/\(shape.device(0))" }

    private func openssl(_ arguments: String) throws {
        let command = arguments.replacing("KEY", with: device + ".key").replacing("PEM", with: device + ".pem")
        let child = try ChildProcess(
            ["openssl"] + command.split(separator: " ").map(String.init) + ["-nodes"], log: folder + "/log")
        child.wait()
        #expect(child.exitCode == 0, "\(command)")
    }

    private func text(_ suffix: String) -> String? { try? String(contentsOfFile: device + suffix, encoding: .utf8) }

    private func received(
        _ identities: DeviceIdentities, _ action: String, _ fields: [String: String] = [:]
    ) throws -> [DeviceIdentities.Step] {
        let command = ["action": action, "renewal_id": 7, "serial": "4f21"].merging(fields) { $1 } as [String: Any]
        let payload = try JSONSerialization.data(withJSONObject: command)
        return try payload.withUnsafeBytes { try identities.received($0, device: 0) }
    }

    /// A certificate for the key of the request that is under way.
    private func renewed(_ identities: DeviceIdentities) throws -> String {
        #expect(try received(identities, "certificate_renew").count == 1)
        try openssl("req -x509 -set_serial 0x4f21 -key \(device).next.key -subj /CN=new -out \(folder)/new.pem")
        return try String(contentsOfFile: folder + "/new.pem", encoding: .utf8)
    }

    @Test func aCommandThatCannotBeReadIsIgnored() throws {
        let identities = try DeviceIdentities(folder: folder, shape: shape), new = try renewed(identities)
        let old = try #require(text(".pem"))
        for fields in [
            ["certificate": "no PEM"], ["certificate": ""], ["certificate": old],
            ["certificate": new, "chain": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"], [:],
        ] {
            #expect(try received(identities, "certificate_install", fields).isEmpty, "\(fields)")
        }
        #expect(text(".pem") == old && identities.installedCount == 0)
        #expect(try received(identities, "certificate_install", ["certificate": new, "chain": old]).count == 1)
        #expect(text(".pem") == new + old && identities.installedCount == 1)
    }

    /// A stop behind each step of an installation: the device always has a key and its certificate.
    @Test(arguments: [1, 2, 3]) func anInstallationIsFinishedAtTheNextStart(steps: Int) throws {
        let new = try renewed(try DeviceIdentities(folder: folder, shape: shape)), old = text(".pem")
        let changes: [() throws -> Void] = [
            { try new.write(toFile: device + ".pem.next", atomically: true, encoding: .utf8) },
            { #expect(rename(device + ".next.key", device + ".key") == 0) },
            { #expect(rename(device + ".pem.next", device + ".pem") == 0) },
        ]
        for change in changes.prefix(steps) { try change() }
        let restarted = try DeviceIdentities(folder: folder, shape: shape)
        #expect(text(".pem") == (steps == 1 ? old : new))
        let install = try received(restarted, "certificate_install", ["certificate": new])
        #expect(install.count == 1, "installed, or reported as installed")
        #expect(text(".pem") == new && text(".pem.next") == nil && text(".next.key") == nil)
    }
}
