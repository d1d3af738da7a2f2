import CampaignRules
import Campaigns
import Decisions
import EventModel

/// The campaigns of a world, counted again from the log by the words of the contract: slowly, device by device, and
/// without a line of the code that it checks. It also watches every decision as it becomes durable, and says what none
/// may do.
struct CampaignRecount {
    enum Word: String {
        case downloading = "DOWNLOADING", installing = "INSTALLING", success = "SUCCESS", failed = "FAILED"
    }

    struct Device {
        var status = "PENDING"
        var attempts = 0
        /// Attempts that an operator has given beyond the plan's.
        var granted = 0
        var command: UInt64?
        var saidDownloading = false
        var last: UInt64
        var isPublished = false
        /// It has acknowledged or reported in this attempt.
        var hasAnswered = false
        /// Since when it is as it is: status, publication, first answer.
        var since: Timestamp
        /// Position of the event that put it in flight.
        var inFlightFrom: UInt64 = 0

        var isInFlight: Bool { ["DOWNLOADING", "INSTALLING", "VERIFYING"].contains(status) }
        var isReported: Bool { ["SUCCESS", "FAILED", "VERIFYING"].contains(status) }
    }

    struct Campaign {
        let created: CampaignCreated
        var plan: CampaignPlan
        var status = "CREATED"
        var startedAt: Timestamp?
        var names: [String] = []
        var devices: [String: Device] = [:]
        var stageMax = Int64.max
        var sentFor: Set<String> = []
        /// Of the pace: how many may still be dispatched at once, and when that was counted.
        var allowance: Double
        var allowanceAt = Timestamp(microseconds: 0)

        var counts: CampaignCounts {
            var counts = CampaignCounts()
            for device in devices.values {
                switch device.status {
                case "PENDING": counts.pending += 1
                case "SUCCESS": counts.succeeded += 1
                case "FAILED", "TIMED_OUT", "UNREACHABLE": counts.failed += 1
                case "SKIPPED": counts.skipped += 1
                default: counts.inFlight += 1
                }
            }
            return counts
        }
        var hasEnded: Bool { status == "COMPLETED" || status == "ABORTED" }
    }

    private(set) var campaigns: [Int64: Campaign] = [:]
    /// Of each tenant, the last.
    private(set) var firmware: [String: Int64] = [:]
    /// (campaign, device, command) whose acknowledgement by the broker is on record.
    private(set) var published: Set<Delivery> = []
    private(set) var violations: [String] = []
    /// The engine had read so far when it made the decision that is being appended.
    var known: UInt64 = 0

    struct Delivery: Hashable {
        var campaign: Int64
        var device: String
        var command: UInt64
    }

    mutating func violation(_ text: String) {
        if violations.count < 5 { violations.append(text) }
    }

    // MARK: devices' words

    mutating func report(
        _ campaign: Int64, tenant: String, _ name: String, _ word: Word, command: UInt64?, at position: UInt64,
        time: Timestamp
    ) {
        guard let entry = campaigns[campaign], entry.created.tenantID == tenant, var device = entry.devices[name] else {
            return
        }
        defer { campaigns[campaign]!.devices[name] = device }
        device.last = position
        if device.isReported { return }
        if let current = device.command {
            if let command {
                if command < current { return }
            } else if device.attempts > 1, !device.saidDownloading, word != .downloading {
                return
            }
        }
        let before = device
        if word == .downloading { device.saidDownloading = true }
        device.status = word.rawValue
        if word == .success, entry.plan.verify != nil { device.status = "VERIFYING" }
        if device.status != before.status || !device.hasAnswered { device.since = time }
        device.hasAnswered = true
        if device.isInFlight, !before.isInFlight { device.inFlightFrom = position }
    }

    mutating func acknowledge(tenant: String, _ name: String, command: UInt64, time: Timestamp) {
        for (id, campaign) in campaigns where campaign.created.tenantID == tenant {
            guard let device = campaign.devices[name], device.command == command, device.status == "DOWNLOADING",
                !device.hasAnswered
            else { continue }
            campaigns[id]!.devices[name]!.hasAnswered = true
            campaigns[id]!.devices[name]!.since = time
        }
    }

    // MARK: decisions

    /// - Parameters:
    ///   - time: true time: nobody is given less, whatever a clock says.
    ///   - logTime: the record's, by which windows open; nil when it stepped since the decision was made.
    mutating func decision(_ event: CampaignEvent, at position: UInt64, time: Timestamp, logTime: Timestamp?) {
        switch event {
        case .firmwareAdded(let event): firmware[event.tenantID] = event.id
        case .campaignCreated(let event):
            let plan = event.plan ?? CampaignPlan()
            campaigns[event.id] = Campaign(
                created: event, plan: plan, allowance: Double(event.rolloutRate ?? 0) + 1)
        case .campaignTargets(let event):
            for name in event.devices {
                campaigns[event.campaignID]?.names.append(name)
                campaigns[event.campaignID]?.devices[name] = Device(last: position, since: time)
            }
            if let stages = campaigns[event.campaignID]?.plan.stages, let first = stages.first {
                let most = most(event.campaignID, first.percent)
                campaigns[event.campaignID]?.stageMax = most
            }
        case .statusChanged(let schema, let event): change(schema, event, at: position, time: time)
        case .stageBegun(let event):
            guard let campaign = campaigns[event.campaignID] else { return }
            if campaign.status != "RUNNING" { violation("a stage begins in a campaign that is \(campaign.status)") }
            let most = most(event.campaignID, campaign.plan.stages[event.stage].percent)
            campaigns[event.campaignID]?.stageMax = most
        case .dispatched(let event): dispatch(event, at: position, time: time, logTime: logTime)
        case .published(let event): publish(event, time)
        case .devicesEnded(let event): end(event, at: position, time: time)
        default: break
        }
    }

