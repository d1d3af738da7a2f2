import Foundation
import Testing
@testable import ControlAPI

@Suite struct TokenFileTests {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("refold-token-\(UUID().uuidString)").path

    init() throws { try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true) }

    private func withFolder(_ body: () throws -> Void) throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try body()
    }

    @Test func itIsMadeOnceForItsOwnerOnly() throws {
        try withFolder {
            let token = try TokenFile.loadOrCreate(inFolder: folder)
            #expect(token.count == 64 && token.allSatisfy(\.isHexDigit))
            #expect(try TokenFile.loadOrCreate(inFolder: folder) == token)
            let mode = try FileManager.default.attributesOfItem(atPath: folder + "/token")[.posixPermissions] as? Int
            #expect(mode == 0o600)
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == ["token"], "no draft is left")
        }
    }

    @Test func twoFoldersHaveTwoTokens() throws {
        try withFolder {
            let other = folder + "/other"
            try FileManager.default.createDirectory(atPath: other, withIntermediateDirectories: true)
            #expect(try TokenFile.loadOrCreate(inFolder: folder) != TokenFile.loadOrCreate(inFolder: other))
        }
    }

    @Test func whatIsNoSecretIsRefused() throws {
        try withFolder {
            #expect(throws: TokenFileError.self) { try TokenFile.load(inFolder: folder) }
            _ = try TokenFile.loadOrCreate(inFolder: folder)
            try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: folder + "/token")
            let error = #expect(throws: TokenFileError.self) { try TokenFile.loadOrCreate(inFolder: folder) }
            #expect(error?.description.contains("chmod 600") == true)
            try Data("short\n".utf8).write(to: URL(fileURLWithPath: folder + "/token"))
            try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: folder + "/token")
            #expect(throws: TokenFileError.self) { try TokenFile.loadOrCreate(inFolder: folder) }
        }
    }

    @Test func aFIFOIsRefusedAtOnce() throws {
        try withFolder {
            try #require(mkfifo(folder + "/token", 0o600) == 0)
            let error = #expect(throws: TokenFileError.self) { try TokenFile.loadOrCreate(inFolder: folder) }
            #expect(error?.description.contains("no regular file") == true)
        }
    }

    /// The mode was checked, the owner was not.
    @Test func aTokenOfAnotherUsersMakingIsNotBelieved_F32() throws {
        try withFolder {
            let token = try TokenFile.loadOrCreate(inFolder: folder)
            guard geteuid() == 0 else { return }
            chown(folder + "/token", 5, 60)
            let error = #expect(throws: TokenFileError.self) { try TokenFile.loadOrCreate(inFolder: folder) }
            #expect(error?.description.contains("belongs to the user 5") == true)
            #expect(try TokenFile.load(inFolder: folder) == token, "root is a client of other users' daemons")
        }
    }

    @Test func aFolderThatIsMissingIsAnError() {
        #expect(throws: TokenFileError.self) { try TokenFile.loadOrCreate(inFolder: folder + "/missing") }
    }
}
