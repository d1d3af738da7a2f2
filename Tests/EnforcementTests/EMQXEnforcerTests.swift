import Certificates
import Decisions
import Foundation
import Issuing
import Synchronization
import TestSupport
import Testing
@testable import Enforcement

/// An enforcer at a broker that fetches CRLs by itself: EMQX's API is scripted, and its TLS listener is a Mosquitto
/// whose CRL file the test replaces when "EMQX fetches".
@Suite(.serialized) struct EMQXEnforcerTests {
    private struct Lab {
        let base: EnforcerLab
        let emqx: EMQXTests.Lab

        init() async throws {
            base = try await EnforcerLab()
            emqx = try EMQXTests.Lab()
        }

        var cutter: EMQXCutter { EMQXCutter(EMQXAPI(emqx.url, .login(username: "admin", password: "right"))) }

        func enforcer(refreshSeconds: Int = 900) -> CRLEnforcer {
            base.enforcer(.ban(cutter, refreshSeconds: refreshSeconds), writesFile: false)
        }

        /// The broker has the newest CRL in force.
        func fetch() async throws {
            let crl = try #require(try await base.crls.current("fleet"))
            _ = try CRLFile(base.crlPath).write([crl.list.der])
            func reloads() -> Int { base.server.logText.components(separatedBy: "Reloading config.").count }
            let before = reloads()
            base.server.reload()
            try #require(await eventually { reloads() > before })
        }

        /// The first CRL is proved: the broker trusts the authority.
        func begin(_ enforcer: CRLEnforcer) async throws {
            #expect(try await enforcer.round() == EnforcementProblems())
            // The canary is signed beside the rounds.
            try #require(await rounds(of: enforcer) { await enforcer.isPrepared })
            try await fetch()
            try #require(await rounds(of: enforcer) { await base.isInForce })
        }

        func rounds(of enforcer: CRLEnforcer, until condition: @Sendable () async -> Bool) async -> Bool {
            await eventually {
                _ = try? await enforcer.round()
                return await condition()
            }
        }

        func connect(_ device: EnforcerLab.Device) {
            emqx.state.withLock { $0.connected[device.id] = "acme/\(device.id)" }
        }
        var connected: [String] { emqx.state.withLock { $0.connected.keys.sorted() } }
        var banned: Set<String> { emqx.state.withLock { $0.banned } }
    }

