import EventModel
import Primitives
import Testing
@testable import Evidence

/// RFC 6962, 2.1, word for word, over whole lists of leaves: slow and plainly right.
enum NaiveTree {
    static func split(_ count: Int) -> Int {
        var k = 1
        while k * 2 < count { k *= 2 }
        return k
    }

    static func root(_ leaves: ArraySlice<TreeHash>) -> TreeHash {
        switch leaves.count {
        case 0: return SHA256.digest([])
        case 1: return leaves.first!
        default:
            let middle = leaves.startIndex + split(leaves.count)
            return node(root(leaves[..<middle]), root(leaves[middle...]))
        }
    }

    static func node(_ left: TreeHash, _ right: TreeHash) -> TreeHash { SHA256.digest([1] + left.bytes + right.bytes) }

    static func path(_ m: Int, _ leaves: ArraySlice<TreeHash>) -> [TreeHash] {
        guard leaves.count > 1 else { return [] }
        let k = split(leaves.count), middle = leaves.startIndex + k
        return m < k
            ? path(m, leaves[..<middle]) + [root(leaves[middle...])]
            : path(m - k, leaves[middle...]) + [root(leaves[..<middle])]
    }

    static func proof(_ m: Int, _ leaves: ArraySlice<TreeHash>, _ whole: Bool = true) -> [TreeHash] {
        if m == leaves.count { return whole ? [] : [root(leaves)] }
        let k = split(leaves.count), middle = leaves.startIndex + k
        return m <= k
            ? proof(m, leaves[..<middle], whole) + [root(leaves[middle...])]
            : proof(m - k, leaves[middle...], false) + [root(leaves[..<middle])]
    }
}

func leaves(_ count: Int) -> [TreeHash] { (0..<count).map { LeafHasher.leaf(ofCanonical: Array("leaf \($0)".utf8)) } }

func compact(_ leaves: [TreeHash], _ lower: UInt64, _ upper: UInt64) -> CompactRange {
    var range = CompactRange(at: lower)
    for leaf in leaves[Int(lower)..<Int(upper)] { range.append(leaf: leaf) }
    return range
}

struct HashTests {
    /// An inner node is hashed as two padded blocks.
    @Test func aNodeIsTheHashOfItsBytes() {
        let (a, b) = (SHA256.digest([1]), SHA256.digest([2]))
        #expect(TreeHash.node(a, b) == NaiveTree.node(a, b))
        #expect(TreeHash.emptyRoot.description == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    }
}

struct TreeTests {
    /// The eight leaves of Certificate Transparency's own tests (certificate-transparency-go, testdata).
    private let vector: [[UInt8]] = [
        [], [0x00], [0x10], [0x20, 0x21], [0x30, 0x31], [0x40, 0x41, 0x42, 0x43],
        [0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
        [0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f],
    ]

    @Test func rootsAreThoseOfCertificateTransparency() {
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ]
        var range = CompactRange()
        for (entry, root) in zip(vector, roots) {
            range.append(leaf: LeafHasher.leaf(ofCanonical: entry))
            #expect(range.root.description == root)
        }
    }

    @Test func rootsAndJoinsAgreeWithTheDefinition() {
        let all = leaves(300)
        var grown = CompactRange()
        for size in 0...300 {
            #expect(grown.root == NaiveTree.root(all[..<size]), "size \(size)")
            #expect(CompactRange(lower: 0, upper: UInt64(size), hashes: grown.hashes) == grown)
            for middle in stride(from: 0, through: size, by: 7) {
                var joined = compact(all, 0, UInt64(middle))
                joined.append(compact(all, UInt64(middle), UInt64(size)))
                #expect(joined == grown, "\(middle) and \(size - middle)")
            }
            if size < 300 { grown.append(leaf: all[size]) }
        }
    }

    @Test func everyStretchIsMadeOfTheLargestSubtrees() {
        let all = leaves(70)
        for lower in 0..<UInt64(70) {
            var range = CompactRange(at: lower)
            for upper in lower...70 {
                #expect(range.nodes.map(\.level) == CompactRange.levels(lower, upper).map(\.level))
                for node in range.nodes {
                    #expect(node.hash == NaiveTree.root(all[Int(node.start)..<Int(node.end)]))
                }
                if upper < 70 { range.append(leaf: all[Int(upper)]) }
            }
        }
        #expect(CompactRange(lower: 0, upper: 5, hashes: Array(all[..<3])) == nil)
        #expect(CompactRange(lower: 3, upper: 2, hashes: []) == nil)
    }

