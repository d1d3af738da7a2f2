import EventLog
import EventModel
import Projecting
import ProjectionTestSupport
import Projections
import TestSupport
import Testing

/// A bench whose tables refuse rows of some topics.
private struct ParkingBench {
    let bench = ProjectorBench()

    /// Rows of `test_events` (`test_counts`, where `counts`) with these topics.
    func refuse(_ topics: Set<String>, counts: Bool = false) {
        bench.tables.refuse { table, row in
            let topic = (row["topic"] ?? nil).map { String(decoding: $0, as: UTF8.self) } ?? ""
            return table == (counts ? "test_counts" : "test_events") && topics.contains(topic) ? "no \(topic)" : nil
        }
    }

    func projector(_ change: (inout ProjectorOptions) -> Void = { _ in }) -> Projector {
        var options = ProjectorOptions()
        options.failedRetry = .milliseconds(50)
        options.backoffMax = .milliseconds(20)
        change(&options)
        return Projector(
            CountingFold.descriptor(), source: bench.log, options: options, makeFold: { CountingFold(scope: $0) },
            makeStore: { [tables = bench.tables] in MemoryStore(tables) },
            note: { note in bench.notes.withLock { $0.append(note) } })
    }

    func parked(_ projector: Projector) -> [String] {
        projector.status.parked.map { "\($0.key) at \($0.position): \($0.reason)" }
    }
}

