/// The tree as static files (C2SP tlog-tiles): feed every leaf in order, with its entry, and take the files as they
/// become full; `finish` gives the partial ones. Memory: one tile a level and one bundle.
public struct TileWriter {
    public struct File: Sendable, Equatable {
        /// From the log's prefix on, such as `tile/0/x001/234`.
        public let path: String
        public let bytes: [UInt8]
    }

    public static let width = 256
    public private(set) var size: UInt64 = 0
    /// The hashes of the tile that is being filled, a level each.
    private var tiles: [[TreeHash]] = [[]]
    private var bundle: [UInt8] = []
    private let withEntries: Bool

    /// Entry bundles are optional: they hold names and hashes, but no payloads.
    public init(withEntries: Bool = true) { self.withEntries = withEntries }

    /// - Precondition: the entry is at most 65,535 bytes, as canonical bytes always are.
    public mutating func append(leaf: TreeHash, entry: [UInt8], _ write: (File) throws -> Void) rethrows {
        if withEntries {
            precondition(entry.count <= Int(UInt16.max), "an entry longer than its 16-bit length")
            withUnsafeBytes(of: UInt16(entry.count).bigEndian) { bundle.append(contentsOf: $0) }
            bundle.append(contentsOf: entry)
        }
        let index = size / UInt64(Self.width)
        size += 1
        if withEntries, size % UInt64(Self.width) == 0 {
            try write(File(path: Self.path("entries", index), bytes: bundle))
            bundle.removeAll(keepingCapacity: true)
        }
        try add(leaf, level: 0, write)
    }

    private mutating func add(_ hash: TreeHash, level: Int, _ write: (File) throws -> Void) rethrows {
        if tiles.count == level { tiles.append([]) }
        tiles[level].append(hash)
        guard tiles[level].count == Self.width else { return }
        let full = tiles[level]
        tiles[level] = []
        let index = (size - 1) >> UInt64(8 * (level + 1))
        try write(File(path: Self.path("\(level)", index), bytes: full.flatMap(\.bytes)))
        var range = CompactRange()
        for hash in full { range.append(leaf: hash) }
        try add(range.root, level: level + 1, write)
    }

    /// The partial tiles of this size. The writer can go on behind it.
    public func finish(_ write: (File) throws -> Void) rethrows {
        let rest = Int(size % UInt64(Self.width))
        if withEntries, rest > 0 {
            try write(File(path: Self.path("entries", size / UInt64(Self.width), rest), bytes: bundle))
        }
        for (level, hashes) in tiles.enumerated() where !hashes.isEmpty {
            let index = size >> UInt64(8 * (level + 1))
            try write(File(path: Self.path("\(level)", index, hashes.count), bytes: hashes.flatMap(\.bytes)))
        }
    }

    /// `tile/<level>/<index in groups of three digits, all but the last after an x>[.p/<width>]`.
    static func path(_ level: String, _ index: UInt64, _ width: Int? = nil) -> String {
        func digits(_ value: UInt64) -> String {
            let text = String(value)
            return String(repeating: "0", count: 3 - text.utf8.count) + text
        }
        var parts = [digits(index % 1000)]
        var rest = index / 1000
        while rest > 0 {
            parts.insert("x" + digits(rest % 1000), at: 0)
            rest /= 1000
        }
        return "tile/\(level)/" + parts.joined(separator: "/") + (width.map { ".p/\($0)" } ?? "")
    }
}
