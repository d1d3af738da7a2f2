import Foundation
import TestSupport

/// A daemon with something to see, and whoever looks at it by HTTP.
final class Site {
    let world: World
    /// The data folder's.
    let token: String
    private let devices: TestPublisher
    /// The daemon's wall clock, where it is not the machine's.
    let clock: ClockShim?

    init(shiftsClock: Bool = false) async throws {
        world = try World(postgres: try PostgresServer.shared.get())
        clock = shiftsClock ? try ClockShim(in: world.folder) : nil
        world.commandPrefix = clock?.prefix ?? []
        try world.startDaemon(["--set", "presence.stale_seconds=3600", "--set", "presence.offline_seconds=7200"])
        try await world.untilSubscribed()
        token = try String(contentsOfFile: world.data + "/token", encoding: .utf8)
            .trimmingCharacters(in: .whitespacesAndNewlines)
        devices = try TestPublisher(port: world.broker.port)
    }

    deinit { world.killDaemon() }

    var root: String { "http://\(world.http)" }

    func publish(_ device: String, _ kind: String, _ payload: String) throws {
        try devices.publish("tenant/acme/device/\(device)/\(kind)", payload.utf8)
    }

    /// What nobody may take for markup, in every place that a device or an operator can write to.
    static let markup = "<img src=x onerror=\"window.broken=1\"><script>window.broken=1</script>"

    /// A device that says all it can, with markup wherever the grammar of topics lets it.
    func speak(_ device: String) async throws {
        let quoted = String(decoding: try JSONEncoder().encode(Self.markup), as: UTF8.self)
        try publish(device, "connection", #"{"status":"CONNECTED","reason":\#(quoted)}"#)
        try publish(device, "telemetry", #"{"metrics":{\#(quoted):1,"text":\#(quoted),"temperature":21.5},"seq":1}"#)
        try publish(
            device, "shadow/reported",
            #"{"version":1,"reported":{"firmware_version":"1.0.0",\#(quoted):{"deep":[\#(quoted)]}}}"#)
        try publish(device, "telemetry", #"{"metrics":\#(quoted)}"#)
        try publish("d\(Self.markup)", "telemetry", "{}")
        try await world.untilQuiet()
    }

    /// A JSON answer of the API. Throws when it is no 2xx.
    @discardableResult
    func api(_ method: String, _ path: String, _ body: [String: Any]? = nil) async throws -> [String: Any] {
        let (status, data) = try await HTTP.send(
            method, root + "/api/v1" + path, headers: ["Authorization": "Bearer \(token)"],
            json: body.map { try JSONSerialization.data(withJSONObject: $0) })
        guard (200..<300).contains(status) else {
            throw SystemError("\(method) \(path): \(status) \(String(decoding: data.prefix(1000), as: UTF8.self))")
        }
        return try JSONSerialization.jsonObject(with: data) as? [String: Any] ?? [:]
    }

    /// A campaign to `targets`; returns its id when the tables have it.
    func campaign(_ name: String, _ targets: [String], _ more: [String: Any] = [:]) async throws -> Int {
        let firmware = try await api(
            "POST", "/tenants/acme/firmware",
            ["version": "2.0.\(Int.random(in: 0..<1_000_000))", "file_url": "https://firmware.example/2.0.0.bin"])
        let made = try await api(
            "POST", "/tenants/acme/campaigns",
            ["name": name, "firmware_version_id": firmware["id"] as? Int ?? 0, "devices": targets].merging(more) { $1 })
        let id = made["id"] as? Int ?? -1
        try await api("GET", "/tenants/acme/campaigns/\(id)?min_position=\(made["position"] as? Int ?? 0)")
        return id
    }

    /// A browser that is signed in.
    func browser(width: Int = 1280, height: Int = 900, isDark: Bool = false) async throws -> Chromium {
        let browser = try await Chromium(width: width, height: height, isDark: isDark)
        try await browser.open(root + "/login?next=/")
        try await browser.until("document.activeElement.id === 'token'")
        try await browser.type(token)
        try await browser.press(Chromium.Key.enter)
        try await browser.until("location.pathname === '/' && document.querySelector('main').dataset.ready")
        return browser
    }

    /// What went wrong in the pages that were shown.
    func errors(of browser: Chromium) async throws -> [String] {
        try await browser.errors()
    }

    /// Opens a page and waits until it shows something.
    func open(_ path: String, in browser: Chromium) async throws {
        try await browser.open(root + path)
        try await browser.until("document.querySelector('main').dataset.ready")
    }
}

extension Chromium {
    /// Keeps a picture where `PAGES_PICTURES` names a folder: for people to look at.
    func picture(_ name: String) async throws {
        guard let folder = ProcessInfo.processInfo.environment["PAGES_PICTURES"] else { return }
        try await screenshot().write(to: URL(fileURLWithPath: "\(folder)/\(name).png"))
    }

    /// What is wrong with the page that is shown, for everybody and for those who use it otherwise than most; empty
    /// when nothing is.
    func faults() async throws -> [String] {
        try await evaluate(
            """
            const faults = [];
            const shown = (node) => node.checkVisibility();
            if (document.documentElement.scrollWidth > innerWidth) faults.push('wider than the window');
            if (document.querySelectorAll('h1').length !== 1) faults.push('not one h1');
            if (window.broken) faults.push('markup was run');
            for (const node of document.querySelectorAll('main img, main script, main iframe, [onerror], [onclick]')) {
              faults.push('markup became an element: ' + node.nodeName);
            }
            for (const node of document.querySelectorAll('input, select, textarea')) {
              const named = node.labels.length > 0 || node.getAttribute('aria-label');
              if (shown(node) && !named) faults.push('no label: ' + node.outerHTML);
            }
            for (const node of document.querySelectorAll('button, a')) {
              if (shown(node) && !(node.textContent.trim() || node.getAttribute('aria-label'))) {
                faults.push('no name: ' + node.outerHTML);
              }
            }
            // WCAG 2.2, 1.4.3: text and what is behind it.
            const channels = (color) => {
              const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
              canvas.fillStyle = color;
              canvas.fillRect(0, 0, 1, 1);
              return [...canvas.getImageData(0, 0, 1, 1).data];
            };
            const light = ([r, g, b]) => {
              const [x, y, z] = [r, g, b].map((c) => c / 255)
                .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
              return 0.2126 * x + 0.7152 * y + 0.0722 * z;
            };
            const behind = (node) => {
              const layers = [];
              for (let at = node; at; at = at.parentElement) {
                const color = channels(getComputedStyle(at).backgroundColor);
                layers.push(color);
                if (color[3] === 255) break;
              }
              return layers.reverse().reduce((under, [r, g, b, a]) => {
                const share = a / 255;
                return [r, g, b].map((c, index) => c * share + under[index] * (1 - share));
              }, [255, 255, 255]);
            };
            const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
            const seen = new Set();
            while (walker.nextNode()) {
              const node = walker.currentNode.parentElement;
              const isIdle = node.closest('svg, [disabled], .later, .coming');
              if (!walker.currentNode.data.trim() || !shown(node) || seen.has(node) || isIdle) continue;
              seen.add(node);
              const [a, b] = [light(channels(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
              const contrast = (a + 0.05) / (b + 0.05);
              if (contrast < 4.5) faults.push(`contrast ${contrast.toFixed(2)}: ${node.textContent.slice(0, 40)}`);
            }
            return [...new Set(faults)];
            """)
    }
}
