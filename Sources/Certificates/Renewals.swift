import Decisions
import Decoding
import EventModel
import HeapModule
import PKI

/// Open renewals, and the times at which something is due. The heaps follow from the rest, and are not in snapshots.
struct Renewals: Sendable {
    /// An address of a device or the number of a certificate, with its time. Outdated entries are passed over.
    struct Due<Key: Sendable & Comparable>: Sendable, Comparable {
        let at: Int64
        let key: Key

        static func < (a: Self, b: Self) -> Bool { (a.at, a.key) < (b.at, b.key) }
    }
    /// A renewal that has ended, so that a late answer can be refused on the record.
    struct Closed: Sendable, Equatable, Codable {
        let renewal: Renewal
        var at: Timestamp
        /// The first certificate request that came after the end.
        var late: Position?
        var isRefused = false
    }

    var policy = RenewalPolicy()
    /// By the device's address.
    var open: [String: Renewal] = [:]
    private(set) var closed: [String: Closed] = [:]
    /// Their ends, the oldest first; outdated entries are passed over.
    private var ends = Heap<Due<String>>()
    /// Devices whose messages are to be handled.
    var answered: Set<String> = []
    var lastAnswer: Position?
    /// Ended renewals with a late answer that is not refused yet.
    var late: Set<String> = []
    /// Requests on the record in one second, which limits them.
    var second: Int64 = 0
    var secondCount = 0

    /// In microseconds.
    var timers = Heap<Due<String>>()
    /// The newest entry of each open renewal in `timers`.
    var scheduled: [String: Int64] = [:]
    /// In seconds.
    var certificates = Heap<Due<CertificateStore.Index>>()

    /// `command_id` of commands that the brokers acknowledged, by address. Not part of the fold.
    var receipts: [String: Position] = [:]

    static let closedMicroseconds: Int64 = 3_600 * 1_000_000
    static let closedMax = 10_000
    /// Requests to devices in one second: a fleet that is renewed at once comes back over hours, not in one second.
    static let requestsPerSecondMax = 200

    /// Changes the open renewal of a device.
    mutating func update(_ address: String, _ body: (inout Renewal) -> Void) {
        guard var renewal = open[address] else { return }
        body(&renewal)
        open[address] = renewal
        if renewal.messages.isEmpty { answered.remove(address) } else { answered.insert(address) }
    }

    mutating func close(_ address: String, at time: Timestamp) {
        guard let renewal = open.removeValue(forKey: address) else { return }
        scheduled[address] = nil
        answered.remove(address)
        receipts[address] = nil
        late.remove(address)
        closed[address] = Closed(renewal: renewal, at: time)
        ends.insert(.init(at: time.microseconds, key: address))
        while closed.count > Self.closedMax, !ends.isEmpty { evictOldest() }
    }

    mutating func expire(before now: Timestamp) {
        while let first = ends.min, now.microseconds.saturatingSubtracting(first.at) > Self.closedMicroseconds {
            evictOldest()
        }
    }

    private mutating func evictOldest() {
        guard let end = ends.popMin(), closed[end.key]?.at.microseconds == end.at else { return }
        evict(end.key)
    }

    mutating func evict(_ address: String) {
        closed[address] = nil
        late.remove(address)
    }

    /// Changes the ended renewal of a device.
    mutating func updateClosed(_ address: String, _ body: (inout Closed) -> Void) {
        guard var entry = closed[address] else { return }
        body(&entry)
        closed[address] = entry
    }

    mutating func setClosed(_ entries: [String: Closed]) {
        closed = entries
        ends = Heap(entries.map { .init(at: $0.value.at.microseconds, key: $0.key) })
    }

    mutating func countRequest(at time: Timestamp) {
        let now = time.wholeSeconds
        if second != now { (second, secondCount) = (now, 0) }
        secondCount += 1
    }

    /// Number of requests that the rate limit allows in the current second.
    func room(_ now: Timestamp) -> Int {
        second == now.wholeSeconds ? max(0, Self.requestsPerSecondMax - secondCount) : Self.requestsPerSecondMax
    }
}

