import EventModel

/// When each device has a live certificate: 70 to 110 bytes a device. Those that never had one are not in it.
package struct LiveCertificates: Sendable {
    /// Seconds since 1970, both ends included. A time beyond 2106 counts as that.
    struct Validity: Sendable, Equatable {
        let from: UInt32
        let until: UInt32

        static var never: Validity { Validity(from: 1, until: 0) }

        init(from: UInt32, until: UInt32) { (self.from, self.until) = (from, until) }

        init(_ range: ClosedRange<Int64>) {
            self.init(from: UInt32(clamping: range.lowerBound), until: UInt32(clamping: range.upperBound))
        }

        @inline(__always)
        func contains(_ seconds: UInt32) -> Bool { from <= seconds && seconds <= until }
        func contains(_ other: Validity) -> Bool { from <= other.from && other.until <= until }
    }

    /// Changes whenever the validity of a device shrinks: until then, what was live once stays so.
    var version: UInt64 = 1

    private var devices = DeviceTable<Validity>()
    /// Of the few devices whose validity has gaps: what follows the first gap, by index in `devices`.
    private var later: [Int: [Validity]] = [:]

    package init() {}

    /// Devices that have, or had, a live certificate.
    package var count: Int { devices.count }

    /// - Parameter validity: when the device has a live certificate, in seconds since 1970, ascending and apart.
    package mutating func set(tenantID: String, deviceID: String, _ validity: [ClosedRange<Int64>]) {
        var address = "tenant/\(tenantID)/device/\(deviceID)"
        address.withUTF8 { address in
            let address = UnsafeRawBufferPointer(address), hash = DeviceHash(address)
            let first = validity.first.map(Validity.init) ?? .never, index: Int
            if let found = devices.find(address, hash) {
                index = found
                let former = devices.entries[index]
                if former != .never, later[index] != nil || !first.contains(former) { version += 1 }
                devices.entries[index] = first
            } else {
                guard !validity.isEmpty else { return }
                index = devices.insert(address, hash, first)
            }
            if !later.isEmpty || validity.count > 1 {
                later[index] = validity.count > 1 ? validity.dropFirst().map(Validity.init) : nil
            }
        }
    }

    /// The validity of the device's certificates that contains this time, in seconds since 1970; nil: none.
    /// - Parameter address: `tenant/{t}/device/{d}`.
    func validity(of address: UnsafeRawBufferPointer, _ hash: DeviceHash, at seconds: UInt32) -> Validity? {
        guard let index = devices.find(address, hash) else { return nil }
        let first = devices.entries[index]
        if first.contains(seconds) { return first }
        guard !later.isEmpty, let more = later[index] else { return nil }
        return more.first { $0.contains(seconds) }
    }
}
