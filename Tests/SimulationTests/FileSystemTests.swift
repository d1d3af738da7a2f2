import EventLog
import Foundation
import Testing
@testable import Simulation

/// What the log expects of a disk, as one table: the real one and the simulated one must both do it.
struct FileSystemCase: Sendable, CustomTestStringConvertible {
    let name: String
    let body: @Sendable (any LogFileSystem, String) throws -> Void
    var testDescription: String { name }

    init(_ name: String, _ body: @escaping @Sendable (any LogFileSystem, String) throws -> Void) {
        self.name = name
        self.body = body
    }

    static let all: [FileSystemCase] = [
        FileSystemCase("what is written is read, and nothing behind the end") { disk, folder in
            let file = try disk.open(folder + "/a", create: true, writable: true)
            try file.put("hello", at: 3)
            #expect(try file.byteCount() == 8)
            #expect(try file.text(0, 100) == "\0\0\0hello")
            #expect(try file.text(8, 100) == "" && file.text(100, 1) == "")
            try file.put("J", at: 3)
            #expect(try file.text(3, 2) == "Je")
        },
        FileSystemCase("a file that is created again is empty; one that is opened is not") { disk, folder in
            try disk.open(folder + "/a", create: true, writable: true).put("x", at: 0)
            #expect(try disk.open(folder + "/a", create: false, writable: false).text(0, 9) == "x")
            #expect(try disk.open(folder + "/a", create: true, writable: true).byteCount() == 0)
        },
        FileSystemCase("what is not there cannot be opened, renamed, asked") { disk, folder in
            for body: () throws -> Void in [
                { _ = try disk.open(folder + "/none", create: false, writable: false) },
                { try disk.rename(folder + "/none", to: folder + "/b") },
                { _ = try disk.open(folder + "/none/a", create: true, writable: true) },
                { _ = try disk.list(folder + "/none") },
                { try disk.makeReadOnly(folder + "/none") },
            ] {
                let error = #expect(throws: FileError.self) { try body() }
                #expect(error?.code == ENOENT)
            }
            #expect(try disk.status(folder + "/none") == nil)
            try disk.remove(folder + "/none")
            #expect(try disk.map(folder + "/none", byteCount: 32, writable: false) == nil)
            #expect(!disk.isLocked(folder + "/none"))
        },
        FileSystemCase("a rename replaces, and what is open stays open") { disk, folder in
            let old = try disk.open(folder + "/b", create: true, writable: true)
            try old.put("old", at: 0)
            try disk.open(folder + "/a", create: true, writable: true).put("new", at: 0)
            try disk.rename(folder + "/a", to: folder + "/b")
            #expect(try disk.list(folder) == ["b"])
            #expect(try old.text(0, 9) == "old")
            #expect(try disk.open(folder + "/b", create: false, writable: false).text(0, 9) == "new")
            try disk.remove(folder + "/b")
            #expect(try disk.list(folder) == [])
            #expect(try old.text(0, 9) == "old")
        },
        FileSystemCase("a file that was deleted or replaced while open cannot be synced") { disk, folder in
            let file = try disk.open(folder + "/a", create: true, writable: true)
            try file.put("a", at: 0)
            try disk.rename(folder + "/a", to: folder + "/b")
            try file.synchronize()
            let other = try disk.open(folder + "/c", create: true, writable: true)
            try disk.rename(folder + "/c", to: folder + "/b")
            let replaced = #expect(throws: FileError.self) { try file.synchronize() }
            #expect(replaced?.code == ESTALE)
            try other.synchronize()
            try disk.remove(folder + "/b")
            let deleted = #expect(throws: FileError.self) { try other.synchronize() }
            #expect(deleted?.code == ESTALE)
        },
        FileSystemCase("space is taken as zeroes and given back") { disk, folder in
            let file = try disk.open(folder + "/a", create: true, writable: true)
            try file.put("abc", at: 0)
            try file.allocate(10_000)
            #expect(try file.byteCount() == 10_000 && file.allocatedBytes() >= 10_000)
            try file.allocate(100)
            #expect(try file.byteCount() == 10_000, "never smaller")
            #expect(try file.text(0, 4) == "abc\0")
            try file.truncate(2)
            #expect(try file.byteCount() == 2 && file.text(0, 9) == "ab")
            try file.allocate(5000)
            #expect(try file.text(0, 9) == "ab\0\0\0\0\0\0\0", "what was cut off does not come back")
            try file.synchronize()
            try disk.synchronizeDirectory(folder)
        },
        FileSystemCase("folders are made with those above them, twice without harm") { disk, folder in
            try disk.makeDirectory(folder + "/x/y")
            try disk.makeDirectory(folder + "/x/y")
            _ = try disk.open(folder + "/x/y/a", create: true, writable: true)
            #expect(try disk.list(folder + "/x") == ["y"] && disk.list(folder + "/x/y") == ["a"])
        },
        FileSystemCase("the status changes with what is written") { disk, folder in
            let file = try disk.open(folder + "/a", create: true, writable: true)
            try file.put("a", at: 0)
            let before = try #require(try disk.status(folder + "/a"))
            #expect(before.byteCount == 1)
            try file.put("b", at: 1)
            #expect(try disk.status(folder + "/a")?.byteCount == 2)
            #expect(try disk.status(folder) != nil, "of a folder too")
        },
        FileSystemCase("read-only does not take it from who has it open") { disk, folder in
            let file = try disk.open(folder + "/a", create: true, writable: true)
            try disk.makeReadOnly(folder + "/a")
            try file.put("late", at: 0)
            #expect(try disk.open(folder + "/a", create: false, writable: false).text(0, 9) == "late")
        },
        FileSystemCase("one holds a lock at a time, until it lets go") { disk, folder in
            var first = try disk.lock(folder + "/lock", text: "4711           \n")
            #expect(first != nil && disk.isLocked(folder + "/lock"))
            #expect(try disk.lock(folder + "/lock", text: "4712           \n") == nil)
            #expect(try disk.open(folder + "/lock", create: false, writable: false).text(0, 4) == "4711")
            first = nil
            #expect(!disk.isLocked(folder + "/lock"))
            let second = try disk.lock(folder + "/lock", text: "4713           \n")
            #expect(second != nil)
            #expect(try disk.open(folder + "/lock", create: false, writable: false).text(0, 4) == "4713")
        },
        FileSystemCase("a shared page is one for all who map it, and outlives them") { disk, folder in
            let path = folder + "/durable"
            var page = try disk.map(path, byteCount: 32, writable: true)
            #expect(page?.bytes.allSatisfy { $0 == 0 } == true)
            let other = try #require(try disk.map(path, byteCount: 32, writable: false))
            page?.bytes[7] = 42
            #expect(other.bytes[7] == 42)
            #expect(try disk.open(path, create: false, writable: false).byteCount() == 32)
            page = nil
            let again = try #require(try disk.map(path, byteCount: 32, writable: true))
            #expect(again.bytes[7] == 42)
            withExtendedLifetime((other, again)) {}
            #expect(try disk.map(path, byteCount: 64, writable: false) == nil, "shorter than that")
        },
    ]
}

