import ArgumentParser

@main
struct Refold: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "refold",
        abstract: "An event-sourced MQTT stream processor: every message durable in a log, folded into PostgreSQL.",
        version: "0.1.0",
        subcommands: [
            StatusCommand.self, Simulate.self, ProjectionCommand.self, FirmwareCommand.self, CampaignCommand.self,
            DeadLettersCommand.self, Config.self,
        ]
    )
}
