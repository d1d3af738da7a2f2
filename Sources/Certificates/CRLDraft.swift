import Decisions
import EventModel
import PKI

/// How long CRLs and their canaries are valid.
public struct CRLPolicy: Sendable, Equatable {
    /// From `thisUpdate` to `nextUpdate`. Half of it later, the next CRL is issued.
    public var lifetimeSeconds: Int64
    /// Distance of `thisUpdate` into the past: a broker whose clock is behind refuses every client while `thisUpdate`
    /// is in its future.
    public var backdateSeconds: Int64 = 60
    /// Validity of a canary's certificate. Its entry stays in the CRLs so long.
    public var canarySeconds: Int64 = 2 * 3600

    public init(lifetimeSeconds: Int64 = 7 * 24 * 3600) { self.lifetimeSeconds = lifetimeSeconds }
}

/// The contents of an authority's next CRL, to be signed.
public struct CRLDraft: Sendable {
    public let authority: AuthorityAdded
    public let number: UInt64
    public let thisUpdate: Timestamp
    public let nextUpdate: Timestamp
    public let canary: CRLIssued.Canary?
    public let entries: RevokedEntries
    /// Number of the log's events that the entries follow from.
    public let end: Position
    /// The CRL before.
    public let previous: CRLIssued?
}

extension CertificateRegistry {
    /// At most one CRL in this time, so that a thousand revocations are one CRL. `thisUpdate` has whole seconds, and of
    /// two CRLs with the same one Mosquitto takes either.
    private static let microsecondsBetweenCRLs: Int64 = 1_000_000

    /// Maximum time until the CRL of a change is due. If it is due later, the clock was set back, and it is due now.
    private static let aheadMicrosecondsMax: Int64 = 5_000_000

    /// When the authority's next CRL is to be issued; nil: it issues none. In the past: now.
    public func crlDue(_ id: String, _ policy: CRLPolicy, now: Timestamp) -> Timestamp? {
        guard let authority = authority(id), authority.issuesCRLs else { return nil }
        guard let last = authority.lastCRL else { return authority.addedAt }
        let issued = last.thisUpdate.moved(by: policy.backdateSeconds * 1_000_000)
        if authority.isChanged {
            let due = issued.moved(by: Self.microsecondsBetweenCRLs)
            return due > now.moved(by: Self.aheadMicrosecondsMax) ? now : due
        }
        // At half of the last CRL's lifetime, whatever `crl_days` is now. `thisUpdate` may be far behind after a clock
        // step.
        let end = last.nextUpdate.moved(by: policy.backdateSeconds * 1_000_000), begin = authority.lastCRLAt
        return begin.moved(by: end.microseconds.saturatingSubtracting(begin.microseconds) / 2)
    }

    /// When the next CRL of each authority is to be issued. Without authorities that have expired: nothing that they
    /// issued is accepted anywhere, and no CRL of theirs.
    public func crlsDue(_ policy: CRLPolicy, now: Timestamp) -> [(authority: String, due: Timestamp)] {
        authorities.map(\.added).filter { now <= $0.notAfter }.compactMap { authority in
            crlDue(authority.id, policy, now: now).map { (authority.id, $0) }
        }
    }

    /// The next CRL of an authority; nil: it issues none.
    /// - Parameter start: the earlier of the log's clock and the wall clock; nil: `now`. After a clock step they
    ///   differ, and brokers refuse every client while `thisUpdate` is in their future.
    public func draftCRL(
        _ id: String, canary: CRLIssued.Canary?, _ policy: CRLPolicy, now: Timestamp, start: Timestamp? = nil
    ) -> CRLDraft? {
        guard var authority = authority(id), authority.issuesCRLs else { return nil }
        let last = authority.lastCRL, seconds = now.wholeSeconds
        let latest = seconds.saturatingSubtracting(policy.backdateSeconds)
        let earliest = min(latest, authority.added.notBefore.wholeSeconds)
        let wanted = (start ?? now).wholeSeconds.saturatingSubtracting(policy.backdateSeconds)
        let thisUpdate = max(
            min(latest, max(earliest, wanted)), (last?.thisUpdate.wholeSeconds ?? .min).saturatingAdding(1))
        authority.prepare(thisUpdate: Timestamp(seconds: thisUpdate), canary: canary)
        var number = UInt64(clamping: seconds)
        if let last, !CertificatesFault.isPlanted(.numbersByClock) {
            number = max(last.number.saturatingAdding(1), number)
        }
        return CRLDraft(
            authority: authority.added, number: max(1, number), thisUpdate: Timestamp(seconds: thisUpdate),
            nextUpdate: Timestamp(seconds: max(thisUpdate, latest).saturatingAdding(policy.lifetimeSeconds)),
            canary: canary,
            entries: authority.entries, end: authority.entriesEnd, previous: last)
    }

