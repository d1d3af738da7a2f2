import Foundation
import Testing

/// The tree stays tidy: sizes and words.
struct TidyTests {
    @Test func filesFitInASitting() throws {
        let code = [".swift", ".c", ".cpp", ".h", ".py", ".js", ".css", ".html"]
        for file in Tree.files(["Sources", "Tests", "bench"], ending: code) {
            let columnsMax = file.hasSuffix(".swift") ? 120 : 140
            let lines = try Tree.text(file).split(separator: "\n", omittingEmptySubsequences: false)
            #expect(lines.count <= 600, "\(file) has \(lines.count) lines")
            for (index, line) in lines.enumerated() where line.count > columnsMax && !line.contains("https://") {
                Issue.record("\(file):\(index + 1) has \(line.count) columns")
            }
        }
    }

    /// By their bytes, within each block without an empty line.
    @Test func importsAreSorted() throws {
        for file in Tree.files(["Sources", "Tests"], ending: [".swift"]) {
            var names: [String] = []
            for line in try (Tree.text(file) + "\n").split(separator: "\n", omittingEmptySubsequences: false) {
                if line.hasPrefix("import ") {
                    names.append(String(line.split(separator: " ").last ?? ""))
                } else {
                    #expect(names == names.sorted(), "\(file) imports \(names)")
                    names = []
                }
            }
        }
    }

    @Test func nothingGeneratedIsInGit() throws {
        let files = try Tree.tracked()
        #expect(files.count > 500)
        #expect(files.filter(Self.isGenerated) == [])
        for file in ["bench/soak/__pycache__/mqtt.cpython-312.pyc", "a/.build/x.o", ".venv/bin/pip", "a.profraw"] {
            #expect(Self.isGenerated(file))
        }
    }

    private static func isGenerated(_ file: String) -> Bool {
        [
            "__pycache__/", ".pyc", ".schemathesis", ".hypothesis", ".build/", "bench/build/", ".venv/", ".profraw",
            "Package.resolved", ".DS_Store", ".swp",
        ].contains { file.contains($0) }
    }

    @Test func whatBenchDemandsIsReadAsItIsWritten() throws {
        let program = ["python3", "-B", "-m", "doctest", Tree.root.appending(path: "bench/demands.py").path]
        #expect(try Tree.run(program).output == "")
    }

