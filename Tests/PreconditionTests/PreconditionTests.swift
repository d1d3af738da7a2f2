import CampaignRules
import EventModel
import Foundation
import Primitives
import Testing

@testable import EventLog
@testable import Evidence
@testable import Projections

/// Preconditions against silent data corruption: each ends the process with its message.
struct PreconditionTests {
    @Test(arguments: Violation.allCases)
    func endsTheProcess(violation: Violation) async throws {
        let result = await #expect(
            processExitsWith: .failure, observing: [\.exitStatus, \.standardErrorContent]
        ) { [violation = violation as Violation] in
            violation.commit()
        }
        guard case .signal? = result?.exitStatus else {
            Issue.record("it ended with \(String(describing: result?.exitStatus))")
            return
        }
        // Targets built with -O print no message.
        guard !violation.isSilent else { return }
        let error = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
        #expect(error.contains("/\(violation.file):"), "\(error)")
        #expect(error.contains("Precondition failed: \(violation.words)"), "\(error)")
    }
}

enum Violation: String, CaseIterable, Codable {
    // Records and blocks
    case brokerTooLong, topicTooLong, recordTooLong, timesOfAnEmptyBatch, blocksWithAGap, recordBehindTheBlock
    // The log's files
    case emptyBatch, batchTooLarge, readBeyondTheBuffer, writeBeyondTheBuffer, negativeOffset, treesOfNoSegment
    case rowWithGaps, growthInTheMiddle, noPlaceForRestoredSegments
    // The tree
    case unalignedNode, nodeWithAGap, stretchWithAGap, rootOfHalfATree, proofOfNoLeaf, shrinkingTree, fallingPositions
    case severalOfNoLeaf, entryTooLong
    // Rules and folds
    case thresholdBeyondOne, errorRateOfZero, sampleThatIsNone, partitionThatIsNone
    // Building blocks
    case hashOfHalfABlock, nothingBelowZero, histogramWithoutLast

    /// What the process says as it ends.
    var words: String {
        switch self {
        case .brokerTooLong, .topicTooLong: "broker or topic longer than a record can hold"
        case .recordTooLong: "record longer than"
        case .timesOfAnEmptyBatch: "an empty batch has no times"
        case .blocksWithAGap: "blocks join without a gap"
        case .emptyBatch: "an empty batch has no positions"
        case .batchTooLarge: "a batch larger than"
        case .treesOfNoSegment: "no segment's trees"
        case .rowWithGaps: "a row with gaps"
        case .growthInTheMiddle: "a tree begins at 0"
        case .noPlaceForRestoredSegments: "a restored segment needs a place"
        case .unalignedNode: "no whole subtree"
        case .nodeWithAGap: "subtrees join without a gap"
        case .stretchWithAGap: "stretches join without a gap"
        case .rootOfHalfATree: "not one subtree"
        case .proofOfNoLeaf, .severalOfNoLeaf: "no such leaf"
        case .shrinkingTree: "a tree does not shrink"
        case .fallingPositions: "positions rise"
        case .entryTooLong: "an entry longer than its 16-bit length"
        case .thresholdBeyondOne: "a threshold is a share: 0 to 1"
        case .errorRateOfZero: "an error rate lies between 0 and 1"
        case .sampleThatIsNone: "there is no sample 1"
        case .hashOfHalfABlock: "SHA-256 takes blocks of 64 bytes"
        case .nothingBelowZero: "nothing lies below 0"
        case .histogramWithoutLast: "a bucket for each bound, and one above"
        case .recordBehindTheBlock: "an offset beyond the block"
        case .readBeyondTheBuffer, .writeBeyondTheBuffer, .negativeOffset: "a number beyond the buffer"
        case .partitionThatIsNone: "there is no partition 2 of 2"
        }
    }

    var isSilent: Bool {
        switch self {
        case .thresholdBeyondOne, .errorRateOfZero, .sampleThatIsNone, .hashOfHalfABlock, .nothingBelowZero,
            .histogramWithoutLast:
            true
        default: false
        }
    }

    var file: String {
        switch self {
        case .brokerTooLong, .topicTooLong, .recordTooLong, .timesOfAnEmptyBatch: "RecordBatch.swift"
        case .blocksWithAGap, .recordBehindTheBlock: "EventBlock.swift"
        case .emptyBatch: "FileLog.swift"
        case .batchTooLarge: "CommitLoop.swift"
        case .readBeyondTheBuffer, .writeBeyondTheBuffer, .negativeOffset: "LogFormat.swift"
        case .treesOfNoSegment, .rowWithGaps: "TreeSection.swift"
        case .growthInTheMiddle: "TreeGrower.swift"
        case .noPlaceForRestoredSegments: "RemovedSegments.swift"
        case .unalignedNode, .nodeWithAGap, .stretchWithAGap, .rootOfHalfATree: "CompactRange.swift"
        case .proofOfNoLeaf, .shrinkingTree: "TreeProofs.swift"
        case .fallingPositions, .severalOfNoLeaf: "SeveralProof.swift"
        case .entryTooLong: "TileWriter.swift"
        case .thresholdBeyondOne, .errorRateOfZero, .sampleThatIsNone: "SequentialFailureTest.swift"
        case .partitionThatIsNone: "FoldScope.swift"
        case .hashOfHalfABlock: "SHA256.swift"
        case .nothingBelowZero: "SeededRandom.swift"
        case .histogramWithoutLast: "Histogram.swift"
        }
    }

