import Testing

struct FunctionLengthTests {
    static let linesMax = 70
    /// The functions that are longer, and why.
    static let allowed = [
        "Sources/ControlAPI/Metrics.swift help": "a text for each metric",
        "Sources/Health/ReasonCode+Text.swift meaning": "a text for each code",
        "Sources/refold/Daemon/Daemon.swift init": "the composition root: it makes and starts everything in order",
    ]

    @Test func functionsFitOnAScreen() throws {
        var longer: [String: Int] = [:], count = 0
        for file in Tree.files(["Sources", "Tests/TestSupport"], ending: [".swift"]) {
            let functions = SwiftSource(try Tree.text(file)).functions
            count += functions.count
            for function in functions where function.lineCount > Self.linesMax {
                longer["\(file) \(function.name)"] = function.lineCount
            }
        }
        #expect(count > 4_000)
        for (function, lines) in longer.sorted(by: { $0.key < $1.key }) where Self.allowed[function] == nil {
            Issue.record("\(function) has \(lines) lines: split it")
        }
        #expect(Set(Self.allowed.keys).subtracting(longer.keys).sorted() == [], "no longer this long")
    }

    @Test func bracesOutsideOfCodeDoNotCount() throws {
        let source = SwiftSource(
            ##"""
            protocol Shape { func area() -> Double; init(side: Int) }
            struct Square: Shape {
                // } a comment { /* within it }
                /* } /* nested } */ { */
                var side = 1, texts = ["}", #"}"#, "\(["}": "{"]["}"] ?? "\("}")")"]
                init(side: Int) { self.init() }
                func area(
                    _ body: () -> Void = {}
                ) -> Double {
                    let text = """
                        } "" { \(side) }
                        """
                    let braces = text.contains(/[{]\/"/) || text.contains(#/}
                        "/#)
                    func inner() {
                        _ = braces
                    }
                    return Double(side) / 2 / Double(side)
                }
                var quote: String { #""""# }
                subscript(index: Int) -> Int {
                    index
                }
                deinit {}
            }
            """##)
        let expected = [
            ("init", 6, 1), ("area", 7, 13), ("inner", 15, 3), ("quote", 20, 1), ("subscript", 21, 3),
            ("deinit", 24, 1),
        ].map { SwiftSource.Function(name: $0.0, line: $0.1, lineCount: $0.2) }
        #expect(source.functions == expected)
        let code = String(decoding: source.code, as: UTF8.self)
        #expect(code.count { $0 == "{" } == code.count { $0 == "}" } && !code.contains("comment"))
    }

    /// A literal that the scanner misreads leaves braces that do not match.
    @Test func theScannerUnderstandsTheTree() throws {
        for file in Tree.files(["Sources", "Tests"], ending: [".swift"]) {
            let code = SwiftSource(try Tree.text(file)).code
            let opening = code.count { $0 == UInt8(ascii: "{") }, closing = code.count { $0 == UInt8(ascii: "}") }
            #expect(opening == closing, "\(file)")
        }
    }
}
