import Foundation
import PackagePlugin

/// Compiles the files of `Sources/WebPages/Files` into the target, so that the executable is one file and serves its
/// pages from itself.
@main
struct EmbedPages: BuildToolPlugin {
    func createBuildCommands(context: PluginContext, target: any Target) throws -> [Command] {
        let root = context.package.directoryURL
        let folder = root.appending(path: "Sources/WebPages/Files")
        let script = root.appending(path: "Plugins/EmbedPages/embed.sh")
        let output = context.pluginWorkDirectoryURL.appending(path: "EmbeddedPages.swift")
        let files = try FileManager.default.subpathsOfDirectory(atPath: folder.path())
            .filter { file in [".html", ".css", ".js", ".svg"].contains { file.hasSuffix($0) } }
            .sorted()
        return [
            .buildCommand(
                displayName: "Embedding \(files.count) files of pages",
                executable: URL(filePath: "/bin/sh"),
                arguments: [script.path(), output.path(), folder.path()] + files,
                inputFiles: [script] + files.map { folder.appending(path: $0) },
                outputFiles: [output])
        ]
    }
}
