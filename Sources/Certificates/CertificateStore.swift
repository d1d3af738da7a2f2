import EventModel
import PKI
import Primitives

/// Certificates by serial number, device and key, in about 170 bytes each: a million of them fit in a quarter of a
/// gigabyte. Their DER is in the log, at `Record.position`.
struct CertificateStore: Sendable {
    /// Number of a record; that of a removed one is used again.
    typealias Index = UInt32

    struct Record: Sendable {
        let serial: SerialNumber
        /// Index in `CertificateRegistry.authorities`.
        let authority: UInt16
        var status: CertificateStatus
        /// Of a revoked one.
        var reason = RevocationReason.unspecified
        let isImported: Bool
        /// An operator has ordered its renewal.
        var isDue = false
        var weakness = CertificateWeakness.none
        fileprivate let tenant: UInt32
        fileprivate let device: ByteRange
        /// Seconds since 1970.
        let notBefore: Int64
        let notAfter: Int64
        /// SHA-256 of its SubjectPublicKeyInfo.
        let key: Digest
        /// Of the event that added it.
        let position: Position
        /// Of the last change of its status.
        var changedAt: Timestamp
        /// Position of the event that changed its status last; nil: unchanged, or restored from an older snapshot.
        var changedPosition: Position?
        /// Certificates of its device, added before and after it; `none` at the ends.
        fileprivate(set) var older: Index
        fileprivate(set) var newer = CertificateStore.none
        /// The one that it replaces or is to replace, and the one that replaces it.
        var renews = CertificateStore.none
        var replacedBy = CertificateStore.none
    }

    fileprivate struct ByteRange: Sendable {
        let start: UInt32
        let count: UInt8
    }

    static let none = Index.max

    /// In chunks: a growing array of a million records would need room for three millions.
    private var chunks: [ContiguousArray<Record?>] = []
    private static let chunkCount = 1 << 12
    private var free: [Index] = []
    private(set) var count = 0
    private var names: [UInt8] = []
    private var tenants: [String] = []
    private var tenantIndexes: [String: UInt32] = [:]
    private var bySerial = HashIndex()
    /// Newest certificate of each device.
    private var byDevice = HashIndex()
    private var byKey = HashIndex()

    /// - Precondition: `index` is of a record.
    private(set) subscript(index: Index) -> Record {
        get { chunks[Int(index) / Self.chunkCount][Int(index) % Self.chunkCount]! }
        set { chunks[Int(index) / Self.chunkCount][Int(index) % Self.chunkCount] = newValue }
    }

    func contains(_ index: Index) -> Bool {
        let chunk = Int(index) / Self.chunkCount, place = Int(index) % Self.chunkCount
        return chunk < chunks.count && place < chunks[chunk].count && chunks[chunk][place] != nil
    }

    mutating func update(_ index: Index, _ body: (inout Record) -> Void) { body(&self[index]) }

    var indexes: some Sequence<Index> { indexes(after: nil) }

    func indexes(after: Index?) -> some Sequence<Index> {
        let begin = after.map { $0.saturatingAdding(1) } ?? 0, end = Index(chunks.count * Self.chunkCount)
        return (min(begin, end)..<end).lazy.filter {
            let chunk = Int($0) / Self.chunkCount, place = Int($0) % Self.chunkCount
            return place < chunks[chunk].count && chunks[chunk][place] != nil
        }
    }

    // MARK: Search

    func find(authority: UInt16, serial: SerialNumber) -> Index? {
        bySerial.first(Self.hash(authority, serial)) {
            self[$0].authority == authority && self[$0].serial == serial
        }
    }

    /// The certificates of a device, the newest first.
    func certificates(tenantID: String, deviceID: String) -> [Index] {
        certificates(from: newest(tenantID, Array(deviceID.utf8)) ?? Self.none)
    }

    var newestOfEachDevice: some Sequence<Index> { indexes.lazy.filter { self[$0].newer == Self.none } }

    /// This certificate and the older ones of its device.
    func certificates(from index: Index) -> [Index] {
        var found: [Index] = [], next = index
        while next != Self.none {
            found.append(next)
            next = self[next].older
        }
        return found
    }

    /// - Returns: a certificate of this key that is `wanted`; nil: there is none.
    func first(withKey key: Digest, where isWanted: (Index) -> Bool) -> Index? {
        byKey.first(Self.hash(key)) { self[$0].key == key && isWanted($0) }
    }

    /// A certificate of this key, of another device than this one; nil: there is none.
    func otherDevice(withKey key: Digest, tenantID: String, deviceID: String) -> Index? {
        let device = Array(deviceID.utf8), tenant = tenantIndexes[tenantID] ?? Self.none
        return byKey.first(Self.hash(key)) {
            self[$0].key == key && !(self[$0].tenant == tenant && bytes(self[$0].device).elementsEqual(device))
        }
    }

    /// A certificate with the same key, of another device, that is `wanted`; nil: there is none.
    func otherDevice(sharingKeyOf index: Index, where isWanted: (Index) -> Bool) -> Index? {
        let record = self[index]
        return byKey.first(Self.hash(record.key)) { other in
            let candidate = self[other]
            guard other != index, candidate.key == record.key, isWanted(other) else { return false }
            return candidate.tenant != record.tenant || bytes(candidate.device) != bytes(record.device)
        }
    }

