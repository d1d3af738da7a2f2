import Glibc

/// Where a byte string lies in a `ByteArena`.
struct ByteRef {
    /// Chunk in the upper 16 bits, offset in units of 16 bytes in the lower; 0 means there is none.
    fileprivate(set) var place: UInt32 = 0
    fileprivate(set) var count: UInt32 = 0

    var isNone: Bool { place == 0 }
}

/// Byte strings of many rows in few allocations: a million devices with their ids, metrics and shadows would otherwise
/// be millions of heap objects with a header each. Space is given in size classes (four a doubling) and reused.
/// Space that is freed returns to the system only with the whole arena.
struct ByteArena: ~Copyable {
    private static let chunkBytes = 1 << 20
    private static let unit = 16
    private static let classCount = 59

    private var chunks: [UnsafeMutableRawPointer] = []
    /// Chunks that hold one long string each come and go; their numbers are used again.
    private var freeNumbers: [UInt16] = []
    private var freeLists = [UInt32](repeating: 0, count: classCount)
    /// The chunk that is being filled, and how many of its units are taken.
    private var current = -1
    private var usedUnits = 0
    private(set) var allocatedBytes = 0

    deinit { for chunk in chunks { chunk.deallocate() } }

    @inline(__always)
    func bytes(_ ref: ByteRef) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: address(ref.place), count: Int(ref.count))
    }

    func optional(_ ref: ByteRef) -> UnsafeRawBufferPointer? { ref.isNone ? nil : bytes(ref) }

    /// Makes `ref` hold a copy of `source`, in the same place when it fits there.
    @inline(__always)
    mutating func put(_ source: UnsafeRawBufferPointer, in ref: inout ByteRef) {
        precondition(source.count <= Int(UInt32.max))
        if ref.isNone || !Self.isSameSpace(Int(ref.count), source.count) {
            free(&ref)
            ref.place = allocate(source.count)
        }
        ref.count = UInt32(truncatingIfNeeded: source.count)
        if let from = source.baseAddress { memmove(address(ref.place), from, source.count) }
    }

    mutating func put(_ text: String, in ref: inout ByteRef) {
        var text = text
        text.withUTF8 { put(UnsafeRawBufferPointer($0), in: &ref) }
    }

    /// Takes `removed` out of a byte string and appends `count` bytes that `fill` writes; in place when that fits.
    mutating func splice(
        _ ref: inout ByteRef, removing removed: Range<Int>, appending count: Int,
        _ fill: (UnsafeMutableRawBufferPointer) -> Void
    ) {
        let old = Int(ref.count), kept = old - removed.count
        precondition(removed.upperBound <= old && kept + count <= Int(UInt32.max))
        let source = ref.isNone ? nil : address(ref.place)
        if let source, Self.isSameSpace(old, kept + count) {
            memmove(source + removed.lowerBound, source + removed.upperBound, old - removed.upperBound)
        } else {
            var moved = ByteRef()
            moved.place = allocate(kept + count)
            if let source {
                let target = address(moved.place)
                memcpy(target, source, removed.lowerBound)
                memcpy(target + removed.lowerBound, source + removed.upperBound, old - removed.upperBound)
                free(&ref)
            }
            ref.place = moved.place
        }
        ref.count = UInt32(truncatingIfNeeded: kept + count)
        fill(UnsafeMutableRawBufferPointer(start: address(ref.place) + kept, count: count))
    }

    mutating func free(_ ref: inout ByteRef) {
        defer { ref = ByteRef() }
        guard !ref.isNone else { return }
        let sizeClass = Self.sizeClass(Int(ref.count))
        if sizeClass < Self.classCount {
            address(ref.place).storeBytes(of: freeLists[sizeClass], as: UInt32.self)
            freeLists[sizeClass] = ref.place
        } else {
            let number = Int(ref.place >> 16)
            chunks[number].deallocate()
            chunks[number] = .allocate(byteCount: Self.unit, alignment: Self.unit)
            allocatedBytes -= Self.longBytes(Int(ref.count)) - Self.unit
            freeNumbers.append(UInt16(number))
        }
    }

    private mutating func allocate(_ count: Int) -> UInt32 {
        let sizeClass = Self.sizeClass(count)
        guard sizeClass < Self.classCount else { return allocateLong(count) }
        let head = freeLists[sizeClass]
        if head != 0 {
            freeLists[sizeClass] = address(head).load(as: UInt32.self)
            return head
        }
        let units = Self.units(ofClass: sizeClass)
        if current < 0 || usedUnits + units > Self.chunkBytes / Self.unit {
            current = add(Self.chunkBytes)
            usedUnits = current == 0 ? 1 : 0  // place 0 means none
        }
        defer { usedUnits += units }
        return UInt32(current) << 16 | UInt32(usedUnits)
    }

    private mutating func allocateLong(_ count: Int) -> UInt32 {
        let byteCount = Self.longBytes(count)
        if let number = freeNumbers.popLast() {
            chunks[Int(number)].deallocate()
            chunks[Int(number)] = .allocate(byteCount: byteCount, alignment: 64)
            allocatedBytes += byteCount - Self.unit
            return UInt32(number) << 16
        }
        if chunks.isEmpty { _ = add(Self.unit) }  // place 0 means none
        return UInt32(add(byteCount)) << 16
    }

    private mutating func add(_ byteCount: Int) -> Int {
        precondition(chunks.count < 1 << 16, "more than 64 GiB of row state in memory")
        chunks.append(.allocate(byteCount: byteCount, alignment: 64))
        allocatedBytes += byteCount
        return chunks.count - 1
    }

    @inline(__always)
    private func address(_ place: UInt32) -> UnsafeMutableRawPointer {
        chunks[Int(place >> 16)] + Int(place & 0xFFFF) * Self.unit
    }

    /// Classes 0 to 7 are 1 to 8 units; then four a doubling: 10, 12, 14, 16, 20, … `classCount` and up: too long.
    @inline(__always)
    private static func sizeClass(_ count: Int) -> Int {
        let units = max(1, (count + unit - 1) / unit)
        if units <= 8 { return units - 1 }
        let doubling = Int.bitWidth - 1 - (units - 1).leadingZeroBitCount  // 3 for 9 to 16
        return min(classCount, 8 + (doubling - 3) * 4 + ((units - 1) >> (doubling - 2) & 3))
    }

    @inline(__always)
    private static func isSameSpace(_ a: Int, _ b: Int) -> Bool {
        let sizeClass = sizeClass(a)
        return sizeClass == Self.sizeClass(b) && (sizeClass < classCount || longBytes(a) == longBytes(b))
    }

    private static func units(ofClass sizeClass: Int) -> Int {
        if sizeClass < 8 { return sizeClass + 1 }
        let doubling = (sizeClass - 8) / 4 + 3, quarter = (sizeClass - 8) % 4
        return (5 + quarter) << (doubling - 2)
    }

    private static func longBytes(_ count: Int) -> Int { (count + unit - 1) / unit * unit }
}
