import Deciding
import Decisions

/// The events of this decider, typed.
public enum JobEvent: DeciderEvent, Equatable {
    case queued(JobsQueued)
    case started(JobsStarted)
    case succeeded(JobsSucceeded)
    case failed(JobFailed)
    case cancelled(JobsCancelled)
    case rescued(JobsRescued)
    case poisoned(JobPoisoned)
    case late(JobLate)
    case rescheduled(JobRescheduled)
    case policySet(JobPolicySet)
    case queueChanged(QueueChanged)
    case queueLimited(QueueLimited)
    case queueRateSet(QueueRateSet)
    case scheduleTicked(ScheduleTicked)
    /// A refusal changes nothing, and is not read back.
    case rejected(CommandRejected)

    public static var catalog: DecisionCatalog { .jobs }

    public init?(_ decision: any Decision, schema: String) {
        switch decision {
        case let event as JobsQueued: self = .queued(event)
        case let event as JobsStarted: self = .started(event)
        case let event as JobsSucceeded: self = .succeeded(event)
        case let event as JobFailed: self = .failed(event)
        case let event as JobsCancelled: self = .cancelled(event)
        case let event as JobsRescued: self = .rescued(event)
        case let event as JobPoisoned: self = .poisoned(event)
        case let event as JobLate: self = .late(event)
        case let event as JobRescheduled: self = .rescheduled(event)
        case let event as JobPolicySet: self = .policySet(event)
        case let event as QueueChanged: self = .queueChanged(event)
        case let event as QueueLimited: self = .queueLimited(event)
        case let event as QueueRateSet: self = .queueRateSet(event)
        case let event as ScheduleTicked: self = .scheduleTicked(event)
        default: return nil
        }
    }

    public var decision: any Decision {
        switch self {
        case .queued(let event): event
        case .started(let event): event
        case .succeeded(let event): event
        case .failed(let event): event
        case .cancelled(let event): event
        case .rescued(let event): event
        case .poisoned(let event): event
        case .late(let event): event
        case .rescheduled(let event): event
        case .policySet(let event): event
        case .queueChanged(let event): event
        case .queueLimited(let event): event
        case .queueRateSet(let event): event
        case .scheduleTicked(let event): event
        case .rejected(let event): event
        }
    }

    public var schema: String {
        switch self {
        case .queueChanged(let event): event.schema.rawValue
        default: type(of: decision).schema
        }
    }
}
