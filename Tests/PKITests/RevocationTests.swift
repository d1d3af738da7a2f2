import Foundation
import Primitives
import Testing
@testable import PKI

struct RevokedEntriesTests {
    static func entry(_ random: inout SeededRandom, serialBytes: ClosedRange<Int> = 1...20) -> RevokedEntry {
        let count = serialBytes.lowerBound + random.below(serialBytes.count)
        let magnitude = (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        let serial = SerialNumber(magnitude: magnitude) ?? SerialNumber.random(using: &random)
        let times = [Lab.now, Lab.now - 1, 0, DERTime.earliest, 2_524_607_999, 2_524_608_000, DERTime.latest]
        let time = random.chance(0.7) ? Lab.now - Int64(random.below(100_000_000)) : random.pick(times)
        return RevokedEntry(serial: serial, time: time, reason: random.pick(RevocationReason.allCases))
    }

    /// Against a dictionary, over many chunks.
    @Test(arguments: [1, 2, 3] as [UInt64])
    func insertionsAndRemovalsByASeed(seed: UInt64) throws {
        var random = SeededRandom(seed: seed), entries = RevokedEntries(), model: [SerialNumber: RevokedEntry] = [:]
        var serials: [SerialNumber] = []
        for step in 0..<20_000 {
            if random.chance(step < 12_000 ? 0.1 : 0.6), !serials.isEmpty {
                let serial = random.pick(serials)
                #expect(entries.remove(serial) == model.removeValue(forKey: serial), "seed \(seed), step \(step)")
            } else {
                let entry = Self.entry(&random)
                #expect(entries.insert(entry) == model.updateValue(entry, forKey: entry.serial), "seed \(seed)")
                serials.append(entry.serial)
            }
        }
        let expected = model.values.sorted { $0.serial < $1.serial }
        #expect(Array(entries) == expected && entries.count == expected.count, "seed \(seed)")
        #expect(entries.byteCount == entries.der.count)
        #expect(entries == RevokedEntries(expected.shuffled(using: &random)))
        #expect(RevokedEntries(der: entries.der) == entries)
        for serial in serials.prefix(2000) { #expect(entries[serial] == model[serial], "seed \(seed), \(serial)") }
        for serial in serials { entries.remove(serial) }
        #expect(entries == RevokedEntries() && entries.count == 0 && entries.byteCount == 0)
    }

    @Test func aHoldIsReleasedOrBecomesARevocation() throws {
        let serial = try #require(SerialNumber("80"))
        var entries = RevokedEntries(), before = entries
        entries.insert(RevokedEntry(serial: serial, time: 100, reason: .certificateHold))
        let held = entries
        #expect(held.differences(from: before).added.map(\.reason) == [.certificateHold])
        before = entries
        entries.insert(RevokedEntry(serial: serial, time: 200, reason: .keyCompromise))
        let difference = entries.differences(from: before)
        #expect(
            difference.added.map(\.reason) == [.keyCompromise] && difference.removed.map(\.reason) == [.certificateHold]
        )
        #expect(held[serial]?.reason == .certificateHold, "a copy does not change")
        #expect(entries.remove(serial)?.time == 200)
        #expect(entries.remove(serial) == nil)
        #expect(RevokedEntries().differences(from: held).removed.count == 1)
    }

    @Test(arguments: [4, 5, 6] as [UInt64])
    func differencesByASeed(seed: UInt64) {
        var random = SeededRandom(seed: seed), model: [SerialNumber: RevokedEntry] = [:]
        for _ in 0..<3000 {
            let entry = Self.entry(&random, serialBytes: 1...3)
            model[entry.serial] = entry
        }
        let before = RevokedEntries(model.values)
        var after = before
        for _ in 0..<300 { after.insert(Self.entry(&random, serialBytes: 1...3)) }
        for serial in model.keys.sorted().prefix(100) { after.remove(serial) }
        let difference = after.differences(from: before), old = Set(before), new = Set(after)
        #expect(difference.added == new.subtracting(old).sorted { $0.serial < $1.serial }, "seed \(seed)")
        #expect(difference.removed == old.subtracting(new).sorted { $0.serial < $1.serial }, "seed \(seed)")
        #expect(after.differences(from: after).isEmpty)
    }

    @Test func savedEntriesAreChecked() throws {
        let serials = try ["01", "80", "0100"].map { try #require(SerialNumber($0)) }
        let ders = serials.map { RevokedEntry(serial: $0, time: 0, reason: .superseded).der }
        #expect(RevokedEntries(der: ders.flatMap { $0 })?.map(\.serial) == serials)
        #expect(RevokedEntries(der: ders[1] + ders[0]) == nil, "not sorted")
        #expect(RevokedEntries(der: ders[0] + ders[0]) == nil, "twice")
        #expect(RevokedEntries(der: ders[0] + [0]) == nil)
        #expect(RevokedEntries(der: ders[0].dropLast()) == nil)
        let out = RevokedEntry(serial: serials[0], time: .max)
        #expect(out.time == DERTime.latest)
        for index in ders[1].indices {
            var changed = ders[1]
            changed[index] ^= 0x41
            if let entries = RevokedEntries(der: changed) { #expect(entries.der == changed) }
        }
    }
}

struct RevocationListTests {
    static func list(
        _ issuer: CertificateIssuer, _ entries: RevokedEntries, number: UInt64 = 1, at time: Int64 = Lab.now
    ) throws -> RevocationList {
        try RevocationList(
            der: issuer.crl(number: number, thisUpdate: time, nextUpdate: time + 7 * Lab.day, entries: entries))
    }

    @Test(arguments: KeyAlgorithm.allCases)
    func isReadAsItWasWritten(algorithm: KeyAlgorithm) throws {
        let issuer = try Lab.authority("CRL", algorithm)
        var random = SeededRandom(seed: 7)
        let entries = RevokedEntries((0..<1000).map { _ in RevokedEntriesTests.entry(&random) })
        let list = try Self.list(issuer, entries, number: 0xFF00_0000_0000_0000)
        #expect(list.entries == entries && list.number == 0xFF00_0000_0000_0000)
        #expect(list.thisUpdate == Lab.now && list.nextUpdate == Lab.now + 7 * Lab.day)
        #expect(list.issuer == issuer.certificate.subject && list.issuerText == "CN=CRL,O=Lab")
        try list.verify(signedBy: issuer.certificate)
        // From number, times, entries and signature the CRL can be made again to the bit.
        let tbs = try CRLBuilder.tbs(
            issuer: issuer.certificate, number: 0xFF00_0000_0000_0000, thisUpdate: list.thisUpdate,
            nextUpdate: list.nextUpdate, entries: entries, signatureAlgorithm: issuer.signer.signatureAlgorithm)
        #expect(list.tbs == tbs)
        let again = CRLBuilder.assemble(
            tbs: tbs, signatureAlgorithm: issuer.signer.signatureAlgorithm, signature: list.signature)
        #expect(again == list.der)
    }

    @Test func anEmptyListLeavesTheFieldOut() throws {
        let issuer = try Lab.authority(), list = try Self.list(issuer, RevokedEntries())
        #expect(list.entries.count == 0)
        try list.verify(signedBy: issuer.certificate)
        try Lab.withFolder { folder in
            let path = folder + "/crl.pem"
            try Data(list.pem()).write(to: URL(fileURLWithPath: path))
            #expect(
                try Lab.run(["openssl", "crl", "-in", path, "-noout", "-text"]).output.contains(
                    "No Revoked Certificates"))
        }
    }

    @Test func timesAtTheEdges() throws {
        let issuer = try Lab.authority()
        for time in [DERTime.earliest, 2_524_608_000 - 7 * Lab.day, 2_524_608_000, DERTime.latest - 7 * Lab.day] {
            #expect(try Self.list(issuer, RevokedEntries(), at: time).thisUpdate == time)
        }
        for (this, next) in [(DERTime.earliest - 1, 0), (0, 0), (5, 4), (0, DERTime.latest + 1)] as [(Int64, Int64)] {
            let refused = failure {
                try issuer.crl(number: 1, thisUpdate: this, nextUpdate: next, entries: RevokedEntries())
            }
            #expect(refused.code == .invalid, "\(this) \(next)")
        }
    }

    @Test func aListOfAnotherIssuerOrAChangedOneIsRefused() throws {
        let issuer = try Lab.authority(), list = try Self.list(issuer, RevokedEntries())
        let other = try Lab.authority("Other").certificate, sameName = try Lab.authority("Lab Root", .p384).certificate
        #expect(failure { try list.verify(signedBy: other) }.text.contains("not a CRL of CN=Other,O=Lab"))
        #expect(failure { try list.verify(signedBy: sameName) }.text.contains("signature does not verify"))
        let device = try issuer.issue(Lab.device(), publicKey: Lab.key().publicKey, serial: .random())
        #expect(failure { try list.verify(signedBy: device) }.text.contains("may not sign CRLs"))
        let refused = failure {
            try CRLBuilder.tbs(
                issuer: device, number: 1, thisUpdate: 0, nextUpdate: 1, entries: RevokedEntries(),
                signatureAlgorithm: [])
        }
        #expect(refused.text.contains("may not sign CRLs"))
        var der = list.der
        let at = try #require(der.firstRange(of: Array("Lab Root".utf8))).lowerBound
        der[at] = UInt8(ascii: "B")
        #expect(failure { try RevocationList(der: der).verify(signedBy: issuer.certificate) }.code == .untrusted)
    }

    @Test func aFileHoldsTheListsOfSeveralIssuers() throws {
        let lists = try ["A", "B", "C"].map { try Self.list(Lab.authority($0), RevokedEntries()) }
        let text = try lists.flatMap { try $0.pem() }
        #expect(try RevocationList.all(pem: text) == lists)
        #expect(failure { try RevocationList.all(pem: []) }.text.contains("-----BEGIN X509 CRL-----"))
        #expect(failure { try RevocationList.all(pem: text.dropLast(40)) }.code == .malformed)
    }

    @Test func differencesBetweenLists() throws {
        let issuer = try Lab.authority(), serial = try #require(SerialNumber("00ff"))
        var entries = RevokedEntries([RevokedEntry(serial: .random(), time: 0)])
        let first = try Self.list(issuer, entries)
        entries.insert(RevokedEntry(serial: serial, time: 5, reason: .keyCompromise))
        let second = try Self.list(issuer, entries, number: 2)
        #expect(second.differences(from: first).added.map(\.serial) == [serial])
        #expect(first.differences(from: second).removed.map(\.reason) == [.keyCompromise])
        #expect(second.differences(from: second).isEmpty)
    }

    /// What OpenSSL can write and a complete CRL must not have: taken for one, it would lose entries.
    @Test func partialListsAreRefused() throws {
        try Lab.withFolder { folder in
            try Lab.key().create(folder + "/ca.key")
            try Data(Lab.authority().certificate.pem()).write(to: URL(fileURLWithPath: folder + "/ca.pem"))
            func made(_ extensions: String, days: String = "-crldays 7") throws -> [UInt8] {
                let config = """
                    [ca]
                    default_ca = c
                    [c]
                    database = \(folder)/index.txt
                    default_md = sha256
                    [x]
                    \(extensions)
                    """
                try config.write(toFile: folder + "/ca.cnf", atomically: true, encoding: .utf8)
                try "R\t270101000000Z\t260601000000Z,keyCompromise\t8001\tunknown\t/CN=x\n".write(
                    toFile: folder + "/index.txt", atomically: true, encoding: .utf8)
                let command =
                    "cd \(folder) && openssl ca -config ca.cnf -gencrl -cert ca.pem -keyfile ca.key \(days) "
                    + "-crlexts x -out crl.pem"
                let made = try Lab.run(["sh", "-c", command])
                #expect(made.code == 0, "\(made.output)")
                return try Array(Data(contentsOf: URL(fileURLWithPath: folder + "/crl.pem")))
            }
            let list = try #require(try RevocationList.all(pem: made("authorityKeyIdentifier=keyid")).first)
            #expect(list.number == nil && list.entries.map(\.serial.description) == ["8001"])
            #expect(list.entries.map(\.reason) == [.keyCompromise] && list.entries.map(\.time) == [1_780_272_000])
            try list.verify(signedBy: Lab.authority().certificate)
            let delta = failure { try RevocationList.all(pem: made("2.5.29.27=critical,DER:02:01:01")) }
            #expect(delta.code == .unsupported && delta.text.contains("X509v3 Delta CRL Indicator"), "\(delta)")
            let shard = failure {
                try RevocationList.all(pem: made("issuingDistributionPoint=critical,@i\n[i]\nonlyuser=TRUE"))
            }
            #expect(shard.code == .unsupported && shard.text.contains("Issuing Distribution"), "\(shard)")
        }
    }
}
