import WhatIf

// What `refold replay what-if` prints about renewals of device certificates.

extension RenewalWhatIf {
    func text(devicesMax: Int) -> String {
        func days(_ seconds: Int64?) -> String {
            seconds.map { "\((Double($0) / 8_640).rounded() / 10) days" } ?? "-"
        }
        func row(_ name: String, _ value: (Course) -> String) -> [String: Any] {
            ["": name, "recorded": value(recorded), "what if": value(whatIf)]
        }
        let rows = [
            row("renewed after") { $0.afterPercent.map { "\($0) % of the life" } ?? "-" },
            row("grace period") { days($0.graceSeconds) },
            row("renewals requested") { "\($0.requested)" },
            row("busiest day") { course in course.busiestDay.map { "\(course.requestedPerDayMax) (\($0))" } ?? "-" },
            row("shortest time left") { days($0.secondsLeftMin) },
            row("median time left") { days($0.secondsLeftMedian) },
            row("renewed in time") { "\($0.inTime)" },
            row("renewed after expiry") { "\($0.late)" },
            row("expired without a request") { "\($0.expiredWithoutRequest)" },
            row("ended without a report") { "\($0.endedWithoutReport)" },
        ]
        let table = TextTable(columns: [.init("", ""), .init("recorded", "recorded"), .init("what if", "what if")])
        var lines = ["renewals of \(certificates) certificates", table.text(rows)]
        func list(_ devices: [Device], _ words: String) {
            guard !devices.isEmpty else { return }
            let shown = devices.prefix(devicesMax).map { TextTable.cell("\($0.tenantID)/\($0.deviceID)") }
                .joined(separator: ", ")
            let more = devices.count > devicesMax ? ", …" : ""
            lines.append("\(devices.count) \(words)" + (devicesMax > 0 ? ": \(shown)\(more)" : ""))
        }
        list(newlyInTime, "devices were late on record and would have been in time")
        list(newlyLate, "devices were in time on record and would have been late")
        return (lines + caveats.map { "note: " + $0 }).joined(separator: "\n")
    }

    var json: [String: Any] {
        func devices(_ devices: [Device]) -> [[String: Any]] {
            devices.map { ["tenant": $0.tenantID, "device": $0.deviceID] }
        }
        return [
            "certificates": certificates, "recorded": recorded.json, "what_if": whatIf.json,
            "newly_in_time": devices(newlyInTime), "newly_late": devices(newlyLate), "notes": caveats,
        ]
    }
}

extension RenewalWhatIf.Course {
    fileprivate var json: [String: Any] {
        var object: [String: Any] = [
            "requested": requested, "requested_per_day_max": requestedPerDayMax, "in_time": inTime, "late": late,
            "expired_without_request": expiredWithoutRequest, "ended_without_report": endedWithoutReport,
        ]
        object["after_percent"] = afterPercent
        object["grace_seconds"] = graceSeconds
        object["busiest_day"] = busiestDay
        object["seconds_left_min"] = secondsLeftMin
        object["seconds_left_median"] = secondsLeftMedian
        return object
    }
}
