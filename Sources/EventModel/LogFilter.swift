/// Says of a record whether it is to be shown. All that is set must hold.
public struct LogFilter: Sendable {
    public var tenant: [UInt8]?
    public var device: [UInt8]?
    public var broker: [UInt8]?
    public var topic: TopicFilter?
    public var kind: EventKind?
    public var verdict: Verdict?

    public init() {}

    public func matches(_ record: RecordView) -> Bool {
        if let kind, record.kind != kind { return false }
        if let verdict, record.verdict != verdict { return false }
        if let broker, !broker.elementsEqual(record.broker) { return false }
        if let topic, !topic.matches(record.topic) { return false }
        guard tenant != nil || device != nil else { return true }
        guard let address = DeviceTopic(record.topic) else { return false }
        if let tenant, !tenant.elementsEqual(record.topic[address.tenant]) { return false }
        if let device, !device.elementsEqual(record.topic[address.device]) { return false }
        return true
    }
}
