import Deciding
import Decisions
import EventModel
import PKI
import Primitives

// The rules of renewals, and what is sent. See `Renewal` for the steps.

/// A message of a device that is to be handled.
public struct RenewalAnswer: Sendable {
    public let renewal: Renewal
    /// Of the message.
    public let position: Position
}

extension CertificateRegistry {
    /// Decisions of one call of `advance`.
    private static let decisionsMax = 500

    public var renewalPolicy: RenewalPolicy { renewals.policy }

    /// The open renewal of a device.
    public func renewal(tenantID: String, deviceID: String) -> Renewal? {
        renewals.open["tenant/\(tenantID)/device/\(deviceID)"]
    }

    var openRenewalCount: Int { renewals.open.count }
    /// Of the last message that is to be handled; nil: none came since the start.
    public var lastAnswer: Position? { renewals.lastAnswer }

    /// The first messages that are to be handled, at most one of each device.
    /// - Parameters:
    ///   - tenants: tenants to leave out.
    ///   - messages: messages to leave out, with later ones of the same devices.
    public func answers(
        limit: Int, exceptOf tenants: Set<String> = [], behind messages: Set<Position> = []
    ) -> [RenewalAnswer] {
        let waiting = renewals.answered.compactMap { address -> RenewalAnswer? in
            guard let renewal = renewals.open[address], let first = renewal.messages.first,
                !tenants.contains(renewal.tenantID), !messages.contains(first)
            else { return nil }
            return RenewalAnswer(renewal: renewal, position: first)
        }
        return Array(waiting.sorted { $0.position < $1.position }.prefix(limit))
    }

    /// The window of a certificate (RFC 9773, section 4.2); in the past when an operator ordered its renewal.
    public func renewalWindow(_ reference: CertificateReference, now: Timestamp) -> (start: Timestamp, end: Timestamp)?
    {
        guard let index = find(reference) else { return nil }
        let window = window(index)
        let isOrdered = store[index].isDue || renewals.open[address(index)]?.certificate == reference
        guard isOrdered, now < window.end else { return (window.start, window.end) }
        return (min(window.start, now.moved(by: -1_000_000)), now)
    }

    // MARK: By itself

    public mutating func advance(_ now: Timestamp) -> [RegistryEvent] {
        var events = takenReceipts()
        for address in dueAddresses(now, limit: Self.decisionsMax) {
            if let renewal = renewals.open[address] { events += due(renewal, now) }
        }
        for index in dueCertificates(now, limit: renewals.room(now)) {
            events.append(.renewal(request(index, actor: EngineActor.name)))
        }
        for address in renewals.late.sorted() {
            guard let closed = renewals.closed[address], let late = closed.late else { continue }
            var event = event(.refused, closed.renewal)
            event.cause = late.rawValue
            event.reason = "the renewal ended at \(closed.at); answer the next request"
            events.append(.renewal(event))
        }
        return events
    }

    public mutating func conclude(_ now: Timestamp) -> [RegistryEvent] { takenReceipts() }

    private mutating func takenReceipts() -> [RegistryEvent] {
        renewals.receipts.sorted { $0.value < $1.value }.compactMap { address, command in
            guard let renewal = renewals.open[address], renewal.command == command, !renewal.isDelivered else {
                renewals.receipts[address] = nil
                return nil
            }
            var event = event(.delivered, renewal)
            event.command = command.rawValue
            return .renewal(event)
        }
    }

    private func due(_ renewal: Renewal, _ now: Timestamp) -> [RegistryEvent] {
        var failed = event(.failed, renewal)
        if let reason = endReason(renewal) {
            failed.reason = reason
            return [.renewal(failed)]
        }
        guard now >= end(renewal) else { return [.renewal(again(renewal, EngineActor.name))] }
        guard let issued = renewal.issued else {
            failed.reason = "the device sent no certificate request until 30 days after the certificate's expiry"
            return [.renewal(failed)]
        }
        failed.reason =
            "the device did not report \(issued) as installed in time; the old certificate counts as superseded"
        return superseded(renewal, by: issued, EngineActor.name) + [.renewal(failed)]
    }

