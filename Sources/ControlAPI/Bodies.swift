import Campaigns
import Hummingbird

// The JSON of requests and answers, as schemas/openapi.yaml names it.

struct FirmwareBody: BodyFields {
    static let fields = CodingKeys.allCases.map(\.rawValue)
    let version: String
    let fileURL: String
    let description: String?
    let fileSizeBytes: Int64?
    let checksumSHA256: String?
    let deviceType: String?

    enum CodingKeys: String, CodingKey, CaseIterable {
        case version, fileURL = "file_url", description, fileSizeBytes = "file_size_bytes"
        case checksumSHA256 = "checksum_sha256", deviceType = "device_type"
    }

    var spec: FirmwareSpec {
        FirmwareSpec(
            version: version, fileURL: fileURL, description: description, fileSizeBytes: fileSizeBytes,
            checksumSHA256: checksumSHA256, deviceType: deviceType)
    }
}

struct LossBody: BodyFields {
    static let fields = CodingKeys.allCases.map(\.rawValue)
    static let rangesMax = 10_000
    let operatorName: String
    let reason: String
    let ranges: [Range]

    struct Range: Codable, Sendable {
        let from: UInt64
        let to: UInt64
    }

    enum CodingKeys: String, CodingKey, CaseIterable { case operatorName = "operator", reason, ranges }

    func request() throws(Problem) -> LossRequest {
        func refuse(_ detail: String) -> Problem { Problem(.unprocessableContent, "invalid_value", detail) }
        guard (1...255).contains(operatorName.utf8.count) else { throw refuse("operator must have 1 to 255 bytes") }
        guard (1...4096).contains(reason.utf8.count) else { throw refuse("reason must have 1 to 4096 bytes") }
        guard (1...Self.rangesMax).contains(ranges.count),
            ranges.allSatisfy({ $0.from <= $0.to && $0.to < .max })
        else {
            throw refuse("ranges must be 1 to \(Self.rangesMax), each with from ≤ to")
        }
        return LossRequest(operatorName: operatorName, reason: reason, ranges: ranges.map { $0.from...$0.to })
    }
}

struct AcknowledgeBody: BodyFields {
    static let fields = ["reason"]
    let reason: String

    func check() throws(Problem) {
        guard (1...4096).contains(reason.utf8.count) else {
            throw Problem(.unprocessableContent, "invalid_value", "reason must have 1 to 4096 bytes")
        }
    }
}

struct Recorded: Encodable, Sendable {
    let position: UInt64
}

struct TransitionBody: BodyFields {
    static let fields = ["reason"]
    static var whenEmpty: TransitionBody? { TransitionBody(reason: nil) }
    let reason: String?
}

struct Accepted: Codable, Sendable {
    let position: UInt64
    let id: Int64
    let status: String?
}

struct Liveness: Codable, Sendable {
    let status: String
    let reasons: [String]
}

struct Readiness: Codable, Sendable {
    let ready: Bool
    let reasons: [String]
}

struct Items<T: Encodable & Sendable>: Encodable, Sendable {
    let items: [T]
}

extension Response {
    /// `{"device": row, "gate": statistics or null}`.
    static func device(_ row: JSONRow, gate: GateStatistics?) -> Response {
        guard let gate else { return json(text: #"{"device":\#(row.text),"gate":null}"#) }
        let tokens = gate.tokens.map { $0.isFinite ? String($0) : "null" } ?? "null"
        let counts =
            #"{"accepted":\#(gate.accepted),"rate_limited":\#(gate.rateLimited),"#
            + #""without_certificate":\#(gate.withoutCertificate),"tokens":\#(tokens)}"#
        return json(text: #"{"device":\#(row.text),"gate":\#(counts)}"#)
    }
}
