import Decisions

// Text output shared by the reports of `refold replay what-if`.

/// A table of recorded values beside what-if values.
func comparison<Course>(_ recorded: Course, _ whatIf: Course, _ rows: [(name: String, value: (Course) -> String)])
    -> String
{
    TextTable(columns: [.init("", ""), .init("recorded", "recorded"), .init("what if", "what if")]).text(
        rows.map { ["": $0.name, "recorded": $0.value(recorded), "what if": $0.value(whatIf)] })
}

/// `2 devices failed: d1, d2`; nil: there are none.
func deviceList(_ devices: [String], _ words: String, max: Int) -> String? {
    guard !devices.isEmpty else { return nil }
    let shown = devices.prefix(max).map { TextTable.cell($0) }.joined(separator: ", ")
    let more = devices.count > max ? ", …" : ""
    return counted(devices.count, "device") + " " + words + (max > 0 ? ": \(shown)\(more)" : "")
}
