import Deciding
import Decisions
import EventModel
import FoundationEssentials
import PKI
import Primitives

// The registry in snapshots: JSON for what is few, and 100 bytes for each certificate and each entry of a CRL, in the
// order of the log and of serial numbers. Equal states give equal bytes.

extension CertificateRegistry {
    public static let storedName = "certificates"
    public static let storedVersion = 1

    public func stored() -> [UInt8] {
        let all = store.indexes.sorted { store[$0].position < store[$1].position }
        var numbers: [CertificateStore.Index: UInt32] = [CertificateStore.none: .max]
        for (number, index) in all.enumerated() { numbers[index] = UInt32(number) }
        var out = ByteWriter()
        out.bytes(
            eventJSON(
                StoredHeader(
                    authorities: authorities.map(StoredHeader.StoredAuthority.init),
                    enforcements: enforcements.sorted { $0.key < $1.key }.map {
                        .init(key: $0.key, value: $0.value, cuts: storedCuts($0.key, numbers))
                    },
                    answers: storedAnswers, renewals: StoredHeader.StoredRenewals(renewals),
                    countAfterEviction: countAfterEviction, hasChanges: true)))
        for authority in authorities { authority.writeEntries(to: &out) }
        out.integer(UInt32(all.count))
        for index in all {
            let record = store[index]
            out.integer(record.authority)
            out.bytes(record.serial.magnitude)
            out.integer(record.status.rawValue)
            out.integer(record.reason.code)
            out.integer(UInt8((record.isImported ? 1 : 0) | (record.isDue ? 2 : 0)))
            out.bytes(Array(store.tenantID(of: index).utf8))
            out.bytes(Array(store.deviceID(of: index).utf8))
            out.integer(record.notBefore)
            out.integer(record.notAfter)
            record.key.withUnsafeBytes { out.out += $0 }
            out.integer(record.position.rawValue)
            out.integer(record.changedAt.microseconds)
            out.integer(numbers[record.renews] ?? .max)
            out.integer(numbers[record.replacedBy] ?? .max)
        }
        for index in all {
            out.integer(store[index].changedPosition?.rawValue ?? .max)
            out.integer(store[index].weakness.rawValue)
        }
        return out.out
    }

    public init(stored: [UInt8]) throws {
        var input = ByteReader(stored)
        do {
            self.init()
            let header = try JSONDecoder().decode(StoredHeader.self, from: Data(try input.bytes()))
            for form in header.authorities {
                authorityIndexes[form.added.id] = UInt16(clamping: authorities.count)
                authorities.append(try CertificateAuthority(form, entries: &input))
            }
            for form in header.enforcements { enforcements[form.key] = form.value }
            let indexes = try restoreCertificates(&input, hasChanges: header.hasChanges ?? false)
            for form in header.enforcements { try restoreCuts(form, indexes) }
            restore(header.answers)
            header.renewals?.restore(&renewals)
            rebuildTimes()
            countAfterEviction = header.countAfterEviction
        } catch let error as ByteReader.Truncated {
            throw UnreadableDecision("the certificates in the snapshot cannot be understood (\(error))")
        } catch let error as DecodingError {
            throw UnreadableDecision("the certificates in the snapshot cannot be understood (\(error))")
        }
    }

    private mutating func restoreCertificates(
        _ input: inout ByteReader, hasChanges: Bool
    ) throws(ByteReader.Truncated) -> [CertificateStore.Index] {
        let count = try input.integer(UInt32.self)
        var links: [(index: CertificateStore.Index, renews: UInt32, replacedBy: UInt32)] = []
        var indexes: [CertificateStore.Index] = []
        for _ in 0..<count {
            let authority = try input.integer(UInt16.self), serial = SerialNumber(magnitude: try input.bytes())
            let status = CertificateStatus(rawValue: try input.integer()),
                reason = RevocationReason(code: try input.integer())
            let flags = try input.integer(UInt8.self)
            let tenant = String(decoding: try input.bytes(), as: UTF8.self)
            let device = String(decoding: try input.bytes(), as: UTF8.self)
            let notBefore = try input.integer(Int64.self), notAfter = try input.integer(Int64.self)
            let key = Digest(try input.raw(Digest.byteCount)), position = Position(try input.integer(UInt64.self))
            let changedAt = Timestamp(storedMicroseconds: try input.integer(Int64.self))
            let renews = try input.integer(UInt32.self), replacedBy = try input.integer(UInt32.self)
            guard let serial, let status, let reason, let key, Int(authority) < authorities.count,
                device.utf8.count <= DeviceTopic.idBytesMax, store.find(authority: authority, serial: serial) == nil
            else { throw .init() }
            let index = store.add(
                authority: authority, serial: serial, tenantID: tenant, deviceID: device, key: key,
                notBefore: notBefore, notAfter: notAfter, isImported: flags & 1 != 0, position: position, at: changedAt)
            store.update(index) { ($0.status, $0.reason, $0.isDue) = (status, reason, flags & 2 != 0) }
            indexes.append(index)
            if renews != .max || replacedBy != .max { links.append((index, renews, replacedBy)) }
        }
        if hasChanges {
            for index in indexes {
                let changed = try input.integer(UInt64.self)
                guard let weakness = CertificateWeakness(rawValue: try input.integer()) else { throw .init() }
                store.update(index) {
                    ($0.changedPosition, $0.weakness) = (changed == .max ? nil : Position(changed), weakness)
                }
            }
        }
        func index(_ number: UInt32) throws(ByteReader.Truncated) -> CertificateStore.Index {
            if number == .max { return CertificateStore.none }
            guard number < count else { throw .init() }
            return indexes[Int(number)]
        }
        for link in links {
            let (renews, replacedBy) = (try index(link.renews), try index(link.replacedBy))
            store.update(link.index) { ($0.renews, $0.replacedBy) = (renews, replacedBy) }
        }
        return indexes
    }

