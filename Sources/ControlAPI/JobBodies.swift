import Decisions
import EventModel
import FoundationEssentials
import Jobs

// The JSON of requests about jobs, as schemas/openapi.yaml names it. Answers are in JobRows.swift.

/// One job, or `items`.
struct JobsBody: BodyFields {
    static let fields = Item.fields + ["items"]
    let all: [Item]

    struct Item: BodyFields, Encodable {
        static let fields = CodingKeys.allCases.map(\.rawValue)
        let kind: String
        let queue: String?
        let key: String?
        let scope: String?
        let runAt: String?
        let deadline: String?
        let attemptsMax: Int64?
        let arguments: JSONValue?

        enum CodingKeys: String, CodingKey, CaseIterable {
            case kind, queue, key, scope, runAt = "run_at", deadline, attemptsMax = "attempts_max", arguments
        }

        func job() throws(Problem) -> NewJob {
            var job = NewJob(kind, key: key)
            job.queue = try queue.map { name throws(Problem) in try JobQueue(named: name) }
            (job.scope, job.attemptsMax) = (scope, attemptsMax)
            job.runAt = try runAt.map { text throws(Problem) in try time(text, "run_at") }
            job.deadline = try deadline.map { text throws(Problem) in try time(text, "deadline") }
            job.arguments = arguments?.text
            return job
        }

        private func time(_ text: String, _ field: String) throws(Problem) -> Timestamp {
            guard let time = Timestamp(rfc3339: text) else {
                throw .invalid("\(field) must be a time in RFC 3339, such as 2026-12-01T06:00:00Z")
            }
            return time
        }
    }

    init(from decoder: any Decoder) throws { all = try Item.oneOrItems(decoder) }

    /// Equal for equal bodies.
    var text: String { String(decoding: eventJSON(all), as: UTF8.self) }
}

struct JobCancelBody: BodyFields {
    static let fields = ["reason"]
    static let whenEmpty: JobCancelBody? = JobCancelBody(reason: nil)
    let reason: String?
}

struct JobMoveBody: BodyFields {
    static let fields = ["queue"]
    let queue: String
}

struct QueuePauseBody: BodyFields {
    static let fields = ["note"]
    static let whenEmpty: QueuePauseBody? = QueuePauseBody(note: nil)
    let note: String?
}

struct RateBody: BodyFields {
    static let fields = ["rate"]
    /// Nil: the settings count again.
    let rate: String?

    init(from decoder: any Decoder) throws {
        let body = try decoder.container(keyedBy: AnyKey.self)
        // Without a rate the body does not say that there is none.
        rate = try body.decode(String?.self, forKey: AnyKey(stringValue: "rate"))
    }

    func value() throws(Problem) -> JobRate? {
        guard let rate else { return nil }
        guard let value = JobRate(rate) else {
            throw .invalid("rate must be COUNT/UNIT with a unit of s, m, h, d, such as 100/m; or null")
        }
        return value
    }
}

struct LeaseBody: BodyFields {
    static let fields = CodingKeys.allCases.map(\.rawValue)
    static let waitSecondsMax: Int64 = 60
    let worker: String
    let queues: [String]?
    let kinds: [String]?
    let count: Int?
    let leaseSeconds: Int64?
    let waitSeconds: Int64?

    enum CodingKeys: String, CodingKey, CaseIterable {
        case worker, queues, kinds, count, leaseSeconds = "lease_seconds", waitSeconds = "wait_seconds"
    }

    func lease() throws(Problem) -> LeaseRequest {
        var lease = LeaseRequest(
            worker: worker, kinds: kinds.map(Set.init), count: count ?? 1, leaseSeconds: leaseSeconds ?? 30)
        if let queues { lease.queues = Set(try queues.map { name throws(Problem) in try JobQueue(named: name) }) }
        guard lease.queues.count > 0, lease.kinds?.isEmpty != true else {
            throw .invalid("name at least one queue and one kind, or leave the field out for any")
        }
        return lease
    }

    func wait() throws(Problem) -> Duration {
        let seconds = waitSeconds ?? 0
        guard (0...Self.waitSecondsMax).contains(seconds) else {
            throw .invalid("wait_seconds must be 0 to \(Self.waitSecondsMax)")
        }
        return .seconds(seconds)
    }
}

struct HeartbeatBody: BodyFields {
    static let fields = ["worker", "token"]
    let worker: String
    let token: UInt64
}