    func commit() {
        var batch = RecordBatch(), range = CompactRange(), random = SeededRandom(seed: 1)
        let two = CompactRange.Node(start: 0, level: 1, hash: TreeHash())
        func compact(_ lower: UInt64, _ upper: UInt64) -> CompactRange {
            var range = CompactRange(at: lower)
            for _ in lower..<upper { range.append(leaf: TreeHash()) }
            return range
        }
        func append(broker: Int = 1, topic: Int = 1, payload: Int = 1) {
            let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 20 << 20, alignment: 8)
            defer { bytes.deallocate() }
            let all = UnsafeRawBufferPointer(bytes)
            batch.append(
                kind: .message, verdict: .accepted, flags: [], receivedAt: Timestamp(microseconds: 0), packetID: 1,
                broker: .init(rebasing: all[..<broker]), topic: .init(rebasing: all[..<topic]),
                properties: .init(rebasing: all[..<0]), payload: .init(rebasing: all[..<payload]))
        }
        func openLog() -> FileLog? {
            let folder = FileManager.default.temporaryDirectory.appending(path: "refold-\(UUID())").path
            // The process ends before it could clean up: the open files are enough.
            defer { try? FileManager.default.removeItem(atPath: folder) }
            return try? FileLog.open(directory: folder, options: FileLogOptions())
        }
        switch self {
        case .brokerTooLong: append(broker: 256)
        case .topicTooLong: append(topic: 65_536)
        case .recordTooLong: append(payload: RecordBatch.recordBytesMax)
        case .timesOfAnEmptyBatch: _ = batch.raiseTimes(to: Timestamp(microseconds: 0))
        case .blocksWithAGap:
            append()
            let block = EventBlock()
            for base in [Position(0), Position(2)] {
                _ = block.append(base: base, count: 1, byteCount: batch.byteCount) { room in
                    batch.withUnsafeBytes { room.copyMemory(from: $0) }
                    return true
                }
            }
        case .recordBehindTheBlock: _ = EventBlock().record(atOffset: 0)
        case .emptyBatch: _ = try? openLog()?.submit(batch) { _ in }
        case .batchTooLarge:
            while batch.byteCount <= FileLog.batchBytesMax { append(payload: RecordBatch.recordBytesMax / 2) }
            _ = try? openLog()?.submit(batch) { _ in }
        case .readBeyondTheBuffer: _ = [UInt8](repeating: 0, count: 7).withUnsafeBytes { $0.little(0, as: UInt64.self) }
        case .negativeOffset: _ = [UInt8](repeating: 0, count: 7).withUnsafeBytes { $0.little(-1, as: UInt8.self) }
        case .writeBeyondTheBuffer:
            var bytes = [UInt8](repeating: 0, count: 7)
            bytes.withUnsafeMutableBytes { $0.store(little: UInt32(0), 4) }
        case .treesOfNoSegment: _ = TreeSection(before: compact(1, 2), through: compact(0, 2), rows: [], checkpoint: [])
        case .rowWithGaps: _ = TreeSection(before: compact(0, 0), through: compact(0, 300), rows: [], checkpoint: [])
        case .growthInTheMiddle: _ = TreeGrower(behind: compact(1, 2))
        case .noPlaceForRestoredSegments: _ = SegmentRestorer(filesMax: 0) { _, _ in }
        case .unalignedNode: _ = CompactRange.Node(start: 1, level: 1, hash: TreeHash())
        case .nodeWithAGap:
            range.append(leaf: TreeHash())
            range.append(two) { _ in }
        case .stretchWithAGap: range.append(compact(1, 2))
        case .rootOfHalfATree: _ = compact(1, 3).root
        case .proofOfNoLeaf: _ = TreeProofs.inclusion(of: 2, size: 2, range: compact)
        case .shrinkingTree: _ = TreeProofs.consistency(from: 2, to: 1, range: compact)
        case .fallingPositions: _ = TreeProofs.several([1, 0], size: 2, range: compact)
        case .severalOfNoLeaf: _ = TreeProofs.several([2], size: 2, range: compact)
        case .entryTooLong:
            var writer = TileWriter()
            writer.append(leaf: TreeHash(), entry: [UInt8](repeating: 0, count: 65_536)) { _ in }
        case .thresholdBeyondOne: _ = SequentialFailureTest(threshold: 1.01)
        case .errorRateOfZero: _ = SequentialFailureTest(threshold: 0.1, errorRate: 0)
        case .sampleThatIsNone:
            var test = SequentialFailureTest(threshold: 0.1)
            test.append()
            test.set(1, failed: true)
        case .partitionThatIsNone: _ = FoldScope.partition(2, of: 2)
        case .hashOfHalfABlock: _ = [UInt8](repeating: 0, count: 63).withUnsafeBytes { SHA256.digest(padded: $0) }
        case .nothingBelowZero: _ = random.below(0)
        case .histogramWithoutLast: _ = Histogram(bounds: [1], counts: [0], sum: 0)
        }
    }
}
