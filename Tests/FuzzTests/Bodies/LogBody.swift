@testable import EventLog
import EventModel

/// Takes the input for a segment, or for what lies in a block of one behind checksums that are right, and reads it as
/// another process would and as the writer does at start: no input may crash, hang, or take memory beyond the lengths
/// that it declares. What can be read is read to its last byte.
public func fuzzLog(_ input: UnsafeRawBufferPointer) {
    guard let choice = input.first else { return }
    let bytes = [UInt8](input.dropFirst())
    let disk = MemoryDisk()
    let file = MemoryDisk.File()
    disk.files["/log/" + LogFormat.segmentName(Position(0))] = file
    switch choice % 5 {
    case 4: return fuzzPostings(bytes)
    case 0: file.content = headerPage() + padded(bytes)
    case 1: file.content = headerPage() + block(bytes, codec: .lz4) + zeroPage
    case 2: file.content = headerPage() + block(bytes, codec: .raw) + zeroPage
    default: file.content = sealedPage(bytes)
    }
    readAll(disk)
    let options = fuzzOptions(disk)
    if let log = try? FileLog.open(directory: "/log", options: options) {
        readAll(log)
        log.close()
    }
    // What opening left must be a log that opens again, with nothing more to repair.
    if let again = try? FileLog.open(directory: "/log", options: options) {
        precondition(again.report.torn == nil, "a torn tail that is torn again")
        again.close()
    }
}

/// The input as one bucket of posting lists, behind checksums that are right.
private func fuzzPostings(_ bucket: [UInt8]) {
    let directoryBytes = PostingLists.headBytes + PostingLists.directoryEntryBytes
    var section = [UInt8](repeating: 0, count: directoryBytes) + bucket
    section.withUnsafeMutableBytes { raw in
        raw.store(little: UInt32(1), 0)
        raw.store(little: UInt32(1), 4)
        raw.store(little: UInt32(directoryBytes), 16)
        raw.store(little: bucket.withUnsafeBytes { LogFormat.crc($0) }, 20)
        let bytes = UnsafeRawBufferPointer(raw)
        let crc = LogFormat.crc(
            UnsafeRawBufferPointer(rebasing: bytes[12..<directoryBytes]),
            from: LogFormat.crc(UnsafeRawBufferPointer(rebasing: bytes[..<8])))
        raw.store(little: crc, 8)
    }
    section.withUnsafeBytes { section in
        guard let directory = PostingLists.Directory(section, sectionBytes: section.count) else { return }
        var keys: [[UInt8]] = []
        guard directory.forEach(section, { key, _ in keys.append([UInt8](key)) }) else { return }
        for key in keys.prefix(20) {
            let found = key.withUnsafeBytes { directory.blocks(of: $0, read: { [UInt8](section[$0]) }) }
            precondition(found != nil, "a whole bucket in which nothing can be found")
        }
    }
}

private let salt: UInt64 = 0x0123_4567_89AB_CDEF
private let zeroPage = [UInt8](repeating: 0, count: LogFormat.alignment)

private func padded(_ bytes: [UInt8]) -> [UInt8] {
    bytes + [UInt8](repeating: 0, count: LogFormat.aligned(bytes.count) - bytes.count)
}

private func headerPage() -> [UInt8] {
    var page = zeroPage
    let header = SegmentHeader(
        logID: LogID(high: 1, low: 2), salt: salt, base: Position(0), created: Timestamp(microseconds: 1),
        segmentBytes: 1 << 20)
    page.withUnsafeMutableBytes { header.encode(into: $0) }
    return page
}

/// The input's first page with a checksum that is right, and what follows it.
private func sealedPage(_ bytes: [UInt8]) -> [UInt8] {
    var bytes = padded(bytes.isEmpty ? [0] : bytes)
    bytes.withUnsafeMutableBytes { page in
        page.store(little: LogFormat.segmentMagic, 0)
        page.store(little: LogFormat.crc(UnsafeRawBufferPointer(rebasing: page[..<4092])), 4092)
    }
    return bytes
}

/// A block whose header and checksums are right: five bytes of the input say what it claims, the rest is stored.
private func block(_ bytes: [UInt8], codec: BlockCodec) -> [UInt8] {
    guard bytes.count > 5 else { return [] }
    let stored = Array(bytes[5...])
    let claimed = Int(bytes[0]) | Int(bytes[1]) << 8 | Int(bytes[2]) << 16
    let count = Int(bytes[3]) | Int(bytes[4]) << 8
    let header = BlockHeader(
        codec: codec, count: count, rawBytes: codec == .raw ? stored.count : claimed, storedBytes: stored.count,
        base: Position(0), firstTime: Timestamp(microseconds: 1), lastTime: Timestamp(microseconds: 9), salt: salt,
        durableCount: 0, storedCRC: stored.withUnsafeBytes { LogFormat.crc($0) })
    var head = [UInt8](repeating: 0, count: BlockHeader.byteCount)
    head.withUnsafeMutableBytes { header.encode(into: $0) }
    return padded(head + stored)
}

private func readAll(_ disk: MemoryDisk) {
    guard let log = try? ReadOnlyLog(directory: "/log", fileSystem: disk) else { return }
    readAll(log)
    _ = try? log.position(atOrAfter: Timestamp(microseconds: 5))
    _ = try? log.segments()
}

private func readAll(_ log: any LogSource) {
    guard let reader = try? log.reader(from: Position(0)) else { return }
    let block = EventBlock(capacity: 64)
    var sum = 0, before = reader.position
    while (try? reader.read(into: block, atLeast: 1)) == true {
        precondition(reader.position > before, "a reader that stands still")
        before = reader.position
        block.forEach { record, _ in
            for part in [record.broker, record.topic, record.properties, record.payload] {
                for byte in part { sum &+= Int(byte) }
            }
            if let topic = DeviceTopic(record.topic) { sum &+= topic.device.count }
        }
    }
    withExtendedLifetime(sum) {}
}

private func fuzzOptions(_ disk: MemoryDisk) -> FileLogOptions {
    var options = FileLogOptions()
    options.fileSystem = disk
    options.segmentBytes = 64 << 10
    options.threads = NoThreads()
    options.acceptClock = true
    options.random = { 7 }
    return options
}

/// Steps are taken when somebody waits for the end, on the same thread.
private struct NoThreads: LogThreads {
    final class Work: LogThread {
        let work: any LogWork
        init(_ work: any LogWork) { self.work = work }

        func waitUntilFinished() {
            while true {
                if case .finished = work.step() { return }
            }
        }
    }

    func start(name: String, niceness: Int, _ work: any LogWork) -> any LogThread { Work(work) }
}
