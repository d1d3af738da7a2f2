import Foundation
import TestSupport
import Testing

/// The pages in a real browser, against the real daemon.
@Suite(.serialized) struct PagesTests {
    /// Light and dark, wide and narrow: nothing is cut off, unreadable, nameless, asked of another server, or run.
    @Test func everyPageIsSoundInEveryLight() async throws {
        let site = try await Site()
        try await site.speak("d1")
        let id = try await site.campaign("Night \(Site.markup)", ["d1", "d2", "d3"], ["rollout_strategy": "canary"])
        try await site.api("POST", "/tenants/acme/campaigns/\(id)/start")
        try site.publish(
            "d1", "ota/status",
            #"{"campaign_id":\#(id),"status":"FAILED","error":"<img src=x onerror='window.broken=1'>"}"#)
        try await site.api("POST", "/tenants/acme/campaigns/\(id)/pause", ["reason": Site.markup])
        let certificate = try await self.certificate(of: "d1", site)
        try await site.world.untilQuiet()

        let pages = [
            ("overview", "/", "1 device"), ("campaigns", "/campaigns?tenant=acme", "onerror"),
            ("create", "/campaigns/new?tenant=acme", "How fast"),
            ("campaign", "/tenants/acme/campaigns/\(id)", "onerror"), ("devices", "/devices?tenant=acme", "d1"),
            ("device", "/tenants/acme/devices/d1", "temperature"),
            ("certificates", "/certificates?tenant=acme", "Expiries by week"), ("certificate", certificate, "onerror"),
            ("revocation", "/revocation?tenant=acme", "Lock-out in"), ("login", "/login", "Token"),
        ]
        let lights = [("light", 1280, 900, false), ("dark", 1280, 900, true), ("phone", 390, 844, true)]
        for (name, width, height, isDark) in lights {
            let browser = try await site.browser(width: width, height: height, isDark: isDark)
            for (page, path, text) in pages {
                try await site.open(path, in: browser)
                try await browser.until("document.body.innerText.includes('\(text)')")
                #expect(try await browser.faults() == [], "\(page) \(name)")
                try await browser.picture("\(page)-\(name)")
            }
            let errors = try await site.errors(of: browser)
            #expect(errors == [], "\(name)")
            // The browser's own first page is no server's.
            let outside = try await browser.requests().filter { $0.hasPrefix("http") && !$0.hasPrefix(site.root) }
            #expect(outside == [], "\(name)")
        }
    }

    /// The page of a revoked certificate.
    private func certificate(of device: String, _ site: Site) async throws -> String {
        try await site.api("POST", "/tenants/acme/authorities", ["id": "ca"])
        let issued = try await site.api(
            "POST", "/tenants/acme/certificates", ["device": device, "generate_key": "P-256"])
        let serial = try #require((issued["items"] as? [[String: Any]])?.first?["serial"] as? String)
        let path = "/tenants/acme/certificates/ca/\(serial)"
        try await site.api("POST", path + "/revoke", ["reason": "keyCompromise", "note": Site.markup])
        return path
    }

    /// The rows as the projection writes them: no broker here gives every outcome.
    @Test func eachOutcomeOfACutHasItsName() async throws {
        let site = try await Site(), path = try await certificate(of: "d1", site)
        try await site.world.untilQuiet()
        let serial = try #require(path.split(separator: "/").last)
        for (index, outcome) in ["cut", "was_not_connected", "still_connected"].enumerated() {
            _ = try site.world.postgres.psql(
                """
                insert into refold.certificate_events_v1 \
                (position, tenant_id, at, event_type, authority_id, serial, device_id, reason, actor) values \
                (\(1_000_000 + index), 'acme', now(), 'client.cut', 'ca', '\(serial)', 'd1', '\(outcome)', 'engine')
                """, database: site.world.database)
        }
        let browser = try await site.browser()
        try await site.open(path, in: browser)
        let names = "[...document.querySelectorAll('.timeline b')].slice(0, 3).map((e) => e.textContent).join()"
        try await browser.until(
            "\(names) === 'Client is still connected,Client was not connected,Client disconnected'")
    }

    /// The state of a proof is shown also for an authority of all tenants, whose errors a tenant does not see.
    @Test func revocationPageShowsProofState() async throws {
        let lab = try EnforcedWorld()
        try await lab.startDaemon()
        defer { lab.world.killDaemon() }
        try await lab.begin(devices: ["d1"])
        let browser = try await Chromium()
        try await browser.open("http://\(lab.world.http)/revocation?tenant=acme")
        func state(_ kind: String, _ word: String) async throws {
            try await browser.until("document.querySelector('.status.\(kind)')?.textContent.endsWith('\(word)')")
        }
        try await state("good", "proved")
        lab.devices.stop()
        _ = try lab.refold("cert", "revoke", "--tenant", "acme", "--device", "d1")
        try await state("bad", "unproved")
        #expect(try await browser.faults() == [])
    }

    /// `next` sent the browser to another server, since it drops tabs and line breaks.
    @Test func aLoginLeadsNowhereElse_F14() async throws {
        let site = try await Site(), browser = try await Chromium()
        for next in [
            "/%09/evil.test", "/%0a/evil.test", "/%0d/evil.test", "//evil.test", "/.//evil.test", "/%5cevil.test",
            "https://evil.test", "javascript:alert(1)",
        ] {
            try await browser.open(site.root + "/login?next=" + next)
            try await browser.until("document.activeElement?.id === 'token'")
            try await browser.type(site.token)
            try await browser.press(Chromium.Key.enter)
            try await browser.until("location.pathname !== '/login'")
            let origin: String = try await browser.evaluate("return location.origin")
            #expect(origin == site.root, "\(next)")
        }
    }

    /// A server on another port of the host got the cookie, and was admin with it.
    @Test func theCookieAloneOpensNothing_F17() async throws {
        let site = try await Site()
        try await site.api("POST", "/tokens", ["name": "closes-reads", "role": "viewer"])
        let browser = try await site.browser()
        let cookies = try await browser.cookies()
        let session = try #require(cookies.first { $0.name.hasPrefix("refold_session_") })
        func status(_ headers: [String: String]) async throws -> Int {
            try await HTTP.send("GET", site.root + "/api/v1/status", headers: headers).status
        }
        let cookie = "\(session.name)=\(session.value)"
        #expect(try await status(["Cookie": cookie]) == 401)
        let half: String = try await browser.evaluate("return localStorage.getItem('session')")
        #expect(try await status(["Cookie": cookie, "X-CSRF-Token": half]) == 200)
        // A second page of the same origin is signed in, and follows the stream.
        try await site.open("/", in: browser)
        try await browser.until("document.querySelector('header').innerText.includes('admin')")
    }

    /// From signing in to an aborted campaign without a pointer.
    @Test func theKeyboardIsEnough() async throws {
        let site = try await Site()
        try await site.speak("d1")
        let browser = try await Chromium()
        try await site.open("/campaigns?tenant=acme", in: browser)
        try await browser.until("document.body.innerText.includes('Sign in')")
        try await site.open("/login?next=%2Fcampaigns%3Ftenant%3Dacme", in: browser)
        try await browser.type(site.token)
        try await browser.press(Chromium.Key.enter)
        try await browser.until("location.pathname === '/campaigns' && document.querySelector('main').dataset.ready")
        // A new campaign: name, firmware, devices.
        try await browser.press("n")
        try await browser.until("document.activeElement?.name === 'name'")
        try await browser.type("Keys")
        try await tab(browser, to: "version")
        try await browser.type("3.0.0")
        try await tab(browser, to: "file_url")
        try await browser.type("https://firmware.example/3.bin")
        try await tab(browser, to: "devices")
        try await browser.type("d1 d2,d3")
        try await tab(browser, to: "start")
        try await browser.press(Chromium.Key.space, Chromium.Key.enter)
        try await browser.until(
            "/campaigns\\/\\d+$/.test(location.pathname) && document.querySelector('main').dataset.ready")
        try await browser.until("document.querySelector('h1').innerText.includes('running')")
        // Pause with a reason; the page follows without being loaded again.
        try await browser.evaluate("window.same = true; return null", as: String?.self)
        try await browser.press("p")
        try await browser.until("document.activeElement?.name === 'reason'")
        try await browser.type("lunch")
        try await browser.press(Chromium.Key.enter)
        try await browser.until("document.querySelector('h1').innerText.includes('paused')")
        try await browser.until("document.querySelector('.timeline').innerText.includes('lunch')")
        // Escape takes nothing back and does nothing.
        try await browser.press("a")
        try await browser.until("document.querySelector('dialog[open]')")
        try await browser.press(Chromium.Key.escape)
        try await browser.until("!document.querySelector('dialog')")
        #expect(try await browser.evaluate("return document.querySelector('h1').innerText.includes('paused')"))
        try await browser.press("a")
        try await browser.until("document.activeElement?.name === 'reason'")
        try await browser.press(Chromium.Key.enter)
        try await browser.until("document.querySelector('h1').innerText.includes('aborted')")
        #expect(try await browser.evaluate("return window.same === true"))
        // The list, by arrows.
        try await browser.press("g", "c")
        try await browser.until(
            "location.pathname === '/campaigns' && document.querySelectorAll('tr[data-index]').length === 1")
        try await browser.press(Chromium.Key.down, Chromium.Key.enter)
        try await browser.until("/campaigns\\/\\d+$/.test(location.pathname)")
        #expect(try await site.errors(of: browser) == [])
    }

    /// Tab until a field has the focus; an unreachable one is a failure.
    private func tab(_ browser: Chromium, to name: String) async throws {
        for _ in 0..<60 {
            let here: String = try await browser.evaluate("return document.activeElement?.name ?? ''")
            if here == name { return }
            try await browser.press(Chromium.Key.tab)
        }
        Issue.record("the Tab key does not reach \(name)")
    }

    /// Ten thousand devices: few rows are in the document, all can be reached, and answers are quick.
    @Test func tenThousandDevicesAreATableLikeAnother() async throws {
        let site = try await Site()
        let names = (0..<10_000).map { "pump-" + String(100_000 + $0).dropFirst() }
        let id = try await site.campaign("Many", names)
        try await site.world.untilQuiet()
        let browser = try await site.browser()
        try await site.open("/tenants/acme/campaigns/\(id)", in: browser)
        let table = "document.querySelector('.parts .scroller')"
        try await browser.until("\(table).querySelectorAll('tr[data-index]').length > 5")
        for _ in 0..<40 {
            let isWhole: Bool = try await browser.evaluate(
                """
                const table = \(table);
                table.scrollTop = table.scrollHeight;
                return document.querySelector('.parts .table-foot').innerText.includes('10,000 in all');
                """)
            if isWhole { break }
            try await browser.until("true")
            try await Task.sleep(for: .milliseconds(50))
        }
        try await browser.until("document.querySelector('.parts .table-foot').innerText.includes('10,000 in all')")
        try await browser.until("\(table).innerText.includes('pump-09999')")
        #expect(try await browser.evaluate("return \(table).querySelectorAll('tr').length < 120"))
        try await browser.press("f")
        try await browser.type("pump-0777")
        try await browser.until("document.querySelector('.parts .table-foot').innerText.includes('10 in all')")
        #expect(try await site.errors(of: browser) == [])
        // Each answer of the API that this page asked for.
        let slow: [String] = try await browser.evaluate(
            """
            return performance.getEntriesByType('resource')
              .filter((one) => one.name.includes('/api/v1/') && one.duration > 1000 && !one.name.includes('stream'))
              .map((one) => `${one.name} ${one.duration}`);
            """)
        #expect(slow == [])
    }

    /// A moment chosen shows what was then; the address keeps it.
    @Test func thePastIsShown() async throws {
        let site = try await Site()
        try site.publish("d1", "telemetry", #"{"metrics":{"level":1},"seq":1}"#)
        try await site.world.untilQuiet()
        // Whole seconds: the moment is behind the first, and the second is behind the moment.
        try await Task.sleep(for: .milliseconds(1100))
        let between = ISO8601DateFormatter().string(from: Date())
        try site.publish("d1", "telemetry", #"{"metrics":{"level":2},"seq":2}"#)
        try await site.world.untilQuiet()
        let browser = try await site.browser()
        try await site.open("/tenants/acme/devices/d1", in: browser)
        let level =
            "[...document.querySelectorAll('td')].find((one) => one.innerText === 'level')"
            + "?.nextSibling.innerText"
        try await browser.until("\(level) === '2'")
        try await site.open("/tenants/acme/devices/d1?at=\(between)", in: browser)
        try await browser.until("\(level) === '1'")
        try await browser.picture("device-past")
        // End on the slider is now.
        try await browser.evaluate("document.querySelector('input[type=range]').focus(); return null", as: String?.self)
        try await browser.press(Chromium.Key.end)
        try await browser.until("\(level) === '2' && !location.search")
        #expect(try await site.errors(of: browser) == [])
    }

    /// What comes in is seen to come in.
    @Test func figuresMoveByThemselves() async throws {
        let site = try await Site()
        let browser = try await site.browser()
        let fleet = try site.world.startFleet(["--devices", "20", "--rate", "200", "--count", "1500"])
        try await browser.until("/[1-9].* events\\/s/.test(document.querySelector('.tile').innerText)")
        try await browser.until("document.querySelector('.overview').innerText.includes('20 devices')")
        try await site.world.untilEnded(fleet)
        try await browser.picture("overview-live")
        #expect(try await site.errors(of: browser) == [])
    }
}
