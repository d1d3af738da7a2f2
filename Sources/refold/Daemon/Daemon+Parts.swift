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
        DaemonPart(
            "projectors", logger: logger,
            cancellable: {
                await keeper.interruptible {
                    guard await keeper.untilPrepared() else { return }
                    await rebuilds.begin()
                    logger.info("projecting into the database")
                    await withDiscardingTaskGroup { group in
                        for projector in projectors { group.addTask { await projector.run() } }
                        await keeper.watch { names in
                            for projector in projectors where names?.contains(projector.descriptor.name) ?? true {
                                projector.confirm()
                            }
                        }
                    }
                }
            })
    }

    /// Ingest neither waits for the tokens nor stops with them.
    static func tokens(_ tokens: AccessDecider, _ troubles: Troubles, _ logger: Logger) -> DaemonPart {
        DaemonPart(
            "tokens", logger: logger,
            cancellable: {
                await tokens.run { error in
                    guard troubles.report(error, by: AccessState.storedName), let error else { return }
                    logger.error(
                        "cannot read the tokens in the log; only the data folder's token is accepted",
                        metadata: ["error": "\(error)"])
                }
            })
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
                    logger.error(
                        "the campaign engine failed; it retries every 2 s unless the log has failed",
                        metadata: ["error": "\(error)"])
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