    @Test func inclusionProofsAreThoseOfTheDefinition() {
        let all = leaves(300)
        for size in Array(1...70) + [127, 128, 129, 255, 256, 257, 299, 300] {
            let root = NaiveTree.root(all[..<size])
            for index in stride(from: 0, to: size, by: size > 70 ? 13 : 1) {
                let path = TreeProofs.inclusion(of: UInt64(index), size: UInt64(size)) { compact(all, $0, $1) }
                #expect(path == NaiveTree.path(index, all[..<size]))
                func leads(_ leaf: Int, _ index: Int, _ size: Int, _ path: [TreeHash]) -> Bool {
                    TreeProofs.root(leaf: all[leaf], index: UInt64(index), size: UInt64(size), path: path) == root
                }
                #expect(leads(index, index, size, path))
                #expect(!leads((index + 1) % 300, index, size, path))
                #expect(!leads(index, size, size, path))
                if size > 1 { #expect(!leads(index, index, size, path.dropLast())) }
                #expect(!leads(index, index, size, path + [root]))
            }
        }
    }

    @Test func consistencyProofsAreThoseOfTheDefinition() {
        let all = leaves(300)
        for second in Array(1...50) + [64, 128, 255, 256, 257, 300] {
            let secondRoot = NaiveTree.root(all[..<second])
            for first in stride(from: 0, through: second, by: second > 50 ? 17 : 1) {
                let firstRoot = NaiveTree.root(all[..<first])
                let path = TreeProofs.consistency(from: UInt64(first), to: UInt64(second)) { compact(all, $0, $1) }
                #expect(path == (first == 0 ? [] : NaiveTree.proof(first, all[..<second])))
                func holds(_ a: TreeHash, _ b: TreeHash, _ path: [TreeHash]) -> Bool {
                    TreeProofs.isConsistent(
                        first: UInt64(first), firstRoot: a, second: UInt64(second), secondRoot: b, path: path)
                }
                #expect(holds(firstRoot, secondRoot, path), "\(first) in \(second)")
                #expect(!holds(all[0], secondRoot, path) || firstRoot == all[0])
                #expect(first == 0 || !holds(firstRoot, all[299], path) || secondRoot == all[299])
                #expect(!holds(firstRoot, secondRoot, path + [firstRoot]))
                if !path.isEmpty {
                    #expect(!holds(firstRoot, secondRoot, path.dropLast()))
                    #expect(!holds(firstRoot, secondRoot, []))
                }
            }
        }
        #expect(
            !TreeProofs.isConsistent(
                first: 2, firstRoot: all[0], second: 1, secondRoot: all[0], path: []))
    }
}

struct LeafTests {
    private func record(topic: Int, properties: Int, payload: Int) -> [UInt8] {
        var batch = RecordBatch()
        let bytes = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 * 31) }
        bytes.withUnsafeBytes { all in
            func part(_ count: Int) -> UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: all[..<count]) }
            batch.append(
                kind: .message, verdict: .accepted, flags: RecordFlags(qos: 1),
                receivedAt: Timestamp(microseconds: 1_234_567), packetID: 9, broker: part(4), topic: part(topic),
                properties: part(properties), payload: part(payload))
        }
        return batch.bytes
    }

    @Test func aLeafIsThatOfItsCanonicalBytes() {
        for (topic, properties, payload) in [
            (31, 0, 9), (31, 0, 0), (0, 0, 100), (31, 70, 4000), (900, 50, 1), (950, 100, 1), (65_400, 67, 5),
            (65_400, 68, 5), (65_535, 90_000, 3),
        ] {
            let bytes = record(topic: topic, properties: properties, payload: payload)
            bytes.withUnsafeBytes { bytes in
                let record = RecordView(unchecked: bytes.baseAddress!)
                let canonical = LeafHasher.canonical(record)
                #expect(canonical.count <= 65_535)
                let isWhole = 4 + topic + properties <= 65_471
                #expect(canonical.count == 64 + (isWhole ? 4 + topic + properties : 32))
                #expect(Array(canonical.suffix(32)) == opensslDigest(Array(record.payload)))
                #expect(LeafHasher().leaf(record).bytes == opensslDigest([0] + canonical))
            }
        }
    }

    @Test func aLostEventHasALeafToo() {
        #expect(
            LeafHasher.lostCanonical(Position(258)) == Array("refold lost event\n".utf8) + [2, 1, 0, 0, 0, 0, 0, 0])
    }
}
