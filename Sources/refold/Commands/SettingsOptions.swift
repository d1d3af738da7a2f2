import ArgumentParser
import ControlAPI
import Foundation
import MQTT
import Postgres
import PrivateServices
import Settings

/// The flags that stand for settings. Anything without a flag of its own: `--set key=value`.
struct SettingsOptions: ParsableArguments {
    @Option(help: "Settings file; refold.yaml in the working folder by default.") var config: String?
    @Option(help: "Folder of the log and everything else that is kept.") var data: String?
    @Option(name: .customLong("broker-url"), help: "mqtt://[user[:password]@]host[:port], mqtts:// for TLS.")
    var brokerURL: String?
    @Option(name: .customLong("database-url"), help: "postgresql://user:password@host:5432/name")
    var databaseURL: String?
    @Option(help: "Address of the API: HOST:PORT.") var http: String?
    @Option(help: "Name of this node in its MQTT client id, refold-<node>-<log id>.") var node: String?
    @Option(name: .customLong("set"), help: "Any other setting: KEY=VALUE; may be repeated.") var assignments:
        [String] = []

    func load() async throws -> Settings {
        var flags: [String: String] = [:]
        for assignment in assignments {
            guard let equals = assignment.firstIndex(of: "="), equals != assignment.startIndex else {
                throw ValidationError("--set \(assignment): must be KEY=VALUE")
            }
            flags[String(assignment[..<equals])] = String(assignment[assignment.index(after: equals)...])
        }
        flags["data"] = data ?? flags["data"]
        flags["broker.url"] = brokerURL ?? flags["broker.url"]
        flags["database.url"] = databaseURL ?? flags["database.url"]
        flags["http"] = http ?? flags["http"]
        flags["node"] = node ?? flags["node"]
        do {
            let source = try await SettingsSource(
                file: config, flags: flags, environment: ProcessInfo.processInfo.environment)
            let settings = try Settings(from: source)
            try Self.checkUsable(settings)
            return settings
        } catch {
            for problem in error.problems { printError(problem) }
            throw ExitCode(2)
        }
    }

    /// What only those who use a setting can judge: certificates, share groups, the database URL's parameters.
    private static func checkUsable(_ settings: Settings) throws(SettingsError) {
        var problems: [String] = []
        for broker in settings.brokers {
            do {
                try BrokerSettings(broker, clientID: settings.clientID(for: broker, logID: "")).validate()
            } catch {
                problems.append(error.description)
            }
        }
        if let url = settings.databaseURL {
            do {
                try DatabaseTarget(url).check()
            } catch {
                problems.append("database.url: \(error.message)")
            }
        }
        for host in settings.httpHosts {
            if let problem = Reachability.problem(withHost: host) { problems.append("http_hosts: \(problem)") }
        }
        for proxy in settings.httpProxies where AddressRange(proxy) == nil {
            problems.append("http_proxies: '\(proxy)' is no address, nor a block of them (10.0.0.0/8, fd00::/8)")
        }
        let exposure = Reachability.problem(
            bindHost: settings.httpHost, hasProxies: !settings.httpProxies.isEmpty, isTLS: false)
        if let exposure { problems.append(exposure) }
        for (key, command) in [
            ("archive_command", settings.archiveCommand), ("restore_command", settings.restoreCommand),
            ("checkpoint_command", settings.checkpointCommand),
        ] {
            guard let problem = command.flatMap({ ShellCommand.problem(with: $0) }) else { continue }
            problems.append("\(key): \(problem)")
        }
        if !problems.isEmpty { throw SettingsError(problems) }
    }
}
