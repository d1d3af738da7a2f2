import Testing

/// A thread or task that looks again and again costs an idle machine wake-ups, and answers late. What waits, waits on a
/// condition, the log or a time (`Monitor`, `ServiceThread`, `DeciderSleep`, `LogSource.waitForDurable`).
struct SleepTests {
    /// Who may sleep all the same, and why.
    static let allowed = [
        "Sources/ControlAPI/Streams.swift": "asks the tables for news of a stream that somebody watches",
        "Sources/Outbox/CommandPublisher.swift": "a stop waits for the outboxes' threads, with a limit",
        "Sources/Enforcement/DynsecCutter.swift": "until a broker has closed a connection, with a limit",
        "Sources/Enforcement/EMQXCutter.swift": "until a broker has closed a connection, with a limit",
        "Sources/EventLog/Reading/ReadOnlyLog.swift": "nothing wakes another process",
        "Sources/FleetSimulator/Poller.swift": "after a failed poll",
        "Sources/Ingest/Connection/BrokerConnection+Handover.swift":
            "two seconds at most, for another session's records",
        "Sources/Ingest/Connection/BrokerConnection.swift": "lets messages gather while they are dense",
        "Sources/Ingest/Ingest.swift": "a stop waits for the connections' threads, with a limit",
        "Sources/Issuing/CertificateAudit.swift": "an audit every five minutes",
        "Sources/Output/LogOutput.swift": "a pause before the next attempt",
        "Sources/PrivateServices/PrivateMosquitto.swift": "until a child process listens",
        "Sources/PrivateServices/PrivatePostgres.swift": "until a child process listens",
        "Sources/PrivateServices/ShellCommand.swift": "until a child process has ended",
        "Sources/Projecting/Projector.swift": "a pause after a failure; the patience of a stop",
        "Sources/Projecting/ProjectorControl.swift": "the time limit of a waiter",
        "Sources/Queries/QueryPool.swift": "the time limit of a waiter",
        "Sources/RefoldBench/HistoryBench.swift": "a benchmark",
        "Sources/RefoldBench/IngestBench.swift": "a benchmark",
        "Sources/RefoldBench/RevokeBench.swift": "a benchmark",
        "Sources/Publishing/Publication.swift": "the pace of a publication",
        "Sources/Rebuilding/Rebuild.swift": "while its workers run",
        "Sources/Rebuilding/Rollback.swift": "a pause before the next attempt",
        "Sources/Threading/Descriptors.swift": "until a descriptor is free",
        "Sources/Threading/ThreadExecutor.swift": "until a thread can be started",
        "Sources/Working/JobRunner.swift": "the time limit of an attempt; a pause after a failure",
        "Sources/Working/JobService.swift": "the end of a lease or a long poll; a pause after a failure",
        "Sources/refold/Commands/CampaignWatch.swift": "a command that shows progress",
        "Sources/refold/Commands/Jobs.swift": "a command that shows progress",
        "Sources/refold/Commands/ReplayRebuild.swift": "a command that shows progress",
        "Sources/refold/Commands/Run.swift": "the interval of the service manager's watchdog",
        "Sources/refold/Commands/Simulate.swift": "a command that shows progress",
        "Sources/refold/Commands/Worker.swift": "heartbeats; a pause after a failure; the time limit of a stop",
        "Sources/refold/Daemon/APIServer.swift": "the time limit of a stop",
        "Sources/refold/Daemon/ClockWait.swift": "until the system clock is right, which tells nobody",
        "Sources/refold/Daemon/DaemonPart.swift": "a limit for a part that does not end",
        "Sources/refold/Daemon/DeadLetterCounts.swift": "the time limit of a query",
        "Sources/refold/Daemon/JobProcessing.swift": "a look at the queues every ten seconds",
        "Sources/refold/Daemon/LogArchive.swift": "segments come of age, where there is a retention rule",
        "Sources/refold/Daemon/RebuildKeeper.swift": "a pause before the next attempt; the first answer of a rebuild",
        "Sources/refold/Daemon/StatusReporter+Parked.swift": "an answer of a projector, with a limit",
        "Sources/refold/Daemon/StatusReporter.swift": "an answer of a projector, with a limit",
        "Sources/refold/Demo/Demo.swift": "the pace of the demo",
    ]

    @Test func whoSleepsHasAReason() throws {
        var found: Set<String> = []
        for file in Tree.files(["Sources"], ending: [".swift"]) {
            let sleeps = try Tree.text(file).firstMatch(of: /\busleep\(|\bTask\.sleep\(|\bnanosleep\(/) != nil
            if sleeps { found.insert(file) }
        }
        #expect(found.subtracting(Self.allowed.keys).sorted() == [], "wait on a condition instead")
        #expect(Set(Self.allowed.keys).subtracting(found).sorted() == [], "no longer sleeps")
    }
}