// MARK: Times

extension CertificateRegistry {
    /// Why a renewal ends at once; nil: it goes on.
    func endReason(_ renewal: Renewal) -> String? {
        for reference in [renewal.certificate] + (renewal.issued.map { [$0] } ?? []) {
            guard let index = find(reference) else { return "the certificate \(reference) is no longer on record" }
            let status = store[index].status
            if !status.isLive { return "the certificate \(reference) is \(status.name)" }
        }
        return nil
    }

    /// Time at which a renewal without a device report ends.
    func end(_ renewal: Renewal) -> Timestamp {
        guard let issuedAt = renewal.issuedAt, let index = renewal.issued.flatMap(find) else {
            return Timestamp(seconds: renewal.notAfter.wholeSeconds.saturatingAdding(Renewal.secondsAfterExpiry))
        }
        return renewals.policy.end(
            issuedAt: issuedAt, oldNotAfter: renewal.notAfter, newNotBefore: store[index].notBefore,
            newNotAfter: store[index].notAfter)
    }

    /// Earliest time at which `advance` decides about the renewal: a retry or its end; `.min`: it ends at once.
    func deadline(_ renewal: Renewal) -> Timestamp {
        if endReason(renewal) != nil { return Timestamp(microseconds: .min) }
        let end = end(renewal)
        return renewal.retryAt.map { min($0, end) } ?? end
    }

    mutating func schedule(_ address: String) {
        guard let renewal = renewals.open[address] else { return }
        let at = deadline(renewal).microseconds
        // Messages of a device do not add to the heap.
        guard renewals.scheduled.updateValue(at, forKey: address) != at else { return }
        renewals.timers.insert(.init(at: at, key: address))
    }

    func window(_ index: CertificateStore.Index) -> RenewalWindow {
        let record = store[index]
        return RenewalWindow(
            record.serial, notBefore: record.notBefore, notAfter: record.notAfter, renewals.policy)
    }

    /// When a certificate is to be renewed, in seconds; nil: only when an operator asks.
    func dueSeconds(_ index: CertificateStore.Index) -> Int64? {
        let record = store[index]
        guard record.status == .active else { return nil }
        if record.isDue { return .min }
        return renewals.policy.isEnabled && !record.isImported ? window(index).renewAt.wholeSeconds : nil
    }

    mutating func scheduleCertificate(_ index: CertificateStore.Index) {
        if let at = dueSeconds(index) { renewals.certificates.insert(.init(at: at, key: index)) }
    }

    /// The certificate that is renewed for a device: the newest active one.
    func newestActive(_ tenantID: String, _ deviceID: String) -> CertificateStore.Index? {
        store.certificates(tenantID: tenantID, deviceID: deviceID).first { store[$0].status == .active }
    }

    func address(_ index: CertificateStore.Index) -> String {
        "tenant/\(store.tenantID(of: index))/device/\(store.deviceID(of: index))"
    }

    mutating func rebuildTimes() {
        (renewals.timers, renewals.certificates, renewals.scheduled) = (.init(), .init(), [:])
        for address in renewals.open.keys { schedule(address) }
        renewals.certificates = Heap(
            store.indexes.compactMap { index in dueSeconds(index).map { .init(at: $0, key: index) } })
    }

    /// Whether the entry is of a certificate that is to be renewed at its time.
    private func isCurrent(_ due: Renewals.Due<CertificateStore.Index>, _ now: Timestamp) -> Bool {
        guard store.contains(due.key), dueSeconds(due.key) == due.at else { return false }
        let tenant = store.tenantID(of: due.key), device = store.deviceID(of: due.key)
        return renewals.open[address(due.key)] == nil && newestActive(tenant, device) == due.key
            && now.wholeSeconds <= store[due.key].notAfter.saturatingAdding(Renewal.secondsAfterExpiry)
    }

    private func isCurrent(_ due: Renewals.Due<String>) -> Bool {
        renewals.open[due.key].map { deadline($0).microseconds == due.at } ?? false
    }

