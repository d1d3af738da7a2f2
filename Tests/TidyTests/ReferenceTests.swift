import Testing

/// Every file is needed by another, and every document that a text names is there.
struct ReferenceTests {
    // MARK: Documents

    /// Documents that are not in the tree, and why.
    private static let elsewhere = [
        "/usr/local/share/doc/refold/README.md": "where `make install` puts it",
        "DESIGN.md": "named by a migration, which never changes",
    ]

    @Test func everyDocumentThatIsNamedExists() throws {
        let tracked = Set(try Tree.tracked())
        var count = 0
        for file in Tree.files(Tree.ownFolders + ["docs", "Fuzz"], ending: Tree.textEndings)
        where !file.hasPrefix("Tests/TidyTests/") {
            let named = Self.documents(in: try Tree.text(file))
            count += named.count
            for name in named where !Self.exists(name, from: file, tracked) {
                Issue.record("\(file) names \(name), which does not exist")
            }
        }
        #expect(count > 80)
    }

    /// Relative to the root, to the file's folder, or in each folder of `replay/`.
    private static func exists(_ name: String, from file: String, _ tracked: Set<String>) -> Bool {
        if elsewhere[name] != nil || tracked.contains(name) { return true }
        var parts = file.split(separator: "/").dropLast()
        for part in name.split(separator: "/") where part != "." {
            if part == ".." { parts = parts.dropLast() } else { parts.append(part) }
        }
        let path = parts.joined(separator: "/")
        return tracked.contains(path) || !name.contains("/") && tracked.contains { $0.hasSuffix("/" + name) }
    }

    private static func documents(in text: String) -> [String] {
        let folders = ["docs/", "packaging/", "schemas/", "Tests/", "Sources/", "bench/", "Plugins/"]
        return paths(in: text).filter { path in
            let isFile = path.split(separator: "/").last?.contains(".") == true
            return path.hasSuffix(".md") || path.hasSuffix(".toml")
                || isFile && folders.contains(where: path.hasPrefix) && !path.contains("NNNN")  // of a migration's name
        }
    }

    /// Paths and words, without the full stop of a sentence. A regular expression takes ten seconds for the tree.
    private static func paths(in text: String) -> [String] {
        text.utf8.split { !SwiftSource.isWord($0) && !"./+-@".utf8.contains($0) }.map { path in
            var path = path
            while path.last == UInt8(ascii: ".") { path.removeLast() }
            return String(path) ?? ""
        }
    }

    @Test func aDocumentThatIsMissingIsFound() {
        let tracked: Set = ["docs/settings.md", "schemas/log-format.md"]
        func missing(_ text: String) -> [String] {
            Self.documents(in: text).filter { !Self.exists($0, from: "schemas/audit.md", tracked) }
        }
        #expect(missing("See docs/settings.md, log-format.md and `../docs/settings.md`.") == [])
        #expect(
            missing("See THIS.md, docs/setting.md and bench/none.py.") == [
                "THIS.md", "docs/setting.md", "bench/none.py",
            ])
    }

    // MARK: Dead files

    /// Files that nothing names, and why they are there.
    private static let unnamed = [
        "Sources/Health/HealthDocument.swift": "makes docs/health.md, which a test compares",
        "Sources/RefoldBench/RefoldBench.swift": "begins the program",
        "Sources/refold/Refold.swift": "begins the program",
    ]

    /// A file of `Sources` is dead when no other one names anything that it declares.
    @Test func noSwiftFileIsDead() throws {
        var texts: [String: String] = [:]
        for file in Tree.files(["Sources"], ending: [".swift"]) { texts[file] = try Tree.text(file) }
        #expect(texts.count > 300)
        let dead = Self.dead(texts)
        #expect(dead.subtracting(Self.unnamed.keys).sorted() == [], "nothing names what these declare")
        #expect(Set(Self.unnamed.keys).subtracting(dead).sorted() == [], "no longer needs a reason")
    }

    /// Of top-level declarations, and of all where a file extends a type.
    private static func declared(in code: String) -> Set<String> {
        let top = /(?m)^(?:@\w+ |\w+ )*(?:struct|class|enum|protocol|actor|typealias|func|let|var|macro) (\w+)/
        let any = /\b(?:struct|class|enum|protocol|actor|typealias|func|let|var|case) (\w+)/
        let names = code.matches(of: top).map { String($0.1) }
        let isExtension = code.firstMatch(of: /(?m)^(?:\w+ )*extension\b/) != nil
        return Set(isExtension ? names + code.matches(of: any).map { String($0.1) } : names)
    }

    private static func dead(_ texts: [String: String]) -> Set<String> {
        let codes = texts.mapValues { String(decoding: SwiftSource($0).code, as: UTF8.self) }
        var files: [String: Int] = [:]
        let words = codes.mapValues { Set($0.split { !($0.isLetter || $0.isNumber || $0 == "_") }.map(String.init)) }
        for names in words.values { for name in names { files[name, default: 0] += 1 } }
        return Set(
            codes.keys.filter { file in
                // A file's own words count once.
                !declared(in: codes[file] ?? "").contains { files[$0, default: 0] > 1 }
            })
    }

    /// A program or a document is dead when no other file names it.
    @Test func noOtherFileIsDead() throws {
        let tracked = try Tree.tracked().filter { !$0.hasPrefix("replay/") && !$0.hasPrefix("Fuzz/corpus/") }
        let names = Dictionary(
            uniqueKeysWithValues: tracked.map { file in
                (file, Self.names(in: (try? Tree.text(file)) ?? ""))
            })
        let programs = tracked.filter { file in
            [".py", ".sh", ".md", ".toml", ".html", ".css", ".svg", ".txt", ".service"].contains(where: file.hasSuffix)
        }
        #expect(programs.count > 30)
        #expect(programs.filter { !Self.isNamed($0, in: names) } == [])
    }

    private static func isNamed(_ file: String, in names: [String: Set<String>]) -> Bool {
        let name = file.split(separator: "/").last.map(String.init) ?? file
        return names.contains { other, names in other != file && names.contains(name) }
    }

    /// Of files; an import of Python names one.
    private static func names(in text: String) -> Set<String> {
        var names = Set(paths(in: text).compactMap { $0.split(separator: "/").last.map(String.init) })
        for line in text.utf8.split(separator: UInt8(ascii: "\n")) {
            let line = Substring(line.drop { $0 == UInt8(ascii: " ") })
            guard line.hasPrefix("import ") || line.hasPrefix("from ") else { continue }
            names.formUnion(paths(in: String(line)).map { $0 + ".py" })
        }
        return names
    }

    @Test func deadFilesAreFound() {
        #expect(
            Self.dead([
                "a": "struct A { let own = 1 }", "b": "let b = A() // C, D", "c": "struct C { let own = 2 }",
                "d": "extension A { var more: Int { 1 } }", "e": "extension A { var used: Int { b } }",
                "f": "func f() { A().used }; f()", "g": "let g = f",
            ]) == ["c", "d", "g"])
        let names = [
            "x/a.py": "import b, c", "x/b.py": "", "x/c.py": "", "x/d.py": "# d.py", "run": "python3 x/a.py.",
        ].mapValues(Self.names)
        #expect(names.keys.filter { !Self.isNamed($0, in: names) && $0 != "run" } == ["x/d.py"])
    }
}
