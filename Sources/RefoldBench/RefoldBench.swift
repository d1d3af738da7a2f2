// RefoldBench: benchmarks of the parts, without a broker and a database where possible. `bench/` sets the figures
// beside peers and limits.

import ArgumentParser

/// What Refold can do without a broker and a database, in figures. `bench/run.py` sets them beside peers and limits.
@main
struct RefoldBench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "refold-bench", abstract: "Benchmarks of the parts.",
        subcommands: [
            AppendBench.self, DecodeBench.self, TreeBench.self, FoldBench.self, BulkBench.self, IngestBench.self,
            GateBench.self, HistoryBench.self, OpenBench.self, VerifyBench.self, LookupBench.self, CRLBench.self,
            RegistryBench.self, IssueBench.self, JobsBench.self, RevokeBench.self,
        ])
}
