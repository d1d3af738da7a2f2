import EventModel
import Evidence

/// The log's last signed checkpoint, `checkpoint` in its folder: a C2SP tlog-checkpoint, byte for byte, replaced as a
/// whole. Beside it `frontier`: the same tree in its compact range, so that the tree can go on behind events that were
/// lost after they were signed for. `frontier` is believed only when its root is the checkpoint's.
struct CheckpointFile {
    static let name = "checkpoint"
    static let frontierName = "frontier"
    static let frontierMagic: UInt64 = 0x544E_4F52_4644_4C52  // "RLDFRONT"

    let directory: String
    let fileSystem: any LogFileSystem

    /// The note, whoever signed it; nil when there is none.
    func read() throws(LogError) -> [UInt8]? {
        try Self.contents(directory + "/" + Self.name, fileSystem, bytesMax: SignedNote.byteCountMax)
    }

    func write(_ note: SignedNote, tree: CompactRange) throws(FileError) {
        try replace(Self.frontierName, Self.encode(tree), synchronized: false)
        try replace(Self.name, note.bytes, synchronized: true)
    }

    /// The tree of a checkpoint, when it was kept.
    func frontier(of checkpoint: Checkpoint) -> CompactRange? {
        guard let bytes = try? Self.contents(directory + "/" + Self.frontierName, fileSystem, bytesMax: 4096),
            let tree = bytes.withUnsafeBytes({ Self.decode($0) }), tree.upper == checkpoint.size,
            tree.root == checkpoint.root
        else { return nil }
        return tree
    }

    /// A file that is there wholly or not at all: written beside it, synced, renamed. That the folder is not synced
    /// costs the newest checkpoint at most, never an older one: whatever was signed is durable in the log itself.
    private func replace(_ name: String, _ bytes: [UInt8], synchronized: Bool) throws(FileError) {
        let path = directory + "/" + name
        let file = try fileSystem.open(path + ".tmp", create: true, writable: true)
        let written: Result<Void, FileError> = bytes.withUnsafeBytes { bytes in
            do throws(FileError) {
                return .success(try file.write(bytes, at: 0))
            } catch {
                return .failure(error)
            }
        }
        try written.get()
        if synchronized { try file.synchronize() }
        try fileSystem.rename(path + ".tmp", to: path)
    }

    private static func encode(_ tree: CompactRange) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 16)
        bytes.withUnsafeMutableBytes {
            $0.store(little: frontierMagic, 0)
            $0.store(little: tree.upper, 8)
        }
        return bytes + tree.hashes.flatMap(\.bytes)
    }

    private static func decode(_ bytes: UnsafeRawBufferPointer) -> CompactRange? {
        guard bytes.count >= 16, bytes.little(0, as: UInt64.self) == frontierMagic,
            (bytes.count - 16) % TreeHash.byteCount == 0
        else { return nil }
        let hashes = (0..<((bytes.count - 16) / TreeHash.byteCount)).map {
            TreeHash(at: bytes.baseAddress! + 16 + $0 * TreeHash.byteCount)
        }
        return CompactRange(lower: 0, upper: bytes.little(8), hashes: hashes)
    }

    /// A small file; nil when there is none. Of a larger one than `bytesMax` its first bytes, and one more.
    static func contents(_ path: String, _ fileSystem: any LogFileSystem, bytesMax: Int) throws(LogError) -> [UInt8]? {
        try system { () throws(FileError) in
            guard try fileSystem.status(path) != nil else { return nil }
            let file = try fileSystem.open(path, create: false, writable: false)
            var bytes = [UInt8](repeating: 0, count: bytesMax + 1)
            let read: Result<Int, FileError> = bytes.withUnsafeMutableBytes { room in
                do throws(FileError) {
                    return .success(try file.read(into: room, at: 0))
                } catch {
                    return .failure(error)
                }
            }
            return Array(bytes[..<(try read.get())])
        }
    }
}
