import Certificates
import Decisions
import EventLog
import EventModel
import Foundation
import PKI
import Primitives
import Synchronization
import TestSupport
import Testing
import Threading
@testable import Issuing

/// What devices send for the renewal of their certificates, over a real log.
@Suite struct RenewalTests {
    /// - Parameter source: what it reads; nil: the log.
    private static func service(_ site: Site, _ source: (any LogSource)? = nil) -> RenewalService {
        let certificates = source.map { source in
            CertificateService(
                registry: site.registry, source: source,
                keys: AuthorityKeys(
                    folder: site.folder.keys, passphrase: nil, signCommand: nil, commandTimeoutSeconds: 10),
                options: .init(), clock: { site.folder.now })
        }
        return RenewalService(
            certificates ?? site.certificates, policy: RenewalPolicy(), executor: ThreadExecutor(name: "renewals"))
    }

    private func say(
        _ site: Site, _ topic: String, _ payload: some Encodable, device: String = "d1", tenant: String = "acme"
    ) throws {
        let text = String(decoding: try JSONEncoder().encode(payload), as: UTF8.self)
        try say(site, topic, text: text, device: device, tenant: tenant)
    }

    private func say(
        _ site: Site, _ topic: String, text: String, device: String = "d1", tenant: String = "acme"
    ) throws {
        var batch = RecordBatch()
        batch.append(
            kind: .message, schema: "tenant/\(tenant)/device/\(device)/certificate/\(topic)",
            receivedAt: site.folder.now, json: Array(text.utf8))
        _ = try site.log.append(&batch)
    }

    private struct Request: Encodable {
        var renewal_id: UInt64
        var csr: String
    }
    private struct Report: Encodable {
        var renewal_id: UInt64
        var serial: String
    }

    private func request(_ renewal: Renewal, _ key: PrivateKey, name: String = "x") throws -> Request {
        let request = try CertificateRequest.create(key: key, commonName: name)
        return Request(renewal_id: renewal.id.rawValue, csr: String(decoding: try request.pem(), as: UTF8.self))
    }

