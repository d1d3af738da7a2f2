import Projecting
import ProjectionTestSupport
import Testing

@Suite struct MemoryStoreTests {
    @Test(arguments: StoreCase.allCases)
    func obeysTheRulesOfStores(_ store: StoreCase) throws {
        #expect(try store.problem(MemoryStore(MemoryTables())) == nil)
    }
}
