import Decisions
import WhatIf

// What `refold replay what-if` prints about renewals of device certificates.

extension RenewalWhatIf {
    func text(devicesMax: Int) -> String {
        func days(_ seconds: Int64?) -> String {
            seconds.map { $0 % 86_400 == 0 ? "\($0 / 86_400) days" : "\((Double($0) / 8_640).rounded() / 10) days" }
                ?? "-"
        }
        let table = comparison(
            recorded, whatIf,
            [
                ("renewed after", { $0.afterPercent.map { "\($0) % of the life" } ?? "-" }),
                ("grace period", { days($0.graceSeconds) }),
                ("renewals requested", { "\($0.requested)" }),
                ("busiest day", { course in course.busiestDay.map { "\(course.requestedPerDayMax) (\($0))" } ?? "-" }),
                ("shortest time left", { days($0.secondsLeftMin) }),
                ("median time left", { days($0.secondsLeftMedian) }),
                ("renewed in time", { "\($0.inTime)" }),
                ("renewed after expiry", { "\($0.late)" }),
                ("expired without a request", { "\($0.expiredWithoutRequest)" }),
                ("ended without a report", { "\($0.endedWithoutReport)" }),
            ])
        func list(_ devices: [Device], _ words: String) -> String? {
            deviceList(devices.map { "\($0.tenantID)/\($0.deviceID)" }, words, max: devicesMax)
        }
        let lists = [
            list(newlyInTime, "late on record, in time with the new settings"),
            list(newlyLate, "in time on record, late with the new settings"),
        ]
        let lines = ["renewals of " + counted(certificates, "certificate"), table] + lists.compactMap(\.self)
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