    @Test func aClientIsBannedAtOnceUntilTheCRLIsProved() async throws {
        let lab = try await Lab(), enforcer = lab.enforcer()
        try await lab.begin(enforcer)
        let one = try await lab.base.device("d1"), two = try await lab.base.device("d2")
        for device in [one, two] { lab.connect(device) }
        let begin = lab.base.log.durableCount
        try await lab.base.change(one)
        // Late, and no alarm yet.
        #expect(try await enforcer.round() == EnforcementProblems())
        #expect(lab.connected == ["d2"] && lab.banned == ["username/acme/d1", "clientid/d1"])
        #expect(lab.base.isAccepted(one), "the CRL is not in force")
        var status = try #require(await lab.base.status)
        #expect(status.banned == 1 && status.uncut == 0 && status.enforcement.error == nil)
        #expect(try await enforcer.round() == EnforcementProblems() && lab.banned.count == 2)

        try await lab.fetch()
        #expect(await eventually { (try? await enforcer.round()) == EnforcementProblems() && lab.banned.isEmpty })
        status = try #require(await lab.base.status)
        #expect(status.banned == 0 && status.enforcement.error == nil && !lab.base.isAccepted(one))
        #expect(
            try lab.base.schemas(from: begin) == [
                "certificate.revoked/1", "crl.issued/1", "client.cut/1", "crl.written/1", "crl.proved/1",
                "client.ban_lifted/1",
            ])
    }

    /// CRLs may be issued faster than the broker fetches them: the one that it fetched is proved, then the newest.
    @Test func aBrokerThatIsAlwaysBehindIsProvedAllTheSame() async throws {
        let lab = try await Lab(), enforcer = lab.enforcer()
        try await lab.begin(enforcer)
        let devices = [try await lab.base.device("d1"), try await lab.base.device("d2")]
        try await lab.base.change(devices[0])
        _ = try await enforcer.round()
        try await lab.fetch()
        try await lab.base.change(devices[1])
        #expect(await lab.rounds(of: enforcer) { lab.banned == ["username/acme/d2", "clientid/d2"] })
        #expect(await !lab.base.isInForce)
        try await lab.fetch()
        #expect(await lab.rounds(of: enforcer) { await lab.base.isInForce && lab.banned.isEmpty })
    }

    @Test func aBrokerThatFetchesTooLateIsAProblem() async throws {
        let lab = try await Lab(), enforcer = lab.enforcer(refreshSeconds: -3_600)
        try await lab.begin(enforcer)
        try await lab.base.change(try await lab.base.device("d1"))
        #expect(
            await eventually {
                (try? await enforcer.round().unproved)?.contains("still accepts a certificate") == true
            })
        #expect(lab.banned.count == 2, "the ban stays")
    }

    /// An authority that the broker does not trust, of another tenant perhaps, bans nobody there.
    @Test func nobodyIsBannedBeforeTheFirstProof() async throws {
        let lab = try await Lab(), enforcer = lab.enforcer()
        let device = try await lab.base.device("d1")
        lab.connect(device)
        try await lab.base.change(device)
        try #require(await lab.rounds(of: enforcer) { await enforcer.isPrepared })
        #expect(lab.banned.isEmpty && lab.connected == ["d1"])
        #expect(await lab.base.status?.uncut == 1)
        try await lab.fetch()
        #expect(await lab.rounds(of: enforcer) { lab.connected.isEmpty && lab.banned.isEmpty })
        #expect(await lab.base.status?.uncut == 0)
    }

    /// A missing key and an API that is away: the ban needs no CRL, and is made up for.
    @Test func aBanNeedsNoCRL() async throws {
        let lab = try await Lab()
        try await lab.begin(lab.enforcer())
        let device = try await lab.base.device("d1")
        lab.connect(device)
        let hidden = lab.base.keyFolder + "-hidden"
        try FileManager.default.moveItem(atPath: lab.base.keyFolder, toPath: hidden)
        lab.emqx.state.withLock { $0.fault = { _ in EMQXTests.Lab.reply(503, "{}") } }
        _ = try await lab.base.certificates.change(
            device.reference, CertificateChange(.revoke(.keyCompromise)), by: EnforcerLab.by)
        let enforcer = lab.enforcer()
        let problem = try await enforcer.round().uncut
        #expect(problem?.contains("status 503") == true && lab.connected == ["d1"], "\(problem ?? "")")
        #expect(await lab.base.status?.uncut == 1)
        lab.emqx.state.withLock { $0.fault = { _ in nil } }
        await enforcer.expireRetries()
        #expect(try await enforcer.round().uncut == nil && lab.connected.isEmpty && lab.banned.count == 2)
        #expect(await lab.base.status?.banned == 1)
    }

    /// EMQX's TLS is Erlang's: it fetches the canaries' CRL from the distribution point in them.
    @Test func itIsProvedOverErlangsTLS() async throws {
        let crl = Mutex<[UInt8]>([])
        let server = try ErlangListener.crlServer(path: "/crl/fleet.pem") { crl.withLock { $0 } }
        let base = try await EnforcerLab(crlURL: "http://127.0.0.1:\(server.port)"), emqx = try EMQXTests.Lab()
        let listener = try ErlangListener(base.server.folder)
        let cutter = EMQXCutter(EMQXAPI(emqx.url, .login(username: "admin", password: "right")))
        let enforcer = base.enforcer(.ban(cutter, refreshSeconds: 900), writesFile: false, port: listener.port)
        func publish() async throws {
            let pem = CRLFile.pem(try #require(try await base.crls.current("fleet")).list.der)
            crl.withLock { $0 = pem }
        }
        func rounds(until condition: @Sendable () async -> Bool) async -> Bool {
            await eventually {
                _ = try? await enforcer.round()
                return await condition()
            }
        }
        try #require(await rounds { await enforcer.isPrepared })
        try await publish()
        #expect(await rounds { await base.isInForce })
        let one = try await base.device("d1"), two = try await base.device("d2")
        try await base.change(one)
        #expect(try await enforcer.round() == EnforcementProblems())
        #expect(emqx.state.withLock { $0.banned.count } == 2 && base.isAccepted(one, port: listener.port))
        try await publish()
        #expect(await rounds { await base.isInForce && emqx.state.withLock { $0.banned.isEmpty } })
        #expect(!base.isAccepted(one, port: listener.port) && base.isAccepted(two, port: listener.port))
    }

    @Test func aReleaseLiftsTheBanAtOnce() async throws {
        let lab = try await Lab(), enforcer = lab.enforcer()
        try await lab.begin(enforcer)
        let device = try await lab.base.device("d1"), other = try await lab.base.device("d1")
        try await lab.base.change(device, as: .hold)
        #expect(try await enforcer.round().uncut == nil && lab.banned.count == 2)
        // Needed for another certificate of the device, too.
        try await lab.base.change(other)
        #expect(try await enforcer.round().uncut == nil)
        try await lab.base.change(device, as: .release)
        #expect(try await enforcer.round().uncut == nil && lab.banned.count == 2)
        let free = try await lab.base.device("d2")
        try await lab.base.change(free, as: .hold)
        #expect(try await enforcer.round().uncut == nil && lab.banned.count == 4)
        try await lab.base.change(free, as: .release)
        #expect(try await enforcer.round().uncut == nil && lab.banned == ["username/acme/d1", "clientid/d1"])
    }
}

extension CRLEnforcer {
    /// The newest CRL of each authority has a canary.
    var isPrepared: Bool { steps.states["fleet"]?.target?.crl.canary != nil }
}