    private func most(_ id: Int64, _ percent: Double) -> Int64 {
        guard let campaign = campaigns[id], percent < 100 else { return .max }
        return max(1, Int64((Double(campaign.created.totalDevices) * percent / 100).rounded(.up)))
    }

    private mutating func change(
        _ schema: CampaignSchema, _ event: CampaignStatusChanged, at position: UInt64, time: Timestamp
    ) {
        guard let campaign = campaigns[event.campaignID] else { return violation("a status of no campaign") }
        if event.before != campaign.status {
            violation("\(schema.rawValue) from \(event.before), it is \(campaign.status)")
        }
        if let counts = event.counts, known == position, counts != campaign.counts {
            violation("\(schema.rawValue) with \(counts), recounted \(campaign.counts)")
        }
        let legal: Set<String> = [
            "CREATED RUNNING", "RUNNING PAUSED", "PAUSED RUNNING", "RUNNING COMPLETED", "PAUSED COMPLETED",
            "RUNNING ABORTED", "PAUSED ABORTED", "CREATED ABORTED", "COMPLETED RUNNING", "CREATED CREATED",
            "RUNNING RUNNING", "PAUSED PAUSED",
        ]
        if !legal.contains("\(event.before) \(event.after)") { violation("\(event.before) to \(event.after)") }
        if schema == .campaignDeleted { return campaigns[event.campaignID] = nil }
        campaigns[event.campaignID]!.status = event.after
        if schema == .campaignStarted || schema == .campaignRetried && event.before == "COMPLETED" {
            campaigns[event.campaignID]!.startedAt = time
        }
        if schema == .campaignRetried {
            for name in campaign.names { campaigns[event.campaignID]!.devices[name]!.granted += 1 }
        }
    }

    private mutating func dispatch(
        _ event: CampaignDispatched, at position: UInt64, time: Timestamp, logTime: Timestamp?
    ) {
        guard let campaign = campaigns[event.campaignID] else { return violation("sent for by no campaign") }
        let id = event.campaignID
        if campaign.status != "RUNNING" { violation("sent for by a campaign that is \(campaign.status)") }
        if let logTime, let windows = try? MaintenanceWindows(campaign.plan.windows, timeZone: campaign.plan.timeZone),
            !windows.isOpen(at: logTime)
        {
            violation("sent for outside of the windows")
        }
        pace(id, event.devices.count, time)
        for (name, seen) in zip(event.devices, event.seen) {
            guard var device = campaign.devices[name] else {
                violation("\(name) is sent for and no target")
                continue
            }
            // Void: a later event about its part was not known.
            if seen != device.last || device.isInFlight || device.status == "SUCCESS" { continue }
            for (other, campaign) in campaigns where other != id && campaign.created.tenantID == event.tenantID {
                if let twin = campaign.devices[name], twin.isInFlight, twin.inFlightFrom < known {
                    violation("\(name) is sent for by campaign \(id) while it is \(twin.status) in \(other)")
                }
            }
            device.attempts += 1
            if device.attempts > campaign.plan.retry.attemptsMax + device.granted {
                violation("\(name) has attempt \(device.attempts)")
            }
            device.status = "DOWNLOADING"
            device.command = position
            (device.saidDownloading, device.isPublished, device.hasAnswered) = (false, false, false)
            device.last = position
            device.since = time
            device.inFlightFrom = position
            campaigns[id]!.devices[name] = device
            // An operator who has devices tried again does so in whatever stage.
            if device.granted == 0 { campaigns[id]!.sentFor.insert(name) }
        }
        if let sent = campaigns[id]?.sentFor.count, Int64(sent) > campaign.stageMax {
            violation("\(sent) devices are sent for in a stage of \(campaign.stageMax)")
        }
    }

    private mutating func pace(_ id: Int64, _ count: Int, _ time: Timestamp) {
        guard let campaign = campaigns[id], let rate = campaign.created.rolloutRate else { return }
        let seconds = Double(time.microseconds - campaign.allowanceAt.microseconds) / 1e6
        let most = Double(rate) + 1
        let grown = campaign.allowance + seconds * Double(rate) / campaign.plan.tickSeconds
        let allowance = min(most, grown) - Double(count)
        if allowance < -0.001 { violation("\(count) devices at once is faster than \(rate) a tick") }
        campaigns[id]!.allowance = allowance
        campaigns[id]!.allowanceAt = time
    }