    private func event(_ step: CertificateRenewal.Step, _ renewal: Renewal) -> CertificateRenewal {
        CertificateRenewal(
            step, authority: renewal.certificate.authority, serial: renewal.certificate.serial.description,
            tenantID: renewal.tenantID, deviceID: renewal.deviceID, renewal: renewal.id.rawValue,
            actor: EngineActor.name)
    }

    private func again(_ renewal: Renewal, _ actor: String) -> CertificateRenewal {
        var event = event(.requested, renewal)
        event.attempt = renewal.attempt.saturatingAdding(1)
        event.notAfter = renewal.notAfter
        event.actor = actor
        return event
    }

    /// The first request for a certificate.
    private func request(_ index: CertificateStore.Index, actor: String) -> CertificateRenewal {
        let reference = reference(index)
        var event = CertificateRenewal(
            .requested, authority: reference.authority, serial: reference.serial.description,
            tenantID: store.tenantID(of: index), deviceID: store.deviceID(of: index), renewal: nil, actor: actor)
        event.attempt = 1
        event.notAfter = Timestamp(seconds: store[index].notAfter)
        return event
    }

    private func superseded(
        _ renewal: Renewal, by issued: CertificateReference, _ actor: String
    ) -> [RegistryEvent] {
        guard let index = find(renewal.certificate), store[index].status == .active else { return [] }
        var event = CertificateChanged(
            .superseded, authority: renewal.certificate.authority, serial: renewal.certificate.serial.description,
            tenantID: renewal.tenantID, deviceID: renewal.deviceID, actor: actor)
        event.replacedBy = issued.description
        return [.changed(event)]
    }

    // MARK: Commands

    /// Opens the renewal of a device's newest active certificate, or repeats the request of the open renewal.
    func renewDevice(
        _ device: String, _ request: RegistryRequest, _ now: Timestamp
    ) throws(RegistryRefusal) -> [RegistryEvent] {
        guard let index = newestActive(request.tenantID, device) else {
            throw RegistryRefusal(
                .notFound,
                "the device \(device) has no active certificate to renew; issue one with `refold cert issue`")
        }
        guard now.wholeSeconds <= store[index].notAfter.saturatingAdding(Renewal.secondsAfterExpiry) else {
            throw RegistryRefusal(
                .illegalTransition,
                "the certificate \(reference(index)) expired over 30 days ago; use `refold cert issue`")
        }
        var event: CertificateRenewal
        if let renewal = renewals.open[address(index)] {
            if let issued = renewal.issued {
                throw RegistryRefusal(
                    .illegalTransition,
                    "the certificate \(issued) was issued for this renewal; the device has not reported it as installed"
                )
            }
            event = again(renewal, request.actor)
        } else {
            event = self.request(index, actor: request.actor)
        }
        (event.idempotencyKey, event.requestDigest) = (request.idempotencyKey, request.digest)
        return [.renewal(event)]
    }

    func renewAuthority(_ id: String, _ request: RegistryRequest) throws(RegistryRefusal) -> [RegistryEvent] {
        let isKnown =
            request.tenantID == Envelope.everyTenant
            ? authority(id) != nil : authority(id, for: request.tenantID) != nil
        guard isKnown else { throw RegistryRefusal(.notFound, "there is no authority \(id)") }
        var event = AuthorityRenewal(authority: id, tenantID: request.tenantID, actor: request.actor)
        (event.idempotencyKey, event.requestDigest) = (request.idempotencyKey, request.digest)
        return [.authorityRenewal(event)]
    }

    /// A step that follows from a device's message.
    func step(_ event: CertificateRenewal, _ request: RegistryRequest) throws(RegistryRefusal) -> [RegistryEvent] {
        let renewal = try openRenewal(event.tenantID, event.deviceID, event.renewal)
        var event = event
        event.actor = request.actor
        guard event.step == .installed else { return [.renewal(event)] }
        guard let issued = renewal.issued, event.issued == issued.description else {
            throw RegistryRefusal(.outdated, "the certificate \(event.issued ?? "") was not issued for this renewal")
        }
        return superseded(renewal, by: issued, request.actor) + [.renewal(event)]
    }

