import EventModel
import Glibc
import Primitives

/// NDJSON, handed to the kernel in whole lines.
final class LineFile {
    private let descriptor: CInt
    private let path: String
    var line = JSONText(capacity: 64 << 10)
    private static let bufferBytesMax = 48 << 10

    /// Begins an empty file at `path`.
    init(path: String, option: String) throws(FleetError) {
        descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        self.path = path
        guard descriptor >= 0 else {
            throw .invalid("--\(option): cannot write \(path): \(String(cString: strerror(errno)))")
        }
    }

    deinit { close(descriptor) }

    func endLine() throws(FleetError) {
        line.raw("}\n")
        if line.bytes.count >= Self.bufferBytesMax { try flush() }
    }

    /// Hands whole lines to the kernel, so that they outlive this process.
    func flush() throws(FleetError) {
        var written = 0
        while written < line.bytes.count {
            let count = line.bytes.withUnsafeBytes {
                Glibc.write(descriptor, $0.baseAddress! + written, $0.count - written)
            }
            if count < 0 {
                if errno == EINTR { continue }
                throw .ledger("cannot write \(path): \(String(cString: strerror(errno)))")
            }
            written += count
        }
        line.clear()
    }
}

/// The outside witness: one NDJSON line a publish, written when its fate is known. A line that says
/// `"acknowledged":true` is written only after the PUBACK, so what a killed run leaves behind can be trusted:
/// every line in it is true, and what is missing was not yet known.
final class Ledger {
    private let file: LineFile

    /// Begins an empty file at `path`.
    init(path: String) throws(FleetError) { file = try LineFile(path: path, option: "ledger") }

    static func digest(_ payload: [UInt8]) -> [UInt8] { SHA256.digest(payload).bytes }

    func write(_ publish: Publish, acknowledged: Bool, shape: FleetShape) throws(FleetError) {
        file.line.raw("{\"topic\":")
        file.line.string(publish.topic)
        file.line.raw(",\"sha256\":\"")
        file.line.hex(publish.digest)
        file.line.raw(acknowledged ? "\",\"acknowledged\":true" : "\",\"acknowledged\":false")
        file.line.raw(",\"tenant\":\"\(shape.tenant(ofDevice: publish.device))\"")
        file.line.raw(",\"device\":\"\(shape.device(publish.device))\"")
        file.line.raw(",\"kind\":\"\(publish.kind.rawValue)\",\"seq\":\(publish.seq)")
        if let index = publish.index { file.line.raw(",\"index\":\(index)") }
        if publish.isDuplicate { file.line.raw(",\"duplicate\":true") }
        if let defect = publish.defect {
            file.line.raw(",\"defect\":\"\(defect.rawValue)\",\"reason\":\"\(defect.reason)\"")
        }
        try file.endLine()
    }

    func flush() throws(FleetError) { try file.flush() }
}

/// What devices were told and what they said of it: the devices' side of a campaign, one NDJSON line each.
///
///     {"at":"…Z","event":"command","tenant":…,"device":…,"campaign_id":1,"command_id":7,"version":"2.0",
///      "retained":false,"repeated":false}
///     {"at":"…Z","event":"report","tenant":…,"device":…,"campaign_id":1,"command_id":7,"status":"DOWNLOADING"}
final class OTALedger {
    private let file: LineFile
    private let shape: FleetShape

    init(path: String, shape: FleetShape) throws(FleetError) {
        file = try LineFile(path: path, option: "ota-ledger")
        self.shape = shape
    }

    func command(_ command: OTACommand, device: Int, isRetained: Bool, isRepeated: Bool) throws(FleetError) {
        begin("command", command, device)
        file.line.raw(",\"version\":")
        file.line.string(command.version)
        file.line.raw(",\"retained\":\(isRetained),\"repeated\":\(isRepeated)")
        try file.endLine()
    }

    func report(_ update: OTAUpdate, device: Int) throws(FleetError) {
        begin("report", update.command, device)
        file.line.raw(",\"status\":\"\(update.stage.rawValue)\"")
        try file.endLine()
    }

    private func begin(_ event: String, _ command: OTACommand, _ device: Int) {
        let now = Timestamp(microseconds: SystemTime.wallMicroseconds())
        file.line.raw("{\"at\":\"\(now.description)\",\"event\":\"\(event)\"")
        file.line.raw(",\"tenant\":\"\(shape.tenant(ofDevice: device))\",\"device\":\"\(shape.device(device))\"")
        file.line.raw(",\"campaign_id\":\(command.campaignID)")
        if let id = command.commandID { file.line.raw(",\"command_id\":\(id)") }
    }

    func flush() throws(FleetError) { try file.flush() }
}
