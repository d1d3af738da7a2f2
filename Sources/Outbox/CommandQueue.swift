import Decisions
import DequeModule

/// What one broker has still to get. Pure. One command a device is on its way at a time, so that a device's commands
/// stay in their order whatever happens to each.
///
///     ready ── next ──► sent ── acknowledged ──► gone, and the device's next is ready
///       ▲                │
///       ├─ connectionLost┘ (or gone, when it was withdrawn meanwhile)
///       └──── retry ──── refused ◄── refuse (from sent)
///
/// As many commands wait as devices are in flight; the engine bounds those.
struct CommandQueue {
    struct Device: Hashable {
        let tenant: String
        let device: String

        init(_ command: Delivery) {
            tenant = command.tenantID
            device = command.deviceID
        }
    }

    private enum State { case ready, sent, refused }

    private struct Line {
        /// The first is the one that `state` is about. Never empty.
        var commands: [Delivery]
        var state = State.ready
        /// The first is on its way, and is not to go again should the connection end.
        var isWithdrawn = false
        /// The first was refused, and not acknowledged since.
        var wasRefused = false
    }

    private var lines: [Device: Line] = [:]
    /// In order. An entry whose line is not ready, or gone, is passed over.
    private var ready: Deque<Device> = []
    /// In the order in which they were refused; passed over likewise.
    private var refused: Deque<Device> = []
    private var sent: [Device: UInt64] = [:]
    private var sendings: UInt64 = 0
    private(set) var count = 0
    private(set) var refusedCount = 0
    /// Devices whose command was refused and has not been acknowledged since.
    private(set) var refusedLineCount = 0

    var isEmpty: Bool { lines.isEmpty }
    var sentCount: Int { sent.count }
    var sentDevices: [Device] { Array(sent.keys) }
    /// Neither sent nor refused.
    var waitingCount: Int { count - sent.count - refusedCount }

    /// Adds it behind the device's others. One that is there already is not added again.
    mutating func add(_ command: Delivery) {
        let device = Device(command)
        guard var line = lines[device] else {
            lines[device] = Line(commands: [command])
            ready.append(device)
            count += 1
            return
        }
        if let known = line.commands.firstIndex(where: {
            $0.id == command.id && $0.isRemoval == command.isRemoval
        }) {
            if known == 0 { line.isWithdrawn = false }
        } else {
            line.commands.append(command)
            count += 1
        }
        lines[device] = line
        // What is taken back need not be sent first.
        if command.isRemoval { remove(from: device) { $0.id == command.id && !$0.isRemoval } }
    }

    /// Forgets the subject's deliveries, except removals. What is on its way is not called back.
    mutating func withdraw(subject: String) {
        for device in Array(lines.keys) {
            remove(from: device) { $0.subject == subject && !$0.isRemoval }
        }
    }

    private mutating func remove(from device: Device, _ isUnwanted: (Delivery) -> Bool) {
        guard var line = lines[device], line.commands.contains(where: isUnwanted) else { return }
        let first = line.commands[0], before = line.commands.count
        line.commands.removeAll(where: isUnwanted)
        if isUnwanted(first) {
            switch line.state {
            case .sent:
                line.commands.insert(first, at: 0)
                line.isWithdrawn = true
            case .refused:
                refusedCount -= 1
                line.state = .ready
                ready.append(device)
                clearRefusal(&line)
            case .ready: clearRefusal(&line)
            }
        }
        count -= before - line.commands.count
        lines[device] = line.commands.isEmpty ? nil : line
    }

    /// The next command to send; it counts as sent from now on.
    mutating func next() -> Delivery? {
        while let device = ready.popFirst() {
            guard var line = lines[device], line.state == .ready else { continue }
            line.state = .sent
            lines[device] = line
            sent[device] = sendings
            sendings += 1
            return line.commands[0]
        }
        return nil
    }

    /// The broker has taken what was sent to the device. Returns whether it had refused it before.
    mutating func acknowledge(_ device: Device) -> Bool {
        guard var line = lines[device], line.state == .sent else { return false }
        let wasRefused = line.wasRefused
        sent[device] = nil
        count -= 1
        line.commands.removeFirst()
        line.state = .ready
        line.isWithdrawn = false
        clearRefusal(&line)
        lines[device] = line.commands.isEmpty ? nil : line
        if !line.commands.isEmpty { ready.append(device) }
        return wasRefused
    }

    /// The broker will not take what was sent to the device.
    mutating func refuse(_ device: Device) {
        guard var line = lines[device], line.state == .sent else { return }
        sent[device] = nil
        line.state = .refused
        if !line.wasRefused { refusedLineCount += 1 }
        line.wasRefused = true
        refusedCount += 1
        lines[device] = line
        refused.append(device)
        if line.isWithdrawn { dropFirst(of: device) }
    }

    /// What was refused longest ago, at most so many devices', is ready again.
    mutating func retry(_ countMax: Int) {
        var left = countMax
        while left > 0, let device = refused.popFirst() {
            guard lines[device]?.state == .refused else { continue }
            lines[device]?.state = .ready
            refusedCount -= 1
            ready.append(device)
            left -= 1
        }
    }

    /// What was sent and not answered is ready again, before all else and in its order.
    mutating func connectionLost() {
        for (device, _) in sent.sorted(by: { $0.value > $1.value }) {
            lines[device]?.state = .ready
            ready.prepend(device)
            if lines[device]?.isWithdrawn == true { dropFirst(of: device) }
        }
        sent.removeAll()
    }

    /// Of a device whose first was withdrawn and is no longer on its way.
    private mutating func dropFirst(of device: Device) {
        guard var line = lines[device] else { return }
        if line.state == .refused {
            refusedCount -= 1
            line.state = .ready
            ready.append(device)
        }
        line.commands.removeFirst()
        line.isWithdrawn = false
        clearRefusal(&line)
        count -= 1
        lines[device] = line.commands.isEmpty ? nil : line
    }

    private mutating func clearRefusal(_ line: inout Line) {
        if line.wasRefused { refusedLineCount -= 1 }
        line.wasRefused = false
    }
}
