import Access
import Campaigns
import Deciding
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

    /// Ingest neither waits for the tokens nor stops with them.
    static func tokens(_ tokens: AccessDecider, _ troubles: Troubles, _ logger: Logger) -> DaemonPart {
        DaemonPart("tokens") {
            await cancelWhenGracefulShutdown {
                await tokens.run { error in
                    guard troubles.report(error, by: AccessState.storedName), let error else { return }
                    logger.error("cannot read tokens back; only the data folder's token works: \(error)")
                }
            }
        }
    }

    static func campaigns(
        _ decider: DeciderService<CampaignState>, after receiving: Task<Bool, Never>, _ troubles: Troubles,
        _ logger: Logger
    ) -> DaemonPart {
        DaemonPart("campaigns") {
            guard await receiving.value else { return }
            await cancelWhenGracefulShutdown {
                await decider.run { error in
                    guard troubles.report(error, by: CampaignState.storedName), let error else { return }
                    logger.error("campaign engine stopped; retrying every 2 s", metadata: ["error": "\(error)"])
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