    private func open(_ site: Site) async throws -> (old: NewlyIssued, renewal: Renewal) {
        let old = try await site.issue { $0.alternativeNames = [.dns("d1.example")] }
        #expect(try await site.certificates.renew(device: "d1", by: Site.by()).refusal == nil)
        return (old, try #require(try await renewal(site)))
    }

    private func renewal(_ site: Site) async throws -> Renewal? {
        try await site.registry.query { $0.renewal(tenantID: "acme", deviceID: "d1") }
    }

    @Test func aDeviceGetsACertificateForItsNewKey() async throws {
        try await Site.run { site in
            try await site.authority()
            let (old, renewal) = try await open(site)
            // A rotation: the new certificate comes from the new authority.
            try await site.authority("ca-2") { $0.replaces = "ca" }
            let key = try PrivateKey.generate(), service = Self.service(site)
            try say(site, "request", try request(renewal, key, name: "somebody-else"))
            try await service.round()
            let issued = try #require(try await self.renewal(site)?.issued)
            #expect(issued.authority == "ca-2")
            let certificate = try #require(try await site.certificates.certificate(issued, tenantID: "acme"))
            #expect(certificate.spkiSHA256 == key.publicKey.spkiSHA256 && certificate.renews == old.reference)
            let pem = try #require(try await site.certificates.pem(of: certificate))
            let made = try Certificate.chain(pem: Array(pem.utf8))[0]
            #expect(made.commonName == "acme/d1", "the subject of the request is ignored")
            #expect(made.alternativeNames == [.dns("d1.example")], "as before")

            // Repeated: the same certificate again, and nothing is signed.
            let count = try await site.registry.query { $0.certificateCount }
            try say(site, "request", try request(renewal, key))
            try await service.round()
            #expect(try await site.registry.query { $0.certificateCount } == count)
            let repeated = try #require(try await self.renewal(site))
            #expect(repeated.issued == issued && repeated.status == .issued && repeated.error == nil)

            // Another key: refused.
            try say(site, "request", try request(renewal, try .generate()))
            try await service.round()
            #expect(try await self.renewal(site)?.error?.contains("another key") == true)
            #expect(try await site.registry.query { $0.certificateCount } == count)

            for (renewal, serial) in [(renewal.id.rawValue + 1, "\(issued.serial)"), (renewal.id.rawValue, "0f")] {
                try say(site, "installed", Report(renewal_id: renewal, serial: serial))
                try await service.round()
                #expect(try await self.renewal(site)?.error?.contains("expected: \(issued.serial)") == true)
            }
            try say(site, "installed", Report(renewal_id: renewal.id.rawValue, serial: "\(issued.serial)".uppercased()))
            try await service.round()
            #expect(try await self.renewal(site) == nil)
            let before = try await site.certificates.certificate(old.reference, tenantID: "acme")
            #expect(before?.status == .superseded && before?.replacedBy == issued)
        }
    }

    @Test func badRequestsAreRefusedAndHarmNothing() async throws {
        try await Site.run { site in
            try await site.authority()
            let (old, renewal) = try await open(site)
            let service = Self.service(site), key = try PrivateKey.generate()
            let good = try request(renewal, key)
            var foreign = good
            foreign.renewal_id += 7
            var changed = Array(good.csr)
            changed[good.csr.count / 2] = changed[good.csr.count / 2] == "A" ? "B" : "A"
            let weak = try site.folder.request(algorithm: ["rsa:1024"])
            let own = try #require(old.privateKey)
            let cases: [(payload: String, reason: String)] = [
                ("", "not a JSON object"), (#"{"renewal_id":"x","csr":""}"#, "not a JSON object"),
                (#"{"renewal_id":\#(renewal.id),"csr":"x"}"#, "certificate request"),
                (json(foreign), "that of the open renewal, \(renewal.id)"),
                (json(Request(renewal_id: good.renewal_id, csr: String(changed))), "certificate request"),
                (json(Request(renewal_id: good.renewal_id, csr: String(decoding: weak, as: UTF8.self))), "too short"),
                (json(try request(renewal, try PrivateKey(pem: own))), "make a new key"),
            ]
            for (payload, reason) in cases {
                try say(site, "request", text: payload)
                try await service.round()
                let state = try #require(try await self.renewal(site))
                #expect(state.error?.contains(reason) == true, "\(payload): \(state.error ?? "accepted")")
                #expect(state.issued == nil && state.status == .requested)
            }
            // An answer on another device's topic reaches nobody's renewal.
            try say(site, "request", good, device: "d2")
            try await service.round()
            #expect(try await self.renewal(site)?.issued == nil)
            try say(site, "request", good)
            try await service.round()
            #expect(try await self.renewal(site)?.issued != nil, "the good one is accepted all the same")
        }
    }

    @Test func oneBadRequestHoldsUpNoOther() async throws {
        try await Site.run { site in
            try await site.authority()
            var keys: [String: PrivateKey] = [:]
            for device in ["d1", "d2", "d3"] {
                let issued = try await site.issue(device)
                keys[device] = try PrivateKey(pem: try #require(issued.privateKey))
                #expect(try await site.certificates.renew(device: device, by: Site.by()).refusal == nil)
            }
            func renewal(_ device: String) async throws -> Renewal? {
                try await site.registry.query { $0.renewal(tenantID: "acme", deviceID: device) }
            }
            for (device, key) in try [("d1", PrivateKey.generate()), ("d2", #require(keys["d3"])), ("d3", .generate())]
            {
                let open = try #require(try await renewal(device))
                try say(site, "request", try request(open, key), device: device)
            }
            try await Self.service(site).round()
            let (first, second, third) = (try await renewal("d1"), try await renewal("d2"), try await renewal("d3"))
            #expect(first?.issued != nil && third?.issued != nil)
            #expect(second?.issued == nil && second?.error?.contains("d3 has a certificate with the same key") == true)
        }
    }

    private func json(_ request: Request) -> String {
        String(decoding: (try? JSONEncoder().encode(request)) ?? Data(), as: UTF8.self)
    }

    /// The request waits, and is answered after a restart.
    @Test func aMissingKeyCostsNothing() async throws {
        try await Site.withFolder { folder in
            let key = try PrivateKey.generate()
            try await Site.run(folder) { site in
                try await site.authority()
                let (_, renewal) = try await open(site)
                try say(site, "request", try request(renewal, key))
            }
            try FileManager.default.moveItem(atPath: folder.keys, toPath: folder.path + "/hidden")
            try await Site.run(folder) { site in
                let failed = await failure { try await Self.service(site).round() }
                #expect(failed.code == .file, "\(failed.text)")
                let waiting = try await renewal(site)
                #expect(waiting?.status == .answered)
            }
            try FileManager.default.moveItem(atPath: folder.path + "/hidden", toPath: folder.keys)
            try await Site.run(folder) { site in
                try await Self.service(site).round()
                let issued = try #require(try await renewal(site)?.issued)
                let certificate = try await site.certificates.certificate(issued, tenantID: "acme")
                #expect(certificate?.spkiSHA256 == key.publicKey.spkiSHA256)
            }
        }
    }

    /// The daemon's log, except one position.
    private final class DamagedLog: LogSource {
        private let log: FileLog
        private let position: Position
        private let code: LogErrorCode

        init(_ log: FileLog, at position: Position, _ code: LogErrorCode) {
            (self.log, self.position, self.code) = (log, position, code)
        }

        var durableCount: UInt64 { log.durableCount }
        var firstPosition: Position { log.firstPosition }
        func reader(from position: Position) throws -> any LogReader {
            guard position != self.position else { throw LogError(code, "planted") }
            return try log.reader(from: position)
        }
        func decisionReader(from position: Position) throws -> any LogReader { try log.decisionReader(from: position) }
        func forEachEvent(
            of schema: LogSchema, in range: Range<Position>, _ body: (RecordView, Position) throws -> Void
        ) throws { try log.forEachEvent(of: schema, in: range, body) }
        func waitForDurable(beyond count: UInt64, timeoutMilliseconds: Int, unless stop: () -> Bool) -> UInt64 {
            log.waitForDurable(beyond: count, timeoutMilliseconds: timeoutMilliseconds, unless: stop)
        }
        func wakeWaiters() { log.wakeWaiters() }
    }

    /// An unreadable issued certificate blocks only its own device.
    @Test func anUnreadableCertificateHoldsUpNoOtherDevice() async throws {
        try await Site.run { site in
            try await site.authority()
            let (_, mine) = try await open(site), key = try PrivateKey.generate()
            try say(site, "request", try request(mine, key))
            try await Self.service(site).round()
            let issued = try #require(try await renewal(site)?.issued)
            let position = try #require(try await site.registry.query { $0.certificate(issued) }).position
            _ = try await site.issue("d2")
            #expect(try await site.certificates.renew(device: "d2", by: Site.by()).refusal == nil)
            func second() async throws -> Renewal? {
                try await site.registry.query { $0.renewal(tenantID: "acme", deviceID: "d2") }
            }
            try say(site, "request", try request(mine, key))
            try say(site, "request", try request(try #require(try await second()), .generate()), device: "d2")
            let damaged = Self.service(site, DamagedLog(site.log, at: position, .corrupt))
            await #expect(throws: LogError.self) { try await damaged.round() }
            #expect(try await second()?.issued != nil)
            // Once the log can be read, it is sent again.
            try await Self.service(site).round()
            let reader = try site.log.reader(from: Position(0)), block = EventBlock()
            var resent = 0
            while try reader.read(into: block, atLeast: 1) {
                block.forEach { record, _ in
                    if record.topicString == "certificate.renewal_resent/1" { resent += 1 }
                }
                if block.end.rawValue >= site.log.durableCount { break }
            }
            #expect(resent == 1)
        }
    }

    /// An unreadable message blocks only its own device. A message whose segment is gone is refused.
    @Test(arguments: [LogErrorCode.corrupt, .beforeHorizon]) func anUnreadableMessageHoldsUpNoOtherDevice(
        code: LogErrorCode
    ) async throws {
        try await Site.run { site in
            for tenant in ["acme", "other"] {
                try await site.authority("ca-\(tenant)", tenant: tenant)
                _ = try await site.issue(by: Site.by(tenant))
                #expect(try await site.certificates.renew(device: "d1", by: Site.by(tenant)).refusal == nil)
            }
            _ = try await site.issue("d2")
            #expect(try await site.certificates.renew(device: "d2", by: Site.by()).refusal == nil)
            let mine = try #require(try await renewal(site)), key = try PrivateKey.generate()
            let position = Position(site.log.durableCount)
            try say(site, "request", try request(mine, key))
            let other = try #require(
                try await site.registry.query { $0.renewal(tenantID: "other", deviceID: "d1") })
            try say(site, "request", try request(other, .generate()), tenant: "other")
            func second() async throws -> Renewal? {
                try await site.registry.query { $0.renewal(tenantID: "acme", deviceID: "d2") }
            }
            try say(site, "request", try request(try #require(try await second()), .generate()), device: "d2")
            let damaged = DamagedLog(site.log, at: position, code)
            let service = Self.service(site, damaged)
            if code == .corrupt {
                await #expect(throws: LogError.self) { try await service.round() }
                #expect(try await renewal(site)?.status == .answered, "it waits")
            } else {
                try await service.round()
                #expect(try await renewal(site)?.error == "the message is no longer in the log")
            }
            let found = try await site.registry.query { $0.renewal(tenantID: "other", deviceID: "d1") }
            #expect(found?.issued != nil)
            #expect(try await second()?.issued != nil)
        }
    }

    @Test func thePolicyIsOnTheRecord() async throws {
        try await Site.run { site in
            var policy = RenewalPolicy()
            policy.isEnabled = true
            // In two rounds, after a restart, and after a change of the setting.
            for (days, count) in [(7, 1), (7, 1), (8, 2)] as [(Int64, UInt64)] {
                policy.graceSeconds = days * 86_400
                let executor = ThreadExecutor(name: "renewals"), rounds = Mutex(0)
                let service = RenewalService(site.certificates, policy: policy, executor: executor)
                let running = Task {
                    await service.run { failure in
                        #expect(failure == nil)
                        rounds.withLock { $0 += 1 }
                    }
                }
                for round in 1...2 {
                    executor.wake()
                    try #require(await eventually { rounds.withLock { $0 } >= round })
                }
                running.cancel()
                executor.wake()
                await running.value
                #expect(try await site.registry.query { $0.renewalPolicy } == policy)
                #expect(site.log.durableCount == count, "\(days) days")
            }
        }
    }
}
