// RefoldSim: runs simulated worlds by their seeds. Exit 0: every invariant held. 1: one did not. 2: wrong usage.
// refold-sim campaigns: histories of campaigns by their seeds, in the same way.
// refold-sim sessions: persistent sessions at brokers that fail in their ways.
// refold-sim certificates: histories of certificates, CRLs and brokers, in the same way.
// refold-sim jobs: histories of jobs, queues and workers, in the same way.
// refold-sim abort-quality: how good the rule is that ends campaigns, as tables.

import Glibc
import Primitives
import Simulation

let usage = """
    usage: refold-sim [--seed N | --seeds A..B] [--steps M] [--plant NAME] [--minutes T] [--quiet]

      --seed N       one world (default 1)
      --seeds A..B   worlds A to B, B included; stops at the first whose invariants do not hold
      --steps M      decisions of the scheduler a world (default 2000)
      --minutes T    goes on with further seeds for so long
      --plant NAME   puts a bug into the code under test: \(Plant.allCases.map(\.rawValue).joined(separator: ", "))
      --quiet        prints only what went wrong, and the sum

    usage: refold-sim campaigns [--seed N | --seeds A..B] [--sets-clock] [--plant NAME] [--quiet]

      histories of campaigns among devices that fail in every way
      --sets-clock   in half of them the wall clock is set forward and back
      --plant NAME   \(CampaignPlant.allCases.map(\.rawValue).joined(separator: ", "))

    usage: refold-sim sessions [--seed N | --seeds A..B] [--plant NAME] [--quiet]

      persistent MQTT sessions at three kinds of brokers, with kills, lost state and changed client ids
      --plant NAME   \(SessionPlant.allCases.map(\.rawValue).joined(separator: ", "))

    usage: refold-sim certificates [--seed N | --seeds A..B] [--steps M] [--plant NAME] [--quiet]

      certificates, CRLs and their enforcement at brokers, with kills, power cuts, full disks and a clock that is set
      --plant NAME   \(CertificatePlant.allCases.map(\.rawValue).joined(separator: ", "))

    usage: refold-sim jobs [--seed N | --seeds A..B] [--steps M] [--plant NAME] [--quiet]

      jobs, queues and workers that die, hang and lie, with kills, full disks and a clock that is set
      --plant NAME   \(JobPlant.allCases.map(\.rawValue).joined(separator: ", "))

    usage: refold-sim abort-quality [--seed N] [--effort SHARE]

      --effort SHARE   of the campaigns that are let go for the record (default 1)
    """

func fail(_ text: String) -> Never {
    let bytes = Array("\(text)\n\(usage)\n".utf8)
    _ = write(2, bytes, bytes.count)
    exit(2)
}

var steps = 2000
var minutes = 0.0

var arguments = CommandLine.arguments.dropFirst()
@MainActor func value(of name: String) -> String {
    guard let text = arguments.popFirst() else { fail("\(name) needs a value") }
    return text
}

/// What worlds of every kind take.
struct WorldArguments<P: RawRepresentable> where P.RawValue == String {
    var seeds: ClosedRange<UInt64> = 1...1
    var plant: P?
    var isQuiet = false
}

/// Reads all arguments that are left.
/// - Parameter other: takes an argument that only one kind of world has; false: it is none.
@MainActor func readArguments<P: RawRepresentable>(
    of plants: P.Type, other: @MainActor (String) -> Bool = { _ in false }
) -> WorldArguments<P> where P.RawValue == String {
    var chosen = WorldArguments<P>()
    while let argument = arguments.popFirst() {
        switch argument {
        case "--seed", "--seeds":
            guard let seeds = ClosedRange<UInt64>(seeds: value(of: argument)) else {
                fail("\(argument) takes N or A..B")
            }
            chosen.seeds = seeds
        case "--plant":
            let name = value(of: argument)
            guard PlantedBugs.areCompiled else { fail(PlantedBugs.missing) }
            guard let plant = P(rawValue: name) else { fail("there is no plant \(name)") }
            chosen.plant = plant
        case "--quiet": chosen.isQuiet = true
        case "--help", "-h":
            print(usage)
            exit(0)
        default: if !other(argument) { fail("unknown argument \(argument)") }
        }
    }
    return chosen
}

