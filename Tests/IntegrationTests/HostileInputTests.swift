import Foundation
import HTTPClient
import Synchronization
import TestSupport
import Testing

/// The crash table: extreme, malformed and hostile input by every way in. Each gets an answer, an error and an exit
/// code of ours; none ends a process by a signal (a trap is SIGILL or SIGTRAP).
@Suite(.serialized) struct HostileInputTests {
    static let numbers = [
        "18446744073709551615", "18446744073709551616", "9223372036854775807", "-9223372036854775808", "-1", "0",
        "1e400", "nan", "inf", "-inf", "1e300", "", "0x10", "%00", "%F0%9F", String(repeating: "9", count: 400),
    ]
    static let times = [
        "0000-01-01T00:00:00Z", "9999-12-31T23:59:60Z", "1969-12-31T23:59:59.999999Z", "9999-12-31T23:59:59-23:59",
        "2026-02-30T00:00:00Z", "99999-01-01T00:00:00Z",
    ]

    static let settingsFiles: [[UInt8]] = [
        [], [0], [0xFF, 0xFE, 0x41], Array(String(repeating: "[", count: 100_000).utf8), Array("data: {".utf8),
        Array(String(repeating: "a: {", count: 20_000).utf8), Array("presence:\n  stale_seconds: 1e400\n".utf8),
        Array(("brokers:\n" + (0..<65).map { "  b\($0): {url: 'mqtt://127.0.0.1:1'}\n" }.joined()).utf8),
        Array("a: &a [x]\nb: &b [*a,*a,*a]\nc: [*b,*b,*b,*c]\n".utf8),
    ]

