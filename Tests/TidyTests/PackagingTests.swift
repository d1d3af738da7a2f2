import Foundation
import Testing

/// What `packaging/` holds is read by the programs that it is made for.
struct PackagingTests {
    static let units = ["refold.service", "refold-worker@.service"]

    @Test(arguments: units) func systemdUnderstandsTheUnit(name: String) throws {
        // The executable is not installed where tests run; everything else is checked as it stands.
        let folder = FileManager.default.temporaryDirectory.appending(path: "refold-unit-\(getpid())-\(name)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let text = try Tree.text("packaging/\(name)")
        func verify(_ text: String) throws -> (status: Int32, output: String) {
            let file = folder.appending(path: name)
            try text.write(to: file, atomically: true, encoding: .utf8)
            return try Tree.run(["systemd-analyze", "verify", "--man=no", file.path])
        }
        let installed = text.replacingOccurrences(of: "/usr/local/bin/refold", with: "/bin/true")
        let (status, output) = try verify(installed)
        #expect(status == 0 && output.isEmpty, "\(output)")
        let broken = try verify(installed.replacingOccurrences(of: "ProtectSystem=", with: "ProtektSystem="))
        #expect(broken.output.contains("ProtektSystem"), "a check must be able to fail")
    }

    @Test(arguments: [
        "Type=notify", "WatchdogSec=", "StateDirectory=refold", "Restart=always", "ProtectSystem=strict",
        "LimitNOFILE=", "RestartPreventExitStatus=2",
        "EnvironmentFile=-/etc/refold/refold.env", "ExecStart=/usr/local/bin/refold run --data %S/refold",
        "NoNewPrivileges=yes",
    ])
    func theUnitSays(line: String) throws {
        #expect(try Tree.text("packaging/refold.service").split(separator: "\n").contains { $0.hasPrefix(line) })
    }

    @Test(arguments: units) func theUnitIsHardened(name: String) throws {
        let unit = Tree.root.appending(path: "packaging/\(name)").path
        let (status, output) = try Tree.run(["systemd-analyze", "security", "--offline=true", "--threshold=20", unit])
        #expect(status == 0, "\(output.split(separator: "\n").last ?? "")")
    }

    @Test func prometheusUnderstandsTheRulesAndTheyFireWhenTheyShould() throws {
        let folder = Tree.root.appending(path: "packaging/prometheus").path
        let check = try Tree.run(["promtool", "check", "rules", folder + "/refold.rules.yml"])
        #expect(check.status == 0, "\(check.output)")
        let test = try Tree.run(["promtool", "test", "rules", folder + "/refold.rules.test.yml"])
        #expect(test.status == 0, "\(test.output)")
    }

    /// An alert on a metric that nobody exports never fires.
    @Test func everyAlertIsAboutAMetricThatThereIs() throws {
        let exported = Set(
            try Tree.text("Sources/ControlAPI/Metrics.swift").matches(of: /"(refold_[a-z_]+)"/).map {
                String($0.1)
            })
        let rules = try Tree.text("packaging/prometheus/refold.rules.yml")
        let used = rules.matches(of: /refold_[a-z_]+/).map { String($0.0) }
        #expect(used.count >= 12)
        for name in used {
            let base = name.hasSuffix("_bucket") ? String(name.dropLast(7)) : name
            #expect(exported.contains(base), "\(name)")
        }
    }
}
