import EventLog
import Foundation
import Simulation
import TestSupport
import Testing
import Threading
@testable import Enforcement

struct CRLFileTests {
    /// Stands for a CRL: one DER SEQUENCE.
    private static func crl(_ byte: UInt8, _ count: Int = 3000) -> [UInt8] {
        [0x30, 0x82, UInt8(count >> 8), UInt8(count & 255)] + [UInt8](repeating: byte, count: count)
    }
    private let old = crl(1), new = crl(2)
    private let folder: String
    private var path: String { folder + "/fleet.crl" }

    init() throws { folder = try makeTemporaryFolder("crl") }

    private func contents(_ path: String) -> [UInt8]? { FileManager.default.contents(atPath: path).map(Array.init) }
    private func names() throws -> [String] { try FileManager.default.contentsOfDirectory(atPath: folder).sorted() }
    private func status(_ path: String) -> stat {
        var result = stat()
        stat(path, &result)
        return result
    }

    @Test func theFileIsWhatOpenSSLReads() throws {
        let north = try TestAuthority("north", in: folder), south = try TestAuthority("south", in: folder)
        let crls = [try north.crl([4711], number: 7), try south.crl([])]
        let written = try CRLFile(path).write(crls)
        #expect(written.byteCount == contents(path)?.count)
        // The first of the file, as openssl(1) reads it, is the CRL that was given.
        let log = folder + "/out"
        let program = try ChildProcess(["/usr/bin/openssl", "crl", "-in", path, "-text", "-noout"], log: log)
        program.wait()
        let text = try String(contentsOfFile: log, encoding: .utf8)
        #expect(program.exitCode == 0 && text.contains("CN = north") && text.contains("1267"), "\(text)")
        let der = try CRLFile(path, encoding: .der).write([crls[1]])
        #expect(contents(path) == crls[1] && der.byteCount == crls[1].count)
    }