extension LogFile {
    fileprivate func put(_ text: String, at offset: Int) throws {
        try Array(text.utf8).withUnsafeBytes { try write($0, at: offset) }
    }

    fileprivate func text(_ offset: Int, _ count: Int) throws -> String {
        var bytes = [UInt8](repeating: 0, count: count)
        let found = try bytes.withUnsafeMutableBytes { try read(into: $0, at: offset) }
        return String(decoding: bytes[..<found], as: UTF8.self)
    }
}

@Suite struct FileSystemTests {
    @Test(arguments: FileSystemCase.all) func theRealDisk(_ entry: FileSystemCase) throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("refold-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try entry.body(PosixFileSystem(), folder)
    }

    @Test(arguments: FileSystemCase.all) func theSimulatedDisk(_ entry: FileSystemCase) throws {
        let disk = SimulatedDisk(seed: 1).process()
        try disk.makeDirectory("/data/log")
        try entry.body(disk, "/data/log")
    }
}

/// The fault model at the top of `SimulatedDisk.swift`, sentence by sentence.
@Suite struct SimulatedDiskTests {
    private static let sector = SimulatedDisk.sectorBytes

    private func start(_ seed: UInt64 = 1) throws -> (SimulatedDisk, SimulatedFileSystem, any LogFile) {
        let disk = SimulatedDisk(seed: seed)
        let process = disk.process()
        try process.makeDirectory("/d")
        try process.synchronizeDirectory("/")
        let file = try process.open("/d/f", create: true, writable: true)
        try file.allocate(8 * Self.sector)
        try file.synchronize()
        try process.synchronizeDirectory("/d")
        return (disk, process, file)
    }

