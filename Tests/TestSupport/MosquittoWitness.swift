import Foundation

/// An independent witness: `mosquitto_sub` at QoS 1 with a session of its own, so that it misses nothing while the
/// broker restarts.
public final class MosquittoWitness: Sendable {
    public struct Arrival: Hashable, Sendable {
        public let topic: String
        public let payload: [UInt8]
    }

    private let child: ChildProcess
    private let output: String

    public init(_ server: MosquittoServer, topic: String = "tenant/+/device/+/#", session: String = "witness")
        async throws
    {
        output = server.folder + "/\(session).out"
        child = try ChildProcess(
            [
                "/usr/bin/mosquitto_sub", "-p", "\(server.port)", "-q", "1", "-c", "-i", session, "-t", topic,
                "-t", "witness/ready", "-F", "%t\t%x",
            ], log: output)
        // Subscribed once a message that was sent after it comes back.
        let ready = await eventually {
            try? MosquittoWitness.publish(server, topic: "witness/ready", payload: "1")
            return Self.lines(output).contains { $0.hasPrefix("witness/ready") }
        }
        guard ready else { throw SystemError("mosquitto_sub does not answer: \(Self.lines(output))") }
    }

    /// All messages so far, in their order.
    public var arrivals: [Arrival] {
        Self.lines(output).compactMap { line in
            let parts = line.split(separator: "\t", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2, parts[0] != "witness/ready", let payload = Self.bytes(hex: parts[1])
            else { return nil }
            return Arrival(topic: String(parts[0]), payload: payload)
        }
    }

    /// One message at QoS 1, acknowledged when this returns.
    public static func publish(_ server: MosquittoServer, topic: String, payload: String, retain: Bool = false) throws {
        let arguments =
            [
                "/usr/bin/mosquitto_pub", "-p", "\(server.port)", "-q", "1", "-t", topic, "-m", payload,
            ] + (retain ? ["-r"] : [])
        let child = try ChildProcess(arguments, log: server.folder + "/pub.out")
        child.wait()
    }

    /// Whole lines only: the last may still be on its way.
    private static func lines(_ path: String) -> [Substring] {
        let text = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
        guard let end = text.lastIndex(of: "\n") else { return [] }
        return text[..<end].split(separator: "\n")
    }

    private static func bytes(hex: Substring) -> [UInt8]? {
        let digits = Array(hex.utf8)
        guard digits.count.isMultiple(of: 2) else { return nil }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(digits.count / 2)
        for index in stride(from: 0, to: digits.count, by: 2) {
            guard let high = Self.value(digits[index]), let low = Self.value(digits[index + 1]) else { return nil }
            bytes.append(high << 4 | low)
        }
        return bytes
    }

    private static func value(_ digit: UInt8) -> UInt8? {
        switch digit {
        case 0x30...0x39: digit - 0x30
        case 0x41...0x46: digit - 0x41 + 10
        case 0x61...0x66: digit - 0x61 + 10
        default: nil
        }
    }
}
