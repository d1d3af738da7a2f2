import Configuration
import Foundation
import SystemPackage

/// A value in force and where it came from.
public struct ResolvedSetting: Sendable {
    public let setting: Setting
    /// As text; lists joined by commas.
    public let text: String
    /// `--broker-url`, `REFOLD_BROKER_URL`, `MQTT_BROKER_URL`, `refold.yaml`, `default`.
    public let origin: String

    /// The value is a password, or a URL with one, on the command line, where every user of the machine can read it.
    public var isExposed: Bool {
        guard setting.isSecret, origin.hasPrefix("--"), !text.isEmpty else { return false }
        guard let url = URLComponents(string: text), url.host != nil else { return !text.contains("://") }
        return url.password != nil || url.queryItems?.contains { $0.name == "password" } ?? false
    }

    /// What may be shown: passwords, and URLs that may hold one, are masked.
    public var shown: String {
        guard setting.isSecret, !text.isEmpty else { return text }
        guard let url = URLComponents(string: text), url.host != nil else { return "***" }
        var masked = url
        if url.password != nil { masked.password = "***" }
        masked.query = nil
        return masked.string ?? "***"
    }
}

/// Looks settings up in their order: flag, `REFOLD_…`, the older programs' variables, `refold.yaml`, default.
public struct SettingsSource: Sendable {
    private struct Layer: Sendable {
        let origin: @Sendable (Setting) -> String
        let provider: any ConfigProvider
        let prefix: [String]
    }

    private let layers: [Layer]
    public let brokerNames: [String]
    public let file: String?

    /// - Parameters:
    ///   - file: the YAML file; nil for `refold.yaml` in the working folder, where there is one.
    ///   - flags: key → text, as given on the command line.
    public init(file explicit: String?, flags: [String: String], environment: [String: String])
        async throws(SettingsError)
    {
        let path =
            explicit ?? environment["REFOLD_CONFIG"]
            ?? (FileManager.default.fileExists(atPath: "refold.yaml") ? "refold.yaml" : nil)
        file = path
        let document = try path.map { path throws(SettingsError) in try SettingsFile(path: path) }
        brokerNames = document?.brokers ?? []
        let settings = SettingsCatalog.all(brokers: brokerNames)
        try Self.refuseUnknown(document, flags: flags, environment: environment, settings: settings)

        func variables(_ values: [String: String]) -> EnvironmentVariablesProvider {
            EnvironmentVariablesProvider(environmentVariables: values)
        }
        var aliases: [String: String] = [:], aliasOrigins: [String: String] = [:]
        for (variable, key) in SettingsCatalog.aliases {
            guard let value = environment[variable] else { continue }
            aliases["REFOLD_" + key.uppercased().replacing(".", with: "_")] = value
            aliasOrigins[key] = variable
        }
        let origins = aliasOrigins
        let flagVariables = Dictionary(
            uniqueKeysWithValues: flags.map { ("REFOLD_" + $0.uppercased().replacing(".", with: "_"), $1) })
        var layers = [
            Layer(origin: { Self.flagName($0.key) }, provider: variables(flagVariables), prefix: ["refold"]),
            Layer(
                origin: { $0.environmentName },
                provider: variables(environment.filter { $0.key.hasPrefix("REFOLD_") }), prefix: ["refold"]),
            Layer(origin: { origins[$0.key] ?? "environment" }, provider: variables(aliases), prefix: ["refold"]),
        ]
        // A file of comments alone says nothing; swift-configuration would call it no mapping.
        if let path, document?.keys.isEmpty == false {
            do {
                let yaml = try await FileProvider<YAMLSnapshot>(filePath: FilePath(path))
                layers.append(Layer(origin: { _ in path }, provider: yaml, prefix: []))
            } catch {
                throw SettingsError(["\(path): \(error)"])
            }
        }
        self.layers = layers
    }

