import EventModel
import PKI
import Primitives
import Testing
@testable import Certificates

/// The store beside a dictionary, over random histories.
@Suite struct StoreTests {
    private struct Known {
        let authority: UInt16
        let serial: SerialNumber
        let device: String
        let key: Digest
        let position: UInt64
    }

    @Test(arguments: 1...6 as ClosedRange<UInt64>) func itFindsWhatWasAddedAndNotRemoved(seed: UInt64) {
        var random = SeededRandom(seed: seed), store = CertificateStore(), known: [CertificateStore.Index: Known] = [:]
        for step in 0..<1_500 as Range<UInt64> {
            let authority = UInt16.random(in: 0..<3, using: &random)
            if known.isEmpty || Int.random(in: 0..<3, using: &random) > 0 {
                let serial = SerialNumber(UInt64.random(in: 1...4_000, using: &random))!
                let device = "device-\(Int.random(in: 0..<200, using: &random))"
                let expected = known.first { $0.value.authority == authority && $0.value.serial == serial }?.key
                #expect(store.find(authority: authority, serial: serial) == expected)
                guard expected == nil else { continue }
                let key = SHA256.digest("\(serial.description.count % 2)\(step % 500)".utf8)
                let index = store.add(
                    authority: authority, serial: serial, tenantID: "t\(device.utf8.count % 2)", deviceID: device,
                    key: key, notBefore: 0, notAfter: 1, isImported: false, position: Position(step),
                    at: Timestamp(microseconds: 0))
                #expect(known[index] == nil)
                known[index] = Known(authority: authority, serial: serial, device: device, key: key, position: step)
            } else {
                let index = known.keys.sorted()[Int.random(in: 0..<known.count, using: &random)]
                store.remove(index)
                known[index] = nil
            }
            guard step % 100 == 0 else { continue }
            #expect(store.count == known.count && store.indexes.sorted() == known.keys.sorted())
            for device in Set(known.values.map(\.device)) {
                let tenant = "t\(device.utf8.count % 2)"
                let expected = known.values.filter { $0.device == device }.map(\.position).sorted(by: >)
                let found = store.certificates(tenantID: tenant, deviceID: device)
                #expect(found.map { store[$0].position.rawValue } == expected, "seed \(seed), \(device)")
                #expect(found.allSatisfy { store.deviceID(of: $0) == device && store.tenantID(of: $0) == tenant })
            }
            for (_, entry) in known {
                let others = known.values.contains { $0.key == entry.key && $0.device != entry.device }
                let tenant = "t\(entry.device.utf8.count % 2)"
                let found = store.otherDevice(withKey: entry.key, tenantID: tenant, deviceID: entry.device)
                #expect((found != nil) == others, "seed \(seed)")
            }
        }
    }

    /// A superseded certificate may be valid for longer than the one that replaced it, and need not be renewed by it.
    @Test func nothingRefersToARemovedCertificate() {
        var store = CertificateStore()
        let indexes = (1...3 as ClosedRange<UInt64>).map { serial in
            store.add(
                authority: 0, serial: SerialNumber(serial)!, tenantID: "t", deviceID: "d",
                key: SHA256.digest("\(serial)".utf8), notBefore: 0, notAfter: 1, isImported: false,
                position: Position(serial), at: Timestamp(microseconds: 0))
        }
        store.update(indexes[0]) { $0.replacedBy = indexes[1] }
        store.update(indexes[2]) { $0.renews = indexes[1] }
        store.remove(indexes[1])
        #expect(store[indexes[0]].replacedBy == CertificateStore.none)
        #expect(store[indexes[2]].renews == CertificateStore.none)
    }
}