    private func openRenewal(
        _ tenantID: String, _ deviceID: String, _ id: UInt64?
    ) throws(RegistryRefusal) -> Renewal {
        guard let renewal = renewal(tenantID: tenantID, deviceID: deviceID), renewal.id.rawValue == id else {
            throw RegistryRefusal(.outdated, "the renewal of \(deviceID) has ended")
        }
        return renewal
    }

    /// The rule for a certificate that answers a renewal: one for each, with a new key.
    func checkRenewal(_ event: CertificateAdded, _ key: Digest) throws(RegistryRefusal) {
        guard let answer = event.renewal else { return }
        let renewal = try openRenewal(event.tenantID, event.deviceID, answer.id)
        guard renewal.issued == nil, event.renews == renewal.certificate.description else {
            throw RegistryRefusal(.outdated, "the renewal of \(event.deviceID) has its certificate already")
        }
        let known = store.certificates(tenantID: event.tenantID, deviceID: event.deviceID)
        if let same = known.first(where: { store[$0].key == key }) {
            throw RegistryRefusal(
                .invalidValue, "the key is that of the certificate \(reference(same)); make a new key for each request")
        }
    }

    // MARK: Effects

    public func effects(of events: [RegistryEvent], at positions: Range<Position>) -> [Effect] {
        var effects: [Effect] = []
        for (number, event) in events.enumerated() {
            let position = positions.lowerBound.advanced(by: number)
            switch event {
            case .added(let event) where event.renewal != nil:
                if renewal(tenantID: event.tenantID, deviceID: event.deviceID)?.command == position {
                    effects.append(.send(event.deliveries(at: position)))
                }
            case .renewal(let event):
                let address = "tenant/\(event.tenantID)/device/\(event.deviceID)"
                if renewals.open[address]?.command == position {
                    effects.append(.send(event.deliveries(at: position)))
                } else if let ended = renewals.closed[address]?.renewal, [.installed, .failed].contains(event.step) {
                    if !ended.isDelivered {
                        effects.append(.withdraw(subject: RenewalCommand.subject(ended.tenantID, ended.deviceID)))
                    }
                    effects.append(.send([removal(ended)]))
                }
            default: break
            }
        }
        return effects
    }

    /// Removes what the brokers retain for the device. After a crash right before it, a device may find the command of
    /// an ended renewal: its answer is refused, and what it installs is its newest certificate.
    private func removal(_ renewal: Renewal) -> Delivery {
        Delivery(
            id: renewal.command, subject: RenewalCommand.subject(renewal.tenantID, renewal.deviceID),
            tenantID: renewal.tenantID, deviceID: renewal.deviceID, channel: RenewalCommand.channel, payload: [],
            isRetained: true)
    }

    public mutating func pendingEffects() -> [Effect] {
        let waiting = renewals.open.values.filter { !$0.isDelivered }.sorted { $0.command < $1.command }
        return [.send(waiting.flatMap(deliveries))]
    }

    /// The last command of a renewal, again.
    private func deliveries(_ renewal: Renewal) -> [Delivery] {
        guard let issued = renewal.issued else {
            return again(renewal, EngineActor.name).deliveries(at: renewal.command)
        }
        guard let undelivered = renewal.undelivered, let certificate = undelivered.first else { return [] }
        var event = event(.resent, renewal)
        event.issued = issued.description
        (event.certificate, event.chain) = (certificate, Array(undelivered.dropFirst()))
        return event.deliveries(at: renewal.command)
    }

    public mutating func acknowledged(_ deliveries: [Delivery], at now: Timestamp) {
        for delivery in deliveries where !delivery.isRemoval && delivery.channel == RenewalCommand.channel {
            let address = "tenant/\(delivery.tenantID)/device/\(delivery.deviceID)"
            if renewals.open[address]?.command == delivery.id { renewals.receipts[address] = delivery.id }
        }
    }
}
