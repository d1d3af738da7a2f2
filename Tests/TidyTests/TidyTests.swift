import Foundation
import Testing

/// The tree stays tidy: sizes, words, and who may import whom.
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

/// The data flows one way: a target imports only what stands before it, and the pure ones import nothing that acts.
struct LayeringTests {
    /// Who may import whom, beyond the standard library and Foundation. What is not named here is a mistake or a
    /// decision to be made: make it here. The composition root and the benchmark may import everything.
    static let allowed: [String: Set<String>] = [
        "EventModel": ["Primitives"],
        "Decisions": ["Primitives", "EventModel"],
        "Threading": ["Primitives", "CPlatform"],
        "Output": ["Primitives", "Threading"],
        "CampaignRules": ["EventModel", "Decisions"],
        "Evidence": ["Primitives", "EventModel", "COpenSSL"],
        "EventLog": ["Primitives", "EventModel", "Evidence", "Threading", "CLZ4", "CChecksum", "CPlatform"],
        "Ingest": [
            "Primitives", "EventModel", "Decisions", "EventLog", "Threading", "CMosquitto", "COpenSSL", "CPlatform",
        ],
        "Decoding": ["EventModel", "Decisions", "CSIMDJSON"],
        "Projections": ["Primitives", "EventModel", "Decisions", "CampaignRules", "Decoding", "CPlatform"],
        "Projecting": [
            "Primitives", "EventModel", "Evidence", "EventLog", "Decoding", "Projections", "Threading",
        ],
        "Snapshots": [
            "Primitives", "EventModel", "Evidence", "EventLog", "Projections", "Projecting", "CLZ4",
            "CChecksum",
        ],
        "Postgres": ["Primitives", "CPostgres", "COpenSSL"],
        "PostgresStore": ["EventModel", "Projecting", "Projections", "Postgres"],
        "Replay": [
            "Primitives", "EventModel", "Decisions", "CampaignRules", "Evidence", "EventLog", "Ingest", "Decoding",
            "Projections",
            "Projecting", "Snapshots", "Postgres", "PostgresStore", "Deciding", "Campaigns", "CMosquitto", "CZlib",
            "Output",
        ],
        "Queries": ["EventModel", "Decisions", "Postgres", "Threading"],
        "Health": ["EventModel"],
        "Settings": ["EventModel", "Configuration", "SystemPackage", "Yams"],
        "PrivateServices": ["Primitives", "Threading", "CPlatform"],
        "Deciding": [
            "Primitives", "EventModel", "Decisions", "EventLog", "Decoding", "Threading", "DequeModule",
        ],
        "Campaigns": [
            "EventModel", "Decisions", "CampaignRules", "Decoding", "Deciding", "Primitives", "HeapModule",
        ],
        "Access": ["Primitives", "EventModel", "Decisions", "EventLog", "Deciding"],
        "WebPages": [],
        "Outbox": ["EventModel", "Decisions", "Deciding", "Ingest", "Threading", "CMosquitto", "DequeModule"],
        "ControlAPI": [
            "Primitives", "EventModel", "Decisions", "EventLog", "Deciding", "Access", "CampaignRules", "Campaigns",
            "WebPages",
            "Hummingbird", "HummingbirdCore", "HTTPTypes", "NIOCore", "NIOHTTP1", "NIOHTTPTypes", "NIOHTTPTypesHTTP1",
            "ServiceLifecycle", "Logging",
        ],
        "Simulation": [
            "Primitives", "EventModel", "Decisions", "CampaignRules", "Deciding", "Campaigns", "EventLog", "Ingest",
            "Projections",
            "Projecting",
        ],
        "RefoldSim": ["Primitives", "Simulation"],
        "Primitives": ["COpenSSL"],
        "HTTPClient": ["Threading", "CCurl"],
        "FleetSimulator": ["Primitives", "EventModel", "Threading", "CMosquitto", "CPlatform"],
    ]
    static let unlimited: Set<String> = ["refold", "RefoldBench"]
    static let system: Set<String> = [
        "Foundation", "FoundationEssentials", "Glibc", "Musl", "Synchronization", "Dispatch",
    ]
    /// No file, socket, clock or thread: what replay relies on.
    static let pure: Set<String> = [
        "EventModel", "Decisions", "CampaignRules", "Evidence", "Decoding", "Projections", "Health",
    ]