    @Test func aNewFileIsReadableByOthersAndAnOldOneKeepsOwnerAndMode() throws {
        _ = try CRLFile(path).write([old])
        #expect(status(path).st_mode & 0o777 == 0o644)
        chmod(path, 0o640)
        chown(path, 12345, 54321)
        _ = try CRLFile(path).write([new])
        let after = status(path)
        #expect(after.st_mode & 0o777 == 0o640)
        if getuid() == 0 { #expect(after.st_uid == 12345 && after.st_gid == 54321) }
    }

    @Test func aSymbolicLinkIsFollowed() throws {
        try FileManager.default.createDirectory(atPath: folder + "/target", withIntermediateDirectories: false)
        try FileManager.default.createSymbolicLink(atPath: folder + "/middle", withDestinationPath: "target/real.crl")
        try FileManager.default.createSymbolicLink(atPath: path, withDestinationPath: folder + "/middle")
        for crl in [old, new] {
            _ = try CRLFile(path).write([crl])
            #expect(contents(folder + "/target/real.crl") == CRLFile.pem(crl))
        }
        #expect(try FileManager.default.destinationOfSymbolicLink(atPath: path) == folder + "/middle")
        #expect(try names() == ["fleet.crl", "middle", "target"])
    }

    /// A link at the temporary file's name, in a folder of another user's, must not lead anywhere.
    @Test func aLinkInTheWayOfTheTemporaryFileIsReplaced() throws {
        let victim = folder + "/victim"
        try "precious".write(toFile: victim, atomically: true, encoding: .utf8)
        try FileManager.default.createSymbolicLink(
            atPath: folder + "/.fleet.crl.refold-new", withDestinationPath: victim)
        _ = try CRLFile(path).write([new])
        #expect(try String(contentsOfFile: victim, encoding: .utf8) == "precious")
        #expect(try names() == ["fleet.crl", "victim"])
    }

    struct Refusal: Sendable {
        let name: String
        let path: String
        var crls = [crl(2)]
        var encoding = CRLFile.Encoding.pem
        let step: CRLFileError.Step
        let code: Int32
    }

    static let refusals = [
        Refusal(name: "no folder", path: "none/fleet.crl", step: .create, code: ENOENT),
        Refusal(name: "a folder", path: "folder", step: .resolve, code: ENXIO),
        Refusal(name: "a device", path: "null", step: .resolve, code: ENXIO),
        Refusal(name: "a loop of links", path: "loop", step: .resolve, code: ELOOP),
        Refusal(name: "below a file", path: "file/fleet.crl", step: .resolve, code: ENOTDIR),
        Refusal(name: "no CRL", path: "file", crls: [], step: .encode, code: EINVAL),
        Refusal(
            name: "two CRLs in DER", path: "file", crls: [crl(1), crl(2)], encoding: .der, step: .encode, code: EINVAL),
        Refusal(name: "a truncated CRL", path: "file", crls: [crl(1).dropLast()], step: .encode, code: EINVAL),
        Refusal(name: "an empty CRL", path: "file", crls: [[]], step: .encode, code: EINVAL),
    ]

    @Test(arguments: refusals)
    func refused(_ refusal: Refusal) throws {
        try "precious".write(toFile: folder + "/file", atomically: true, encoding: .utf8)
        try FileManager.default.createDirectory(atPath: folder + "/folder", withIntermediateDirectories: false)
        try FileManager.default.createSymbolicLink(atPath: folder + "/null", withDestinationPath: "/dev/null")
        try FileManager.default.createSymbolicLink(atPath: folder + "/loop", withDestinationPath: "loop")
        let file = CRLFile("\(folder)/\(refusal.path)", encoding: refusal.encoding)
        let error = #expect(throws: CRLFileError.self) { _ = try file.write(refusal.crls) }
        #expect(error?.step == refusal.step && error?.code == refusal.code, "\(error?.description ?? "")")
        #expect(error?.description.contains("the broker still has the old CRL") == true)
        #expect(try names() == ["file", "folder", "loop", "null"])
        #expect(try String(contentsOfFile: folder + "/file", encoding: .utf8) == "precious")
    }

    /// Every operation fails once, or is the last one before kill -9. The file is the old one or the new one, and the
    /// next write succeeds and leaves nothing else behind.
    @Test(arguments: [ENOSPC, EROFS, EIO, EACCES], [false, true])
    func faultsAtEveryStep(code: Int32, dies: Bool) throws {
        var steps: [CRLFileError.Step] = []
        for number in 0..<100 {
            _ = try CRLFile(path).write([old])
            let disk = FailingFileSystem(failing: number, code: code, dies: dies)
            do throws(CRLFileError) {
                _ = try CRLFile(path, fileSystem: disk).write([new])
                #expect(contents(path) == CRLFile.pem(new) && disk.operations == number)
                break
            } catch {
                steps.append(error.step)
                #expect(error.code == code && error.description.contains(String(cString: strerror(code))))
                let isReplaced =
                    error.step == .synchronizeFolder || (error.step == .readBack && steps.contains(.rename))
                #expect(contents(path) == CRLFile.pem(isReplaced ? new : old), "\(error)")
                if !dies { #expect(try names() == ["fleet.crl"], "\(error)") }
            }
            _ = try CRLFile(path).write([new])
            #expect(try names() == ["fleet.crl"])
        }
        #expect(
            steps == [
                .resolve, .resolve, .create, .create, .write, .synchronize, .readBack, .rename, .synchronizeFolder,
                .readBack, .readBack,
            ])
    }

    /// After a power failure at any operation the file is the old one or the new one, and the new one once it was
    /// reported as written.
    @Test func powerFailureAtEveryStep() throws {
        var wasOld = 0, wasNew = 0
        for seed in 0..<40 as Range<UInt64> {
            for after in 1..<14 {
                let disk = SimulatedDisk(seed: seed)
                let first = disk.process()
                try first.makeDirectory("/crl")
                try first.synchronizeDirectory("/")
                _ = try CRLFile("/crl/fleet.crl", fileSystem: first).write([old])
                disk.plan(.powerCut, of: first, after: after)
                let written = try? CRLFile("/crl/fleet.crl", fileSystem: first).write([new])
                if !disk.isDown { disk.cutPower() }
                disk.settle()
                disk.powerUp()
                let second = disk.process()
                let file = try second.open("/crl/fleet.crl", create: false, writable: false)
                var bytes = [UInt8](repeating: 0, count: try file.byteCount())
                _ = try bytes.withUnsafeMutableBytes { try file.read(into: $0, at: 0) }
                #expect(bytes == CRLFile.pem(new) || (bytes == CRLFile.pem(old) && written == nil), "\(seed) \(after)")
                if bytes == CRLFile.pem(new) { wasNew += 1 } else { wasOld += 1 }
                _ = try CRLFile("/crl/fleet.crl", fileSystem: second).write([new])
                #expect(try second.list("/crl") == ["fleet.crl"])
            }
        }
        #expect(wasOld > 100 && wasNew > 100)
    }

    /// Only root can mount one.
    @Test(.enabled(if: getuid() == 0)) func aFullDisk() throws {
        let disk = folder + "/disk"
        try FileManager.default.createDirectory(atPath: disk, withIntermediateDirectories: false)
        func run(_ arguments: [String]) throws -> Int32? {
            let child = try ChildProcess(arguments, log: folder + "/log")
            child.wait()
            return child.exitCode
        }
        try #require(run(["/usr/bin/mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]) == 0)
        defer { _ = try? run(["/usr/bin/umount", disk]) }
        let file = CRLFile(disk + "/fleet.crl"), small = Self.crl(1, 20_000), large = Self.crl(2, 40_000)
        _ = try file.write([small])
        let error = #expect(throws: CRLFileError.self) { _ = try file.write([large]) }
        #expect(error?.step == .write && error?.code == ENOSPC, "\(error?.description ?? "")")
        #expect(contents(file.path) == CRLFile.pem(small))
        #expect(try FileManager.default.contentsOfDirectory(atPath: disk) == ["fleet.crl"])
        try #require(run(["/usr/bin/mount", "-o", "remount,ro", disk]) == 0)
        let readOnly = #expect(throws: CRLFileError.self) { _ = try file.write([small]) }
        #expect(readOnly?.step == .create && readOnly?.code == EROFS, "\(readOnly?.description ?? "")")
    }

    /// As another user than the file's, who may not give files away: the reader of the old file must be able to read
    /// the new one. setfsuid(2) is for one thread, and drops root's capabilities for files.
    @Test(.enabled(if: getuid() == 0), arguments: [(0o640, EPERM), (0o644, 0)] as [(mode_t, Int32)])
    func ownershipThatCannotBeKept(mode: mode_t, code: Int32) async throws {
        _ = try CRLFile(path).write([old])
        chmod(path, mode)
        chmod(folder, 0o777)
        let path = path, new = new
        let error = try await onOwnThread("another user") { () -> CRLFileError? in
            typealias SetUser = @convention(c) (uid_t) -> Int32
            _ = unsafeBitCast(dlsym(nil, "setfsuid"), to: SetUser.self)(12345)
            do throws(CRLFileError) { _ = try CRLFile(path).write([new]) } catch { return error }
            return nil
        }
        #expect(error?.code ?? 0 == code && (error == nil || error?.step == .create), "\(error?.description ?? "")")
        #expect(contents(path) == CRLFile.pem(code == 0 ? new : old))
        #expect(status(path).st_mode & 0o777 == mode && status(path).st_uid == (code == 0 ? 12345 : 0))
        #expect(try names() == ["fleet.crl"])
    }
}