    private mutating func publish(_ event: CampaignPublished, _ time: Timestamp) {
        guard let campaign = campaigns[event.campaignID] else { return }
        for batch in event.batches {
            for name in batch.devices ?? campaign.names where campaign.devices[name]?.command == batch.command {
                published.insert(Delivery(campaign: event.campaignID, device: name, command: batch.command))
                if campaign.devices[name]?.isPublished == false, campaign.devices[name]?.hasAnswered == false {
                    campaigns[event.campaignID]!.devices[name]!.since = time
                }
                campaigns[event.campaignID]!.devices[name]!.isPublished = true
            }
        }
    }

    private mutating func end(_ event: CampaignDevicesEnded, at position: UInt64, time: Timestamp) {
        guard let campaign = campaigns[event.campaignID] else { return violation("devices of no campaign end") }
        for (name, seen) in zip(event.devices, event.seen) {
            guard var device = campaign.devices[name], seen == device.last,
                device.isInFlight || device.status == "PENDING"
                    || device.status == "SUCCESS" && event.kind == "ROLLED_BACK"
            else { continue }
            if event.status == "SKIPPED", device.isInFlight, device.isPublished || device.hasAnswered {
                violation("\(name) is SKIPPED, and its command had got to it or to the broker")
            }
            if event.status == "UNREACHABLE" || event.status == "TIMED_OUT", device.status != "PENDING",
                !device.isPublished, !device.hasAnswered
            {
                violation("\(name) is \(event.status), and its command did not get as far as the broker")
            }
            checkPatience(event, campaign, device, name, time)
            device.status = event.status
            device.last = position
            device.since = time
            campaigns[event.campaignID]!.devices[name] = device
        }
    }

    /// A device in flight is given up only when its time is over, or the campaign's.
    private mutating func checkPatience(
        _ event: CampaignDevicesEnded, _ campaign: Campaign, _ device: Device, _ name: String, _ now: Timestamp
    ) {
        let isGivenUp = ["TIMED_OUT", "UNREACHABLE"].contains(event.status) || event.kind == "NOT_VERIFIED"
        guard isGivenUp, let limit = limit(device, campaign.plan.timeouts), let startedAt = campaign.startedAt else {
            return
        }
        var closes = campaign.plan.timeouts.campaignSeconds
        if campaign.plan.completion.share < 1 { closes = min(closes, campaign.plan.completion.seconds) }
        // Times are rounded to a microsecond. A decision knows nothing of what came between it and its record.
        guard device.since != now, seconds(device.since, now) < limit - 0.001,
            seconds(startedAt, now) < closes - 0.001
        else { return }
        violation("\(name) is \(event.status) after \(seconds(device.since, now)) s of \(limit)")
    }

    /// How long a device may be as it is; nil while nothing is expected of it.
    private func limit(_ device: Device, _ timeouts: CampaignPlan.Timeouts) -> Double? {
        switch device.status {
        case "INSTALLING": timeouts.installSeconds
        case "VERIFYING": timeouts.verifySeconds
        case "DOWNLOADING":
            device.hasAnswered
                ? timeouts.downloadSeconds
                : device.isPublished ? timeouts.acknowledgeSeconds : nil
        default: nil
        }
    }

    // MARK: what holds once the engine has decided all there is at `now`

    mutating func check(_ now: Timestamp) {
        for (id, campaign) in campaigns.sorted(by: { $0.key < $1.key }) {
            let counts = campaign.counts
            if counts.total != campaign.created.totalDevices { violation("campaign \(id) has \(counts.total) devices") }
            if let startedAt = campaign.startedAt, !campaign.hasEnded,
                seconds(startedAt, now) >= campaign.plan.timeouts.campaignSeconds
            {
                violation("campaign \(id) is \(campaign.status) beyond its deadline")
            }
            if campaign.status == "ABORTED", counts.pending > 0 {
                violation("campaign \(id) is ABORTED with \(counts.pending) devices PENDING")
            }
            if campaign.status == "COMPLETED", counts.pending > 0 {
                violation("campaign \(id) is COMPLETED with \(counts.pending) devices PENDING")
            }
            for name in campaign.names { check(id, campaign, name, now) }
        }
    }

    private mutating func check(_ id: Int64, _ campaign: Campaign, _ name: String, _ now: Timestamp) {
        guard let device = campaign.devices[name], device.isInFlight else { return }
        guard let limit = limit(device, campaign.plan.timeouts) else {
            if campaign.hasEnded { violation("\(name) waits for the broker in campaign \(id), which has ended") }
            return
        }
        if seconds(device.since, now) >= limit {
            violation(
                "\(name) of campaign \(id) (\(campaign.status)) is \(device.status) beyond its deadline: "
                    + "\(seconds(device.since, now)) s of \(limit)")
        }
    }

    private func seconds(_ from: Timestamp, _ to: Timestamp) -> Double {
        Double(to.microseconds - from.microseconds) / 1e6
    }
}
