import CampaignRules
import Decisions
import EventModel

/// A campaign's maintenance windows, asked many times a second: the calendar is consulted when the answer may have
/// changed. A cache: it is no part of the state.
struct WindowCache: Sendable {
    private var windows: MaintenanceWindows?
    private var from = Int64.max
    private var until = Int64.min
    private var answer = true

    /// Whether it is a time to send, and until when that holds; nil: for ever.
    mutating func look(_ plan: CampaignPlan, _ now: Timestamp) -> (isOpen: Bool, until: Timestamp?) {
        if plan.windows.isEmpty { return (true, nil) }
        if now.microseconds < from || now.microseconds >= until { consult(plan, now) }
        return (answer, until == .max ? nil : Timestamp(microseconds: until))
    }

    private mutating func consult(_ plan: CampaignPlan, _ now: Timestamp) {
        from = now.microseconds
        do {
            if windows == nil { windows = try MaintenanceWindows(plan.windows, timeZone: plan.timeZone) }
            answer = windows?.isOpen(at: now) ?? false
            until = windows?.nextChange(after: now)?.microseconds ?? .max
        } catch {
            // Checked when the campaign was created. A zone that this machine does not know any more is no time to
            // send; the campaign's deadline ends it.
            answer = false
            until = .max
        }
    }
}