    private func fill(_ file: any LogFile, _ byte: UInt8, _ sectors: Range<Int>) throws {
        let bytes = [UInt8](repeating: byte, count: sectors.count * Self.sector)
        try bytes.withUnsafeBytes { try file.write($0, at: sectors.lowerBound * Self.sector) }
    }

    private func sectors(_ disk: SimulatedDisk, _ path: String = "/d/f") -> [UInt8] {
        let bytes = disk.contents(path) ?? []
        return stride(from: 0, to: bytes.count, by: Self.sector).map { bytes[$0] }
    }

    @Test func aPowerCutLosesAnySubsetOfWhatWasNotSynced() throws {
        var found: Set<[UInt8]> = []
        for seed in 0..<400 {
            let (disk, _, file) = try start(UInt64(seed))
            try fill(file, 1, 0..<1)
            try file.synchronize()
            try fill(file, 2, 1..<4)
            disk.cutPower()
            disk.powerUp()
            let now = sectors(disk)
            #expect(now[0] == 1 && now[4...].allSatisfy { $0 == 0 })
            found.insert(Array(now[1..<4]))
        }
        #expect(found.count == 8, "every subset occurs")
    }

    @Test func theSubsetCanBeSaid() throws {
        let (disk, _, file) = try start()
        try fill(file, 2, 1..<4)
        #expect(disk.dirtySectors("/d/f") == [1, 2, 3])
        disk.cutPower()
        disk.powerUp { _, sector in sector == 2 }
        #expect(sectors(disk) == [0, 0, 2, 0, 0, 0, 0, 0])
    }

    @Test func aKilledProcessLosesNothingButItsLocksAndItsFuture() throws {
        let (disk, process, file) = try start()
        let lock = try process.lock("/d/lock", text: "1")
        let page = try process.map("/d/p", byteCount: 32, writable: true)
        page?.bytes[0] = 1
        try fill(file, 2, 1..<4)
        disk.kill(process)
        #expect(throws: FileError.self) { try fill(file, 3, 0..<4) }
        #expect(throws: FileError.self) { _ = try process.list("/d") }
        page?.bytes[0] = 2
        disk.settle()
        #expect(page?.bytes[0] == 1)
        #expect(sectors(disk)[..<4] == [0, 2, 2, 2])
        #expect(try disk.process().lock("/d/lock", text: "2") != nil)
        withExtendedLifetime(lock) {}
    }

    @Test func namesAreLostOrKeptOneByOne() throws {
        var found: Set<[String]> = []
        for seed in 0..<200 {
            let (disk, process, _) = try start(UInt64(seed))
            _ = try process.open("/d/new", create: true, writable: true)
            try process.rename("/d/f", to: "/d/g")
            disk.cutPower()
            disk.powerUp()
            found.insert(disk.names(in: "/d"))
        }
        #expect(found == [["f"], ["f", "new"], ["g"], ["g", "new"]])
    }

