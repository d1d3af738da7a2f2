// CampaignRules: what the engine that decides and the projection that counts must agree on, in one place. Pure: no
// clock, no I/O, no log.
//
// A device's part in a campaign changes by its own reports and by the engine's decisions about it, in the order of the
// log and by nothing else. Invariants. The first result that a device reports in an attempt stands. What the engine
// concluded from silence (TIMED_OUT, UNREACHABLE, SKIPPED) yields to a later report. A decision made in ignorance of a
// later event about the part is void.
import EventModel

/// Where a device stands in a campaign; the raw values are those of `ota_device_status.status`.
public enum OTADeviceStatus: String, Sendable, CaseIterable, Codable {
    case pending = "PENDING"
    /// From its dispatch on.
    case downloading = "DOWNLOADING"
    case installing = "INSTALLING"
    /// It reported SUCCESS, and its version has still to be seen.
    case verifying = "VERIFYING"
    case success = "SUCCESS"
    case failed = "FAILED"
    case skipped = "SKIPPED"
    /// It had answered and gave no result in time.
    case timedOut = "TIMED_OUT"
    /// It gave no answer at all.
    case unreachable = "UNREACHABLE"

    public enum Count: Sendable { case pending, inFlight, succeeded, failed, skipped }

    /// Which of a campaign's counts it is in.
    public var count: Count {
        switch self {
        case .pending: .pending
        case .downloading, .installing, .verifying: .inFlight
        case .success: .succeeded
        case .failed, .timedOut, .unreachable: .failed
        case .skipped: .skipped
        }
    }
    public var isInFlight: Bool { count == .inFlight }
    /// Nothing more is expected of this attempt.
    public var hasEnded: Bool { count != .pending && count != .inFlight }
    /// No later report of the same attempt changes it.
    var stands: Bool { self == .success || self == .failed || self == .verifying }
}

/// How an attempt failed; the raw values are those of `ota_device_status.failure_kind`.
public enum OTAFailureKind: String, Sendable, CaseIterable, Codable {
    /// FAILED before INSTALLING.
    case download = "DOWNLOAD"
    /// FAILED after INSTALLING.
    case install = "INSTALL"
    /// The device refused the command (`commands/ack`).
    case rejected = "REJECTED"
    /// It reported SUCCESS, and the version was not seen in time.
    case notVerified = "NOT_VERIFIED"
    /// It reported SUCCESS, and then another version.
    case rolledBack = "ROLLED_BACK"
    case timedOut = "TIMED_OUT"
    case unreachable = "UNREACHABLE"
}

public struct TargetProgress: Sendable, Equatable, Codable {
    public var status = OTADeviceStatus.pending
    /// Of FAILED, TIMED_OUT and UNREACHABLE.
    public var kind: OTAFailureKind?
    /// Dispatches that took effect.
    public var attempt: Int32 = 0
    /// The decision that the attempt began with: the `command_id` of its command.
    public var command: Position?
    /// The device has reported since the attempt began.
    public var hasReported = false
    /// It has reported DOWNLOADING since the attempt began.
    public var hasBegun = false
    /// The last event about this part: its targeting, a report of the device for this campaign, a decision that names
    /// it in `devices` and was not void.
    public var last: Position

    public init(targetedAt position: Position) { last = position }

    /// What an event did.
    public enum Effect: Sendable, Equatable {
        /// It came too late, or was made in ignorance: nothing changed but `last`, if it is a report.
        case none
        /// The status was this before. It may be the same again.
        case changed(from: OTADeviceStatus)
    }

    public enum Report: Sendable, Equatable { case downloading, installing, success, failed }

    /// A report of the device.
    /// - Parameters:
    ///   - command: the `command_id` in the report, where it has one.
    ///   - verifies: the campaign wants to see the version after SUCCESS.
    public mutating func apply(
        _ report: Report, command reported: Position?, verifies: Bool, at position: Position
    ) -> Effect {
        last = position
        guard concernsThisAttempt(report, reported), !status.stands else { return .none }
        let before = status
        hasReported = true
        switch report {
        case .downloading:
            hasBegun = true
            (status, kind) = (.downloading, nil)
        case .installing: (status, kind) = (.installing, nil)
        case .success: (status, kind) = (verifies ? .verifying : .success, nil)
        case .failed:
            kind = before == .installing ? .install : .download
            status = .failed
        }
        return .changed(from: before)
    }

    /// A report with an older command's id is of an older attempt; from the second attempt on, one without an id that
    /// is not DOWNLOADING may be, until this attempt's DOWNLOADING has come.
    private func concernsThisAttempt(_ report: Report, _ reported: Position?) -> Bool {
        guard let command else { return true }
        if let reported { return reported >= command }
        return attempt <= 1 || hasBegun || report == .downloading
    }

    /// The engine sends for the device: a new attempt begins.
    public mutating func dispatch(seen: Position, at position: Position) -> Effect {
        guard seen == last, !status.isInFlight, status != .success else { return .none }
        let before = status
        status = .downloading
        kind = nil
        attempt += 1
        command = position
        hasReported = false
        hasBegun = false
        last = position
        return .changed(from: before)
    }

    /// The engine decides how the attempt ended. A success that was verified ends once more when the device is seen to
    /// have rolled back.
    public mutating func end(
        as status: OTADeviceStatus, kind: OTAFailureKind?, seen: Position, at position: Position
    ) -> Effect {
        let isRollback = self.status == .success && status == .failed && kind == .rolledBack
        guard seen == last, status.hasEnded, !self.status.hasEnded || isRollback else { return .none }
        let before = self.status
        self.status = status
        self.kind =
            switch status {
            case .failed: kind
            case .timedOut: .timedOut
            case .unreachable: .unreachable
            default: nil
            }
        last = position
        return .changed(from: before)
    }
}
