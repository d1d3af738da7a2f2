import Foundation
import Testing

/// Bugs that tests plant are compiled only with the condition `PLANTED_BUGS`, and no release executable has it.
struct PlantedBugTests {
    /// Of the product; the simulation plants them, or a test under load.
    private static let files = Tree.files(["Sources"], ending: [".swift"]).filter {
        !$0.hasPrefix("Sources/Simulation/") && !$0.hasPrefix("Sources/RefoldSim/")
    }
    private static let executable = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
        .appending(path: "refold").path

    /// Type and case of every switch that the product's sources declare.
    private static func declared() throws -> Set<String> {
        var found: Set<String> = []
        for file in files where file.hasSuffix("Fault.swift") {
            let text = try Tree.text(file)
            let type = try #require(text.firstMatch(of: /(?m)^enum (\w+Fault): String \{$/)?.1, "\(file)")
            for match in text.matches(of: /(?m)^    case (\w+)$/) { found.insert("\(type).\(match.1)") }
        }
        return found
    }

    @Test func everySwitchNeedsTheCondition() throws {
        for file in Self.files {
            let problems = Self.problems(of: try Tree.text(file), isDeclaration: file.hasSuffix("Fault.swift"))
            #expect(problems == [], "\(file)")
        }
    }

    /// A switch that nothing asks for plants nothing; one that neither a simulation nor a test sets proves nothing.
    @Test func everySwitchIsUsedAndSimulated() throws {
        let declared = try Self.declared()
        #expect(declared.count >= 16)
        var used: Set<String> = []
        for file in Self.files {
            for match in try Tree.text(file).matches(of: /\b(\w+Fault)\.isPlanted\(\.(\w+)\)/) {
                used.insert("\(match.1).\(match.2)")
            }
        }
        #expect(used == declared)
        let simulated = try Tree.files(["Sources/Simulation"], ending: [".swift"]).map { try Tree.text($0) }.joined()
        let planted = try Tree.files(["Tests/EnforcementTests"], ending: [".swift"]).map { try Tree.text($0) }.joined()
        for name in declared.map({ $0.split(separator: ".")[1] }) {
            let isPlanted = simulated.contains("    case \(name) = \"") || planted.contains("\"\(name)\"")
            #expect(isPlanted, "\(name)")
        }
    }

    @Test func onlyDebugBuildsHaveTheCondition() throws {
        let manifest = try Tree.text("Package.swift")
        #expect(
            manifest.contains(
                """
                let plantsBugs = Context.environment["REFOLD_PLANTED_BUGS"] == "1"
                let plantedBugs: [SwiftSetting] = [
                    plantsBugs ? .define("PLANTED_BUGS") : .define("PLANTED_BUGS", .when(configuration: .debug))
                ]

                """))
        #expect(manifest.matches(of: /"PLANTED_BUGS"/).count == 2)
        let make = try Tree.text("Makefile").replacing("\\\n", with: "")
        #expect(make.contains("product refold\n\tpackaging/find-planted-bugs .build/release/refold\n"))
        // What is built with them is built elsewhere, so that the product is not linked with it.
        let planted = make.split(separator: "\n").filter { $0.contains("PLANTED_BUGS") }
        #expect(planted.count == 1 && planted.allSatisfy { $0.contains("--scratch-path .build/planted ") })
    }

    /// The check of `make build`, on an executable that has them all: a debug build's.
    @Test func theCheckFindsThemInADebugExecutable() throws {
        let check = Tree.root.appending(path: "packaging/find-planted-bugs").path
        let found = try Tree.run([check, Self.executable])
        let names = Set(try Self.declared().map { String($0.split(separator: ".")[1]) })
        #expect(found.status == 1 && names.isSubset(of: found.output.split(separator: "\n").map(String.init)))
        #expect(try Tree.run([check, "/bin/sh"]).status == 0)
        #expect(try Tree.run([check, Self.executable + "-missing"]).status == 2)
    }

    @Test(arguments: [
        "package enum XFault: String {\n}\n#if PLANTED_BUGS\n#else\n#endif\n",
        "enum XFault: String {\n}\n@TaskLocal static var planted: XFault?\n",
        "enum XFault: String {\n}\n#if PLANTED_BUGS\n#else\nstatic func isPlanted(_ a: X) -> Bool { true }\n#endif\n",
    ])
    func aSwitchWithoutTheConditionIsFound(text: String) {
        #expect(Self.problems(of: text, isDeclaration: true) != [])
    }

    @Test func aSwitchElsewhereIsFound() {
        #expect(Self.problems(of: "if XFault.isPlanted(.a) { return }\n", isDeclaration: false) == [])
        #expect(Self.problems(of: "/// A bug that is planted.\nvar loses = false\n", isDeclaration: false) != [])
    }

    /// What lets a bug be planted without the condition.
    private static func problems(of text: String, isDeclaration: Bool) -> [String] {
        guard isDeclaration else {
            let lines = text.contains("plant") || text.contains("Plant") ? text.split(separator: "\n") : []
            let use = /\b\w+Fault\.isPlanted\(\.\w+\)/
            return lines.map { $0.replacing(use, with: "") }.filter { $0.contains(/[Pp]lant/) }.map {
                "mentions planting: \($0)"
            }
        }
        let parts = text.components(separatedBy: "\n#if PLANTED_BUGS\n")
        let branches = (parts.last ?? "").components(separatedBy: "\n#else\n")
        guard parts.count == 2, branches.count == 2, branches[1].hasSuffix("\n#endif\n") else {
            return ["is not: the enum, #if PLANTED_BUGS, #else, #endif"]
        }
        var problems: [String] = []
        // The optimiser removes only what no other module can see.
        let visible = (parts[0] + branches[1]).firstMatch(of: /\b(public|package|open) |@TaskLocal|withValue/)
        if let visible { problems.append("outside of the condition: \(visible.0)") }
        let constant = /\n    @inline\(__always\) static func isPlanted\(_ fault: \w+\) -> Bool \{ false \}\n/
        if branches[1].components(separatedBy: "func ").count != 2 || branches[1].firstMatch(of: constant) == nil {
            problems.append("isPlanted is not the constant false without the condition")
        }
        return problems
    }
}