    /// Due renewals, in order. They stay in the heap until a decision about them is folded: an append may fail.
    mutating func dueAddresses(_ now: Timestamp, limit: Int) -> [String] {
        var found: [Renewals.Due<String>] = []
        while found.count < limit, let first = renewals.timers.min, first.at <= now.microseconds {
            renewals.timers.removeMin()
            if isCurrent(first), found.last != first { found.append(first) }
        }
        for due in found { renewals.timers.insert(due) }
        return found.map(\.key)
    }

    /// Certificates that are due, as `dueAddresses`.
    mutating func dueCertificates(_ now: Timestamp, limit: Int) -> [CertificateStore.Index] {
        var found: [Renewals.Due<CertificateStore.Index>] = []
        while found.count < limit, let first = renewals.certificates.min, first.at <= now.wholeSeconds {
            renewals.certificates.removeMin()
            if isCurrent(first, now), found.last != first { found.append(first) }
        }
        for due in found { renewals.certificates.insert(due) }
        return found.map(\.key)
    }

    public mutating func nextDeadline(after now: Timestamp) -> Timestamp? {
        if !renewals.receipts.isEmpty || !renewals.late.isEmpty { return now }
        while let first = renewals.timers.min, !isCurrent(first) { renewals.timers.removeMin() }
        while let first = renewals.certificates.min, !isCurrent(first, now) { renewals.certificates.removeMin() }
        let timer = renewals.timers.min.map { Timestamp(microseconds: $0.at) }
        let certificate = renewals.certificates.min.map { first in
            let at = Timestamp(seconds: first.at)
            return renewals.room(now) > 0 ? at : max(at, Timestamp(seconds: now.wholeSeconds.saturatingAdding(1)))
        }
        return [timer, certificate].compactMap { $0 }.min()
    }
}

// MARK: Fold

extension CertificateRegistry {
    public var wantsMessages: Bool { !renewals.open.isEmpty || !renewals.closed.isEmpty }

    /// Keeps the positions of a device's answers. `RenewalService` reads their payloads, and decides about them.
    public mutating func observe(_ record: RecordView, at position: Position, _ decoder: FactDecoder) {
        guard record.verdict == .accepted, !record.flags.contains(.retained), let topic = DeviceTopic(record.topic)
        else { return }
        let isRequest = topic.topicClass == .certificateRequest
        guard isRequest || topic.topicClass == .certificateInstalled else { return }
        let address = String(decoding: record.topic[topic.address], as: UTF8.self)
        if let renewal = renewals.open[address] {
            // A flood of requests does not keep the report of the installation out.
            let refusalsMax = isRequest ? Renewal.refusalsMax : 2 * Renewal.refusalsMax
            guard renewal.messages.count < Renewal.messagesMax, renewal.refusalCount < refusalsMax else { return }
            renewals.update(address) { $0.messages.append(position) }
            renewals.lastAnswer = position
            schedule(address)
        } else if isRequest, let closed = renewals.closed[address], closed.late == nil {
            renewals.updateClosed(address) { $0.late = position }
            renewals.late.insert(address)
        }
    }

    mutating func setPolicy(_ policy: RenewalPolicy) {
        renewals.policy = policy.withinLimits
        rebuildTimes()
    }

    mutating func order(_ event: AuthorityRenewal) {
        guard let authority = authorityIndexes[event.authority] else { return }
        for index in Array(store.indexes)
        where store[index].authority == authority && store[index].status == .active && !store[index].isDue
            && [store.tenantID(of: index), Envelope.everyTenant].contains(event.tenantID)
        {
            store.update(index) { $0.isDue = true }
            scheduleCertificate(index)
        }
    }