struct ResultBody: BodyFields {
    static let fields = ["worker"] + Outcome.fields
    let worker: String
    let outcome: Outcome

    init(from decoder: any Decoder) throws {
        worker = try decoder.container(keyedBy: AnyKey.self).decode(String.self, forKey: AnyKey(stringValue: "worker"))
        outcome = try Outcome(from: decoder)
    }

    /// How an attempt ended.
    struct Outcome: Decodable, Sendable {
        static let fields = CodingKeys.allCases.map(\.rawValue)
        let token: UInt64
        let outcome: String
        let result: String?
        let error: String?
        let final: Bool?
        let retryAfterSeconds: Int64?

        enum CodingKeys: String, CodingKey, CaseIterable {
            case token, outcome, result, error, final, retryAfterSeconds = "retry_after_seconds"
        }

        func report(_ id: Int64) throws(Problem) -> AttemptReport {
            let value: AttemptReport.Outcome
            if let seconds = retryAfterSeconds, !(1...86_400).contains(seconds) {
                throw .invalid("retry_after_seconds must be 1 to 86400")
            }
            switch outcome {
            case "succeeded": value = .succeeded(result)
            case "failed":
                guard let error, !error.isEmpty else { throw .invalid("a failed attempt needs error, the reason") }
                value = .failed(error, isFinal: final ?? false)
            case "limited":
                guard let seconds = retryAfterSeconds else {
                    throw .invalid("a limited attempt needs retry_after_seconds, 1 to 86400")
                }
                value = .limited(seconds: seconds, reason: error)
            case "released": value = .released
            default: throw .invalid("outcome must be one of: succeeded, failed, limited, released")
            }
            return AttemptReport(JobAttempt(id: id, token: token), value)
        }
    }
}

struct ResultsBody: BodyFields {
    static let fields = ["worker", "items"]
    let worker: String
    let items: [Item]

    struct Item: BodyFields {
        static let fields = ["id"] + ResultBody.Outcome.fields
        let id: Int64
        let outcome: ResultBody.Outcome

        init(from decoder: any Decoder) throws {
            id = try decoder.container(keyedBy: AnyKey.self).decode(Int64.self, forKey: AnyKey(stringValue: "id"))
            outcome = try ResultBody.Outcome(from: decoder)
        }
    }

    init(from decoder: any Decoder) throws {
        let body = try decoder.container(keyedBy: AnyKey.self)
        worker = try body.decode(String.self, forKey: AnyKey(stringValue: "worker"))
        items = try body.decode([Strict<Item>].self, forKey: AnyKey(stringValue: "items")).map(\.value)
    }
}

extension JobQueue {
    init(named name: String) throws(Problem) {
        guard let queue = JobQueue(rawValue: name) else {
            throw .invalid("a queue is one of: \(JobQueue.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        self = queue
    }
}

extension Problem {
    static func invalid(_ detail: String) -> Problem { Problem(.unprocessableContent, "invalid_value", detail) }
}

/// Any JSON, for the arguments of jobs: their meaning is the worker's.
enum JSONValue: Codable, Sendable {
    case null
    case bool(Bool)
    case integer(Int64)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])

    /// Nil: not JSON.
    init?(text: String) {
        guard let value = try? JSONDecoder().decode(JSONValue.self, from: Data(text.utf8)) else { return nil }
        self = value
    }

    var text: String { String(decoding: eventJSON(self), as: UTF8.self) }

    init(from decoder: any Decoder) throws {
        let value = try decoder.singleValueContainer()
        if value.decodeNil() {
            self = .null
        } else if let bool = try? value.decode(Bool.self) {
            self = .bool(bool)
        } else if let integer = try? value.decode(Int64.self) {
            self = .integer(integer)
        } else if let number = try? value.decode(Double.self) {
            self = .number(number)
        } else if let string = try? value.decode(String.self) {
            self = .string(string)
        } else if let array = try? value.decode([JSONValue].self) {
            self = .array(array)
        } else {
            self = .object(try value.decode([String: JSONValue].self))
        }
    }

    func encode(to encoder: any Encoder) throws {
        var value = encoder.singleValueContainer()
        switch self {
        case .null: try value.encodeNil()
        case .bool(let bool): try value.encode(bool)
        case .integer(let integer): try value.encode(integer)
        case .number(let number): try value.encode(number)
        case .string(let string): try value.encode(string)
        case .array(let array): try value.encode(array)
        case .object(let object): try value.encode(object)
        }
    }
}
