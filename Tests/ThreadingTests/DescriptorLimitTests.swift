import Glibc
import Testing

@testable import Threading

/// The limit of open files belongs to the whole process: what changes it here lowers it by one only.
@Suite(.serialized) struct DescriptorLimitTests {
    @Test(
        arguments: [
            (1000, 4096, 4096, 4096), (0, 4096, 4096, 4096), (1000, 2048, 4096, 2048), (4096, 4096, 4096, nil),
            (8192, 8192, 4096, nil), (100, 100, 4096, nil),
        ] as [(Int, Int, Int, Int?)])
    func aLoweredSoftLimitIsRaisedAsFarAsTheHardOneLetsIt(soft: Int, hard: Int, wanted: Int, target: Int?) {
        #expect(Descriptors.target(soft: soft, hard: hard, wanted: wanted) == target)
    }

    @Test func theProcesssOwnLimitIsRaisedAgainOnce() throws {
        let before = Descriptors.limit
        var lowered = rlimit()
        try #require(getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &lowered) == 0)
        lowered.rlim_cur -= 1
        try #require(setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &lowered) == 0)
        #expect(Descriptors.limit == before - 1)
        let restored = try #require(Descriptors.restoreLimit(before))
        #expect(restored.found == before - 1 && restored.restored == before)
        #expect(Descriptors.limit == before)
        #expect(Descriptors.restoreLimit(before) == nil, "there is nothing to raise, and nothing to report")
    }

    @Test func aHardLimitBelowTheMinimumIsAShortageThatNamesTheRemedy() throws {
        #expect(Descriptors.hardLimitMin == 200)
        #expect(Descriptors.shortage(hardLimit: 200) == nil)
        let text = try #require(Descriptors.shortage(hardLimit: 199))
        for word in ["199", "200", "ulimit -n", "LimitNOFILE="] { #expect(text.contains(word), "\(text)") }
    }

    /// None is left to count with: all are open.
    @Test func withoutADescriptorToCountWithAllAreOpen() throws {
        let exhausted = Descriptors.count {
            errno = EMFILE
            return nil
        }
        #expect(exhausted == Descriptors.limit)
        let hidden = Descriptors.count {
            errno = ENOENT
            return nil
        }
        #expect(hidden == nil, "a system without /proc does not say")
        let open = try #require(Descriptors.open)
        #expect(open >= 3 && open <= Descriptors.limit)
    }
}