    /// The CRL that an event issued, where `self` is the fold of the events before it.
    public func draft(of event: CRLIssued) -> CRLDraft? {
        guard var authority = authority(event.authority) else { return nil }
        authority.prepare(thisUpdate: event.thisUpdate, canary: event.canary)
        return CRLDraft(
            authority: authority.added, number: event.number, thisUpdate: event.thisUpdate,
            nextUpdate: event.nextUpdate, canary: event.canary, entries: authority.entries, end: authority.entriesEnd,
            previous: authority.lastCRL)
    }

    /// The rule for `crl.issued`: the CRL follows from the events before it and is newer than the previous CRL.
    func crl(_ event: CRLIssued, _ request: RegistryRequest) throws(RegistryRefusal) -> CRLIssued {
        guard let draft = draft(of: event), let authority = authority(event.authority),
            request.tenantID == Envelope.everyTenant || authority.added.tenantID == request.tenantID
        else { throw RegistryRefusal(.notFound, "there is no authority \(event.authority)") }
        guard authority.issuesCRLs else {
            throw RegistryRefusal(
                .illegalTransition, "the authority \(event.authority) has no key here; it issues no CRL")
        }
        guard event.end == draft.end.rawValue else {
            throw RegistryRefusal(.outdated, "certificates of \(event.authority) were revoked or released meanwhile")
        }
        guard event.entries == draft.entries.count else {
            throw RegistryRefusal(
                .invalidValue, "the CRL lists \(event.entries) certificates, but \(draft.entries.count) are revoked")
        }
        if let last = authority.lastCRL {
            guard event.number > last.number || CertificatesFault.isPlanted(.numbersByClock),
                event.thisUpdate > last.thisUpdate
            else {
                throw RegistryRefusal(
                    .outdated,
                    "the CRL \(event.number) of \(event.thisUpdate) is not newer than the CRL \(last.number) "
                        + "of \(last.thisUpdate)")
            }
        }
        guard event.thisUpdate < event.nextUpdate else {
            throw RegistryRefusal(
                .invalidValue, "the CRL would never be valid: its nextUpdate is before its thisUpdate")
        }
        var event = event
        event.actor = request.actor
        return event
    }
}

extension CertificateAuthority {
    /// The contents of the last CRL, without what was revoked and released since; nil: there is none.
    public var lastDraft: CRLDraft? {
        guard let last = lastCRL else { return nil }
        var entries = entries
        for (serial, before) in changes {
            if let before { entries.insert(before) } else { entries.remove(serial) }
        }
        return CRLDraft(
            authority: added, number: last.number, thisUpdate: last.thisUpdate, nextUpdate: last.nextUpdate,
            canary: last.canary, entries: entries, end: Position(last.end), previous: nil)
    }
}

extension CertificateRegistry {
    /// The first difference between two CRLs that no event explains; nil: all are explained. An entry appears because
    /// its certificate was revoked or held, and leaves because that was released or has expired.
    public func unexplained(_ differences: RevokedEntries.Differences, _ draft: CRLDraft) -> String? {
        let authority = draft.authority.id, changed = Set(differences.added.map(\.serial))
        for entry in differences.removed where !changed.contains(entry.serial) {
            guard let certificate = certificate(CertificateReference(authority: authority, serial: entry.serial)) else {
                continue  // a canary, or expired long ago
            }
            let hasExpired = draft.previous.map { certificate.notAfter < $0.thisUpdate } ?? false
            guard certificate.status.isLive || hasExpired else {
                return "the entry of the certificate \(certificate.reference) would vanish, but it is "
                    + "\(certificate.status.name) since \(certificate.changedAt)"
            }
        }
        for entry in differences.added where entry.serial.description != draft.canary?.serial {
            let reference = CertificateReference(authority: authority, serial: entry.serial)
            guard let certificate = certificate(reference), !certificate.status.isLive else {
                return "the certificate \(reference) would be listed, but no event revokes it"
            }
        }
        return nil
    }
}
