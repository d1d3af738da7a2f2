/// Generates docs/health.md.
public enum HealthDocument {
    /// One row of the fault table: the expectations of a test.
    public struct Row: Sendable {
        public var fault: String
        public var state: Health.State
        public var codes: [ReasonCode]
        public var isReady: Bool
        public var isLive: Bool
    }

    public static func markdown(_ rows: [Row]) -> String {
        var text = introduction
        text += "\n## Faults\n\nEvery row is a test (`Tests/HealthTests`).\n\n"
        text += "| fault | state | reasons | `/readyz` | `/healthz` | watchdog | alert |\n"
        text += "|---|---|---|---|---|---|---|\n"
        for row in rows {
            let codes = row.codes.isEmpty ? "–" : row.codes.map { "`\($0.rawValue)`" }.joined(separator: ", ")
            var alerts: [String] = []
            for code in row.codes where !alerts.contains(code.alert) { alerts.append(code.alert) }
            let alert = alerts.isEmpty ? "–" : alerts.joined(separator: ", ")
            text +=
                "| \(row.fault) | \(row.state.rawValue) | \(codes) | \(row.isReady ? 200 : 503) "
                + "| \(row.isLive ? 200 : 503) | \(row.isLive ? "fed" : "not fed") | \(alert) |\n"
        }
        text += "\n## Reasons\n"
        for code in ReasonCode.allCases { text += "\n" + section(code) }
        return text
    }

    private static func section(_ code: ReasonCode) -> String {
        var effects = [code.effect.isHeld ? "`held`" : "`degraded`"]
        if code.effect.isUnready { effects.append("not ready") }
        if code.effect.isDead { effects.append("not live") }
        if code.isAcknowledged { effects.append("until acknowledged") }
        let own = code.metric.map { ", `\($0)`" } ?? ""
        return """
            ### `\(code.rawValue)`

            \(code.meaning)
            State: \(effects.joined(separator: ", ")). Metric: `refold_problems{code="\(code.rawValue)"} > 0`\(own). \
            Alert: `\(code.alert)`, \(code.alertDelay.map { "after \($0)" } ?? "at once").
            What to do: \(code.remedy)

            """
    }

    private static let introduction = """
        # Health

        One function decides (`Sources/Health`). `refold status`, `GET /api/v1/status`, `/healthz`, `/readyz`, the \
        systemd watchdog and the metric `refold_problems` all show its verdict. This page is generated from that code: \
        `REFOLD_REWRITE_DOCS=1 swift test --filter HealthTests` rewrites it.

        | state | means | `refold status` exits |
        |---|---|---|
        | `healthy` | nothing in the list below is wrong | 0 |
        | `degraded` | at least one reason is listed; ingest continues unless the reason says otherwise | 1 |
        | `held` | the disk is full: Refold records and acknowledges nothing until there is space | 1 |
        | (no daemon answers) | | 3 |

        - **`/readyz`** answers 200 while every broker is connected and subscribed at QoS 1, no session of an earlier \
        client id is being drained, and the log can be written. \
        The database does not count: ingest does not need it.
        - **`/healthz`** answers 200 while the threads of ingest, of the log's writer and of the projections meet \
        their heartbeats. Each heartbeat states when the next one is due. A broker or a database that is down, a full \
        disk and a paused projection never count: the thread that waits for them keeps its heartbeat.
        - **The watchdog** (`WatchdogSec=` in the unit) is fed while `/healthz` answers 200.
        - Every reason has a code, an object (broker or projection), its start time and a sentence: `problems` in \
        `refold status --json`. `reasons` has the sentences alone.
        - A reason that reports a past event (a lost session, a takeover, dropped messages) stays until an operator \
        acknowledges it: `refold broker acknowledge NAME --reason TEXT` records `broker.alarms_acknowledged`.
        - The last column names the alert rule that covers the reason (`packaging/prometheus/refold.rules.yml`). It \
        does not fire when the reason appears, but after the rule's delay (`for:`), which each reason below names.

        """
}
