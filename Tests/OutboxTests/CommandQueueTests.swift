import Decisions
import EventModel
import Testing
@testable import Outbox

/// What a broker has still to get.
struct CommandQueueTests {
    private func command(_ device: String, _ position: UInt64, campaign: Int64 = 1) -> Delivery {
        delivery(device, position, campaign, payload: [1])
    }

    private func withdrawal(_ device: String, _ position: UInt64) -> Delivery {
        delivery(device, position, 1, payload: [])
    }

    private func delivery(_ device: String, _ position: UInt64, _ campaign: Int64, payload: [UInt8]) -> Delivery {
        Delivery(
            id: Position(position), subject: "campaign:\(campaign)", tenantID: "acme", deviceID: device,
            channel: "ota", payload: payload)
    }

    private func drain(_ queue: inout CommandQueue) -> [String] {
        var names: [String] = []
        while let next = queue.next() { names.append("\(next.deviceID)\(next.id)\(next.isRemoval ? "!" : "")") }
        return names
    }

    @Test func aDevicesSecondCommandWaitsForItsFirst() {
        var queue = CommandQueue()
        for command in [command("a", 1), command("b", 1), command("a", 2), command("a", 1)] { queue.add(command) }
        #expect(queue.count == 3 && queue.waitingCount == 3)
        #expect(drain(&queue) == ["a1", "b1"])
        let first = queue.acknowledge(.init(command("a", 1)))
        #expect(!first)
        #expect(drain(&queue) == ["a2"])
        _ = queue.acknowledge(.init(command("a", 2)))
        _ = queue.acknowledge(.init(command("b", 1)))
        #expect(queue.isEmpty && queue.count == 0)
    }

    @Test func whatWasNotAnsweredGoesAgainInItsOrder() {
        var queue = CommandQueue()
        for name in ["a", "b", "c", "d"] { queue.add(command(name, 1)) }
        for _ in 0..<3 { _ = queue.next() }
        _ = queue.acknowledge(.init(command("b", 1)))
        queue.connectionLost()
        #expect(drain(&queue) == ["a1", "c1", "d1"])
    }

    @Test func whatIsRefusedHoldsUpItsDeviceOnly() {
        var queue = CommandQueue()
        for command in [command("a", 1), command("a", 2), command("b", 1)] { queue.add(command) }
        #expect(drain(&queue) == ["a1", "b1"])
        queue.refuse(.init(command("a", 1)))
        _ = queue.acknowledge(.init(command("b", 1)))
        #expect(queue.refusedCount == 1 && queue.waitingCount == 1)
        #expect(drain(&queue) == [])
        queue.retry(10)
        #expect(drain(&queue) == ["a1"])
        let again = queue.acknowledge(.init(command("a", 1)))
        #expect(again)
        #expect(drain(&queue) == ["a2"] && queue.refusedLineCount == 0)
    }

    @Test func whatIsWithdrawnIsForgottenUnlessItIsOnItsWay() {
        var queue = CommandQueue()
        for name in ["a", "b", "c"] { queue.add(command(name, 1)) }
        queue.add(command("d", 1, campaign: 2))
        #expect(queue.next()?.deviceID == "a")
        queue.withdraw(subject: "campaign:1")
        #expect(queue.count == 2)
        queue.connectionLost()
        #expect(queue.count == 1)
        #expect(drain(&queue) == ["d1"])
    }

    @Test func whatIsSentForAgainAfterAllIsNotForgotten() {
        var queue = CommandQueue()
        queue.add(command("a", 1))
        _ = queue.next()
        queue.withdraw(subject: "campaign:1")
        queue.add(command("a", 1))
        queue.connectionLost()
        #expect(drain(&queue) == ["a1"])
    }

    @Test func whatTakesBackNeedNotBePrecededByWhatItTakesBack() {
        var queue = CommandQueue()
        queue.add(command("a", 1))
        queue.add(withdrawal("a", 1))
        queue.add(command("b", 1))
        _ = queue.next()
        #expect(queue.next()?.deviceID == "b")
        queue.add(withdrawal("b", 1))
        queue.withdraw(subject: "campaign:1")
        queue.connectionLost()
        #expect(drain(&queue) == ["a1!", "b1!"])
    }

    /// Any sequence of all that can happen: at most one command a device under way, its order kept, nothing lost.
    @Test func inAnyHistoryNothingIsLostAndOrderIsKept() {
        for seed in UInt64(1)...300 {
            var random = Draw(state: seed), queue = CommandQueue()
            var underWay: [String: Delivery] = [:]
            var added: [String: [UInt64]] = [:], taken: [String: [UInt64]] = [:]
            var position: UInt64 = 0
            func step(_ kind: Int) {
                switch kind {
                case 0, 1:
                    position += 1
                    let name = "d\(random.below(6))"
                    queue.add(command(name, position))
                    added[name, default: []].append(position)
                case 2, 3:
                    guard let next = queue.next() else { return }
                    #expect(underWay[next.deviceID] == nil, "seed \(seed)")
                    underWay[next.deviceID] = next
                case 4, 5:
                    guard let name = underWay.keys.sorted().first, let command = underWay.removeValue(forKey: name)
                    else { return }
                    _ = queue.acknowledge(.init(command))
                    taken[name, default: []].append(command.id.rawValue)
                case 6:
                    guard let name = underWay.keys.sorted().last, let command = underWay.removeValue(forKey: name)
                    else { return }
                    queue.refuse(.init(command))
                case 7: queue.retry(1 + random.below(3))
                default:
                    queue.connectionLost()
                    underWay.removeAll()
                }
            }
            for _ in 0..<200 { step(random.below(9)) }
            #expect(queue.sentCount == underWay.count, "seed \(seed)")
            queue.connectionLost()
            underWay.removeAll()
            while !queue.isEmpty {
                queue.retry(.max)
                step(2)
                step(4)
            }
            #expect(taken == added, "seed \(seed)")
            #expect(queue.count == 0 && queue.refusedCount == 0 && queue.sentCount == 0, "seed \(seed)")
            #expect(queue.refusedLineCount == 0, "seed \(seed)")
        }
    }

    private struct Draw {
        var state: UInt64
        mutating func below(_ limit: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % limit
        }
    }
}
