import Foundation

/// A real browser without a window, driven over WebDriver (W3C WebDriver 2, and Chromium's own commands beside it).
/// Each has a profile of its own; it ends when this is released, or when the test process does.
public final class Chromium: Sendable {
    private let driver: ChildProcess
    private let port: Int
    private let session: String
    private let folder: String

    /// - Parameters:
    ///   - size: of the page in CSS pixels; narrower than 600 is a phone.
    ///   - isDark: what the page is told of the reader's preference.
    public init(width: Int = 1280, height: Int = 900, isDark: Bool = false) async throws {
        folder = try makeTemporaryFolder("chromium")
        let port = freeLoopbackPort()
        self.port = port
        // Chromium writes below the home folder, whatever its profile is.
        driver = try ChildProcess(
            [
                "/usr/bin/env", "HOME=\(folder)", "XDG_CONFIG_HOME=\(folder)", "XDG_CACHE_HOME=\(folder)",
                "/usr/bin/chromedriver", "--port=\(port)", "--silent",
            ], log: folder + "/driver.log")
        let answers = await eventually(within: 30) { (try? await Self.ask("GET", port, "/status", nil)) != nil }
        guard answers else { throw SystemError("chromedriver does not answer (Debian: chromium-driver)") }
        // Commands come through a pipe: when the driver is killed, the browser sees its end and goes too.
        let arguments = [
            "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars",
            "--remote-debugging-pipe", "--disable-background-networking", "--user-data-dir=\(folder)/profile",
            "--window-size=\(width),\(height)",
        ]
        let wanted: [String: Any] = [
            "capabilities": [
                "alwaysMatch": [
                    "browserName": "chrome", "goog:loggingPrefs": ["browser": "ALL", "performance": "ALL"],
                    "goog:chromeOptions": ["args": arguments, "binary": "/usr/bin/chromium"],
                ]
            ]
        ]
        struct Session: Decodable { var sessionId: String }
        let session: Session = try Self.value(try await Self.ask("POST", port, "/session", wanted))
        self.session = session.sessionId
        try await command(
            "Emulation.setDeviceMetricsOverride",
            ["width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600])
        try await command(
            "Emulation.setEmulatedMedia",
            ["features": [["name": "prefers-color-scheme", "value": isDark ? "dark" : "light"]]])
    }

    deinit {
        driver.kill(SIGKILL)
        driver.wait()
        try? FileManager.default.removeItem(atPath: folder)
    }

    /// Goes to an address and waits until its document is loaded.
    public func open(_ url: String) async throws {
        _ = try await ask("POST", "/url", ["url": url])
    }

    /// The value of a script's `return`.
    @discardableResult
    public func evaluate<T: Decodable>(_ script: String, as type: T.Type = T.self) async throws -> T {
        try Self.value(
            try await ask("POST", "/execute/sync", ["script": script, "args": [Any]()] as [String: Any]))
    }

    /// Waits until a JavaScript expression is true; a document that is being left is no error.
    public func until(_ expression: String, within seconds: Double = 20) async throws {
        let holds = await eventually(within: seconds) {
            (try? await evaluate("return Boolean(\(expression))", as: Bool.self)) ?? false
        }
        guard holds else {
            let text = (try? await evaluate("return document.body.innerText", as: String.self)) ?? ""
            throw SystemError("never: \(expression)\n\(text.prefix(3000))")
        }
    }

    /// Keys as they are on a keyboard; named ones by WebDriver's code points (`Key`).
    public func press(_ keys: String...) async throws {
        let strokes = keys.flatMap { key in [["type": "keyDown", "value": key], ["type": "keyUp", "value": key]] }
        _ = try await ask(
            "POST", "/actions", ["actions": [["type": "key", "id": "keyboard", "actions": strokes]]])
    }

    public func type(_ text: String) async throws {
        for character in text { try await press(String(character)) }
    }

    public enum Key {
        public static let tab = "\u{E004}", enter = "\u{E007}", escape = "\u{E00C}", space = " "
        public static let left = "\u{E012}", up = "\u{E013}", right = "\u{E014}", down = "\u{E015}"
        public static let end = "\u{E010}", home = "\u{E011}"
    }

    /// What the console said at the level SEVERE since it was last asked: errors, refused resources, breaches of the
    /// page's security policy.
    public func errors() async throws -> [String] {
        try await log("browser").filter { $0.level == "SEVERE" }.map(\.message)
    }

    public struct Cookie: Decodable, Sendable {
        public let name: String
        public let value: String
    }

    /// The cookies of the page that is shown, those that its scripts cannot read included.
    public func cookies() async throws -> [Cookie] {
        try Self.value(try await Self.ask("GET", port, "/session/\(session)/cookie", nil))
    }

    /// The addresses of all requests since it was last asked.
    public func requests() async throws -> [String] {
        struct Line: Decodable {
            struct Message: Decodable {
                struct Parameters: Decodable {
                    struct Request: Decodable { var url: String }
                    var request: Request?
                }
                var method: String
                var params: Parameters
            }
            var message: Message
        }
        return try await log("performance").compactMap { entry in
            let line = try? JSONDecoder().decode(Line.self, from: Data(entry.message.utf8))
            guard let line, line.message.method == "Network.requestWillBeSent" else { return nil }
            return line.message.params.request?.url
        }
    }

    private struct Entry: Decodable {
        var level: String
        var message: String
    }

    private func log(_ type: String) async throws -> [Entry] {
        try Self.value(try await ask("POST", "/se/log", ["type": type]))
    }

    /// A PNG of what can be seen, or of the whole page.
    public func screenshot() async throws -> Data {
        let text: String = try Self.value(try await ask("GET", "/screenshot", nil))
        return Data(base64Encoded: text) ?? Data()
    }

    /// A command of the DevTools protocol.
    public func command(_ name: String, _ parameters: [String: Any]) async throws {
        let body: [String: Any] = ["cmd": name, "params": parameters]
        _ = try await ask("POST", "/goog/cdp/execute", body)
    }

    private struct Answer<T: Decodable>: Decodable { var value: T }

    private static func value<T: Decodable>(_ body: Data) throws -> T {
        try JSONDecoder().decode(Answer<T>.self, from: body).value
    }

    private func ask(_ method: String, _ path: String, _ body: [String: Any]?) async throws -> Data {
        try await Self.ask(method, port, "/session/\(session)\(path)", body)
    }

    private static func ask(
        _ method: String, _ port: Int, _ path: String, _ body: [String: Any]?
    ) async throws -> Data {
        let json = try body.map { try JSONSerialization.data(withJSONObject: $0) }
        let answer = try await HTTP.send(method, "http://127.0.0.1:\(port)\(path)", json: json)
        guard answer.status == 200 else {
            throw SystemError("\(method) \(path): \(String(decoding: answer.body.prefix(1000), as: UTF8.self))")
        }
        return answer.body
    }
}
