import EventModel
import Primitives

/// What a device gets on `tenant/{t}/device/{d}/ota`. One command has one spelling: what the broker brings back to us
/// is recognised by its bytes.
public struct UpdateCommand: Sendable, Equatable {
    public var campaignID: Int64
    public var firmwareURL: String
    public var version: String
    public var checksum: String?
    /// Position of the decision: the `command_id`.
    public var command: Position

    public init(campaignID: Int64, firmwareURL: String, version: String, checksum: String?, command: Position) {
        self.campaignID = campaignID
        self.firmwareURL = firmwareURL
        self.version = version
        self.checksum = checksum
        self.command = command
    }

    /// The last level of its topic.
    public static let channel = "ota"

    /// Of its deliveries and of the decisions about its campaign.
    public static func subject(_ campaign: Int64) -> String { "campaign:\(campaign)" }

    /// The JSON on the wire, in UTF-8.
    public var payload: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(160 + firmwareURL.utf8.count)
        bytes += "{\"campaign_id\":\(campaignID),\"firmware_url\":".utf8
        JSONString.append(firmwareURL, to: &bytes)
        bytes += ",\"version\":".utf8
        JSONString.append(version, to: &bytes)
        bytes += ",\"checksum\":".utf8
        if let checksum { JSONString.append(checksum, to: &bytes) } else { bytes += "null".utf8 }
        bytes += ",\"action\":\"update\"".utf8
        bytes += Self.idName.utf8
        bytes += "\(command)}".utf8
        return bytes
    }

    private static let idName = ",\"command_id\":"

    /// The position that a payload in our spelling claims; nil for any other.
    public static func claim(in payload: UnsafeRawBufferPointer) -> Position? {
        guard payload.last == UInt8(ascii: "}") else { return nil }
        var start = payload.count - 1
        while start > 0, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(payload[start - 1]) { start -= 1 }
        guard start >= idName.utf8.count,
            payload[(start - idName.utf8.count)..<start].elementsEqual(idName.utf8)
        else { return nil }
        return UInt64(String(decoding: payload[start..<(payload.count - 1)], as: UTF8.self)).map { Position($0) }
    }
}

extension Delivery {
    /// Nil: it belongs to something else than a campaign.
    public var campaignID: Int64? {
        let prefix = "campaign:"
        return subject.hasPrefix(prefix) ? Int64(subject.dropFirst(prefix.count)) : nil
    }
}
