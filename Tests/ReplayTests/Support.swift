import EventLog
import EventModel
import Foundation
import TestSupport

/// A data folder with a log in it, deleted with the object.
final class DataFolder {
    let path: String
    var logPath: String { path + "/log" }

    init() throws { path = try makeTemporaryFolder("replay") }
    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// Appends what `fill` puts into a batch, as one commit.
    /// - Parameter isSigned: with a key in the folder, and a checkpoint in the end.
    func append(isSigned: Bool = false, _ fill: (inout RecordBatch) -> Void) throws {
        var options = FileLogOptions()
        options.isKeeping = false
        let path = path
        if isSigned { options.signer = { (id) throws(LogError) in try LogKey.open(dataFolder: path, logID: id) } }
        let log = try FileLog.open(directory: logPath, options: options)
        var batch = RecordBatch()
        fill(&batch)
        _ = try log.append(&batch)
        log.close()
    }

    func open() throws -> ReadOnlyLog { try ReadOnlyLog(directory: logPath) }
}

/// A moment in the past, so many seconds after a fixed one.
func moment(_ seconds: Double) -> Timestamp {
    Timestamp(rfc3339: "2026-11-20T08:00:00Z")!.adding(microseconds: Int64(seconds * 1_000_000))
}

extension RecordBatch {
    mutating func message(
        _ topic: String, _ payload: String, at time: Timestamp = moment(0), verdict: Verdict = .accepted,
        flags: RecordFlags = RecordFlags(qos: 1), properties: [UInt8] = [], arrived: Int? = nil
    ) {
        Array("main".utf8).withUnsafeBytes { broker in
            Array(topic.utf8).withUnsafeBytes { topic in
                properties.withUnsafeBytes { properties in
                    Array(payload.utf8).withUnsafeBytes { payload in
                        append(
                            kind: .message, verdict: verdict, flags: flags, receivedAt: time, packetID: 1,
                            broker: broker, topic: topic, properties: properties, payload: payload,
                            originalPayloadLength: arrived)
                    }
                }
            }
        }
    }
}

func telemetry(_ device: String) -> String { "tenant/acme/device/\(device)/telemetry" }

/// `mosquitto_sub` over MQTT 5: what arrives, with its properties.
final class PropertyWitness: Sendable {
    struct Arrival: Equatable {
        var topic: String
        var payload: String
        /// `name:value`, in the order of the message.
        var properties: [String]
        var contentType: String
    }

    private let child: ChildProcess
    private let output: String

    init(_ server: MosquittoServer, topic: String = "#") async throws {
        output = server.folder + "/properties.out"
        child = try ChildProcess(
            [
                "/usr/bin/mosquitto_sub", "-V", "mqttv5", "-p", "\(server.port)", "-q", "1", "-t", topic, "-t",
                "witness/ready", "-F", "%t\t%p\t%P\t%C",
            ], log: output)
        let ready = await eventually {
            try? MosquittoWitness.publish(server, topic: "witness/ready", payload: "1")
            return Self.lines(output).contains { $0.hasPrefix("witness/ready") }
        }
        guard ready else { throw SystemError("mosquitto_sub does not answer") }
    }

    var arrivals: [Arrival] {
        Self.lines(output).filter { !$0.hasPrefix("witness/ready") }.map { line in
            let parts = line.split(separator: "\t", omittingEmptySubsequences: false).map(String.init)
            return Arrival(
                topic: parts[0], payload: parts[1], properties: parts[2].split(separator: " ").map(String.init),
                contentType: parts[3])
        }
    }

    private static func lines(_ path: String) -> [Substring] {
        let text = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
        guard let end = text.lastIndex(of: "\n") else { return [] }
        return text[..<end].split(separator: "\n")
    }
}
