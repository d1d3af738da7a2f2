/// What devices make of update commands. Shares are from 0 to 1; the first group's exclude each other, and a device
/// makes the same of a campaign whenever its command arrives.
public struct OTABehaviour: Sendable {
    /// DOWNLOADING, INSTALLING, FAILED.
    public var failures = 0.05
    /// Not a word.
    public var silent = 0.0
    /// `commands/ack` with REJECTED.
    public var refusing = 0.0
    /// DOWNLOADING, and not a word more.
    public var stalling = 0.0
    /// SUCCESS, and the shadow goes on showing the version of before.
    public var unverified = 0.0
    /// SUCCESS, the new version in the shadow, and then the old one again.
    public var rollbacks = 0.0
    /// Failures by version, instead of `failures`: a bad build has more.
    public var badBuilds: [String: Double] = [:]

    /// Devices that send no `command_id`, and begin again when a command comes again.
    public var anonymous = 0.0
    /// Devices that are away, from the beginning on.
    public var offline = 0.0
    /// When those come; nil: never.
    public var offlineSeconds: Double?
    /// After SUCCESS a device goes away for so long, and shows its version when it is back. 0: it shows it at once.
    public var restartSeconds = 0.0
    /// Pause between the reports of an update.
    public var stepSeconds = 1.0

    public init() {}

    func validate() throws(FleetError) {
        let fates = [
            ("failures", failures), ("silent", silent), ("refusing", refusing), ("stalling", stalling),
            ("unverified", unverified), ("rollbacks", rollbacks),
        ]
        for (name, share) in fates + [("anonymous", anonymous)] where !(0...1).contains(share) {
            throw .invalid("--ota-\(name) is a share from 0 to 1, not \(share)")
        }
        guard (0...1).contains(offline) else { throw .invalid("--offline is a share from 0 to 1, not \(offline)") }
        for (version, share) in badBuilds where !(0...1).contains(share) {
            throw .invalid("--ota-bad-build \(version): \(share) is no share from 0 to 1")
        }
        let others = fates.dropFirst().reduce(0) { $0 + $1.1 }
        guard others + max(failures, badBuilds.values.max() ?? 0) <= 1.000_001 else {
            throw .invalid("the shares of what becomes of updates (--ota-…) add up to more than 1")
        }
        for (name, seconds) in [
            ("ota-step", stepSeconds), ("ota-restart", restartSeconds), ("offline-seconds", offlineSeconds ?? 0),
        ] where !(0...1e6).contains(seconds) {
            throw .invalid("--\(name) is a number of seconds, not \(seconds)")
        }
    }

    /// How an update ends. `draw` is from 0 up to 1.
    func fate(version: String, draw: Double) -> OTAFate {
        var rest = draw
        for (share, fate) in [
            (badBuilds[version] ?? failures, OTAFate.fails), (silent, .isSilent), (refusing, .refuses),
            (stalling, .stalls), (unverified, .staysOld), (rollbacks, .rollsBack),
        ] {
            if rest < share { return fate }
            rest -= share
        }
        return .succeeds
    }
}

enum OTAFate: Sendable { case succeeds, fails, isSilent, refuses, stalls, staysOld, rollsBack }
