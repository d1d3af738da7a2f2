import CampaignRules
import EventModel
import Primitives

func validate(_ spec: FirmwareSpec) throws(Refusal) {
    try checkText(spec.version, "version", max: 100)
    try checkText(spec.fileURL, "file_url", max: 2_048)
    // RFC 3986, 3.1: a scheme begins with a letter.
    guard let colon = spec.fileURL.utf8.firstIndex(of: 0x3A), colon != spec.fileURL.startIndex,
        spec.fileURL[..<colon].allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || "+-.".contains($0)) }),
        spec.fileURL.first?.isLetter == true, !spec.fileURL.contains(" ")
    else {
        throw Refusal(.invalidValue, "file_url must be an absolute URL, such as https://host/firmware.bin")
    }
    if let description = spec.description {
        try checkText(description, "description", max: 4_000, mayBeEmpty: true, lines: true)
    }
    if let size = spec.fileSizeBytes, size < 0 {
        throw Refusal(.invalidValue, "file_size_bytes must not be negative")
    }
    if let checksum = spec.checksumSHA256 {
        guard checksum.utf8.count == 64, checksum.allSatisfy({ $0.isASCII && $0.isHexDigit }) else {
            throw Refusal(.invalidValue, "checksum_sha256 must be 64 hex digits")
        }
    }
    if let deviceType = spec.deviceType { try checkText(deviceType, "device_type", max: 100) }
}

/// One campaign names at most so many devices; the request's size is limited before that.
public let campaignDevicesMax = 500_000

func validate(_ spec: CampaignSpec) throws(Refusal) {
    try checkText(spec.name, "name", max: 200)
    guard CampaignSpec.strategies.contains(spec.rolloutStrategy) else {
        throw Refusal(
            .invalidValue, "rollout_strategy must be one of: \(CampaignSpec.strategies.joined(separator: ", "))")
    }
    if let rate = spec.rolloutRate, !(1...1_000_000).contains(rate) {
        throw Refusal(.invalidValue, "rollout_rate must be 1 to 1,000,000 devices a tick")
    }
    if let threshold = spec.abortThreshold, !(0...1).contains(threshold) {
        throw Refusal(.invalidValue, "abort_threshold is a share of the devices: 0 to 1")
    }
    try checkTimeZone(spec.plan.timeZone)
    let problems = spec.plan.problems()
    guard problems.isEmpty else {
        throw Refusal(.invalidValue, problems.map { "plan.\($0)" }.joined(separator: "; "))
    }
    guard !spec.devices.isEmpty else { throw Refusal(.invalidValue, "devices must name at least one device") }
    try checkDevices(spec.devices, "devices")
}

func validate(_ spec: GroupSpec) throws(Refusal) {
    try checkText(spec.name, "name", max: 200)
    if let description = spec.description {
        try checkText(description, "description", max: 4_000, mayBeEmpty: true, lines: true)
    }
    switch (spec.devices, spec.query) {
    case (nil, nil), (.some, .some):
        throw Refusal(.invalidValue, "a group has either devices or a query")
    case (let devices?, nil): try checkDevices(devices, "devices")
    case (nil, let query?):
        for text in (query.sites ?? []) + (query.firmwareVersions ?? []) + (query.firmwareVersionsNot ?? []) {
            try checkText(text, "query", max: 200)
        }
        if let seconds = query.seenWithinSeconds, !(0...1e10).contains(seconds) {
            throw Refusal(.invalidValue, "query.seen_within_seconds must not be negative")
        }
    }
}

func checkTimeZone(_ name: String) throws(Refusal) {
    do {
        _ = try MaintenanceWindows([], timeZone: name)
    } catch {
        throw Refusal(.invalidValue, "time_zone must be a name of the IANA database, such as Europe/Berlin")
    }
}

/// Device ids, each once, and not too many of them.
func checkDevices(_ devices: [String], _ field: String) throws(Refusal) {
    guard devices.count <= campaignDevicesMax else {
        throw Refusal(.invalidValue, "\(field) names \(devices.count); at most \(campaignDevicesMax) are allowed")
    }
    var seen = Set<String>(minimumCapacity: devices.count)
    var repeated: [String] = []
    for (index, device) in devices.enumerated() {
        guard isID(device) else {
            throw Refusal(
                .invalidValue,
                "\(field)[\(index)] is no device id: 1 to 128 characters of A-Z a-z 0-9 . _ : -")
        }
        if !seen.insert(device).inserted, repeated.count < 5 { repeated.append(device) }
    }
    guard repeated.isEmpty else {
        throw Refusal(.invalidValue, "\(field) names these more than once: \(repeated.joined(separator: ", "))")
    }
}

/// PostgreSQL's text cannot hold U+0000, and control characters in names only mislead readers.
func checkText(
    _ text: String, _ field: String, max: Int, mayBeEmpty: Bool = false, lines: Bool = false
) throws(Refusal) {
    let count = text.unicodeScalars.count
    guard count <= max, mayBeEmpty || count > 0 else {
        throw Refusal(.invalidValue, "\(field) must have \(mayBeEmpty ? "at most" : "1 to") \(max) characters")
    }
    let isControl = text.unicodeScalars.contains { scalar in
        (scalar.value < 0x20 && !(lines && [0x09, 0x0A, 0x0D].contains(scalar.value)))
            || (0x7F...0x9F).contains(scalar.value)
    }
    guard !isControl else { throw Refusal(.invalidValue, "\(field) must not contain control characters") }
}

extension CommandRequest {
    /// SHA-256 of what is asked, in hex, without who asks and under which key. Every field carries its length, so
    /// that no two commands have the same bytes.
    var digest: String {
        var bytes: [UInt8] = []
        func add(_ text: String?) {
            guard let text else { return bytes.append(0) }
            bytes.append(1)
            withUnsafeBytes(of: UInt64(text.utf8.count).littleEndian) { bytes.append(contentsOf: $0) }
            bytes.append(contentsOf: text.utf8)
        }
        add(tenantID)
        add(command.name)
        add(command.subject)
        switch command {
        case .addFirmware(let spec):
            for field in [
                spec.version, spec.fileURL, spec.description, spec.fileSizeBytes.map { String($0) },
                spec.checksumSHA256, spec.deviceType,
            ] { add(field) }
        case .createCampaign(let spec):
            for field in [
                spec.name, String(spec.firmwareVersionID), spec.rolloutStrategy,
                spec.rolloutRate.map { String($0) }, spec.abortThreshold.map { String($0) },
                spec.targetGroupID.map { String($0) }, spec.timeZone,
            ] { add(field) }
            add(String(decoding: eventJSON(spec.plan), as: UTF8.self))
            // A query may find others the next time; the command is the same.
            if spec.targetGroupID == nil { for device in spec.devices { add(device) } }
        case .createGroup(let spec):
            for field in [spec.name, spec.description] { add(field) }
            add(spec.query.map { String(decoding: eventJSON($0), as: UTF8.self) })
            for device in spec.devices ?? [] { add(device) }
        case .changeMembers(_, let added, let removed):
            add(String(added.count))
            for device in added + removed { add(device) }
        case .configureTenant(let timeZone): add(timeZone)
        case .retryFailed(_, let kinds): for kind in kinds ?? [] { add(kind.rawValue) }
        case .pause(_, let reason), .abort(_, let reason): add(reason)
        case .start, .resume, .delete, .deleteGroup: break
        }
        return SHA256.digest(bytes).description
    }
}