    // MARK: Answers

    private var storedAnswers: [StoredHeader.StoredAnswer] {
        answers.uses.compactMap { use in
            answers.entries[use.key].map { entry in
                StoredHeader.StoredAnswer(
                    key: use.key, digest: entry.digest, at: use.at, position: entry.answer.position.rawValue,
                    authority: entry.answer.authority, certificates: entry.answer.certificates.map(\.description))
            }
        }
    }

    private mutating func restore(_ forms: [StoredHeader.StoredAnswer]) {
        for form in forms {
            let answer = KeyedAnswer(
                position: Position(form.position), authority: form.authority,
                certificates: form.certificates.compactMap { CertificateReference($0) })
            answers.remember(form.key, .init(digest: form.digest, at: form.at, answer: answer))
        }
    }
}

struct StoredHeader: Codable {
    struct StoredAuthority: Codable {
        var added: AuthorityAdded
        var position: UInt64
        var addedAt: Timestamp
        var retiredAt: Timestamp?
        var replacedBy: String?
        var entriesEnd: UInt64
        var lastCRL: CRLIssued?
        var lastCRLPosition: UInt64?
        var lastCRLAt: Timestamp
        var changes: [StoredChange]
        var isChanged: Bool
        var refused: CRLRefused?
    }

    /// An entry of the last CRL that was changed since; without time and reason: there was none.
    struct StoredChange: Codable {
        var serial: SerialNumber
        var time: Int64?
        var reason: RevocationReason?

        var before: RevokedEntry? {
            time.map { RevokedEntry(serial: serial, time: $0, reason: reason ?? .unspecified) }
        }
    }

    struct StoredAnswer: Codable {
        var key: CertificateRegistry.Ledger.Key
        var digest: String?
        var at: Timestamp
        var position: UInt64
        var authority: String?
        var certificates: [String]
    }

    struct StoredEnforcement: Codable {
        var key: EnforcementKey
        var value: Enforcement
        /// Nil in snapshots of before there were cuts.
        var cuts: Data?
    }

    /// By position, and by address.
    struct StoredRenewals: Codable {
        var policy: RenewalPolicy
        var open: [Renewal]
        var closed: [Renewals.Closed]
        var second: Int64
        var secondCount: Int

        init(_ renewals: Renewals) {
            policy = renewals.policy
            open = renewals.open.values.sorted { $0.id < $1.id }
            closed = renewals.closed.values.sorted { $0.renewal.id < $1.renewal.id }
            (second, secondCount) = (renewals.second, renewals.secondCount)
        }

        func restore(_ renewals: inout Renewals) {
            renewals.policy = policy
            (renewals.second, renewals.secondCount) = (second, secondCount)
            for renewal in open {
                renewals.open[renewal.address] = renewal
                if !renewal.messages.isEmpty { renewals.answered.insert(renewal.address) }
            }
            renewals.setClosed(Dictionary(closed.map { ($0.renewal.address, $0) }) { $1 })
            for entry in closed {
                if entry.late != nil, !entry.isRefused { renewals.late.insert(entry.renewal.address) }
            }
        }
    }

    var authorities: [StoredAuthority]
    var enforcements: [StoredEnforcement]
    var answers: [StoredAnswer]
    /// Nil in snapshots from before there were renewals.
    var renewals: StoredRenewals?
    var countAfterEviction: Int
    /// Behind the certificates: the position of each one's last change, and its weakness. Earlier versions: nil.
    var hasChanges: Bool?
}
