/// The devices' side of updates: what each makes of the commands that arrive. Belongs to the engine's thread; says what
/// is to be published, and when to ask again.
struct OTADevices {
    enum Step {
        case publish(FleetMessage)
        /// The device goes away for so long.
        case restart(device: Int, micros: Int64)
    }

    private enum Due {
        case report(number: Int)
        case rollback(to: String?)
    }

    private let behaviour: OTABehaviour
    private var updates: [Int: OTAUpdate] = [:]
    /// The last command that each device has heeded.
    private var latest: [Int: Int64] = [:]
    /// What they show when they are back.
    private var afterRestart: [Int: (version: String, rollsBack: Bool)] = [:]
    /// In order of time: the pause is the same for all.
    private var due: [(atMicros: Int64, device: Int, what: Due)] = []
    private var head = 0
    private var number = 0
    private let ledger: OTALedger?
    /// Commands that were dealt with before.
    private(set) var repeatedCommands = 0

    init(_ behaviour: OTABehaviour, ledger: OTALedger?) {
        self.behaviour = behaviour
        self.ledger = ledger
    }

    mutating func received(
        _ payload: UnsafeRawBufferPointer, device: Int, isRetained: Bool, now: Int64, _ generator: inout FleetGenerator
    ) throws(FleetError) -> [Step] {
        // An empty payload takes a retained command back.
        guard let command = OTACommand(payload) else { return [] }
        let isAnonymous = generator.isAnonymous(device: device)
        let isKnown = isKnown(command, device, isAnonymous: isAnonymous)
        try ledger?.command(command, device: device, isRetained: isRetained, isRepeated: isKnown)
        if isKnown {
            repeatedCommands += 1
            return []
        }
        number += 1
        if let id = command.commandID { latest[device] = id }
        let fate = generator.fate(device: device, campaign: command.campaignID, version: command.version)
        let update = OTAUpdate(command: command, fate: fate, number: number, isAnonymous: isAnonymous)
        switch fate {
        case .isSilent:
            return []
        case .refuses:
            return [.publish(generator.refusal(of: command, device: device))]
        case .succeeds, .fails, .stalls, .staysOld, .rollsBack:
            updates[device] = update
            return try report(update, device: device, now: now, &generator)
        }
    }

    /// The broker may deliver a command again (QoS 1): the update that it began goes on, or is over. Whoever keeps no
    /// numbers knows only of what goes on.
    private func isKnown(_ command: OTACommand, _ device: Int, isAnonymous: Bool) -> Bool {
        if !isAnonymous, let id = command.commandID { return latest[device].map { id <= $0 } ?? false }
        return updates[device]?.command.campaignID == command.campaignID
    }

    /// What has become due.
    mutating func run(now: Int64, _ generator: inout FleetGenerator) throws(FleetError) -> [Step] {
        var steps: [Step] = []
        while head < due.count, due[head].atMicros <= now {
            let (_, device, what) = due[head]
            head += 1
            switch what {
            case .report(let number):
                guard var update = updates[device], update.number == number else { continue }
                guard update.advance() else {
                    updates[device] = nil
                    continue
                }
                updates[device] = update
                steps += try report(update, device: device, now: now, &generator)
            case .rollback(let version):
                steps.append(.publish(generator.shadow(ofDevice: device, firmware: version)))
            }
        }
        if head > 4_096 || head == due.count {
            due.removeFirst(head)
            head = 0
        }
        return steps
    }

    private mutating func report(
        _ update: OTAUpdate, device: Int, now: Int64, _ generator: inout FleetGenerator
    ) throws(FleetError) -> [Step] {
        try ledger?.report(update, device: device)
        var steps = [Step.publish(generator.report(on: update, device: device))]
        guard update.stage.isFinal else {
            due.append((now + Int64(behaviour.stepSeconds * 1e6), device, .report(number: update.number)))
            return steps
        }
        updates[device] = nil
        guard update.stage == .success, update.fate != .staysOld else { return steps }
        let rollsBack = update.fate == .rollsBack
        guard behaviour.restartSeconds > 0 else {
            return steps + show(update.command.version, rollsBack: rollsBack, device: device, now: now, &generator)
        }
        afterRestart[device] = (update.command.version, rollsBack)
        steps.append(.restart(device: device, micros: Int64(behaviour.restartSeconds * 1e6)))
        return steps
    }

    /// The device has a connection again.
    mutating func connected(device: Int, now: Int64, _ generator: inout FleetGenerator) -> [Step] {
        guard let (version, rollsBack) = afterRestart.removeValue(forKey: device) else { return [] }
        return show(version, rollsBack: rollsBack, device: device, now: now, &generator)
    }

    private mutating func show(
        _ version: String, rollsBack: Bool, device: Int, now: Int64, _ generator: inout FleetGenerator
    ) -> [Step] {
        if rollsBack {
            let before = generator.firmware(ofDevice: device)
            due.append((now + Int64(behaviour.stepSeconds * 1e6), device, .rollback(to: before)))
        }
        return [.publish(generator.shadow(ofDevice: device, firmware: version))]
    }

    mutating func stop() {
        due.removeAll()
        head = 0
    }

    func flush() throws(FleetError) { try ledger?.flush() }
}
