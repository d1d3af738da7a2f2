// Simulation: worlds in which everything fails, by a seed. The code under test is the real one; models stand for what
// is outside. A seed and a number of steps reproduce a run exactly.
//
//     World            devices, brokers, writers, projectors, readers and a database, over a disk whose power goes
//     SessionWorld     one persistent MQTT session, and everything that can cut it
//     CampaignWorld    the campaign engine among devices that fail in every way
//     CertificateWorld certificates, CRLs and brokers, between everything that can fail in between
//     JobWorld         jobs, queues and workers, between everything that can fail in between
//     AbortQuality     how good the rule is that ends a campaign
//     SimulatedDisk    the disk beneath them

extension ClosedRange<UInt64> {
    /// Seeds as people name them: `N`, or `A..B` with B included; nil when the text is neither.
    public init?(seeds text: String) {
        let ends = text.split(separator: ".").map { UInt64($0) }
        guard ends.count == 2 || UInt64(text) != nil, let first = ends[0], let last = ends[ends.count - 1],
            first <= last
        else { return nil }
        self = first...last
    }
}

/// Hash of a run's trace: two runs of a seed must end with the same.
public struct TraceHash: Sendable, Equatable {
    public private(set) var value: UInt64 = 0xCBF2_9CE4_8422_2325
    public private(set) var count: UInt64 = 0

    public mutating func mix(_ number: UInt64) {
        var z = value ^ number
        z = (z ^ (z >> 32)) &* 0xD6E8_FEB8_6659_FD93
        z = (z ^ (z >> 29)) &* 0x9FB2_1C65_1E98_DF25
        value = z ^ (z >> 32)
        count += 1
    }

    public mutating func mix(_ number: Int) { mix(UInt64(bitPattern: Int64(number))) }

    public mutating func mix(_ text: String) {
        for byte in text.utf8 { value = (value ^ UInt64(byte)) &* 0x100_0000_01B3 }  // FNV-1a
        mix(UInt64(text.utf8.count))
    }

    public mutating func mix(_ bytes: UnsafeRawBufferPointer) {
        var offset = 0, sum: UInt64 = 0
        while offset + 8 <= bytes.count {
            let word = bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
            sum = (sum ^ word) &* 0x9FB2_1C65_1E98_DF25
            sum ^= sum >> 31
            offset += 8
        }
        while offset < bytes.count {
            sum = (sum ^ UInt64(bytes[offset])) &* 0x100_0000_01B3
            offset += 1
        }
        mix(sum)
    }
}
