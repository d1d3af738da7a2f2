import Certificates
import Deciding
import Decisions
import Enforcement
import EventLog
import EventModel
import Foundation
import Ingest
import PKI
import Primitives
import Synchronization
import TestSupport
import Testing

/// The registry's decisions at the gate: live certificates, and the exact position from which a device is refused.
@Suite(.serialized) struct GateFeedTests {
    /// A registry over a log, and the gate's check that follows it. Owned by one thread; the check is for all.
    private final class Site {
        let check: CertificateCheck
        let registry: DeciderRuntime<CertificateRegistry>
        let now: Timestamp
        private let gate: Gate
        private var serials: UInt64 = 0

        init(
            _ writer: any LogWriter, _ source: any LogSource, check: CertificateCheck = CertificateCheck(refuses: true)
        ) throws {
            self.check = check
            gate = Gate(GateSettings(), certificates: check)
            now = writer.now()
            registry = DeciderRuntime(
                writer: DecisionWriter(writer), source: source, clock: { [now] in now }, follower: GateFeed(check))
            try registry.recover()
        }

        func execute(_ command: RegistryCommand) throws -> Position {
            let answer = try registry.execute(RegistryRequest(tenantID: "*", actor: "op", command: command))
            guard case .accepted(let position, _, _, _) = answer else { throw SystemError("\(answer)") }
            return position
        }

        func addAuthority() throws {
            _ = try execute(
                .addAuthority(
                    AuthorityAdded(
                        id: "ca", tenantID: "*", subject: "CN=ca", certificate: "",
                        spkiSHA256: Self.digest("ca"), key: .file, notBefore: now,
                        notAfter: now.adding(microseconds: 365 * 86_400_000_000), actor: "")))
        }

        /// Certificates of these devices, valid between two times in seconds from now.
        @discardableResult
        func issue(_ devices: [String], from: Int64 = -60, until: Int64 = 86_400) throws -> [CertificateReference] {
            let events = devices.map { device in
                serials += 1
                return CertificateAdded(
                    .issued, authority: "ca", serial: SerialNumber(serials)!.description, tenantID: "acme",
                    deviceID: device, commonName: device, certificate: "", sha256: Self.digest("der \(serials)"),
                    spkiSHA256: Self.digest("key \(serials)"), keyAlgorithm: "P-256",
                    notBefore: now.adding(microseconds: from * 1_000_000),
                    notAfter: now.adding(microseconds: until * 1_000_000), actor: "")
            }
            _ = try execute(.add(events))
            return events.map { CertificateReference(authority: $0.authority, serial: SerialNumber($0.serial)!) }
        }

        func change(_ certificate: CertificateReference, _ kind: CertificateChange.Kind) throws -> Position {
            try execute(.change(certificate, CertificateChange(kind)))
        }

        /// The verdict on a message that a device sends now, or so many seconds later.
        func verdict(_ device: String, tenant: String = "acme", seconds: Int64 = 0) -> Verdict {
            var batch = RecordBatch(), outgoing = RecordBatch(), filter: RedeliveryFilter?
            batch.append(
                message: "tenant/\(tenant)/device/\(device)/telemetry",
                at: now.adding(microseconds: seconds * 1_000_000))
            let tally = gate.examine(batch, filter: &filter, steadyMicros: 1, into: &outgoing)
            gate.endJudging()
            return Verdict.allCases.first { tally.verdicts[Int($0.rawValue)] == 1 } ?? .unregisteredDevice
        }

        private static func digest(_ text: String) -> String { SHA256.digest(text.utf8).description }
    }

    private func site() throws -> Site {
        let log = ScratchLog(), site = try Site(log, log)
        try site.addAuthority()
        return site
    }

    @Test func onlyALiveCertificateLetsADeviceSend() throws {
        let site = try site()
        #expect(site.verdict("d") == .certMismatch, "none yet")
        let first = try site.issue(["d"])[0]
        #expect(site.verdict("d") == .accepted)
        #expect(site.verdict("d", tenant: "globex") == .certMismatch && site.verdict("e") == .certMismatch)
        #expect(site.verdict("d", seconds: 86_400) == .accepted && site.verdict("d", seconds: -60) == .accepted)
        #expect(site.verdict("d", seconds: 86_401) == .certMismatch, "expired")
        #expect(site.verdict("d", seconds: -61) == .certMismatch, "not valid yet")

        let second = try site.issue(["d"])[0]
        _ = try site.change(first, .supersede(by: second))
        _ = try site.change(second, .revoke(.keyCompromise))
        #expect(site.verdict("d") == .accepted, "the superseded one is live until it expires")
        _ = try site.change(first, .hold)
        #expect(site.verdict("d") == .certMismatch)
        _ = try site.change(first, .release)
        #expect(site.verdict("d") == .accepted)
    }

