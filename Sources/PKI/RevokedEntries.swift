/// The revoked certificates of one issuer, sorted by serial number, each as the DER that goes into the CRL. Lies in
/// chunks of at most 16 KiB: inserting one of a million moves a few KiB, and a copy shares all chunks but those that
/// change.
public struct RevokedEntries: Sendable, Equatable, Sequence {
    fileprivate struct Chunk: Sendable {
        /// Entries, one behind the other. Not empty.
        var bytes: [UInt8]
        var count: Int
        /// Of the first entry.
        var first: SerialNumber
    }

    private static let chunkBytesMax = 16 << 10
    /// Of chunks that are made at once, so that the first insertions do not split them.
    private static let chunkBytesFilled = 12 << 10

    private var chunks: [Chunk] = []
    public private(set) var count = 0
    /// Size of the entries in a CRL.
    public private(set) var byteCount = 0

    public init() {}

    /// In any order. Of several entries with one serial number the last one counts.
    public init(_ entries: some Sequence<RevokedEntry>) {
        let entries = Array(entries)
        let order = Self.order(entries)
        var next = 0
        while next < order.count {
            let first = next
            var used = 0
            let bytes = [UInt8](unsafeUninitializedCapacity: Self.chunkBytesMax) { buffer, byteCount in
                while next < order.count, byteCount < Self.chunkBytesFilled {
                    let entry = entries[order[next]]
                    next += 1
                    if next < order.count, entries[order[next]].serial == entry.serial { continue }
                    byteCount += entry.writeDER(to: buffer.baseAddress! + byteCount)
                    used += 1
                }
            }
            append(Chunk(bytes: bytes, count: used, first: entries[order[first]].serial))
        }
    }

    /// The indices of `entries` by serial number, then by place. Sorting 16 bytes an entry takes half the time of
    /// sorting the entries.
    private static func order(_ entries: [RevokedEntry]) -> [Int] {
        var keys = entries.indices.map { (prefix: entries[$0].serial.prefix, index: $0) }
        keys.sort { a, b in
            if a.prefix != b.prefix { return a.prefix < b.prefix }
            let left = entries[a.index].serial, right = entries[b.index].serial
            return left != right ? left < right : a.index < b.index
        }
        return keys.map(\.index)
    }

    /// Restores `der`. Nil unless it is what `der` returns: sorted, without duplicates, in shortest form.
    public init?(der: [UInt8]) {
        var entries: [RevokedEntry] = [], rest = der[...]
        while !rest.isEmpty {
            guard let entry = RevokedEntry(der: rest), entries.last.map({ $0.serial < entry.serial }) ?? true else {
                return nil
            }
            entries.append(entry)
            rest = rest.dropFirst(Self.entryByteCount(der, at: rest.startIndex))
        }
        self.init(entries)
    }

