import Foundation
import Testing
@testable import PrivateServices

/// A folder that is removed afterwards; `depth` makes its path long.
private func withFolder(deep: Bool = false, closed: Bool = false, _ body: (String) throws -> Void) throws {
    let root = "/tmp/refold-services-\(UUID().uuidString.prefix(8))"
    let folder = deep ? root + "/" + String(repeating: "long-name/", count: 9) + "data" : root + "/data"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    if closed { try FileManager.default.setAttributes([.posixPermissions: 0o700], ofItemAtPath: root) }
    defer { try? FileManager.default.removeItem(atPath: root) }
    try body(folder)
}

@Suite(.serialized) struct PrivateServicesTests {
    @Test(arguments: [(false, false), (true, false), (false, true)])
    func postgresStartsAgainOnItsCluster(deep: Bool, closed: Bool) throws {
        try withFolder(deep: deep, closed: closed) { folder in
            for round in 0..<2 {
                let postgres = try PrivatePostgres(folder: folder) { _ in }
                defer { postgres.stop() }
                let sql = round == 0 ? "create table t as select 7 as x; select x from t" : "select x from t"
                let result = try runProgram(
                    postgres.psqlCommand.split(separator: " ").map(String.init) + ["-Atqc", sql])
                #expect(result.output == "7\n", "\(result.output)")
            }
            #expect(try runProgram(["pgrep", "-f", folder]).output.isEmpty)
        }
    }

    @Test func mosquittoListensOnLoopbackAndStops() throws {
        try withFolder { folder in
            let mosquitto = try PrivateMosquitto(folder: folder) { _ in }
            let port = String(mosquitto.port)
            let result = try runProgram([
                "mosquitto_pub", "-h", "127.0.0.1", "-p", port, "-q", "1", "-t", "a", "-m", "b",
            ])
            #expect(result.code == 0, "\(result.output)")
            let second = try PrivateMosquitto(folder: folder + "2") { _ in }
            #expect(second.port != mosquitto.port)
            second.stop()
            mosquitto.stop()
            #expect(PrivateMosquitto.isFree(mosquitto.port))
            #expect(FileManager.default.fileExists(atPath: folder + "/mosquitto.db"))
        }
    }
}
