import EventLog
import Primitives

/// A file or a folder: its cache, and what is on the platter. Touched only under the disk's lock.
final class DiskNode {
    enum SectorState: UInt8 {
        /// The platter has it.
        case clean
        /// Only the cache has it, and a sync will bring it to the platter.
        case dirty
        /// Only the cache has it, and believes that the platter has it: a sync failed.
        case lost
    }

    enum FolderChange {
        case set(String, DiskNode)
        case remove(String)
        case rename(String, to: String, DiskNode)
    }

    let isDirectory: Bool

    // A folder: its names as seen, as on the platter, and how they differ.
    var entries: [String: DiskNode] = [:]
    var stableEntries: [String: DiskNode] = [:]
    var changes: [FolderChange] = []

    // A file.
    var bytes: [UInt8] = []
    var stable: [UInt8] = []
    var sectors: [SectorState] = []
    /// The size that the platter knows. `stable` may be longer, by sectors that got there before their size did.
    var syncedSize = 0
    /// Sizes since then: any of them may be the one found after a power cut.
    var sizes: [Int] = []
    /// What lay in this space before, by offset; nil while the file has no space.
    var oldSpace: [UInt8]?
    var modified: Int64 = 0
    var isReadOnly = false
    var isLockFile = false
    var links = 0
    var handles = 0
    var isFreed = false
    var page: DiskPage?
    var lockOwner: (process: Int, token: Int)?

    init(isDirectory: Bool) { self.isDirectory = isDirectory }

    static func allocated(_ byteCount: Int) -> Int { (byteCount + 4095) & ~4095 }

    /// Every node below, in the order of names.
    func forEach(_ body: (DiskNode) -> Void) {
        body(self)
        for (_, node) in entries.sorted(by: { $0.key < $1.key }) { node.forEach(body) }
    }

    // MARK: Contents

    func resize(to byteCount: Int) {
        let old = bytes.count
        guard byteCount != old else { return }
        sizes.append(byteCount)
        if byteCount < old {
            // What is cut off is zero if the file grows again; the platter has it still.
            let first = byteCount / SimulatedDisk.sectorBytes
            for sector in first..<sectors.count where sector * SimulatedDisk.sectorBytes < old {
                sectors[sector] = .dirty
            }
            bytes.removeSubrange(byteCount...)
        } else {
            bytes.append(contentsOf: repeatElement(0, count: byteCount - old))
        }
        let count = (byteCount + SimulatedDisk.sectorBytes - 1) / SimulatedDisk.sectorBytes
        if count > sectors.count { sectors.append(contentsOf: repeatElement(.clean, count: count - sectors.count)) }
    }

    func write(_ source: UnsafeRawBufferPointer, at offset: Int, random: inout SeededRandom) {
        guard !source.isEmpty else { return }
        let first = offset / SimulatedDisk.sectorBytes
        let last = (offset + source.count - 1) / SimulatedDisk.sectorBytes
        for sector in first...last {
            // Written twice between syncs: the first may be what is found.
            if sectors[sector] == .dirty, random.below(4) == 0 { persist(sector) }
            sectors[sector] = .dirty
        }
        bytes.withUnsafeMutableBytes { $0[offset..<(offset + source.count)].copyBytes(from: source) }
    }

    func bytes(ofSector sector: Int) -> [UInt8] {
        let start = sector * SimulatedDisk.sectorBytes
        var result = [UInt8](repeating: 0, count: SimulatedDisk.sectorBytes)
        if start < bytes.count {
            let part = bytes[start..<min(start + SimulatedDisk.sectorBytes, bytes.count)]
            result.replaceSubrange(..<part.count, with: part)
        }
        return result
    }

    /// Brings a sector to the platter.
    func persist(_ sector: Int) {
        let start = sector * SimulatedDisk.sectorBytes, end = start + SimulatedDisk.sectorBytes
        if stable.count < end { stable.append(contentsOf: repeatElement(0, count: end - stable.count)) }
        let available = max(0, min(end, bytes.count) - start)
        stable.withUnsafeMutableBytes { target in
            bytes.withUnsafeBytes { source in
                let room = UnsafeMutableRawBufferPointer(rebasing: target[start..<end])
                if available > 0 {
                    room.copyMemory(from: UnsafeRawBufferPointer(rebasing: source[start..<(start + available)]))
                }
                UnsafeMutableRawBufferPointer(rebasing: room[available...]).initializeMemory(
                    as: UInt8.self, repeating: 0)
            }
        }
    }