    @Test func aSyncThatFailsCallsClean() throws {
        let (disk, process, file) = try start(3)
        disk.setFaults(failures: [.init(operation: .synchronize, code: EIO)])
        try fill(file, 2, 0..<8)
        #expect(throws: FileError.self) { try file.synchronize() }
        try file.synchronize()
        #expect(sectors(disk).allSatisfy { $0 == 2 }, "the cache shows it")
        #expect(disk.dirtySectors("/d/f").isEmpty, "and nobody will write it")
        let other = disk.copy(seed: 1)
        disk.forgetCache()
        #expect(!sectors(disk).allSatisfy { $0 == 2 })
        other.cutPower()
        other.powerUp()
        #expect(!sectors(other).allSatisfy { $0 == 2 })
        withExtendedLifetime(process) {}
    }

    @Test func aFullDiskTakesWhatFits() throws {
        let (disk, process, file) = try start()
        disk.capacityBytes = disk.usedBytes + 4096
        let error = #expect(throws: FileError.self) { try fill(file, 2, 0..<24) }
        #expect(error?.code == ENOSPC)
        #expect(try file.byteCount() == 8192)
        #expect(throws: FileError.self) { try file.allocate(8193) }
        try process.remove("/d/f")
        #expect(disk.usedBytes == 8192, "still open")
    }

    @Test func theNthOperationFails() throws {
        let (disk, _, file) = try start()
        disk.setFaults(failures: [.init(operation: .write, suffix: "f", skip: 2, code: EIO, partialBytes: 512)])
        try fill(file, 1, 0..<1)
        try fill(file, 1, 1..<2)
        #expect(throws: FileError.self) { try fill(file, 1, 2..<4) }
        try fill(file, 1, 5..<6)
        #expect(sectors(disk) == [1, 1, 1, 0, 0, 1, 0, 0])
    }

    @Test func deathComesInTheMiddleOfAnOperation() throws {
        var left: Set<Int> = []
        for seed in 0..<50 {
            let (disk, process, file) = try start(UInt64(seed))
            disk.plan(.killed, of: process, after: 2)
            try fill(file, 1, 0..<1)
            #expect(throws: FileError.self) { try fill(file, 2, 1..<8) }
            #expect(!disk.isAlive(process))
            left.insert(sectors(disk)[1...].count { $0 == 2 })
        }
        #expect(left.contains(0) && left.contains(7) && left.count > 4)
    }

    @Test func spaceMayShowWhatLayThereBefore() throws {
        let disk = SimulatedDisk(seed: 1)
        let process = disk.process()
        try process.makeDirectory("/d")
        try process.synchronizeDirectory("/")
        func make(_ path: String) throws {
            let file = try process.open(path, create: true, writable: true)
            try file.allocate(4096)
            try file.synchronize()
            try process.synchronizeDirectory("/d")
            if path == "/d/f" { try fill(file, 7, 0..<8) }
            try file.synchronize()
        }
        try make("/d/f")
        try process.remove("/d/f")
        try make("/d/g")
        disk.setExposesOldSpace(true)
        #expect(sectors(disk, "/d/g").allSatisfy { $0 == 0 })
        disk.cutPower()
        disk.powerUp()
        #expect(sectors(disk, "/d/g") == [UInt8](repeating: 7, count: 8))
    }

    @Test func theSameSeedIsTheSameDisk() throws {
        func run(_ seed: UInt64) throws -> TraceHash {
            let (disk, process, file) = try start(seed)
            for round in 0..<20 {
                try fill(file, UInt8(round), 0..<8)
                if round % 3 == 0 { try file.synchronize() }
            }
            disk.cutPower()
            disk.powerUp()
            let again = try disk.process().open("/d/f", create: false, writable: true)
            _ = try again.byteCount()
            withExtendedLifetime(process) {}
            return disk.traceHash
        }
        #expect(try run(5) == run(5))
        #expect(try run(5) != run(6))
    }
}
