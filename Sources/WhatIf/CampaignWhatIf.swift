import Campaigns
import EventModel

/// One campaign, as it went and as it would have gone under another rule.
public struct CampaignWhatIf: Sendable, Equatable {
    public struct End: Sendable, Equatable {
        /// The event that led to it: the decision, or the result that broke the rule.
        public let position: Position
        public let at: Timestamp
        /// `abort-rule`, or who decided it.
        public let actor: String
        public let reason: String?
    }

    /// One course of events.
    public struct Course: Sendable, Equatable {
        public var threshold: Double?
        public var resultsMin: Int64 = 1
        public var status: CampaignStatus
        public var aborted: End?
        /// Results up to the end of the campaign.
        public var succeeded: Int64 = 0
        public var failed: Int64 = 0
    }

    /// What became, on record, of the devices that had not begun when the campaign would have ended.
    public struct Difference: Sendable, Equatable {
        /// They failed: they would have been spared.
        public var spared: [String] = []
        /// They succeeded: they would not have had their update.
        public var lost: [String] = []
        /// They began later and have no result to this day.
        public var begunLater: [String] = []
        /// They had begun and had no result: no rule calls them back.
        public var inFlight: [String] = []
        /// They never reported, then or later.
        public var silent = 0
    }

    public let id: Int64
    public let tenantID: String
    public let name: String
    public let devices: Int
    public var recorded: Course
    public var whatIf: Course
    public var difference: Difference?
    /// What history cannot answer, in sentences.
    public var caveats: [String] = []
}

extension CampaignWhatIf {
    init(_ history: CampaignHistory, rule: AbortRule) {
        let recorded = Self.course(history, rule: nil)
        let whatIf = Self.course(history, rule: rule)
        id = history.id
        tenantID = history.tenantID
        name = history.name
        devices = history.targets.count
        self.recorded = recorded
        self.whatIf = whatIf
        if let end = whatIf.aborted, end.actor == AbortRule.actor,
            recorded.aborted.map({ end.position < $0.position }) ?? true
        {
            difference = Self.difference(history, from: end.position)
        }
        caveats = Self.caveats(history, recorded, whatIf, difference)
    }

    /// Goes through the history. Without a rule all stands as it is recorded. With one, what the rule decided then is
    /// left out, and what it decides now ends the campaign; what people decided stands.
    private static func course(_ history: CampaignHistory, rule: AbortRule?) -> Course {
        var course = Course(threshold: rule.map(\.threshold) ?? history.threshold, status: .created)
        if let rule { course.resultsMin = rule.resultsMin }
        func judge(_ moment: CampaignHistory.Occurrence) {
            guard let rule, course.status == .running, course.aborted == nil,
                rule.aborts(succeeded: course.succeeded, failed: course.failed)
            else { return }
            course.status = .aborted
            course.aborted = End(
                position: moment.position, at: moment.at, actor: AbortRule.actor,
                reason: "\(course.failed) of \(course.succeeded + course.failed) failed")
        }
        for (moment, step) in history.steps {
            switch step {
            case .status(let status, let actor, let reason):
                if rule != nil, actor == AbortRule.actor || course.aborted != nil { continue }
                course.status = status
                if status == .aborted {
                    course.aborted = End(position: moment.position, at: moment.at, actor: actor, reason: reason)
                }
                judge(moment)  // it may have been broken while the campaign was paused
            case .result(_, let failed):
                guard course.aborted == nil else { continue }
                if failed { course.failed += 1 } else { course.succeeded += 1 }
                judge(moment)
            }
        }
        return course
    }

    private static func difference(_ history: CampaignHistory, from end: Position) -> Difference {
        var difference = Difference()
        for device in history.targets.keys.sorted() {
            guard let target = history.targets[device] else { continue }
            switch (target.begun, target.result) {
            case (_, let result?) where result.moment.position <= end: break
            case (let begun?, _) where begun.position <= end: difference.inFlight.append(device)
            case (_, let result?):
                if result.failed { difference.spared.append(device) } else { difference.lost.append(device) }
            case (.some, nil): difference.begunLater.append(device)
            case (nil, nil): difference.silent += 1
            }
        }
        return difference
    }

    private static func caveats(
        _ history: CampaignHistory, _ recorded: Course, _ whatIf: Course, _ difference: Difference?
    ) -> [String] {
        var caveats: [String] = []
        if difference != nil {
            caveats.append(
                "that a device has begun is known by its first report: one that was told to update and had not "
                    + "reported yet counts as not begun")
        }
        if let silent = difference?.silent, silent > 0 {
            caveats.append(
                "\(silent) devices never reported: whether they would have failed is not in the history")
        }
        if let end = recorded.aborted, whatIf.aborted == nil || end.position < whatIf.aborted!.position {
            let without = history.targets.values.count { $0.result == nil }
            caveats.append(
                "on record the campaign ended at position \(end.position), and \(without) devices have no result: "
                    + "what they would have reported, and whether the rule would have ended it later, cannot be known")
        }
        if whatIf.aborted?.actor != AbortRule.actor, recorded.aborted == nil, recorded.status == .running {
            caveats.append("the campaign goes on: this is as far as its results have come")
        }
        if let threshold = history.threshold, recorded.aborted?.actor != AbortRule.actor,
            let end = course(history, rule: AbortRule(threshold: threshold)).aborted, end.actor == AbortRule.actor
        {
            caveats.append(
                "its own threshold of \(threshold) was passed at position \(end.position), and nothing acted on it: "
                    + "this version leaves it to people to end a campaign")
        }
        return caveats
    }
}
