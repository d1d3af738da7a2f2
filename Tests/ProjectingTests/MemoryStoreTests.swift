import Projecting
import ProjectionTestSupport
import Testing

@Suite struct MemoryStoreTests {
    @Test(arguments: StoreCase.allCases)
    func obeysTheRulesOfStores(_ store: StoreCase) throws {
        let tables = MemoryTables()
        #expect(try store.problem(MemoryStore(tables), other: MemoryStore(tables)) == nil)
    }
}
