import Enforcement
import EventModel
import PKI

/// A model of Mosquitto with a CRL file, by what was measured (`MosquittoCRLTests`): it reads the file at its start and
/// at a reload, checks certificates when clients connect, and refuses every client of an authority without a valid CRL.
///
/// Or of EMQX (`fetches`): it fetches CRLs every `refreshSeconds`, discards those that it could not fetch, and bans
/// devices by their names.
struct CertificateBroker {
    let name: String
    /// Mosquitto 2.1 exits when it cannot read the file at a reload; 2.0 accepts every client from then on.
    let exitsOnBadFile: Bool
    /// There is a probe that proves CRLs.
    let isProbed: Bool
    let fetches: Bool
    private(set) var isUp = false
    private(set) var acceptsEveryone = false
    /// By the issuer's name (DER). Of two CRLs of one issuer the later counts, in one second the first.
    private(set) var lists: [[UInt8]: RevocationList] = [:]
    /// Reloads that it will ignore, as if the signal were lost.
    var ignoredReloads = 0
    /// The devices that it refuses, also after a restart.
    var bans: Set<String> = []
    /// When it fetches CRLs again; monotonic, in microseconds.
    var nextFetch: Int64 = 0

    static let refreshSeconds = 900

    var path: String { "/crl/\(name).pem" }

    init(name: String, exitsOnBadFile: Bool, isProbed: Bool, fetches: Bool) {
        (self.name, self.exitsOnBadFile, self.isProbed) = (name, exitsOnBadFile, isProbed || fetches)
        self.fetches = fetches
    }

    /// It does not start without a file that it can read.
    mutating func start(_ file: [RevocationList]?) {
        (isUp, acceptsEveryone, nextFetch) = (fetches || file != nil, false, 0)
        read(file ?? [])
    }

    mutating func stop() { isUp = false }

    /// - Returns: false: it ignored the reload.
    mutating func reload(_ file: [RevocationList]?) -> Bool {
        if ignoredReloads > 0 {
            ignoredReloads -= 1
            return false
        }
        acceptsEveryone = file == nil && !exitsOnBadFile
        if file == nil, exitsOnBadFile { isUp = false }
        read(file ?? [])
        return true
    }

    /// - Parameter served: the CRLs under the distribution points; nil: they do not answer.
    mutating func fetch(_ served: [RevocationList]?, now: Int64) {
        read(served ?? [])
        nextFetch = now + (served == nil ? 60 : Int64(Self.refreshSeconds)) * 1_000_000
    }

    private mutating func read(_ file: [RevocationList]) {
        lists = Dictionary(file.map { ($0.issuer, $0) }) { $1.thisUpdate > $0.thisUpdate ? $1 : $0 }
    }

    /// What comes of a connection.
    /// - Parameter now: of the broker's clock, in seconds.
    func outcome(
        issuer: [UInt8], serial: SerialNumber, notBefore: Int64, notAfter: Int64, now: Int64
    ) -> CanaryProbe.Outcome {
        guard isUp else { return .unreachable("the broker is down") }
        func refused(_ code: UInt8, _ name: String) -> CanaryProbe.Outcome {
            .refused(.tlsAlert(code: code, name: name))
        }
        if now > notAfter { return refused(45, "certificate expired") }
        if now < notBefore { return refused(42, "bad certificate") }
        if acceptsEveryone { return .accepted }
        guard let list = lists[issuer] else { return refused(48, "unknown CA") }
        if now < list.thisUpdate { return refused(42, "bad certificate") }
        if now > list.nextUpdate { return refused(45, "certificate expired") }
        return list.entries[serial] == nil ? .accepted : .refused(.certificateRevoked)
    }
}