    @Test func aGapBetweenTwoValiditiesIsAGap() throws {
        let site = try site()
        try site.issue(["d"], until: 100)
        try site.issue(["d"], from: 200, until: 300)
        let third = try site.issue(["d"], from: 301, until: 400)[0]
        func verdicts() -> [Verdict] { [100, 101, 199, 200, 301, 400, 401].map { site.verdict("d", seconds: $0) } }
        #expect(
            verdicts() == [.accepted, .certMismatch, .certMismatch, .accepted, .accepted, .accepted, .certMismatch])
        _ = try site.change(third, .revoke(.unspecified))
        #expect(
            verdicts() == [
                .accepted, .certMismatch, .certMismatch, .accepted, .certMismatch, .certMismatch, .certMismatch,
            ])
    }

    @Test func aRestartReadsTheSameFromTheLog() throws {
        let log = ScratchLog(), before = try Site(log, log)
        try before.addAuthority()
        let certificates = try before.issue(["live", "revoked", "held"])
        _ = try before.change(certificates[1], .revoke(.keyCompromise))
        _ = try before.change(certificates[2], .hold)
        let after = try Site(log, log)
        #expect(["live", "revoked", "held"].map { after.verdict($0) } == [.accepted, .certMismatch, .certMismatch])
    }

    /// Nothing was revoked where the log took nothing.
    @Test func aRevocationThatIsNotAppendedIsTakenBack() throws {
        let log = FullLog(), site = try Site(log, log.log)
        try site.addAuthority()
        let certificate = try site.issue(["d"])[0]
        log.isFull.withLock { $0 = true }
        #expect(throws: AppendError.self) { try site.change(certificate, .revoke(.unspecified)) }
        #expect(site.verdict("d") == .accepted)
        log.isFull.withLock { $0 = false }
        _ = try site.change(certificate, .revoke(.unspecified))
        #expect(site.verdict("d") == .certMismatch)
    }

    private final class FullLog: LogWriter {
        let log = ScratchLog()
        let isFull = Mutex(false)

        func append(_ batch: inout RecordBatch) throws(AppendError) -> Range<Position> {
            if isFull.withLock({ $0 }) { throw .full("no space left in the test's log") }
            return try log.append(&batch)
        }

        func append(_ batch: RecordBatch) async throws(AppendError) -> Range<Position> {
            var batch = batch
            return try append(&batch)
        }
    }

    // MARK: Exact by position

    /// What the log has of a device.
    private struct History {
        /// Positions from which on it has no live certificate, up to where it may have one again.
        var refused: [Range<UInt64>] = []
        var acceptedWithout = 0
        var refusedWith = 0
        var accepted = 0
    }

    private final class Flag: Sendable { let isSet = Atomic(false) }

    private static let devices = (0..<40).map { "d\($0)" }

    @Test func underLoadNoMessageBehindARevocationIsAccepted() throws {
        let histories = try load()
        #expect(histories.map(\.acceptedWithout).reduce(0, +) == 0, "accepted behind the revocation")
        #expect(histories.map(\.refusedWith).reduce(0, +) == 0, "refused before the revocation")
        #expect(histories.allSatisfy { $0.accepted > 0 && !$0.refused.isEmpty })
    }

    /// The gate is told when the revocation is durable; or the revocation does not wait for judged batches.
    @Test(arguments: ["marksAfterAppend", "judgesOutOfOrder"]) func aPlantedBugIsNoticed(name: String) throws {
        let histories = try load(fault: name)
        #expect(histories.map(\.acceptedWithout).reduce(0, +) > 0)
    }

    /// Publishers at several gates, and one certificate after the other revoked or held in between.
    private func load(fault: String? = nil) throws -> [History] {
        let folder = try makeTemporaryFolder("gate")
        defer { try? FileManager.default.removeItem(atPath: folder) }
        var options = FileLogOptions()
        options.keepsTree = false
        let log = try FileLog.open(directory: folder, options: options)
        let site = try Site(log, log)
        try site.addAuthority()
        let certificates = try site.issue(Self.devices)
        let stop = Flag(), publishers = DispatchGroup(), check = site.check
        func untilMore(_ count: UInt64) {
            let end = log.durableCount + count
            while log.durableCount < end {
                _ = log.waitForDurable(beyond: log.durableCount, timeoutMilliseconds: 1_000)
            }
        }
        for index in 0..<4 {
            publishers.enter()
            Thread.detachNewThread {
                Self.with(fault) {
                    Self.publish(log, Gate(.unlimited, certificates: check), seed: index) {
                        stop.isSet.load(ordering: .relaxed)
                    }
                }
                publishers.leave()
            }
        }
        var held: [(device: Int, position: Position)] = [], histories = Self.devices.map { _ in History() }
        untilMore(400)
        try Self.with(fault) {
            for (index, certificate) in certificates.enumerated() {
                if index % 4 == 3 {
                    held.append((index, try site.change(certificate, .hold)))
                } else {
                    let position = try site.change(certificate, .revoke(.keyCompromise))
                    histories[index].refused.append(position.rawValue..<UInt64.max)
                }
                untilMore(50)
            }
        }
        for (index, position) in held {
            let released = try site.change(certificates[index], .release)
            histories[index].refused.append(position.rawValue..<released.rawValue)
        }
        untilMore(400)
        stop.isSet.store(true, ordering: .relaxed)
        publishers.wait()
        try Self.count(log, into: &histories)
        log.close()
        return histories
    }

    private static func with(_ fault: String?, _ body: () throws -> Void) rethrows {
        if let fault { try withIngestFault(fault, body) } else { try body() }
    }

    private static func publish(_ log: FileLog, _ gate: Gate, seed: Int, until isStopped: () -> Bool) {
        var random = SeededRandom(seed: UInt64(seed) + 1)
        var batch = RecordBatch(), outgoing = RecordBatch(), filter: RedeliveryFilter?
        while !isStopped() {
            batch.removeAll()
            for _ in 0..<Int.random(in: 1...20, using: &random) {
                batch.append(
                    message: "tenant/acme/device/\(devices.randomElement(using: &random)!)/telemetry", at: log.now())
            }
            let tally = gate.examine(batch, filter: &filter, steadyMicros: 1, into: &outgoing)
            // Others append between the verdicts and the place in the log.
            _ = log.waitForDurable(beyond: log.durableCount, timeoutMilliseconds: 1)
            do {
                _ =
                    try tally.untouched
                    ? log.append(&batch) { gate.endJudging() } : log.append(&outgoing) { gate.endJudging() }
            } catch {
                Issue.record("\(error)")
                return
            }
        }
    }

    private static func count(_ log: FileLog, into histories: inout [History]) throws {
        let indexes = Dictionary(uniqueKeysWithValues: devices.enumerated().map { ($1, $0) })
        let reader = try log.reader(from: Position(0)), block = EventBlock()
        while try reader.read(into: block, atLeast: 1 << 20) {
            block.forEach { record, position in
                guard record.kind == .message, let topic = DeviceTopic(record.topic),
                    let index = indexes[String(decoding: record.topic[topic.device], as: UTF8.self)]
                else { return }
                let isWithout = histories[index].refused.contains { $0.contains(position.rawValue) }
                switch record.verdict {
                case .accepted where isWithout: histories[index].acceptedWithout += 1
                case .accepted: histories[index].accepted += 1
                // A release counts once it is durable and folded.
                case .certMismatch where !isWithout && position.rawValue < histories[index].refused[0].lowerBound:
                    histories[index].refusedWith += 1
                default: break
                }
            }
        }
    }
}

extension GateSettings {
    fileprivate static var unlimited: GateSettings {
        var settings = GateSettings()
        settings.messagesPerSecond = 1_000_000
        settings.burst = 10_000_000
        return settings
    }
}

extension RecordBatch {
    fileprivate mutating func append(message topic: String, at time: Timestamp) {
        Array(topic.utf8).withUnsafeBytes { topic in
            let none = UnsafeRawBufferPointer(start: nil, count: 0)
            append(
                kind: .message, verdict: .accepted, flags: RecordFlags(qos: 1), receivedAt: time, packetID: 1,
                broker: none, topic: topic, properties: none, payload: none)
        }
    }
}