    @Test func nothingIsLeftForLater() throws {
        // Written in two parts, so that this file does not find itself.
        let words = ["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]
        for file in Tree.files(Tree.ownFolders, ending: Tree.textEndings) {
            let text = try Tree.text(file)
            for word in words {
                let found = text.firstRange(of: try Regex("\\b\(word)\\b")) != nil
                #expect(!found, "\(file) says \(word)")
            }
        }
    }

    /// `try!` and `as!` end the process by a trap; so does `FileHandle.write` on a closed pipe or a full disk, and
    /// `print` reports no error. One file of the executable writes to the standard streams.
    @Test func nothingFromOutsideMeetsATrapThatIsKnown() throws {
        let traps = /\btry!|\bas! |FileHandle\.standard(Output|Error)|\bfputs\(|\bSwift\.print\(|\bfatalError\(/
        let printing = /(^|[^.\w])print\(/
        let tools = ["Sources/RefoldBench/", "Sources/RefoldSim/", "Sources/Simulation/"]
        for file in Tree.files(["Sources"], ending: [".swift"]) where !tools.contains(where: file.hasPrefix) {
            for line in try Tree.text(file).split(separator: "\n") where !line.contains("//") {
                let found = line.firstMatch(of: traps).map { String($0.0) }
                #expect(found == nil, "\(file): \(found ?? "")")
                let prints = !file.hasPrefix("Sources/refold/") && line.firstMatch(of: printing) != nil
                #expect(!prints, "\(file) prints: \(line)")
            }
        }
    }

    /// A path of somebody's machine works for nobody else.
    @Test func noPathOfOneMachineIsInTheTree() throws {
        let paths = ["/wo" + "rk/", "/ho" + "me/", "/ro" + "ot/", "/tmp/" + "wt"]
        for file in Tree.files(Tree.ownFolders, ending: Tree.textEndings) {
            let text = try Tree.text(file)
            for path in paths { #expect(!text.contains(path), "\(file) names \(path)") }
        }
    }

    @Test func filesBeginWithWhatTheyAreFor() throws {
        for file in Tree.files(["Sources"], ending: [".swift"]) {
            let first = try Tree.text(file).split(separator: "\n").first.map(String.init) ?? ""
            let sensible = [
                "import ", "//", "#if", "@", "public ", "struct ", "enum ", "extension ", "final class ",
                "protocol ",
            ]
            #expect(sensible.contains { first.hasPrefix($0) }, "\(file) begins with \"\(first)\"")
            #expect(try Tree.text(file).hasSuffix("\n"), "\(file) does not end its last line")
        }
    }

    @Test func theReadmeBeginsWithTheTwoCommands() throws {
        let beginning = try Tree.text("README.md").split(separator: "\n").prefix(5).joined(separator: "\n")
        #expect(beginning.contains("make run") && beginning.contains("make test"))
    }

    @Test func resolvedVersionsAreNotInTheTree() throws {
        #expect(try Tree.text(".gitignore").split(separator: "\n").contains("Package.resolved"))
    }
}

/// The files of the package, as the tests see them.
enum Tree {
    /// Exit code, and standard output and standard error, of a program that is found in PATH.
    static func run(_ arguments: [String]) throws -> (status: Int32, output: String) {
        let process = Process(), pipe = Pipe()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = arguments
        (process.standardOutput, process.standardError) = (pipe, pipe)
        try process.run()
        let output = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: output, as: UTF8.self))
    }

    /// Paths of the files that are in git.
    static func tracked() throws -> [String] {
        try run(["git", "-C", root.path, "ls-files"]).output.split(separator: "\n").map(String.init)
    }

    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    static let ownFolders = ["Sources", "Tests", "bench", "packaging", "schemas", "replay", "Plugins", "."]
    static let textEndings = [
        ".swift", ".c", ".cpp", ".h", ".py", ".md", ".yml", ".yaml", ".sql", ".sh", "Makefile", ".service",
        ".js", ".css", ".html",
    ]

    static func text(_ path: String) throws -> String {
        try String(contentsOf: root.appending(path: path), encoding: .utf8)
    }

    static func isFolder(_ path: String) -> Bool {
        var isFolder: ObjCBool = false
        return FileManager.default.fileExists(atPath: root.appending(path: path).path, isDirectory: &isFolder)
            && isFolder.boolValue
    }

    /// Paths from the root, sorted. "." stands for the root's own files; what is built or kept is left out.
    static func files(_ folders: [String], ending: [String]) -> [String] {
        var found: [String] = []
        for folder in folders {
            let base = folder == "." ? root : root.appending(path: folder)
            let names =
                folder == "."
                ? (try? FileManager.default.contentsOfDirectory(atPath: base.path)) ?? []
                : FileManager.default.enumerator(atPath: base.path)?.compactMap { $0 as? String } ?? []
            for name in names where ending.contains(where: { name.hasSuffix($0) }) {
                let isKept = [".build/", "bench/build/", "__pycache__", ".venv"].contains {
                    "\(folder)/\(name)".contains($0)
                }
                if !isKept { found.append(folder == "." ? name : "\(folder)/\(name)") }
            }
        }
        return found.sorted()
    }

    /// What each target of `Sources` or `Tests` imports.
    static func imports(in folder: String) throws -> [String: Set<String>] {
        var imports: [String: Set<String>] = [:]
        for file in files([folder], ending: [".swift"]) {
            let target = String(file.split(separator: "/")[1])
            let pattern = /(?m)^\s*(?:@\w+ |public |internal |package )*import (?:struct |class |enum |func )?(\w+)/
            for match in try text(file).matches(of: pattern) { imports[target, default: []].insert(String(match.1)) }
            imports[target] = imports[target] ?? []
        }
        return imports
    }
}
