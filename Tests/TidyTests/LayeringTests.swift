import Testing

/// The data flows one way: a target imports what Package.swift says, which stands above it there, and the pure ones
/// import nothing that acts.
struct LayeringTests {
    struct Target {
        let name: String
        /// Targets and products.
        let dependencies: Set<String>
    }

    /// In the order of Package.swift.
    private static func targets(_ manifest: String) -> [Target] {
        let manifest = manifest.replacing(/package: "[^"]*"|\/\/[^\n]*/, with: "")
        let begins = manifest.matches(of: /\.(?:target|executableTarget|testTarget|systemLibrary)\(\s*name: "(\w+)"/)
        return begins.map { begin in
            let text = manifest[begin.range.upperBound...].prefix { $0 != "]" }
            let list = text.split(separator: "dependencies: [", omittingEmptySubsequences: false)
            // Without dependencies the next target's would be found.
            let isOwn = list.count > 1 && !list[0].contains(")")
            let names = isOwn ? list[1].matches(of: /"(\w+)"/).map { String($0.1) } : []
            return Target(name: String(begin.1), dependencies: Set(names))
        }
    }

    static let system: Set<String> = [
        "Foundation", "FoundationEssentials", "Glibc", "Synchronization", "Dispatch",
    ]
    /// Modules that come with a product of another name.
    static let modules: [String: Set<String>] = [
        "Hummingbird": [
            "HummingbirdCore", "HTTPTypes", "NIOCore", "NIOHTTP1", "NIOHTTPTypes", "NIOHTTPTypesHTTP1",
            "ServiceLifecycle",
            "Logging",
        ]
    ]
    /// No file, socket, clock or thread: what replay relies on.
    static let pure: Set<String> = [
        "EventModel", "Decisions", "CampaignRules", "Evidence", "Decoding", "Projections", "Health",
    ]

    /// Both ways: an import without a declared dependency builds by luck.
    @Test func targetsImportWhatIsDeclared() throws {
        let targets = Self.targets(try Tree.text("Package.swift")), imports = try Tree.imports(in: "Sources")
        #expect(imports.count > 30)
        for (name, imported) in imports.sorted(by: { $0.key < $1.key }) {
            #expect(Self.problems(name, imports: imported, targets) == [])
        }
    }

    /// A test may depend on more: on programs that it runs.
    @Test func testsDeclareWhatTheyImport() throws {
        let targets = Self.targets(try Tree.text("Package.swift")), names = Set(targets.map(\.name))
        for (name, imported) in try Tree.imports(in: "Tests") {
            guard let target = targets.first(where: { $0.name == name }) else { continue }
            let missing = imported.intersection(names).subtracting(target.dependencies).subtracting([name])
            #expect(missing == [], "\(name) imports them without saying so in Package.swift")
        }
    }

    private static func problems(_ name: String, imports imported: Set<String>, _ targets: [Target]) -> [String] {
        guard let index = targets.firstIndex(where: { $0.name == name }) else { return ["\(name) is not declared"] }
        let declared = targets[index].dependencies, above = Set(targets[..<index].map(\.name))
        let allowed = declared.reduce(into: declared.union(system)) { $0.formUnion(modules[$1, default: []]) }
        let later = declared.intersection(targets.map(\.name)).subtracting(above)
        return imported.subtracting(allowed).sorted().map { "\(name) imports \($0)" }
            + declared.subtracting(imported).sorted().map { "\(name) declares \($0), and does not import it" }
            + later.sorted().map { "\(name) imports \($0), which stands behind it" }
    }

    @Test func aWrongImportIsFound() {
        let targets = Self.targets(
            """
            .systemLibrary(name: "CLib", pkgConfig: "lib"),
            .target(name: "A"),
            .target(name: "B", dependencies: ["A", "CLib", .product(name: "P", package: "p-q")]),  // "X"
            .target(
                name: "C",
                dependencies: [
                    "A",
                ], exclude: ["D"]),
            .testTarget(name: "CTests", dependencies: ["C"]),
            """)
        #expect(targets.map(\.name) == ["CLib", "A", "B", "C", "CTests"])
        #expect(targets.map(\.dependencies) == [[], [], ["A", "CLib", "P"], ["A"], ["C"]])
        #expect(Self.problems("B", imports: ["A", "CLib", "P", "Foundation"], targets) == [])
        #expect(
            Self.problems("B", imports: ["A", "C", "P"], targets) == [
                "B imports C", "B declares CLib, and does not import it",
            ])
        #expect(Self.problems("D", imports: [], targets) == ["D is not declared"])
        #expect(
            Self.problems("A", imports: ["C"], [Target(name: "A", dependencies: ["C"]), targets[3]]) == [
                "A imports C, which stands behind it"
            ])
    }

    @Test func whatIsPureStaysPure() throws {
        let imports = try Tree.imports(in: "Sources")
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

    /// One file of a target begins a line with `// Target: `, and says what it is for, its invariants and its entry
    /// points.
    @Test func everyTargetSaysWhatItIsFor() throws {
        for target in try Tree.imports(in: "Sources").keys.sorted() {
            let heads = try Tree.files(["Sources/\(target)"], ending: [".swift"]).count {
                try ("\n" + Tree.text($0)).contains("\n// \(target): ")
            }
            #expect(heads == 1, "\(target)")
        }
    }
}
