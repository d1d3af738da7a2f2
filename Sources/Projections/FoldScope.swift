/// What a fold's rows and events are told apart by: a device's address `tenant/{t}/device/{d}`, a broker's name,
/// `campaign/{id}`, `firmware/{id}`, or nothing (`none`) for what belongs to no one of these.
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
public struct FoldScope: Sendable {
    private enum Kind: Sendable {
        case all
        case partition(Int, of: Int)
        case only(Set<FoldKey>)
        case except(Set<FoldKey>)
    }
    private let kind: Kind

    /// Every key.
    public static let all = FoldScope(kind: .all)

    /// One of `count` parts of the keys. Each device, and each broker, is in one part, the same in every process; what
    /// is neither is in part 0.
    public static func partition(_ index: Int, of count: Int) -> FoldScope {
        precondition((0..<count).contains(index))
        return count == 1 ? .all : FoldScope(kind: .partition(index, of: count))
    }

    /// These keys and no others: one device as it was, or what is made up for after it was parked.
    public static func only(_ keys: Set<FoldKey>) -> FoldScope { FoldScope(kind: .only(keys)) }

    /// All but these: an event that concerns one of them and others too is folded for the others.
    public static func except(_ keys: Set<FoldKey>) -> FoldScope {
        keys.isEmpty ? .all : FoldScope(kind: .except(keys))
    }

    @inline(__always)
    var isAll: Bool { if case .all = kind { true } else { false } }

    /// Events of keys outside are not even taken in, because rows of theirs are to stay as if they had not come.
    var defersOthers: Bool { if case .except = kind { true } else { false } }

    @inline(__always)
    func includes(_ key: UnsafeRawBufferPointer) -> Bool { isAll || decide(key) }

    func includes(_ key: some Collection<UInt8>) -> Bool {
        isAll || (key.withContiguousStorageIfAvailable { decide(UnsafeRawBufferPointer($0)) }
            ?? Array(key).withUnsafeBytes { decide($0) })
    }

    func includes(_ key: String) -> Bool { includes(key.utf8) }

    public func includes(_ key: FoldKey) -> Bool { includes(key.bytes) }

    @inline(never)
    private func decide(_ key: UnsafeRawBufferPointer) -> Bool {
        switch kind {
        case .all: true
        case .partition(let index, let count):
            Self.isSplit(key) ? Int(keyHash(key, 0x9E37_79B9_7F4A_7C15) % UInt64(count)) == index : index == 0
        case .only(let keys): keys.contains(FoldKey(key))
        case .except(let keys): !keys.contains(FoldKey(key))
        }
    }

    /// Campaigns and firmware are few and belong together.
    private static func isSplit(_ key: UnsafeRawBufferPointer) -> Bool {
        !key.isEmpty && !key.starts(with: "campaign/".utf8) && !key.starts(with: "firmware/".utf8)
    }
}
