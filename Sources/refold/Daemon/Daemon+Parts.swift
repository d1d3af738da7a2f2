import Access
import Campaigns
import Ingest
import Logging
import Projecting
import ServiceLifecycle

/// The parts that need more than a start and a stop.
extension Daemon {
    /// Projectors run once the database has the schema.
    static func projecting(
        _ projectors: [Projector], _ keeper: DatabaseKeeper, _ rebuilds: RebuildKeeper, _ logger: Logger
    ) -> DaemonPart {
        DaemonPart("projectors") {
            let watching = Task {
                await keeper.watch {
                    await rebuilds.begin()
                    for projector in projectors { Task { await projector.run() } }
                    logger.info("projecting into the database")
                }
            }
            await DaemonPart.shutdown()
            watching.cancel()
            await withTaskGroup(of: Void.self) { group in
                // One that was never started (no database yet) has nothing to stop.
                for projector in projectors where keeper.state.prepared {
                    group.addTask { await projector.stop() }
                }
            }
        }
    }

    /// Recovers the tokens in the background: ingest neither waits for them nor stops with them.
    static func tokens(_ tokens: AccessDecider, _ troubles: Troubles, _ logger: Logger) -> DaemonPart {
        DaemonPart(
            "tokens", logger: logger,
            cancellable: {
                await recover(tokens, troubles, logger)
                for await _ in tokens.stateLosses { await recover(tokens, troubles, logger) }
            })
    }

    /// A damaged log may be repaired while the daemon runs: it is tried until it is done.
    private static func recover(_ tokens: AccessDecider, _ troubles: Troubles, _ logger: Logger) async {
        var isTold = false
        while !Task.isCancelled {
            do {
                try await tokens.recover()
                troubles.tokenError = nil
                return
            } catch {
                if !isTold { logger.error("cannot read tokens back; only the data folder's token works: \(error)") }
                troubles.tokenError = "\(error)"
                isTold = true
            }
            try? await Task.sleep(for: .seconds(2))
        }
    }

    static func campaigns(
        _ decider: CampaignDecider, after receiving: Task<Bool, Never>, _ troubles: Troubles, _ logger: Logger
    ) -> DaemonPart {
        DaemonPart("campaigns") {
            guard await receiving.value else { return }
            await cancelWhenGracefulShutdown {
                await decider.run { error in
                    troubles.deciderFailed(error)
                    logger.error("campaign engine stopped; retrying in 2 s", metadata: ["error": "\(error)"])
                }
            }
        }
    }

    /// Receives once the clock is right.
    static func receiving(
        _ ingest: IngestService, after receiving: Task<Bool, Never>, _ logger: Logger
    ) -> DaemonPart {
        DaemonPart("brokers") {
            let isReceiving = await withGracefulShutdownHandler {
                await receiving.value
            } onGracefulShutdown: {
                receiving.cancel()
            }
            guard isReceiving else { return }
            ingest.start()
            await DaemonPart.shutdown()
            if !(await ingest.stop()) {
                logger.warning("a broker connection did not end in time; nothing is lost by that")
            }
        }
    }
}