    /// `broker.url` → `--broker-url` where there is such a flag, else `--set broker.url`.
    static func flagName(_ key: String) -> String {
        ["data", "broker.url", "database.url", "http", "node"].contains(key)
            ? "--" + key.replacing(".", with: "-") : "--set \(key)"
    }

    /// The value in force, checked against the setting's kind. Problems are added, and the default returned.
    public func resolve(_ setting: Setting, problems: inout [String]) -> ResolvedSetting {
        let components = setting.key.split(separator: ".").map(String.init)
        for layer in layers {
            let origin = layer.origin(setting)
            do {
                let key = AbsoluteConfigKey(layer.prefix + components)
                guard let text = try text(of: setting, key: key, in: layer.provider) else { continue }
                if let problem = Self.problem(with: text, for: setting.kind) {
                    problems.append(
                        "\(origin): \(setting.key) is \(setting.isSecret ? "***" : "'\(text)'"): \(problem)")
                    break
                }
                return ResolvedSetting(setting: setting, text: text, origin: origin)
            } catch {
                problems.append("\(origin): \(setting.key) must be \(Self.describe(setting.kind))")
                break
            }
        }
        return ResolvedSetting(setting: setting, text: setting.fallback, origin: "default")
    }

    private func text(of setting: Setting, key: AbsoluteConfigKey, in provider: any ConfigProvider) throws -> String? {
        switch setting.kind {
        case .list:
            guard let value = try? provider.value(forKey: key, type: .stringArray).value else {
                guard let single = try provider.value(forKey: key, type: .string).value else { return nil }
                if case .string(let text) = single.content { return text }
                return nil
            }
            if case .stringArray(let items) = value.content { return items.joined(separator: ",") }
            return nil
        default:
            guard let value = try provider.value(forKey: key, type: .string).value else { return nil }
            if case .string(let text) = value.content { return text }
            return nil
        }
    }

    private static func problem(with text: String, for kind: Setting.Kind) -> String? {
        switch kind {
        case .string, .secret: return nil
        case .list: return text.split(separator: ",").isEmpty ? "must be \(describe(kind))" : nil
        case .bool: return parseBool(text) == nil ? "must be \(describe(kind))" : nil
        case .int(let range):
            guard let value = Int(text), range.contains(value) else { return "must be \(describe(kind))" }
            return nil
        case .choice(let words): return words.contains(text) ? nil : "must be \(describe(kind))"
        }
    }

    static func parseBool(_ text: String) -> Bool? {
        switch text.lowercased() {
        case "true", "yes", "on", "1": true
        case "false", "no", "off", "0": false
        default: nil
        }
    }

    static func describe(_ kind: Setting.Kind) -> String {
        switch kind {
        case .string, .secret: "text"
        case .list: "a list of words"
        case .bool: "true or false"
        case .int(let range): "a whole number from \(range.lowerBound) to \(range.upperBound)"
        case .choice(let words): "one of " + words.joined(separator: ", ")
        }
    }

    private static func refuseUnknown(
        _ document: SettingsFile?, flags: [String: String], environment: [String: String], settings: [Setting]
    ) throws(SettingsError) {
        let known = Set(settings.map(\.key)), variables = Set(settings.map(\.environmentName))
        var problems: [String] = []
        func hint(_ word: String, _ candidates: some Sequence<String>) -> String {
            nearest(to: word, among: candidates).map { "; did you mean '\($0)'?" }
                ?? "; 'refold config check' lists all keys"
        }
        for (key, line) in document?.keys ?? [] where !known.contains(key) {
            problems.append("\(document?.path ?? ""):\(line): unknown key '\(key)'\(hint(key, known))")
        }
        for key in flags.keys.sorted() where !known.contains(key) {
            problems.append("--set: unknown key '\(key)'\(hint(key, known))")
        }
        for name in environment.keys.sorted() where name.hasPrefix("REFOLD_") {
            if variables.contains(name) || SettingsCatalog.otherVariables.contains(name) { continue }
            problems.append("environment: unknown variable \(name)\(hint(name, variables))")
        }
        if !problems.isEmpty { throw SettingsError(problems) }
    }
}