    @Test func theAPIAnswersWhateverIsAskedAndGoesOn() async throws {
        let site = try await Site()
        try site.publish("d1", "telemetry", #"{"metrics":{"t":1}}"#)
        try await site.world.untilQuiet()
        let tenant = "/api/v1/tenants/acme"
        var requests: [(method: String, path: String, body: String?)] = []
        for value in Self.numbers.dropLast(3) + Self.times {
            let text = value.addingPercentEncoding(withAllowedCharacters: .alphanumerics) ?? value
            for query in ["limit", "after", "min_position", "at", "order"] {
                requests.append(("GET", "\(tenant)/devices?\(query)=\(text)", nil))
                requests.append(("GET", "\(tenant)/devices/d1?\(query)=\(text)", nil))
                requests.append(("GET", "/api/v1/dead-letters?\(query)=\(text)", nil))
            }
        }
        for value in Self.numbers {
            requests += [
                "\(tenant)/events/\(value)", "\(tenant)/campaigns/\(value)", "\(tenant)/groups/\(value)/members",
                "/api/v1/dead-letters/\(value)", "\(tenant)/devices/d1/history?after=\(value)",
            ].map { ("GET", $0, nil) }
        }
        for number in ["1e400", "-1e400", "1e18", "9223372036854775808", "-1", "1e-400", "null", "\"x\"", "[]", "{}"] {
            requests += [
                ("POST", "\(tenant)/firmware", #"{"version":"1","file_url":"https://x/y","size":\#(number)}"#),
                ("POST", "\(tenant)/groups", #"{"name":"g","query":{"seen_within_seconds":\#(number)}}"#),
                ("POST", "\(tenant)/campaigns", #"{"name":"c","firmware_version_id":\#(number),"devices":["d1"]}"#),
                (
                    "POST", "\(tenant)/campaigns",
                    #"{"name":"c","firmware_version_id":1,"devices":["d1"],"rollout_rate":\#(number),"#
                        + #""abort_threshold":\#(number),"timeouts":{"campaign_seconds":\#(number)}}"#
                ),
                ("POST", "/api/v1/tokens", #"{"name":"t","role":"viewer","lifetime_seconds":\#(number)}"#),
                (
                    "POST", "/api/v1/log/losses",
                    #"{"operator":"o","reason":"r","ranges":[{"from":\#(number),"to":18446744073709551615}]}"#
                ),
                ("POST", "/api/v1/rebuilds", #"{"projections":\#(number)}"#),
                ("POST", "/api/v1/parked-keys/retry", #"{"projection":\#(number)}"#),
            ]
        }
        requests.append(("POST", "\(tenant)/groups", String(repeating: "[", count: 100_000)))
        requests.append(("POST", "\(tenant)/groups", "{\"name\":\"\u{0}\u{FFFF}\"}"))
        let pid = try #require(site.world.daemon?.pid)
        for (method, path, body) in requests {
            let status = try await status(site, method, path, body)
            let isRight = status == 503 && path.contains("min_position") || (200..<500).contains(status)
            #expect(isRight, "\(status): \(method) \(path) \(body?.prefix(200) ?? "")")
        }
        let isThere = site.world.daemon?.pid == pid && site.world.daemon?.isRunning == true
        #expect(isThere, "\(site.world.daemonLog.suffix(3000))")
    }

    private func status(_ site: Site, _ method: String, _ path: String, _ body: String?) async throws -> Int {
        // An answer that needs a position of the future takes 5 s; this is not about those.
        if path.contains("min_position=9223372036854775807") { return 503 }
        do {
            return try await HTTP.send(
                method, site.root + path, headers: ["Authorization": "Bearer \(site.token)"],
                json: body.map { Data($0.utf8) }
            ).status
        } catch let error as HTTPClientError where error.code == .invalidRequest {
            return 400  // no client could send it
        }
    }

    @Test func noArgumentEndsAVerbByASignal() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        try world.startDaemon()
        try await world.untilSubscribed()
        try await world.untilEnded(try world.startFleet(["--devices", "2", "--rate", "0", "--count", "20"]))
        #expect(world.stopDaemon().exitCode == 0)
        let data = ["--data", world.data], dead = ["--http", "127.0.0.1:1"]
        var lines: [[String]] = []
        for number in Self.numbers where !number.contains("%") {
            lines += [
                ["log", "cat", "--from=\(number)"] + data, ["log", "cat", "--to=\(number)"] + data,
                ["log", "cat", "--limit=\(number)"] + data, ["log", "verify", "--from=\(number)"] + data,
                ["log", "tail", "--no-follow", "--lines=\(number)"] + data,
                ["log", "verify", "--to=\(number)"] + data, ["log", "prove", "--position=\(number)"] + data,
                ["snapshot", "verify", number] + data,
                ["replay", "as-of", "device", "acme", "d1", "--position=\(number)"] + data,
                ["simulate", "--broker-url", "mqtt://127.0.0.1:1", "--duration=\(number)"],
                ["simulate", "--broker-url", "mqtt://127.0.0.1:1", "--count=1", "--rate=\(number)"],
                ["simulate", "--broker-url", "mqtt://127.0.0.1:1", "--devices=\(number)", "--ota-step=\(number)"],
                ["token", "create", "--name", "x", "--role", "viewer", "--days=\(number)"] + dead,
                ["group", "create", "--tenant", "acme", "--name", "g", "--seen-within=\(number)"] + dead,
                [
                    "campaign", "create", "--tenant", "acme", "--name", "c", "--firmware=1",
                    "--abort-threshold=\(number)",
                ]
                    + dead,
                ["config", "check", "--set", "retention.seconds=\(number)"],
                ["config", "check", "--http", "127.0.0.1:\(number)"],
                ["replay", "what-if", "--set", "presence.stale_seconds=\(number)"] + data,
                ["replay", "publish", "--dry-run", "--speed=\(number)x", "--to-broker", "mqtt://127.0.0.1:1"] + data,
            ]
        }
        for (index, text) in Self.settingsFiles.enumerated() {
            let path = "\(world.folder)/settings-\(index).yaml"
            try Data(text).write(to: URL(fileURLWithPath: path))
            lines.append(["config", "check", "--config", path])
        }
        lines.append(["config", "check", "--config", world.folder])
        for time in Self.times {
            lines += [
                ["log", "cat", "--since", time] + data, ["log", "cat", "--until", time] + data,
                ["log", "verify", "--from", time, "--to", time] + data,
                ["replay", "as-of", "device", "acme", "d1", "--at", time] + data,
                ["simulate", "--broker-url", "mqtt://127.0.0.1:1", "--count=1", "--start-time", time],
            ]
        }
        // Several at once: the table is long, and most of the time is a process's start.
        let problems = Mutex<[String]>([]), table = lines
        DispatchQueue.concurrentPerform(iterations: table.count) { index in
            let end = runToEnd([World.program] + table[index], seconds: 60)
            if !(0...4).contains(end) {
                problems.withLock { $0.append("\(end): \(table[index].joined(separator: " ").prefix(200))") }
            }
        }
        let found = problems.withLock { $0 }
        #expect(found.isEmpty, "\(found)")
    }
}

/// Exit code of a program, 128 and more for a signal; nothing of its output is kept.
private func runToEnd(_ arguments: [String], seconds: Double) -> Int32 {
    guard let child = try? ChildProcess(arguments, log: "/dev/null") else { return -1 }
    let deadline = ContinuousClock.now + .seconds(seconds)
    while child.isRunning {
        if ContinuousClock.now > deadline {
            child.kill(SIGKILL)
            child.wait()
            return 137
        }
        usleep(3000)
    }
    return child.exitCode ?? -1
}

/// Files of the data folder made of nothing, garbage, far too much, or a folder or a FIFO in their place.
@Suite(.serialized) struct HostileFileTests {
    enum Damage: CaseIterable { case empty, garbage, huge, folder, fifo }

    @Test func noFileOfTheDataFolderEndsTheDaemonByASignal() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        let small = ["--set", "log.segment_bytes=1048576"]
        try world.startDaemon(small)
        try await world.untilSubscribed()
        try await world.untilEnded(try world.startFleet(["--devices", "10", "--rate", "0", "--count", "9000"]))
        try await world.untilQuiet()
        let snapshot = try world.run(["snapshot", "create", "--data", world.data, "--http", world.http])
        #expect(snapshot.code == 0, "\(snapshot)")
        #expect(await eventually(within: 10) { Self.files(world.data).contains { $0.hasSuffix(".seg") } })
        #expect(world.stopDaemon().exitCode == 0)

        // One file of each kind: segments and their neighbours are alike.
        var kinds: [String: String] = [:]
        for file in Self.files(world.data) {
            let name = (file as NSString).lastPathComponent, folder = (file as NSString).deletingLastPathComponent
            let kind = folder + "/" + (name.first?.isNumber == true ? (name as NSString).pathExtension : name)
            kinds[kind] = kinds[kind] ?? file
        }
        #expect(kinds.count >= 5, "\(kinds)")
        let original = world.data, copy = world.folder + "/copy"
        for file in kinds.values.sorted() {
            for damage in Damage.allCases {
                try? FileManager.default.removeItem(atPath: copy)
                try FileManager.default.copyItem(atPath: original, toPath: copy)
                try Self.damage(copy + "/" + file, damage)
                for verb in [file.hasPrefix("snapshots/") ? ["snapshot", "list"] : ["log", "verify"]] {
                    let end = runToEnd([World.program] + verb + ["--data", copy], seconds: 60)
                    #expect((0...4).contains(end), "\(verb) on \(file), \(damage): \(end)")
                }
                let end = try await Self.run(copy, world)
                #expect((0...4).contains(end), "run on \(file), \(damage): \(end)")
            }
        }
    }

    /// Starts the daemon on a folder, without broker and database, and stops it once it answers or has ended.
    private static func run(_ data: String, _ world: World) async throws -> Int32 {
        let port = freeLoopbackPort()
        let daemon = try ChildProcess(
            [
                World.program, "run", "--data", data, "--http", "127.0.0.1:\(port)", "--broker-url",
                "mqtt://127.0.0.1:1", "--database-url", "postgresql://127.0.0.1:1/none",
            ], log: world.folder + "/copy.log")
        let hasStarted = await eventually(within: 30) {
            if !daemon.isRunning { return true }
            return HTTP.body("http://127.0.0.1:\(port)/api/v1/status") != nil
        }
        #expect(hasStarted, "neither answers nor ends")
        daemon.kill(SIGTERM)
        guard await eventually(within: 30, { !daemon.isRunning }) else {
            daemon.kill(SIGKILL)
            return 137
        }
        return daemon.exitCode ?? -1
    }

    private static func files(_ folder: String) -> [String] {
        let names = FileManager.default.enumerator(atPath: folder)?.compactMap { $0 as? String } ?? []
        return names.filter { name in
            var isFolder: ObjCBool = false
            let exists = FileManager.default.fileExists(atPath: folder + "/" + name, isDirectory: &isFolder)
            return exists && !isFolder.boolValue
        }.sorted()
    }

    private static func damage(_ path: String, _ damage: Damage) throws {
        var bytes = Data()
        switch damage {
        case .empty: break
        case .garbage:
            var random = UInt64(7)
            for _ in 0..<8192 {
                random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                bytes.append(UInt8(truncatingIfNeeded: random >> 56))
            }
        case .huge: bytes = try Data(contentsOf: URL(fileURLWithPath: path))
        case .folder, .fifo: break
        }
        try FileManager.default.removeItem(atPath: path)
        if damage == .fifo {
            try #require(mkfifo(path, 0o600) == 0)
            return
        }
        if damage == .folder {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
            return
        }
        try bytes.write(to: URL(fileURLWithPath: path))
        _ = chmod(path, 0o600)
        if damage == .huge { _ = truncate(path, 3 << 30) }  // sparse
    }
}

/// Descriptors run out: clients of the API must not take those of the log, the brokers and the database.
@Suite(.serialized) struct DescriptorTests {
    @Test func idleClientsUnderALowLimitEndNothing() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        try world.startDaemon(shell: "ulimit -n 256; exec \"$0\" \"$@\"")
        try await world.untilSubscribed()
        let port = try #require(Int(world.http.split(separator: ":").last ?? ""))
        var clients: [Int32] = []
        defer { for client in clients { close(client) } }
        for _ in 0..<400 {
            let client = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
            guard client >= 0 else { break }
            clients.append(client)
            connectLoopback(client, port: port)
            // Half of them send half a header.
            if clients.count % 2 == 0 { _ = send(client, "GET / HT", 8, Int32(MSG_NOSIGNAL)) }
        }
        #expect(clients.count == 400)
        #expect(await eventually(within: 5) { world.metric("process_max_fds") == 256 }, "probes get through")
        // The broker comes back over a new descriptor, and messages are recorded, while the clients stay.
        world.broker.stop()
        try world.broker.start()
        try await world.untilEnded(try world.startFleet(["--devices", "5", "--rate", "0", "--count", "200"]))
        #expect(await eventually { ((try? world.log().values.reduce(0, +)) ?? 0) >= 200 })
        #expect(world.daemon?.isRunning == true, "\(world.daemonLog.suffix(2000))")
        #expect(world.daemonLog.contains("few file descriptors"))
        for client in clients { close(client) }
        clients = []
        #expect(await eventually { world.status()?.brokers.first?.subscribed == true })
        #expect(world.metric("process_max_fds") == 256 && world.metric("process_open_fds").map { $0 < 256 } == true)
        #expect(world.stopDaemon().exitCode == 0)
    }

    /// With fewer, libdispatch would end the daemon at some time: it says so at the start.
    @Test func aHardLimitThatIsTooLowIsRefusedAtTheStart() async throws {
        let folder = try makeTemporaryFolder("limit"), log = folder + "/log"
        let daemon = try ChildProcess(
            [
                "/bin/sh", "-c", "ulimit -n 199; exec \"$0\" \"$@\"", World.program, "run", "--data", folder + "/data",
                "--http", "127.0.0.1:\(freeLoopbackPort())", "--broker-url", "mqtt://127.0.0.1:1", "--database-url",
                "postgresql://127.0.0.1:1/none",
            ], log: log)
        #expect(await eventually(within: 30) { !daemon.isRunning })
        #expect(daemon.exitCode == 2)
        let said = try String(contentsOfFile: log, encoding: .utf8)
        for word in ["199", "200", "ulimit -n", "LimitNOFILE="] { #expect(said.contains(word), "\(said)") }
        #expect(!FileManager.default.fileExists(atPath: folder + "/data"))
    }

    /// prlimit(1) while it runs, twice: each is undone within a second or two, and is one line of the log.
    @Test func aSoftLimitThatIsLoweredWhileItRunsIsRaisedAgain() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        try world.startDaemon(shell: "ulimit -n 4096; exec \"$0\" \"$@\"")
        #expect(await eventually(within: 30) { world.metric("process_max_fds") == 4096 })
        let pid = try #require(world.daemon?.pid)
        func timesReported() -> Int {
            world.daemonLog.components(separatedBy: "the soft limit of open files was lowered").count - 1
        }
        for time in 1...2 {
            let lower = try ChildProcess(
                ["/usr/bin/prlimit", "--pid", "\(pid)", "--nofile=1000:4096"], log: world.folder + "/prlimit.log")
            lower.wait()
            try #require(lower.exitCode == 0)
            #expect(await eventually(within: 10) { timesReported() == time })
            #expect(await eventually(within: 10) { world.metric("process_max_fds") == 4096 })
        }
        #expect(world.stopDaemon().exitCode == 0)
        #expect(timesReported() == 2)
    }

    /// Shells and containers give 1,024 of many more.
    @Test func theSoftLimitIsRaisedToTheHardOne() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        try world.startDaemon(shell: "ulimit -S -n 300; ulimit -H -n 4096; exec \"$0\" \"$@\"")
        #expect(await eventually(within: 30) { world.metric("process_max_fds") == 4096 })
        #expect(world.stopDaemon().exitCode == 0)
    }
}