    func isOfDevice(_ index: Index, beginningWith prefix: [UInt8]) -> Bool {
        bytes(self[index].device).starts(with: prefix)
    }

    /// Index in `tenantIDs`.
    func tenantNumber(of index: Index) -> Int { Int(self[index].tenant) }

    /// Of all tenants that have, or had, a certificate.
    var tenantIDs: [String] { tenants }

    func tenantID(of index: Index) -> String { tenants[Int(self[index].tenant)] }
    func deviceID(of index: Index) -> String { String(decoding: bytes(self[index].device), as: UTF8.self) }

    private func newest(_ tenantID: String, _ device: [UInt8]) -> Index? {
        guard let tenant = tenantIndexes[tenantID] else { return nil }
        return byDevice.first(Self.hash(tenant, device[...])) {
            self[$0].tenant == tenant && bytes(self[$0].device).elementsEqual(device)
        }
    }

    private func bytes(_ range: ByteRange) -> ArraySlice<UInt8> {
        names[Int(range.start)..<Int(range.start) + Int(range.count)]
    }

    // MARK: Change

    /// - Precondition: no certificate has this authority and serial number, and the device's id keeps to the grammar.
    @discardableResult
    mutating func add(
        authority: UInt16, serial: SerialNumber, tenantID: String, deviceID: String, key: Digest, notBefore: Int64,
        notAfter: Int64, isImported: Bool, position: Position, at time: Timestamp
    ) -> Index {
        let device = Array(deviceID.utf8), tenant = intern(tenantID), newest = newest(tenantID, device)
        precondition(device.count <= UInt8.max && names.count <= UInt32.max, "too many bytes of device ids")
        let range =
            newest.map { self[$0].device } ?? ByteRange(start: UInt32(names.count), count: UInt8(device.count))
        if newest == nil { names += device }
        let index = insert(
            Record(
                serial: serial, authority: authority, status: .active, isImported: isImported, tenant: tenant,
                device: range, notBefore: notBefore, notAfter: notAfter, key: key, position: position,
                changedAt: time, older: newest ?? Self.none))
        bySerial.insert(index, Self.hash(authority, serial))
        byKey.insert(index, Self.hash(key))
        let hash = Self.hash(tenant, device[...])
        if let newest {
            self[newest].newer = index
            byDevice.replace(newest, by: index, hash)
        } else {
            byDevice.insert(index, hash)
        }
        return index
    }

    mutating func remove(_ index: Index) {
        let record = self[index]
        bySerial.remove(index, Self.hash(record.authority, record.serial))
        byKey.remove(index, Self.hash(record.key))
        let device = Self.hash(record.tenant, bytes(record.device))
        if record.newer != Self.none {
            self[record.newer].older = record.older
        } else if record.older != Self.none {
            byDevice.replace(index, by: record.older, device)
        } else {
            byDevice.remove(index, device)
        }
        if record.older != Self.none { self[record.older].newer = record.newer }
        // Only certificates of the same device refer to it.
        for step in [\Record.older, \Record.newer] {
            var other = record[keyPath: step]
            while other != Self.none {
                if self[other].renews == index { self[other].renews = Self.none }
                if self[other].replacedBy == index { self[other].replacedBy = Self.none }
                other = self[other][keyPath: step]
            }
        }
        chunks[Int(index) / Self.chunkCount][Int(index) % Self.chunkCount] = nil
        free.append(index)
        count -= 1
    }

    private mutating func insert(_ record: Record) -> Index {
        count += 1
        if let index = free.popLast() {
            chunks[Int(index) / Self.chunkCount][Int(index) % Self.chunkCount] = record
            return index
        }
        if chunks.last?.count ?? Self.chunkCount == Self.chunkCount {
            chunks.append([])
            chunks[chunks.count - 1].reserveCapacity(Self.chunkCount)
        }
        chunks[chunks.count - 1].append(record)
        return Index((chunks.count - 1) * Self.chunkCount + chunks[chunks.count - 1].count - 1)
    }

    private mutating func intern(_ tenantID: String) -> UInt32 {
        if let index = tenantIndexes[tenantID] { return index }
        tenants.append(tenantID)
        tenantIndexes[tenantID] = UInt32(tenants.count - 1)
        return UInt32(tenants.count - 1)
    }

    // MARK: Hashes

    private static func hash(_ authority: UInt16, _ serial: SerialNumber) -> UInt32 {
        var hasher = Hasher()
        hasher.combine(authority)
        hasher.combine(serial)
        return UInt32(truncatingIfNeeded: hasher.finalize())
    }

    private static func hash(_ tenant: UInt32, _ device: ArraySlice<UInt8>) -> UInt32 {
        var hasher = Hasher()
        hasher.combine(tenant)
        device.withUnsafeBytes { hasher.combine(bytes: $0) }
        return UInt32(truncatingIfNeeded: hasher.finalize())
    }

    private static func hash(_ key: Digest) -> UInt32 { UInt32(truncatingIfNeeded: key.hashValue) }
}
