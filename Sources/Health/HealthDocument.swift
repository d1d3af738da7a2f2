/// docs/health.md, made of the code that decides.
public enum HealthDocument {
    /// One row of the table of faults: what is expected, as the test has it.
    public struct Row: Sendable {
        public var fault: String
        public var state: Health.State
        public var codes: [ReasonCode]
        public var isReady: Bool
        public var isLive: Bool

        public init(fault: String, state: Health.State, codes: [ReasonCode], isReady: Bool, isLive: Bool) {
            self.fault = fault
            self.state = state
            self.codes = codes
            self.isReady = isReady
            self.isLive = isLive
        }
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
            text += "| \(row.fault) | \(row.state.rawValue) | \(codes) | \(row.isReady ? 200 : 503) "
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
            Alert: `\(code.alert)`.
            What to do: \(code.remedy)

            """
    }

    private static let introduction = """
        # Health

        One function decides (`Sources/Health`). `refold status`, `GET /api/v1/status`, `/healthz`, `/readyz`, the \
        systemd watchdog and the metric `refold_problems` all show its verdict. This page is made of that code: \
        `REFOLD_REWRITE_DOCS=1 swift test --filter HealthTests` writes it anew.

        | state | means | `refold status` exits |
        |---|---|---|
        | `healthy` | nothing in the list below is wrong | 0 |
        | `degraded` | at least one reason is there; ingest goes on unless the reason says otherwise | 1 |
        | `held` | the disk is full: nothing is taken in or acknowledged until there is space | 1 |
        | (no daemon answers) | | 3 |

        - **`/readyz`** answers 200 while every broker is connected and subscribed at QoS 1 and the log can be \
        written. \
        The database does not count: without it messages are still taken in.
        - **`/healthz`** answers 200 while the threads of ingest, of the log's writer and of the projections move when \
        there is something to move. Each states within how many seconds its next round is due. A broker or a database \
        that is away, a full disk and a paused projection are waited for by a moving thread, so they never count.
        - **The watchdog** (`WatchdogSec=` in the unit) is fed while `/healthz` answers 200.
        - Every reason has a code, the object it is about, the time since when it holds, and a sentence: `problems` in \
        `refold status --json`. `reasons` has the sentences alone.
        - What happened once and cannot be seen any more (a lost session, a takeover, dropped messages) stays until \
        an operator acknowledges it: `refold broker acknowledge NAME --reason TEXT` records \
        `broker.alarms_acknowledged`.

        """
}
