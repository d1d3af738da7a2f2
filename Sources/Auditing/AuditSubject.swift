import Decisions
import Decoding
import EventModel
import Primitives
import Projections

/// What an audit is about.
public enum AuditSubject: Sendable, Equatable, CustomStringConvertible {
    case device(tenant: String, device: String)
    case campaign(Int64)
    /// Everything in a stretch of the log.
    case range

    public var description: String {
        switch self {
        case .device(let tenant, let device): "device \(device) of tenant \(tenant)"
        case .campaign(let id): "campaign \(id)"
        case .range: "everything"
        }
    }

    /// The projections whose rows tell of it.
    var projections: [Catalog.Entry] {
        let names: Set<String> =
            switch self {
            case .device: ["device_status", "device_connection_events", "dead_letters", "campaigns", "certificates"]
            case .campaign: ["campaigns"]
            case .range: Set(Catalog.entries.map(\.name))
            }
        return Catalog.entries.filter { names.contains($0.name) }
    }

    /// Whether a row is the subject's own. Others take part in folding and are not shown.
    func shows(_ row: AuditRow, of table: StoredTable) -> Bool {
        switch self {
        case .device(let tenant, let device):
            row.text("device_id", table) == device && row.text("tenant_id", table) == tenant
        case .campaign(let id):
            table.name.hasPrefix("firmware_versions")
                || (row.int8("campaign_id", table)
                    ?? (table.name.hasPrefix("ota_campaigns") ? row.int8("id", table) : nil)) == id
        case .range: true
        }
    }

    var json: String {
        switch self {
        case .device(let tenant, let device):
            #"{"kind":"device","tenant":\#(JSONString.encode(tenant)),"device":\#(JSONString.encode(device))}"#
        case .campaign(let id): #"{"kind":"campaign","id":\#(id)}"#
        case .range: #"{"kind":"range"}"#
        }
    }

    init?(json: ExactJSON?) {
        guard let object = json?.uniqueMembers else { return nil }
        switch object["kind"]?.string {
        case "device":
            guard let tenant = object["tenant"]?.string, let device = object["device"]?.string else { return nil }
            self = .device(tenant: tenant, device: device)
        case "campaign":
            guard let id = object["id"]?.int64 else { return nil }
            self = .campaign(id)
        case "range": self = .range
        default: return nil
        }
    }
}

/// Who or what an event comes from, and what it says, for people.
struct EventWords {
    let who: String
    let what: String
    /// A broker lost messages, or may have: they are missing from the log although the log itself is complete.
    let reportsBrokerLoss: Bool

    init(_ record: RecordView, decoder: FactDecoder) {
        let topic = DeviceTopic(record.topic)
        if record.kind == .connection, case .broker(let schema, let event) = decoder.decodeInternal(record) {
            reportsBrokerLoss = Self.isLoss(schema, event)
        } else {
            reportsBrokerLoss = false
        }
        func part(_ range: Range<Int>?) -> String {
            range.map { String(decoding: record.topic[$0], as: UTF8.self) } ?? ""
        }
        switch record.kind {
        case .message:
            let device = topic.map { "device \(part($0.device)) of \(part($0.tenant))" } ?? "somebody"
            who = "\(device), over broker \(record.brokerString)"
            let rest = topic.map { String(decoding: record.topic[($0.device.upperBound + 1)...], as: UTF8.self) }
            var text = "sent \(rest ?? record.topicString)"
            if record.flags.contains(.retained) { text = "broker replayed the retained \(rest ?? record.topicString)" }
            what = text + (record.verdict == .accepted ? "" : "; the gate decided \(record.verdict.name)")
        case .rejection:
            who = "the gate, on broker \(record.brokerString)"
            let count = decoder.rejectedCount(record) ?? 1
            what = "refused \(count) messages of device \(part(topic?.device)) beyond its rate (\(record.verdict.name))"
        case .connection:
            guard case .broker(let schema, let event) = decoder.decodeInternal(record) else {
                (who, what) = ("our connection to broker \(record.brokerString)", record.topicString)
                break
            }
            who =
                event.operatorName.map { "operator \($0), on broker \(record.brokerString)" }
                ?? "our connection to broker \(record.brokerString)"
            what = Self.connection(schema, event)
        case .decision:
            (who, what) = Self.decision(record, decoder)
        case .system:
            (who, what) = Self.system(record, decoder)
        }
    }

    /// Whether a broker event reports messages that the broker lost, or may have lost.
    static func isLoss(_ schema: BrokerEvent.Schema, _ event: BrokerEvent) -> Bool {
        switch schema {
        case .sessionLost: true
        case .alarmRaised: ["session_taken_over", "session_lost", "messages_dropped"].contains(event.alarm)
        default: false
        }
    }

    /// The schema, and what the event carries besides.
    private static func connection(_ schema: BrokerEvent.Schema, _ event: BrokerEvent) -> String {
        var details: [String] = []
        switch schema {
        case .sessionLost: details.append("the broker lost our session: messages may be missing from this log")
        case .alarmRaised: details.append("alarm \(event.alarm ?? "unknown")")
        case .alarmsAcknowledged: details.append("acknowledged \(event.alarm ?? "no alarm")")
        case .sessionState:
            // Alarms that wait for an operator.
            details += (event.alarms ?? []).prefix(10).map { alarm in
                "outstanding alarm \(alarm.code)" + (alarm.evidence.map { " (\($0))" } ?? "")
            }
        default: break
        }
        if let reason = event.reason, !reason.isEmpty { details.append(reason) }
        if let code = event.reasonCode { details.append("reason code \(code)") }
        if let count = event.count { details.append("\(count) messages") }
        if let dropped = event.droppedByBroker, dropped > 0 {
            details.append("the broker's count of dropped messages: \(dropped)")
        }
        if let version = event.version { details.append("version \(version)") }
        guard !details.isEmpty else { return schema.rawValue }
        let text = details.joined(separator: "; ")
        return "\(schema.rawValue): " + (text.count > 1_000 ? String(text.prefix(1_000)) + " …" : text)
    }

    private static func system(_ record: RecordView, _ decoder: FactDecoder) -> (String, String) {
        switch decoder.decodeInternal(record) {
        case .lossAccepted(let loss):
            return ("operator \(loss.operatorName)", "gave up positions \(loss.from) to \(loss.to): \(loss.reason)")
        case .segmentsRemoved(let event):
            return (
                "the log",
                "removed positions \(event.from) to \(event.to) by the retention rules "
                    + "(\(event.reason)); they were \(event.archived ? "" : "not ")archived"
            )
        default: break
        }
        guard LogSchema(rawValue: record.topicString) == .clockStepped,
            let step = try? record.decoded(ClockStepped.self)
        else { return ("the log", record.topicString) }
        return (
            "the log",
            "\(LogSchema.clockStepped.rawValue): from \(step.before) to \(step.after)"
                + (step.adopted == false ? "; not adopted" : "")
        )
    }

    private static func decision(_ record: RecordView, _ decoder: FactDecoder) -> (String, String) {
        guard let decision = decoder.decodeInternal(record).decision else { return ("a decider", record.topicString) }
        return (decision.envelope.actor ?? "a decider", decision.summary)
    }
}
