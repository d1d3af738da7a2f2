import Foundation
import PackagePlugin

/// Compiles `schemas/postgres/NNNN_name.sql` into the target that uses it, so that the executable is one file
/// and the folder the only source: a new migration is a new file there and nothing else.
@main
struct EmbedMigrations: BuildToolPlugin {
    func createBuildCommands(context: PluginContext, target: any Target) throws -> [Command] {
        let root = context.package.directoryURL
        let folder = root.appending(path: "schemas/postgres")
        let script = root.appending(path: "Plugins/EmbedMigrations/embed.sh")
        let output = context.pluginWorkDirectoryURL.appending(path: "EmbeddedMigrations.swift")
        let files = try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
            .filter { $0.pathExtension == "sql" }
            .sorted { $0.lastPathComponent < $1.lastPathComponent }
        return [
            .buildCommand(
                displayName: "Embedding \(files.count) migrations",
                executable: URL(filePath: "/bin/sh"),
                arguments: [script.path(), output.path()] + files.map { $0.path() },
                inputFiles: [script] + files,
                outputFiles: [output])
        ]
    }
}