    @Test func targetsImportOnlyWhatTheyMay() throws {
        let imports = try Tree.imports()
        #expect(imports.count >= 8)
        for (target, imported) in imports.sorted(by: { $0.key < $1.key }) {
            guard !Self.unlimited.contains(target) else { continue }
            #expect(Self.problems(target, imports: imported) == [])
        }
        let stale = Set(Self.allowed.keys).union(Self.unlimited).subtracting(imports.keys)
        #expect(stale.sorted() == [], "targets that do not exist")
    }

    private static func problems(_ target: String, imports imported: Set<String>) -> [String] {
        guard let allowed = allowed[target] else { return ["\(target) is not named here"] }
        return imported.subtracting(allowed).subtracting(system).sorted().map { "\(target) imports \($0)" }
            + allowed.subtracting(imported).sorted().map { "\(target) may import \($0), and does not" }
    }

    @Test func anImportTooManyAndOneTooFewAreFound() {
        #expect(Self.problems("Health", imports: ["EventModel", "Foundation"]) == [])
        #expect(Self.problems("Health", imports: ["EventModel", "Threading"]) == ["Health imports Threading"])
        #expect(Self.problems("Health", imports: []) == ["Health may import EventModel, and does not"])
        #expect(Self.problems("Wealth", imports: []) == ["Wealth is not named here"])
    }

    @Test func whatIsPureStaysPure() throws {
        let imports = try Tree.imports()
        for target in Self.pure {
            let acting = imports[target, default: []].intersection(["Dispatch", "Synchronization", "Threading"])
            #expect(acting.isEmpty, "\(target) imports \(acting.sorted())")
        }
        let acts =
            #/
            \bDate\(\)|\bFileManager\b|\bProcessInfo\b|\bContinuousClock\b|\bSystemTime\b|\.random\(|\bUUID\(\)|\bTask\b
            /#
        for file in Tree.files(Self.pure.sorted().map { "Sources/\($0)" }, ending: [".swift"]) {
            for line in try Tree.text(file).split(separator: "\n") where !line.contains("seed") {  // of a hash table
                let found = line.firstMatch(of: acts).map { String($0.0) }
                #expect(found == nil, "\(file) uses \(found ?? "")")
            }
        }
    }

    @Test func importsHaveNoCycle() throws {
        let imports = try Tree.imports()
        var finished: Set<String> = [], path: [String] = []
        func visit(_ target: String) {
            if finished.contains(target) { return }
            #expect(!path.contains(target), "\((path + [target]).joined(separator: " → "))")
            guard !path.contains(target) else { return }
            path.append(target)
            for next in imports[target, default: []].sorted() { visit(next) }
            path.removeLast()
            finished.insert(target)
        }
        for target in imports.keys.sorted() { visit(target) }
    }

    /// An import without a declared dependency builds by luck.
    @Test func everyImportOfOursIsDeclared() throws {
        let manifest = try Tree.text("Package.swift")
        let imports = try Tree.imports()
        for (target, imported) in imports.sorted(by: { $0.key < $1.key }) {
            guard let start = manifest.firstRange(of: try Regex("arget\\(\\s*name: \"\(target)\"")) else {
                Issue.record("Package.swift does not declare \(target)")
                continue
            }
            let declaration = manifest[start.lowerBound...].prefix { $0 != "]" }
            for name in imported where imports[name] != nil || name.hasPrefix("C") && Tree.isFolder("Sources/\(name)") {
                #expect(
                    declaration.contains("\"\(name)\""),
                    "\(target) imports \(name) without saying so in Package.swift")
            }
        }
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

    /// What each target of `Sources` imports.
    static func imports() throws -> [String: Set<String>] {
        var imports: [String: Set<String>] = [:]
        for file in files(["Sources"], ending: [".swift"]) {
            let target = String(file.split(separator: "/")[1])
            let pattern = /(?m)^\s*(?:@\w+ |public |internal |package )*import (?:struct |class |enum |func )?(\w+)/
            for match in try text(file).matches(of: pattern) { imports[target, default: []].insert(String(match.1)) }
            imports[target] = imports[target] ?? []
        }
        return imports
    }
}
