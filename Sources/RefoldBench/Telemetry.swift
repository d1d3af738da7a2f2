import EventModel

/// Telemetry as a fleet sends it, the same every time: about 170 bytes of JSON that differ in what really differs.
struct Telemetry {
    private let devices: [[UInt8]]
    private let broker = Array("main".utf8)
    private var state: UInt64 = 0x9E37_79B9_7F4A_7C15
    private var number = 0
    private var payload: [UInt8] = []

    init(devices count: Int) {
        devices = (0..<count).map { Array("tenant/tenant-\($0 % 4)/device/dev-\(100_000 + $0)/telemetry".utf8) }
    }

    /// Fills `batch` with `count` messages, one microsecond apart from `time` on.
    mutating func fill(_ batch: inout RecordBatch, count: Int, from time: Timestamp) {
        batch.removeAll()
        let second = time.description.prefix(19)
        for index in 0..<count {
            let random = next()
            let device = number % devices.count
            number += 1
            payload.removeAll(keepingCapacity: true)
            let centi = 1800 + random % 900, humidity = 300 + random >> 10 % 400, volts = 3500 + random >> 20 % 700
            payload.append(
                contentsOf: """
                    {"ts":"\(second).\(100 + random >> 30 % 900)Z","site_id":"site-\(10 + device % 90)",\
                    "seq":\(number),"metrics":{"temperature_c":\(centi / 100).\(centi % 100),\
                    "humidity_pct":\(humidity / 10).\(humidity % 10),\
                    "battery_v":\(volts / 1000).\(volts % 1000),"rssi_dbm":-\(40 + random >> 40 % 60),"ok":true}}
                    """.utf8)
            broker.withUnsafeBytes { broker in
                devices[device].withUnsafeBytes { topic in
                    payload.withUnsafeBytes { payload in
                        batch.append(
                            kind: .message, verdict: .accepted, flags: RecordFlags(qos: 1),
                            receivedAt: time.adding(microseconds: Int64(index)),
                            packetID: UInt16(truncatingIfNeeded: number | 1), broker: broker, topic: topic,
                            properties: UnsafeRawBufferPointer(start: nil, count: 0), payload: payload)
                    }
                }
            }
        }
    }

    /// xorshift64*
    private mutating func next() -> UInt64 {
        state ^= state >> 12
        state ^= state << 25
        state ^= state >> 27
        return (state &* 0x2545_F491_4F6C_DD1D) >> 8
    }
}