    mutating func apply(_ event: CertificateRenewal, at position: Position, time: Timestamp) {
        let address = "tenant/\(event.tenantID)/device/\(event.deviceID)"
        let cause = event.cause.map { Position($0) }
        guard let renewal = renewals.open[address] else {
            if event.step == .requested, event.renewal == nil { open(event, address, at: position, time: time) }
            if event.step == .refused {
                renewals.updateClosed(address) { $0.isRefused = true }
                renewals.late.remove(address)
            }
            return
        }
        guard event.renewal == renewal.id.rawValue else { return }
        switch event.step {
        case .requested:
            guard renewal.issued == nil else { return }
            renewals.countRequest(at: time)
            renewals.update(address) { renewal in
                renewal.attempt = event.attempt ?? renewal.attempt
                (renewal.command, renewal.requestedAt) = (position, time)
                (renewal.isDelivered, renewal.refusalCount) = (false, 0)
            }
        case .delivered:
            guard event.command == renewal.command.rawValue else { return }
            renewals.receipts[address] = nil
            renewals.update(address) { ($0.isDelivered, $0.undelivered) = (true, nil) }
        case .refused:
            renewals.update(address) { renewal in
                renewal.messages.removeAll { $0 <= cause ?? position }
                renewal.refusalCount += 1
                renewal.error = event.reason
            }
        case .resent:
            guard renewal.issued != nil else { return }
            renewals.update(address) { renewal in
                renewal.messages.removeAll { $0 <= cause ?? position }
                (renewal.command, renewal.isDelivered) = (position, false)
                renewal.refusalCount += 1
                renewal.undelivered = event.certificate.map { [$0] + (event.chain ?? []) }
            }
        case .installed, .failed: close(address, renewal, time)
        }
        schedule(address)
    }

    private mutating func open(
        _ event: CertificateRenewal, _ address: String, at position: Position, time: Timestamp
    ) {
        guard let serial = SerialNumber(event.serial) else { return }
        let reference = CertificateReference(authority: event.authority, serial: serial)
        guard let index = find(reference), self.address(index) == address else { return }
        renewals.countRequest(at: time)
        store.update(index) { $0.isDue = false }
        renewals.open[address] = Renewal(
            id: position, tenantID: event.tenantID, deviceID: event.deviceID, certificate: reference,
            notAfter: Timestamp(seconds: store[index].notAfter), command: position, attempt: event.attempt ?? 1,
            requestedAt: time)
        renewals.evict(address)
        schedule(address)
    }

    private mutating func close(_ address: String, _ renewal: Renewal, _ time: Timestamp) {
        renewals.close(address, at: time)
        if let index = newestActive(renewal.tenantID, renewal.deviceID) { scheduleCertificate(index) }
    }

    /// A certificate was added: one that answers a renewal, or another.
    mutating func added(
        _ event: CertificateAdded, _ index: CertificateStore.Index, at position: Position, time: Timestamp
    ) {
        scheduleCertificate(index)
        let address = address(index)
        guard let answer = event.renewal, let renewal = renewals.open[address], answer.id == renewal.id.rawValue,
            renewal.issued == nil
        else { return }
        let reference = reference(index)
        renewals.update(address) { renewal in
            (renewal.issued, renewal.issuedAt) = (reference, time)
            (renewal.command, renewal.isDelivered, renewal.error) = (position, false, nil)
            renewal.refusalCount = 0
            renewal.undelivered = [event.certificate] + answer.chain
            renewal.messages.removeAll { $0 <= Position(answer.request) }
        }
        schedule(address)
    }

    /// The status of a certificate changed.
    mutating func changed(_ index: CertificateStore.Index) {
        schedule(address(index))
        if let newest = newestActive(store.tenantID(of: index), store.deviceID(of: index)) {
            scheduleCertificate(newest)
        }
    }

    mutating func moveRenewals(by microseconds: Int64) {
        for address in Array(renewals.open.keys) {
            renewals.update(address) { renewal in
                renewal.requestedAt = renewal.requestedAt.moved(by: microseconds)
                renewal.issuedAt = renewal.issuedAt?.moved(by: microseconds)
            }
        }
        renewals.setClosed(
            renewals.closed.mapValues { entry in
                var entry = entry
                entry.at = entry.at.moved(by: microseconds)
                return entry
            })
        rebuildTimes()
    }
}