@Suite struct ParkingTests {
    @Test(arguments: [false, true])
    func theKeyWaitsAndTheRestGoesOn(counts: Bool) async {
        let parking = ParkingBench(), bench = parking.bench
        parking.refuse(["bad"], counts: counts)
        let projector = parking.projector()
        bench.log.append(["a", "bad", "b", "bad", "a"])
        await projector.during {
            #expect(await projector.waitUntilApplied(Position(4), timeout: .seconds(10)))
            bench.log.append(["bad", "a"])
            #expect(await projector.waitUntilApplied(Position(6), timeout: .seconds(10)))
            #expect(parking.parked(projector) == ["bad at 1: no bad"])
            #expect(bench.count("a") == 3 && bench.count("b") == 1 && bench.count("bad") == nil)
            #expect(projector.status.state == .running && projector.status.lagEvents == 0)
            parking.refuse([])
            #expect(
                await projector.retryParked()
                    == {
                        var result = ParkedRetryResult()
                        result.unparked = [FoldKey("bad")]
                        return result
                    }())
            #expect(bench.count("bad") == 3 && bench.eventRows == 7 && projector.status.parked.isEmpty)
            bench.log.append(["bad"])
            #expect(await projector.waitUntilApplied(Position(7), timeout: .seconds(10)))
            #expect(bench.count("bad") == 4)
        }
        #expect(bench.notes.withLock { $0.filter { $0.contains("bad is parked from position 1") }.count } == 1)
    }

    @Test func theVeryFirstEventAndEveryEvent() async {
        let parking = ParkingBench(), bench = parking.bench
        parking.refuse(["a", "b"])
        let projector = parking.projector()
        bench.log.append(["a", "b", "a"])
        await projector.during {
            #expect(await projector.waitUntilApplied(Position(2), timeout: .seconds(10)))
            #expect(parking.parked(projector) == ["a at 0: no a", "b at 1: no b"] && bench.eventRows == 0)
            parking.refuse([])
            #expect(await projector.retryParked()?.unparked.count == 2)
            #expect(bench.count("a") == 2 && bench.count("b") == 1 && bench.eventRows == 3)
        }
    }

    @Test func aPoisonAmongThousandsIsFound() async {
        let parking = ParkingBench(), bench = parking.bench
        parking.refuse(["t7"])
        let projector = parking.projector { $0.readBytes = 4 << 10 }
        for block in 0..<60 { bench.log.append((0..<100).map { "t\(($0 * 7 + block) % 500)" }) }
        await projector.during {
            #expect(await projector.waitUntilApplied(Position(5999), timeout: .seconds(30)))
            #expect(projector.status.parked.map(\.key) == [FoldKey("t7")])
            #expect(bench.count("t8") == 10 && bench.count("t7") == nil)
            parking.refuse([])
            #expect(await projector.retryParked()?.parked.isEmpty == true)
            #expect(bench.count("t7") == 11 && bench.eventRows == 6000)
        }
    }

    @Test func whatIsRefusedAgainStaysFromThere() async {
        let parking = ParkingBench(), bench = parking.bench
        bench.tables.refuse { table, row in
            let position = (row["position"] ?? nil)?.reduce(0) { $0 << 8 | Int($1) }
            return table == "test_events" && position.map { [1, 4].contains($0) } == true ? "no \(position!)" : nil
        }
        let projector = parking.projector()
        bench.log.append(["a", "x", "b", "x", "x", "y"])
        await projector.during {
            #expect(await projector.waitUntilApplied(Position(5), timeout: .seconds(10)))
            #expect(parking.parked(projector) == ["x at 1: no 1"])
            bench.tables.refuse { table, row in
                let position = (row["position"] ?? nil)?.reduce(0) { $0 << 8 | Int($1) }
                return table == "test_events" && position == 4 ? "no 4" : nil
            }
            #expect(await projector.retryParked()?.parked.map { $0.position } == [Position(4)])
            #expect(parking.parked(projector) == ["x at 4: no 4"] && bench.count("x") == 2)
            bench.tables.refuse(nil)
            #expect(await projector.retryParked([FoldKey("x")])?.unparked == [FoldKey("x")])
            #expect(bench.count("x") == 3 && bench.eventRows == 6)
        }
    }

    @Test func onlyTheKeysAskedForAreTakenUp() async {
        let parking = ParkingBench(), bench = parking.bench
        parking.refuse(["x", "y"])
        let projector = parking.projector()
        bench.log.append(["x", "y", "x", "y"])
        await projector.during {
            #expect(await projector.waitUntilApplied(Position(3), timeout: .seconds(10)))
            parking.refuse([])
            #expect(await projector.retryParked([FoldKey("y"), FoldKey("z")])?.unparked == [FoldKey("y")])
            #expect(parking.parked(projector) == ["x at 0: no x"] && bench.count("y") == 2)
        }
        // Another process finds it.
        let second = parking.projector()
        await second.during {
            #expect(await eventually { second.status.parked.count == 1 })
            #expect(await second.retryParked()?.unparked == [FoldKey("x")])
        }
        #expect(bench.count("x") == 2 && bench.eventRows == 4)
    }

    @Test func tooManyAreNobodysFault() async {
        let parking = ParkingBench(), bench = parking.bench
        parking.refuse(Set((0..<20).map { "t\($0)" }))
        let projector = parking.projector { $0.parkedKeysMax = 5 }
        bench.log.append((0..<20).map { "t\($0)" })
        await projector.during {
            #expect(await eventually { projector.status.state == .failed })
            #expect(projector.status.parked.count == 5 && projector.status.lastError?.contains("5 keys") == true)
            parking.refuse([])
            #expect(await projector.waitUntilApplied(Position(19), timeout: .seconds(10)))
            #expect(await projector.retryParked()?.unparked.count == 5)
            #expect(bench.eventRows == 20)
        }
    }

    @Test func whoDoesNotRunTakesNothingUp() async {
        #expect(await ParkingBench().projector().retryParked() == nil)
    }

    @Test func aPausedProjectorTakesKeysUp() async {
        let parking = ParkingBench(), bench = parking.bench
        parking.refuse(["x"])
        let projector = parking.projector()
        bench.log.append(["x", "a"])
        await projector.during {
            #expect(await projector.waitUntilApplied(Position(1), timeout: .seconds(10)))
            projector.pause()
            #expect(await eventually { projector.status.state == .paused })
            parking.refuse([])
            #expect(await projector.retryParked()?.unparked == [FoldKey("x")])
            #expect(bench.count("x") == 1 && projector.status.state == .paused)
        }
    }
}