@MainActor func takeSteps(_ argument: String) -> Bool {
    guard argument == "--steps" else { return false }
    guard let number = Int(value(of: argument)), number > 0 else { fail("--steps takes a number above 0") }
    steps = number
    return true
}

/// Histories of campaigns, one seed after the other.
@MainActor func runCampaigns() -> Never {
    var setsClock = false
    let chosen = readArguments(of: CampaignPlant.self) { argument in
        guard argument == "--sets-clock" else { return false }
        setsClock = true
        return true
    }
    var sum = CampaignRunSummary(), broken = 0
    let clock = ContinuousClock(), start = clock.now
    for seed in chosen.seeds {
        var options = CampaignWorldOptions(seed: seed, plant: chosen.plant)
        options.setsClock = options.setsClock || setsClock
        let verdict = CampaignWorld(options).run()
        sum = sum + verdict.summary
        if let violation = verdict.violation {
            broken += 1
            if broken == 1 {
                options.isRecording = true
                let again = CampaignWorld(options).run()
                for line in again.lines.suffix(chosen.isQuiet ? 0 : 400) { print("  \(line)") }
                print("  \(again.violation ?? "held")")
            }
            print("seed \(seed) trace \(Hex.encode(verdict.traceHash)) FAILED \(violation)")
            if broken >= 20 { break }
        } else if !chosen.isQuiet {
            print("seed \(seed) trace \(Hex.encode(verdict.traceHash)) held")
        }
    }
    print("\(sum) in \(clock.now - start)")
    exit(broken > 0 ? 1 : 0)
}

/// Sessions, one seed after the other; stops at the first whose invariants do not hold.
@MainActor func runSessions() -> Never {
    let chosen = readArguments(of: SessionPlant.self)
    var sum = SessionSummary()
    let clock = ContinuousClock(), start = clock.now
    for seed in chosen.seeds {
        var options = SessionWorldOptions(seed: seed, plant: chosen.plant)
        let verdict = SessionWorld(options).run()
        sum = sum + verdict.summary
        if let violation = verdict.violation {
            options.isRecording = true
            for line in SessionWorld(options).run().lines.suffix(200) { print("  \(line)") }
            print("seed \(seed) FAILED \(violation)")
            exit(1)
        }
        if !chosen.isQuiet { print("seed \(seed) trace \(Hex.encode(verdict.summary.trace)) held") }
    }
    print("\(sum) in \(clock.now - start)")
    exit(0)
}

/// Certificates, one seed after the other; stops at the first whose invariants do not hold.
@MainActor func runCertificates() throws -> Never {
    steps = CertificateWorld.stepsStandard
    let chosen = readArguments(of: CertificatePlant.self, other: takeSteps)
    var sum = CertificateSummary()
    let clock = ContinuousClock(), start = clock.now
    for seed in chosen.seeds {
        var options = CertificateWorldOptions(seed: seed, steps: steps, plant: chosen.plant)
        let verdict = try CertificateWorld(options).run()
        sum = sum + verdict.summary
        if let violation = verdict.violation {
            options.isRecording = true
            for line in try CertificateWorld(options).run().lines.suffix(200) { print("  \(line)") }
            print("seed \(seed) steps \(steps) FAILED \(violation)")
            exit(1)
        }
        if !chosen.isQuiet { print("seed \(seed) trace \(Hex.encode(verdict.traceHash)) held") }
    }
    print("\(sum) in \(clock.now - start)")
    exit(0)
}

