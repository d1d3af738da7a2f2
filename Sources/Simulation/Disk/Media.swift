import EventLog

// What happens to a disk's contents without anybody writing, and what an examiner may look at.
extension SimulatedDisk {
    /// All faults to come, by share and one by one.
    public func setFaults(rates: Rates = Rates(), failures: [Failure] = []) {
        locked {
            self.rates = rates
            self.failures = failures
        }
    }

    public var capacityBytes: Int {
        get { locked { capacity } }
        set { locked { capacity = newValue } }
    }
    public var usedBytes: Int { locked { used } }
    public var operations: Int { locked { operationCount } }
    public var traceHash: TraceHash { locked { trace } }
    public func setExposesOldSpace(_ on: Bool) { locked { exposesOldSpace = on } }

    /// What lay on the disk before it was cleared: the first of these where the first file will take space.
    public func setOldSpace(_ files: [[UInt8]]) { locked { oldSpace = files.reversed() } }

    public var lastDeath: String? {
        locked {
            deaths.last.map {
                "process \($0.process) \($0.kind == .killed ? "killed" : "lost power") in "
                    + "\($0.during.name) \($0.path)"
            }
        }
    }

    private func node(_ path: String) -> DiskNode? {
        var node: DiskNode? = root
        for name in SimulatedFileSystem.parts(path) { node = node?.entries[name] }
        return node
    }

    /// The names in a folder, sorted; empty when there is none.
    public func names(in directory: String) -> [String] { locked { node(directory)?.entries.keys.sorted() ?? [] } }

    /// A file as processes see it.
    public func contents(_ path: String) -> [UInt8]? { locked { node(path)?.bytes } }

    /// Puts a file there, synced, as a copy from elsewhere would; `nil` removes it.
    public func place(_ path: String, _ bytes: [UInt8]?) {
        locked {
            var parts = SimulatedFileSystem.parts(path)
            guard let name = parts.popLast(), let folder = node(parts.joined(separator: "/")) else {
                preconditionFailure("no folder for \(path)")
            }
            if let old = folder.entries[name] {
                old.links = 0
                release(old)
            }
            folder.entries[name] = nil
            folder.stableEntries[name] = nil
            guard let bytes else { return }
            let new = DiskNode(isDirectory: false)
            new.links = 1
            used += DiskNode.allocated(bytes.count)
            new.resize(to: bytes.count)
            bytes.withUnsafeBytes { new.write($0, at: 0, random: &random) }
            new.synchronize()
            clock += 1
            new.modified = clock
            folder.entries[name] = new
            folder.stableEntries[name] = new
        }
    }

    /// Flips one bit, on the platter and in the cache. Returns what flips it back, in that file whatever its name is by
    /// then.
    @discardableResult
    public func flip(_ path: String, bit: Int) -> () -> Void {
        let node: DiskNode? = locked { self.node(path) }
        let flip: () -> Void = { [self] in
            locked {
                guard let node, bit / 8 < node.bytes.count else { return }
                let mask = UInt8(1) << UInt8(bit % 8)
                node.bytes[bit / 8] ^= mask
                if bit / 8 < node.stable.count { node.stable[bit / 8] ^= mask }
                clock += 1
                node.modified = clock
                trace.mix(bit)
            }
        }
        flip()
        return flip
    }

    /// Makes sectors read as before they were last written: in files that are only ever appended to, as what lay in
    /// their space before, zeroes or another file's. Returns what mends them.
    @discardableResult
    public func makeStale(_ path: String, sectors: Range<Int>, was old: [UInt8] = []) -> () -> Void {
        let node: DiskNode? = locked { self.node(path) }
        let start = sectors.lowerBound * Self.sectorBytes
        func put(_ bytes: [UInt8]) {
            locked {
                guard let node else { return }
                let end = min(sectors.upperBound * Self.sectorBytes, node.bytes.count)
                for index in start..<max(start, end) {
                    let byte = index - start < bytes.count ? bytes[index - start] : 0
                    node.bytes[index] = byte
                    if index < node.stable.count { node.stable[index] = byte }
                }
                clock += 1
                node.modified = clock
                trace.mix(start)
            }
        }
        let byteCount = sectors.count * Self.sectorBytes
        let now = locked { node.map { Array($0.bytes.dropFirst(start).prefix(byteCount)) } ?? [] }
        put(old)
        return { put(now) }
    }

    /// The dirty sectors of a file: what a power cut may lose.
    public func dirtySectors(_ path: String) -> [Int] {
        locked { node(path).map { node in node.sectors.indices.filter { node.sectors[$0] == .dirty } } ?? [] }
    }

    /// The kernel drops clean pages: what a failed sync called clean is read from the platter again.
    public func forgetCache() {
        locked {
            root.forEach { node in
                for sector in node.sectors.indices where node.sectors[sector] == .lost {
                    let start = sector * Self.sectorBytes
                    for index in start..<(start + Self.sectorBytes) where index < node.bytes.count {
                        node.bytes[index] = index < node.stable.count ? node.stable[index] : 0
                    }
                    node.sectors[sector] = .clean
                }
            }
            trace.mix(0xCAC4E)
        }
    }

    /// The disk as it is, for trying many ends of one beginning.
    public func copy(seed: UInt64) -> SimulatedDisk {
        locked {
            let other = SimulatedDisk(seed: seed, capacity: capacity)
            var copies: [ObjectIdentifier: DiskNode] = [:]
            other.root = root.copy(&copies)
            other.used = used
            other.clock = clock
            other.exposesOldSpace = exposesOldSpace
            other.oldSpace = oldSpace
            return other
        }
    }
}

extension DiskNode {
    /// Without what belongs to processes: open files, locks and mappings.
    fileprivate func copy(_ copies: inout [ObjectIdentifier: DiskNode]) -> DiskNode {
        if let known = copies[ObjectIdentifier(self)] { return known }
        let other = DiskNode(isDirectory: isDirectory)
        copies[ObjectIdentifier(self)] = other
        other.entries = entries.mapValues { $0.copy(&copies) }
        other.stableEntries = stableEntries.mapValues { $0.copy(&copies) }
        other.changes = changes.map { change in
            switch change {
            case .set(let name, let node): .set(name, node.copy(&copies))
            case .remove(let name): .remove(name)
            case .rename(let name, let to, let node): .rename(name, to: to, node.copy(&copies))
            }
        }
        other.bytes = bytes
        if let page { other.bytes.replaceSubrange(..<page.bytes.count, with: page.bytes) }
        other.stable = stable
        other.sectors = sectors
        other.syncedSize = syncedSize
        other.sizes = sizes
        other.oldSpace = oldSpace
        other.modified = modified
        other.isReadOnly = isReadOnly
        other.links = links
        return other
    }
}