    /// All entries, one behind the other: the contents of revokedCertificates.
    public var der: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(byteCount)
        appendDER(to: &bytes)
        return bytes
    }

    func appendDER(to bytes: inout [UInt8]) {
        for chunk in chunks { bytes.append(contentsOf: chunk.bytes) }
    }

    private mutating func append(_ chunk: Chunk) {
        chunks.append(chunk)
        count += chunk.count
        byteCount += chunk.bytes.count
    }

    // MARK: One entry

    /// Where an entry is, or where it belongs.
    private struct Place {
        let chunk: Int
        let offset: Int
        /// 0 where there is none with this serial number.
        let byteCount: Int
    }

    public subscript(serial: SerialNumber) -> RevokedEntry? {
        guard let place = self.place(of: serial), place.byteCount > 0 else { return nil }
        return RevokedEntry(der: chunks[place.chunk].bytes[place.offset..<(place.offset + place.byteCount)])
    }

    /// Inserts an entry, or replaces the one with its serial number. Returns the replaced entry.
    @discardableResult
    public mutating func insert(_ entry: RevokedEntry) -> RevokedEntry? {
        let der = entry.der
        guard let place = self.place(of: entry.serial) else {
            append(Chunk(bytes: der, count: 1, first: entry.serial))
            return nil
        }
        let replaced = place.byteCount > 0 ? self[entry.serial] : nil
        chunks[place.chunk].bytes.replaceSubrange(place.offset..<(place.offset + place.byteCount), with: der)
        byteCount += der.count - place.byteCount
        if replaced == nil {
            chunks[place.chunk].count += 1
            count += 1
        }
        if place.offset == 0 { chunks[place.chunk].first = entry.serial }
        if chunks[place.chunk].bytes.count > Self.chunkBytesMax { split(place.chunk) }
        return replaced
    }

    /// Removes an entry: a hold that is released, a certificate that has expired. Returns it.
    @discardableResult
    public mutating func remove(_ serial: SerialNumber) -> RevokedEntry? {
        guard let place = self.place(of: serial), place.byteCount > 0 else { return nil }
        let end = place.offset + place.byteCount
        let removed = RevokedEntry(der: chunks[place.chunk].bytes[place.offset..<end])
        chunks[place.chunk].bytes.removeSubrange(place.offset..<end)
        chunks[place.chunk].count -= 1
        count -= 1
        byteCount -= place.byteCount
        if chunks[place.chunk].bytes.isEmpty {
            chunks.remove(at: place.chunk)
        } else if place.offset == 0, let first = RevokedEntry(der: chunks[place.chunk].bytes[...]) {
            chunks[place.chunk].first = first.serial
        }
        return removed
    }

    /// Nil when there are no entries.
    private func place(of serial: SerialNumber) -> Place? {
        guard !chunks.isEmpty else { return nil }
        var low = 0, high = chunks.count
        while high - low > 1 {
            let middle = (low + high) / 2
            if chunks[middle].first <= serial { low = middle } else { high = middle }
        }
        let key = serial.der
        return chunks[low].bytes.withUnsafeBytes { bytes in
            var offset = 0
            while offset < bytes.count {
                let length = RevokedEntry.headerByteCount + Int(bytes[offset + 1])
                let order = Self.compare(bytes, offset + RevokedEntry.headerByteCount, key)
                if order == 0 { return Place(chunk: low, offset: offset, byteCount: length) }
                if order > 0 { break }
                offset += length
            }
            return Place(chunk: low, offset: offset, byteCount: 0)
        }
    }

    /// Orders positive DER integers by value: a longer one is larger (X.690 8.3.2 allows no superfluous octet).
    @inline(__always)
    private static func compare(_ bytes: UnsafeRawBufferPointer, _ offset: Int, _ key: [UInt8]) -> Int {
        let length = Int(bytes[offset + 1]), keyLength = Int(key[1])
        if length != keyLength { return length - keyLength }
        for index in 2..<(2 + length) where bytes[offset + index] != key[index] {
            return Int(bytes[offset + index]) - Int(key[index])
        }
        return 0
    }

    private static func entryByteCount(_ bytes: [UInt8], at offset: Int) -> Int {
        RevokedEntry.headerByteCount + Int(bytes[offset + 1])
    }

    private mutating func split(_ index: Int) {
        let bytes = chunks[index].bytes
        var offset = 0, count = 0
        while offset < bytes.count / 2 {
            offset += Self.entryByteCount(bytes, at: offset)
            count += 1
        }
        guard let first = RevokedEntry(der: bytes[offset...]) else { return }
        chunks.insert(
            Chunk(bytes: Array(bytes[offset...]), count: chunks[index].count - count, first: first.serial),
            at: index + 1)
        chunks[index].bytes.removeSubrange(offset...)
        chunks[index].count = count
    }

    // MARK: All entries

    /// In the order of serial numbers.
    public struct Iterator: IteratorProtocol {
        fileprivate let chunks: [Chunk]
        private var chunk = 0
        private var offset = 0

        fileprivate init(chunks: [Chunk]) { self.chunks = chunks }

        public mutating func next() -> RevokedEntry? { nextDER().flatMap { RevokedEntry(der: $0) } }

        fileprivate mutating func nextDER() -> ArraySlice<UInt8>? {
            if chunk < chunks.count, offset == chunks[chunk].bytes.count { (chunk, offset) = (chunk + 1, 0) }
            guard chunk < chunks.count else { return nil }
            let begin = offset
            offset += RevokedEntries.entryByteCount(chunks[chunk].bytes, at: begin)
            return chunks[chunk].bytes[begin..<offset]
        }
    }

    public func makeIterator() -> Iterator { Iterator(chunks: chunks) }
    public var underestimatedCount: Int { count }

    /// Equal when the entries are, however they lie in chunks.
    public static func == (a: RevokedEntries, b: RevokedEntries) -> Bool {
        a.count == b.count && a.byteCount == b.byteCount && a.der == b.der
    }

    /// A change of one entry is in both lists.
    public struct Differences: Sendable, Equatable {
        public var added: [RevokedEntry] = []
        public var removed: [RevokedEntry] = []
        public var isEmpty: Bool { added.isEmpty && removed.isEmpty }
    }

    /// What was added and removed since `earlier`, in the order of serial numbers.
    public func differences(from earlier: RevokedEntries) -> Differences {
        var differences = Differences()
        var new = makeIterator(), old = earlier.makeIterator()
        var added = new.nextDER(), removed = old.nextDER()
        while added != nil || removed != nil {
            if let a = added, let r = removed, a == r {
                (added, removed) = (new.nextDER(), old.nextDER())
                continue
            }
            let a = added.flatMap { RevokedEntry(der: $0) }, r = removed.flatMap { RevokedEntry(der: $0) }
            if let a, r.map({ a.serial <= $0.serial }) ?? true {
                differences.added.append(a)
                added = new.nextDER()
            }
            if let r, a.map({ r.serial <= $0.serial }) ?? true {
                differences.removed.append(r)
                removed = old.nextDER()
            }
        }
        return differences
    }
}
