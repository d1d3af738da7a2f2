import EventModel
import Primitives
import Testing
@testable import Evidence

/// One proof for many leaves.
struct SeveralProofTests {
    private func leaves(_ count: Int) -> [TreeHash] { (0..<count).map { SHA256.digest([0, UInt8($0)]) } }

    private func range(_ leaves: [TreeHash], _ lower: UInt64, _ upper: UInt64) -> CompactRange {
        var range = CompactRange(at: lower)
        for index in lower..<upper { range.append(leaf: leaves[Int(index)]) }
        return range
    }

    /// Every subset of the leaves of every small tree.
    @Test func everySubsetIsProved() {
        for size in 0...9 {
            let leaves = leaves(size), root = range(leaves, 0, UInt64(size)).root
            for subset in 0..<(1 << size) {
                let positions = (0..<UInt64(size)).filter { subset >> $0 & 1 == 1 }
                let hashes = TreeProofs.several(positions, size: UInt64(size)) { range(leaves, $0, $1) }
                let shown = positions.map { (position: $0, leaf: leaves[Int($0)]) }
                #expect(TreeProofs.root(of: shown, size: UInt64(size), hashes: hashes) == root)
                // One too many, one too few, another leaf.
                #expect(TreeProofs.root(of: shown, size: UInt64(size), hashes: hashes + [root]) == nil)
                if !hashes.isEmpty {
                    #expect(TreeProofs.root(of: shown, size: UInt64(size), hashes: hashes.dropLast()) == nil)
                }
                if let first = shown.first {
                    let other = [(first.position, TreeHash.emptyRoot)] + shown.dropFirst()
                    #expect(TreeProofs.root(of: other, size: UInt64(size), hashes: hashes) != root)
                }
            }
        }
    }

    @Test func oneLeafTakesAsManyHashesAsItsPath() {
        let leaves = leaves(200)
        for position in [0, 1, 127, 128, 199] as [UInt64] {
            let several = TreeProofs.several([position], size: 200) { range(leaves, $0, $1) }
            let path = TreeProofs.inclusion(of: position, size: 200) { range(leaves, $0, $1) }
            #expect(Set(several) == Set(path) && several.count == path.count)
        }
    }
}
