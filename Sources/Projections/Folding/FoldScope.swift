import EventModel

/// What a fold's rows and events are told apart by: a device's address `tenant/{t}/device/{d}`, a broker's name,
/// `campaign/{id}`, `firmware/{id}`, `group/{id}`, `settings/{t}`, `authority/{id}`,
/// `certificate/{authority}/{serial}`, `enforcement/{broker}/{authority}/{number}`, `job/{id}`, `queue/{name}`,
/// `schedule/{name}` or `job-policy`; nothing (`none`) for what belongs to no one of these.
public struct FoldKey: Sendable, Hashable, Comparable, CustomStringConvertible {
    public let bytes: [UInt8]

    public init(_ bytes: some Sequence<UInt8>) { self.bytes = Array(bytes) }
    public init(_ text: String) { self.init(text.utf8) }
    public static func device(tenant: String, device: String) -> FoldKey {
        FoldKey("tenant/\(tenant)/device/\(device)")
    }
    public static let none = FoldKey("")

    public var description: String { String(decoding: bytes, as: UTF8.self) }
    public static func < (a: FoldKey, b: FoldKey) -> Bool { a.bytes.lexicographicallyPrecedes(b.bytes) }
}

/// Which keys a fold is answerable for. Events of other keys change none of its rows. What it must know of other keys
/// to judge its own (which campaign a device reports for) it takes in all the same, and writes nowhere.
///
/// An event may concern several keys, in *parts*: `campaign.targets` has a part for each device, and each such part,
/// like a device's report, concerns two keys, the device and the campaign. While keys are parked, a part waits for all
/// of its keys: it is folded live when none of them is parked at or before its position, and otherwise when the last of
/// them is taken up again. So each part is folded exactly once, and the parts of one row in the order of the log.
public struct FoldScope: Sendable {
    private enum Kind: Sendable {
        case all
        case partition(Int, of: Int)
        case only(Set<FoldKey>)
        /// `waiting`: parts of these keys from these positions on are left out. `takenUp`: when given, only parts of
        /// these keys from these positions on are folded.
        case parked(waiting: [FoldKey: Position], takenUp: [FoldKey: Position]?)
    }
    private let kind: Kind

    /// Every key.
    public static let all = FoldScope(kind: .all)

    /// One of `count` parts of the keys. Each device, broker, certificate, authority and job is in one part, the same
    /// in every process. Campaigns, firmware and groups are in part 0.
    public static func partition(_ index: Int, of count: Int) -> FoldScope {
        precondition((0..<count).contains(index), "there is no partition \(index) of \(count)")
        return count == 1 ? .all : FoldScope(kind: .partition(index, of: count))
    }

    /// These keys and no others: one device as it was.
    public static func only(_ keys: Set<FoldKey>) -> FoldScope { FoldScope(kind: .only(keys)) }

    /// All but these: an event that concerns one of them and others too is folded for the others.
    public static func except(_ keys: Set<FoldKey>) -> FoldScope {
        .deferring(Dictionary(uniqueKeysWithValues: keys.map { ($0, Position(0)) }))
    }

    /// All keys; but parts that concern one of `parked`, at or behind its position, wait.
    public static func deferring(_ parked: [FoldKey: Position]) -> FoldScope {
        parked.isEmpty ? .all : FoldScope(kind: .parked(waiting: parked, takenUp: nil))
    }

    /// What was left out for `keys`, from their positions on, and need not wait for one of `parked` as well. The fold
    /// reads rows that are newer than the events which it folds; what it reads of keys that are not its own it judges
    /// by their positions.
    public static func takingUp(_ keys: [FoldKey: Position], deferring parked: [FoldKey: Position]) -> FoldScope {
        FoldScope(kind: .parked(waiting: parked, takenUp: keys))
    }

    @inline(__always)
    var isAll: Bool { if case .all = kind { true } else { false } }

    /// Whether no row can exist when a fold starts with the event at `position`: it is the log's first, and no keys are
    /// taken up, whose fold reads rows that are newer than its events.
    func startsEmpty(at position: Position) -> Bool {
        if case .parked(_, .some) = kind { return false }
        return position == Position(0)
    }

    /// Whether what concerns this key alone is folded.
    @inline(__always)
    func includes(_ key: UnsafeRawBufferPointer, at position: Position) -> Bool { isAll || decide(key, position) }

    func includes(_ key: String, at position: Position) -> Bool {
        isAll || Array(key.utf8).withUnsafeBytes { decide($0, position) }
    }

    public func includes(_ key: FoldKey, at position: Position = Position(.max)) -> Bool {
        isAll || key.bytes.withUnsafeBytes { decide($0, position) }
    }

    /// Whether a part that concerns a device and a campaign is folded.
    func includes(
        device: UnsafeRawBufferPointer, campaign: @autoclosure () -> String, at position: Position
    ) -> Bool {
        guard case .parked(let waiting, let takenUp) = kind else { return includes(device, at: position) }
        let device = FoldKey(device), campaign = FoldKey(campaign())
        if Self.holds(waiting, device, position) || Self.holds(waiting, campaign, position) { return false }
        return takenUp.map { Self.holds($0, device, position) || Self.holds($0, campaign, position) } ?? true
    }

    /// Whether what is decided of a campaign must be known, be it to judge what devices say of it.
    func takesIn(campaign: @autoclosure () -> String, at position: Position) -> Bool {
        guard case .parked(let waiting, _) = kind else { return true }
        return !Self.holds(waiting, FoldKey(campaign()), position)
    }

    /// False: no part of this device's at this position is folded, whatever campaign it concerns.
    @inline(__always)
    func mayInclude(device: UnsafeRawBufferPointer, at position: Position) -> Bool {
        guard case .parked(let waiting, let takenUp) = kind else { return includes(device, at: position) }
        return takenUp != nil || !Self.holds(waiting, FoldKey(device), position)
    }

    @inline(never)
    private func decide(_ key: UnsafeRawBufferPointer, _ position: Position) -> Bool {
        switch kind {
        case .all: true
        case .partition(let index, let count):
            Self.isSplit(key) ? Int(keyHash(key, 0x9E37_79B9_7F4A_7C15) % UInt64(count)) == index : index == 0
        case .only(let keys): keys.contains(FoldKey(key))
        case .parked(let waiting, let takenUp):
            !Self.holds(waiting, FoldKey(key), position)
                && (takenUp.map { Self.holds($0, FoldKey(key), position) } ?? true)
        }
    }

    private static func holds(_ keys: [FoldKey: Position], _ key: FoldKey, _ position: Position) -> Bool {
        keys[key].map { $0 <= position } ?? false
    }

    /// Campaigns, firmware and groups are few and belong together.
    private static func isSplit(_ key: UnsafeRawBufferPointer) -> Bool {
        !key.isEmpty && !key.starts(with: "campaign/".utf8) && !key.starts(with: "firmware/".utf8)
            && !key.starts(with: "group/".utf8)
    }
}
