import Foundation
import Primitives
import Testing
@testable import ControlAPI

@Suite struct PrometheusTextTests {
    @Test func histogramsAreCumulativeAndLabelsEscaped() {
        var snapshot = MetricsSnapshot()
        snapshot.add(.held, false)
        snapshot.add(.messagesReceived, 7 as UInt64, ["broker": "a\"b\\c\nd"])
        snapshot.add(.projectionLagSeconds, 0.25, ["projection": "device_status"])
        snapshot.add(.fdatasyncSeconds, Histogram(bounds: [0.001, 1], counts: [3, 2, 1], sum: 2.5))
        #expect(
            PrometheusText.write(snapshot) == #"""
                # HELP refold_messages_received_total MQTT messages received, by broker.
                # TYPE refold_messages_received_total counter
                refold_messages_received_total{broker="a\"b\\c\nd"} 7
                # HELP refold_fdatasync_seconds Duration of one fdatasync of the log.
                # TYPE refold_fdatasync_seconds histogram
                refold_fdatasync_seconds_bucket{le="0.001"} 3
                refold_fdatasync_seconds_bucket{le="1"} 5
                refold_fdatasync_seconds_bucket{le="+Inf"} 6
                refold_fdatasync_seconds_sum 2.5
                refold_fdatasync_seconds_count 6
                # HELP refold_projection_lag_seconds Age of the oldest event that the projection has not applied yet.
                # TYPE refold_projection_lag_seconds gauge
                refold_projection_lag_seconds{projection="device_status"} 0.25
                # HELP refold_held 1 while ingest is held because the disk is full.
                # TYPE refold_held gauge
                refold_held 0

                """#)
    }

    /// Prometheus' own reader and linter (Debian package `prometheus`) finds nothing to say about any metric.
    @Test func promtoolAcceptsEveryMetric() throws {
        var snapshot = MetricsSnapshot()
        for metric in Metric.allCases {
            if metric.kind == .histogram {
                snapshot.add(metric, Histogram(bounds: [0.5], counts: [1, 1], sum: 3), ["projection": "p"])
            } else {
                snapshot.add(metric, 1.5, ["broker": "b\n\"\\"])
            }
        }
        let (status, output) = try promtool(PrometheusText.write(snapshot))
        #expect(status == 0 && output.isEmpty, "\(output)")
        let (badStatus, _) = try promtool("refold_a{b=\"c} 1\n")
        #expect(badStatus != 0, "the check can fail")
    }

    private func promtool(_ text: String) throws -> (Int32, String) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["promtool", "check", "metrics"]
        let input = Pipe(), output = Pipe()
        process.standardInput = input
        process.standardOutput = output
        process.standardError = output
        try process.run()
        try input.fileHandleForWriting.write(contentsOf: Data(text.utf8))
        try input.fileHandleForWriting.close()
        let said = try output.fileHandleForReading.readToEnd() ?? Data()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: said, as: UTF8.self))
    }
}
