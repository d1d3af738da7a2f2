import ArgumentParser

/// `refold replay`: history, refolded, compared, asked and told again.
struct ReplayCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "replay", abstract: "Rebuild, verify, query and republish history.",
        subcommands: [
            ReplayRebuild.self, ReplayRollback.self, ReplayRebuilds.self, ReplayDrop.self, ReplayVerify.self,
            ReplayAsOf.self, ReplayWhatIf.self, ReplayPublish.self,
        ])
}