    func synchronize() {
        for sector in sectors.indices where sectors[sector] == .dirty {
            persist(sector)
            sectors[sector] = .clean
        }
        sizes = []
        syncedSize = bytes.count
        resizeStable(to: bytes.count)
        let count = (bytes.count + SimulatedDisk.sectorBytes - 1) / SimulatedDisk.sectorBytes
        sectors.removeSubrange(min(count, sectors.count)...)
    }

    /// A sync that failed: some sectors are on the platter, all are called clean.
    func failToSynchronize(_ random: inout SeededRandom) {
        let share = random.pick([0, 0.5, 0.9])
        for sector in sectors.indices where sectors[sector] == .dirty {
            if random.chance(share) {
                persist(sector)
                sectors[sector] = .clean
            } else {
                sectors[sector] = .lost
            }
        }
    }

    private func resizeStable(to byteCount: Int) {
        if stable.count > byteCount {
            stable.removeSubrange(byteCount...)
        } else {
            stable.append(contentsOf: repeatElement(0, count: byteCount - stable.count))
        }
    }

    // MARK: A power cut

    func losePower(
        path: String, disk: SimulatedDisk, keepsName: () -> Bool, keepsSector: (String, Int) -> Bool
    ) {
        guard isDirectory else { return loseSectors(path, disk, keepsSector) }
        let before = Array(entries.values) + Array(stableEntries.values)
        for change in changes where keepsName() { apply(change) }
        changes = []
        for node in before { node.links = 0 }
        entries = stableEntries
        for node in entries.values { node.links = 1 }
        for (name, node) in entries.sorted(by: { $0.key < $1.key }) {
            node.losePower(path: path + "/" + name, disk: disk, keepsName: keepsName, keepsSector: keepsSector)
        }
    }

    func apply(_ change: FolderChange) {
        switch change {
        case .set(let name, let node): stableEntries[name] = node
        case .remove(let name): stableEntries[name] = nil
        case .rename(let name, let newName, let node):
            // Also when the create before it was lost.
            if stableEntries[name] === node { stableEntries[name] = nil }
            stableEntries[newName] = node
        }
    }

    private func loseSectors(_ path: String, _ disk: SimulatedDisk, _ keepsSector: (String, Int) -> Bool) {
        handles = 0
        lockOwner = nil
        if let page {
            page.losePower(&disk.random)
            bytes.withUnsafeMutableBytes { $0.copyBytes(from: page.bytes.prefix($0.count)) }
            stable = bytes
            self.page = nil
        }
        for sector in sectors.indices where sectors[sector] == .dirty {
            if keepsSector(path, sector) { persist(sector) }
        }
        let choices = sizes + [syncedSize]
        let size = choices[disk.random.below(choices.count)]
        exposeOldSpace(disk, upTo: size)
        resizeStable(to: size)
        syncedSize = size
        bytes = stable
        sizes = []
        sectors = Array(repeating: .clean, count: (size + SimulatedDisk.sectorBytes - 1) / SimulatedDisk.sectorBytes)
    }

    /// Space that was never written since it was taken may read as what lay there before.
    private func exposeOldSpace(_ disk: SimulatedDisk, upTo size: Int) {
        guard disk.exposesOldSpace, let oldSpace, !oldSpace.isEmpty else { return }
        // The page behind the last one that holds anything: where a log goes on.
        var end = stable.count
        while end > 0, stable[end - 1] == 0 { end -= 1 }
        let start = Self.allocated(end), stop = min(start + 4096, oldSpace.count, size)
        guard start < stop else { return }
        if stable.count < stop { stable.append(contentsOf: repeatElement(0, count: stop - stable.count)) }
        stable.replaceSubrange(start..<stop, with: oldSpace[start..<stop])
    }
}

/// The memory of a file that is mapped, with what it was before.
/// `@unchecked Sendable`: the memory is stored to atomically, the rest is under the disk's lock.
final class DiskPage: SharedPage, @unchecked Sendable {
    let bytes: UnsafeMutableRawBufferPointer
    private var history: [[UInt8]]
    private static let historyMax = 32
    /// The process that may store.
    var writer = 0

    init(_ contents: ArraySlice<UInt8>) {
        bytes = .allocate(byteCount: contents.count, alignment: 64)
        bytes.copyBytes(from: contents)
        history = [Array(contents)]
    }

    deinit { bytes.deallocate() }

    func snapshot() -> [UInt8] { Array(bytes) }
    func restore(_ old: [UInt8]) { bytes.copyBytes(from: old) }

    /// Remembers the page as it is: a power cut may bring it back.
    func note() {
        guard !bytes.elementsEqual(history[history.count - 1]) else { return }
        history.append(snapshot())
        if history.count > Self.historyMax { history.removeFirst() }
    }

    func losePower(_ random: inout SeededRandom) {
        note()
        restore(random.pick(history))
        history = [snapshot()]
    }
}