/// Jobs, one seed after the other; stops at the first whose invariants do not hold.
@MainActor func runJobs() -> Never {
    steps = JobWorld.stepsStandard
    let chosen = readArguments(of: JobPlant.self, other: takeSteps)
    var sum = JobWorldSummary()
    let clock = ContinuousClock(), start = clock.now
    for seed in chosen.seeds {
        var options = JobWorldOptions(seed: seed, steps: steps, plant: chosen.plant)
        let verdict = JobWorld(options).run()
        sum = sum + verdict.summary
        if let violation = verdict.violation {
            options.isRecording = true
            for line in JobWorld(options).run().lines.suffix(chosen.isQuiet ? 0 : 200) { print("  \(line)") }
            print("seed \(seed) steps \(steps) FAILED \(violation)")
            exit(1)
        }
        if !chosen.isQuiet { print("seed \(seed) trace \(Hex.encode(verdict.traceHash)) held") }
    }
    print("\(sum) in \(clock.now - start)")
    exit(0)
}

if arguments.first == "jobs" {
    arguments.removeFirst()
    runJobs()
}
if arguments.first == "certificates" {
    arguments.removeFirst()
    try runCertificates()
}
if arguments.first == "sessions" {
    arguments.removeFirst()
    runSessions()
}
if arguments.first == "campaigns" {
    arguments.removeFirst()
    runCampaigns()
}
if arguments.first == "abort-quality" {
    arguments.removeFirst()
    var report = AbortQualityReport()
    while let argument = arguments.popFirst() {
        switch argument {
        case "--seed":
            guard let seed = UInt64(value(of: argument)) else { fail("--seed takes a number") }
            report.seed = seed
        case "--effort":
            guard let share = Double(value(of: argument)), share > 0 else { fail("--effort takes a number above 0") }
            report.effort = share
        default: fail("unknown argument \(argument)")
        }
    }
    report.write { line in
        print(line)
        fflush(nil)
    }
    exit(0)
}
let chosen = readArguments(of: Plant.self) { argument in
    guard argument == "--minutes" else { return takeSteps(argument) }
    guard let number = Double(value(of: argument)), number > 0 else { fail("--minutes takes a number above 0") }
    minutes = number
    return true
}

let clock = ContinuousClock()
let start = clock.now
var worlds = 0
var stepsTaken = 0
var sum = WorldSummary()
var failed = false
var seed = chosen.seeds.lowerBound
while true {
    let options = WorldOptions(seed: seed, steps: steps, plant: chosen.plant)
    let verdict = World(options).run()
    worlds += 1
    stepsTaken += verdict.stepsTaken
    sum = sum + verdict.summary
    if let violation = verdict.violation {
        // The same again, with every line: that is what a seed is for.
        var again = options
        again.isRecording = true
        for line in World(again).run().lines.suffix(60) { print("  \(line)") }
        let trace = Hex.encode(verdict.traceHash)
        print(
            "seed \(seed) steps \(steps) trace \(trace) FAILED at step \(verdict.stepsTaken): "
                + violation)
        failed = true
        break
    }
    if !chosen.isQuiet { print("seed \(seed) steps \(steps) trace \(Hex.encode(verdict.traceHash)) held") }
    if seed < chosen.seeds.upperBound {
        seed += 1
    } else if Double((clock.now - start).components.seconds) < minutes * 60 {
        seed += 1
    } else {
        break
    }
}
let elapsed = (clock.now - start) / .seconds(1)
print(
    """
    \(worlds) worlds, \(stepsTaken) steps, \(Int(Double(stepsTaken) / max(elapsed, 1e-9))) steps/s; \
    \(sum.published) messages published, \(sum.events) events, \(sum.commits) commits, \(sum.segments) segments, \
    \(sum.diskOperations) disk operations, \(sum.starts) starts, \(sum.kills) kills and ends, \
    \(sum.powerCuts) power cuts, \
    \(sum.failures) failures, \(sum.holds) holds, \(sum.tornTails) torn tails, \(sum.refusedWriters) writers refused, \
    \(sum.rotten) bits flipped, \(sum.databaseCommits) transactions, \(sum.databaseCrashes) database crashes
    """)
exit(failed ? 1 : 0)
