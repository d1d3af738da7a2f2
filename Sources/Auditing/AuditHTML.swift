import EventModel
import Foundation
import Projections

extension AuditReport {
    /// For people: one file without scripts, fonts or images, readable on a phone, on paper and in the dark.
    public var html: String {
        let title = SafeText.html("Audit of \(subject)")
        var page = """
            <!doctype html>
            <html lang="en">
            <head>
            <meta charset="utf-8">
            <meta name="viewport" content="width=device-width, initial-scale=1">
            <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
            <meta name="color-scheme" content="light dark">
            <title>\(title)</title>
            <style>
            \(Self.style)
            </style>
            </head>
            <body>
            <main>
            <h1>\(title)</h1>
            <dl class="summary">

            """
        for (name, value) in summary.dropFirst() {
            page += "<dt>\(SafeText.html(name))</dt><dd>\(SafeText.html(value))</dd>\n"
        }
        page += "</dl>\n"
        if !gaps.isEmpty {
            page += "<h2>Missing</h2>\n"
            for gap in gaps {
                page +=
                    "<p class=\"gap\"><strong>Positions \(gap.from) to \(gap.to)</strong> "
                    + "(\(gap.kind == .accepted ? "given up by an operator" : "damaged")): "
                    + "\(SafeText.html(gap.text))</p>\n"
            }
        }
        if !brokerLosses.isEmpty { page += "<h2>Broker losses</h2>\n" }
        for loss in brokerLosses {
            page +=
                "<p class=\"gap\"><a href=\"#p\(loss.position)\">\(loss.position)</a> "
                + "\(SafeText.html(loss.who)): \(SafeText.html(loss.what))</p>\n"
        }
        page += "<h2>At the end</h2>\n" + (end.isEmpty ? "<p>No row.</p>\n" : end.map(Self.row).joined())
        page += "<h2>Events</h2>\n" + (events.isEmpty ? "<p>None.</p>\n" : "<ol>\n")
        for event in events { page += Self.item(event) }
        if !events.isEmpty { page += "</ol>\n" }
        return page + """
            <h2>How to check this</h2>
            <p>This page is for reading; the bundle that belongs to it (<code>refold audit … --bundle</code>) proves
            it: <code>refold audit check BUNDLE --key log.pub</code> needs no log, no daemon and no database. Every
            event above is in the log whose checkpoint of \(size) events follows; rows follow from the events. That
            others were not shown another history can be told only by a checkpoint that is held elsewhere.</p>
            <pre>\(SafeText.htmlLines(String(decoding: checkpoint.bytes, as: UTF8.self)))</pre>
            </main>
            </body>
            </html>

            """
    }

    private static func row(_ table: StoredTable, _ row: AuditRow) -> String {
        let fields = row.fields(table).filter { $0.json != "null" }.map {
            "<tr><th scope=\"row\">\($0.name)</th><td>\(SafeText.html($0.json))</td></tr>"
        }
        let isMain = table.name.hasPrefix("device_status") || table.name.hasPrefix("ota_campaigns")
        return "<details\(isMain ? " open" : "")>"
            + "<summary>\(SafeText.html(RowChange.name(table)))</summary>"
            + "<table>\(fields.joined())</table></details>\n"
    }

    private static func item(_ event: Event) -> String {
        let payload = SafeText.payload(event.record)
        var text =
            "<li id=\"p\(event.position)\"\(event.isContext ? " class=\"context\"" : "")>"
            + "<p class=\"when\"><a href=\"#p\(event.position)\">\(event.position)</a> "
            + "<time datetime=\"\(event.receivedAt)\">\(event.receivedAt)</time></p>"
            + "<p><strong>\(SafeText.html(event.who))</strong>: \(SafeText.html(event.what))</p>"
        for change in event.changes {
            let rows = change.differences.map { column, before, after in
                "<tr><th scope=\"row\">\(column)</th>"
                    + (change.before == nil ? "" : "<td class=\"old\">\(SafeText.html(before ?? "null"))</td>")
                    + "<td class=\"new\">\(SafeText.html(after))</td></tr>"
            }
            text +=
                "<table><caption>\(change.before == nil ? "new row of " : "")"
                + "\(SafeText.html(RowChange.name(change.table)))</caption>\(rows.joined())</table>"
        }
        if !payload.isEmpty {
            text += "<details><summary>payload</summary><pre>\(SafeText.htmlLines(payload))</pre></details>"
        }
        return text + "</li>\n"
    }

    private static let style = """
        :root { color-scheme: light dark; --ink: #1c1e21; --paper: #fff; --soft: #5b6470; --line: #d9dde2;
          --old: #a3261c; --new: #14692f; --warn: #fff3d6 }
        @media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --paper: #15181c; --soft: #9aa4b0;
          --line: #333a42; --old: #ff9a8f; --new: #7ddc98; --warn: #3a2f12 } }
        body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
        main { max-width: 60rem; margin: 0 auto; padding: 1rem }
        h1 { font-size: 1.5rem; overflow-wrap: anywhere } h2 { font-size: 1.15rem; margin-top: 2rem }
        dl.summary { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem }
        dt, .when, caption, th { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
        ol { list-style: none; padding: 0 } li { border-top: 1px solid var(--line); padding: .75rem 0 }
        li p { margin: 0; overflow-wrap: anywhere; unicode-bidi: isolate }
        li.context { border-left: 4px solid var(--line); padding-left: .75rem }
        table { border-collapse: collapse; width: 100%; font-size: .875rem; margin: .5rem 0; table-layout: fixed }
        caption, th { text-align: left; font-weight: 600 } th, td { padding: .2rem .5rem .2rem 0; vertical-align: top;
          border-top: 1px solid var(--line); overflow-wrap: anywhere; unicode-bidi: isolate; text-align: left }
        .old { color: var(--old) } .new { color: var(--new) }
        .old::before { content: "− " } .new::before { content: "+ " }
        .gap { background: var(--warn); padding: .5rem .75rem; border-radius: .25rem; overflow-wrap: anywhere }
        pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8rem; border: 1px solid var(--line);
          padding: .5rem; border-radius: .25rem } summary { cursor: pointer; color: var(--soft) }
        @media print { details > * { display: block } }
        """
}
