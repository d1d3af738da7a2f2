import Certificates
import ControlAPI
import Deciding
import Decisions
import EventLog
import EventModel
import History
import Issuing
import PKI
import Snapshots

// The certificate decider's state as of a moment, from the log's files and its snapshots.

extension AsOf {
    /// - Throws: `LogError`, `UnreadableDecision`.
    func certificateRegistry(at end: Position) throws -> CertificateRegistry {
        let start = snapshots.newest(CertificateRegistry.self, atOrBefore: end, horizon: log.firstPosition) {
            note($0.description)
        }
        var registry = start?.state ?? CertificateRegistry()
        try registry.fold((start?.end ?? Position(0))..<end, of: log)
        return registry
    }

    /// The CRL that was the authority's newest, bit for bit; nil: it had none, or there was no such authority.
    /// - Throws: `PKIError`: the record does not give the bytes that were published; else as `certificateRegistry`.
    func crl(of authority: String, at moment: Moment) throws -> PastCRL? {
        guard let found = try certificateRegistry(at: moment.end).authority(authority),
            let event = found.lastCRL, let position = found.lastCRLPosition, let draft = found.lastDraft
        else { return nil }
        return PastCRL(
            event: event, position: position, issuedAt: found.lastCRLAt, list: try CRLService.rebuild(event, draft),
            asOfPosition: moment.end == Position(0) ? nil : moment.end.rawValue - 1, asOfTime: moment.time)
    }

    /// The position of the event that issued a CRL; nil: it is not on this disk.
    func position(ofCRL number: UInt64, of authority: String) throws -> Position? {
        let end = Position(log.durableCount)
        let reader = log.events(.schema(CRLIssued.schema), in: log.firstPosition..<end)
        var found: Position?, failure: (any Error)?
        while found == nil, failure == nil,
            try reader.read({ record, position in
                do {
                    let event = try record.decoded(CRLIssued.self)
                    if event.authority == authority, event.number == number { found = found ?? position }
                } catch {
                    failure = failure ?? error
                }
            })
        {}
        if let failure { throw failure }
        return found
    }
}
