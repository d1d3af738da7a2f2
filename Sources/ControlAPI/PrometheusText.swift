import Primitives

/// Prometheus text exposition format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats).
enum PrometheusText {
    static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    /// Families in the order of `Metric`, whatever order they were added in; metrics without samples are left out.
    static func write(_ snapshot: MetricsSnapshot) -> String {
        var text = ""
        for metric in Metric.allCases {
            guard let samples = snapshot.samples[metric] else { continue }
            text += "# HELP \(metric.rawValue) \(escape(metric.help, quotes: false))\n"
            text += "# TYPE \(metric.rawValue) \(metric.kind.rawValue)\n"
            for sample in samples {
                switch sample.value {
                case .count(let value): line(metric.rawValue, sample.labels, String(value), &text)
                case .number(let value): line(metric.rawValue, sample.labels, number(value), &text)
                case .histogram(let value): histogram(metric.rawValue, sample.labels, value, &text)
                }
            }
        }
        return text
    }

    private typealias Labels = [(name: String, value: String)]

    /// Buckets are cumulative, and the last one, +Inf, equals the count.
    private static func histogram(_ name: String, _ labels: Labels, _ value: Histogram, _ text: inout String) {
        var total: UInt64 = 0
        for (index, count) in value.counts.enumerated() {
            total += count
            let bound = index < value.bounds.count ? number(value.bounds[index]) : "+Inf"
            line(name + "_bucket", labels + [(name: "le", value: bound)], String(total), &text)
        }
        line(name + "_sum", labels, number(value.sum), &text)
        line(name + "_count", labels, String(total), &text)
    }

    private static func line(_ name: String, _ labels: Labels, _ value: String, _ text: inout String) {
        text += name
        if !labels.isEmpty {
            text += "{" + labels.map { "\($0.name)=\"\(escape($0.value, quotes: true))\"" }.joined(separator: ",") + "}"
        }
        text += " \(value)\n"
    }

    private static func number(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
        return value == value.rounded() && value.magnitude < 1e15 ? String(Int64(value)) : String(value)
    }

    /// Backslash and newline always, the quote only in label values.
    private static func escape(_ text: String, quotes: Bool) -> String {
        var escaped = ""
        for character in text.unicodeScalars {
            switch character {
            case "\\": escaped += "\\\\"
            case "\n": escaped += "\\n"
            case "\"" where quotes: escaped += "\\\""
            default: escaped.unicodeScalars.append(character)
            }
        }
        return escaped
    }
}
