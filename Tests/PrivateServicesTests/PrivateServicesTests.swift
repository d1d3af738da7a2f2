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
            let result = try runProgram([
                "env", "XDG_CONFIG_HOME=\(folder)/client", "mosquitto_pub", "-q", "1", "-t", "a", "-m", "b",
            ])
            #expect(result.code == 0, "\(result.output)")
            #expect(mosquitto.publishCommand == "XDG_CONFIG_HOME=\(folder)/client mosquitto_pub -q 1")
            let second = try PrivateMosquitto(folder: folder + "2") { _ in }
            #expect(second.port != mosquitto.port && second.password != mosquitto.password)
            second.stop()
            mosquitto.stop()
            #expect(PrivateMosquitto.isFree(mosquitto.port))
            #expect(FileManager.default.fileExists(atPath: folder + "/mosquitto.db"))
            let again = try PrivateMosquitto(folder: folder) { _ in }
            #expect(again.password == mosquitto.password)
            again.stop()
        }
    }

    /// It was anonymous, and root's under root: any local user published telemetry, results and commands.
    @Test func mosquittoTakesNobodyWithoutThePassword_F22() throws {
        try withFolder { folder in
            // As an older version left it: root's.
            try Data().write(to: URL(fileURLWithPath: folder + "/mosquitto.log"))
            let mosquitto = try PrivateMosquitto(folder: folder) { _ in }
            defer { mosquitto.stop() }
            let base = [
                "mosquitto_pub", "-h", "127.0.0.1", "-p", String(mosquitto.port), "-q", "1", "-t", "a", "-m", "b",
            ]
            for more in [
                [], ["-u", "refold"], ["-u", "refold", "-P", "wrong"], ["-u", "x", "-P", mosquitto.password],
            ] {
                #expect(try runProgram(base + more).code != 0, "\(more)")
            }
            #expect(try runProgram(base + ["-u", "refold", "-P", mosquitto.password]).code == 0)
            for name in ["", "/password", "/mosquitto.passwd", "/mosquitto.conf", "/client", "/client/mosquitto_pub"] {
                var info = stat()
                #expect(lstat(folder + name, &info) == 0 && info.st_mode & 0o077 == 0, "\(name)")
            }
            let hash = try String(contentsOfFile: folder + "/mosquitto.passwd", encoding: .utf8)
            #expect(!hash.contains(mosquitto.password))
            let user = try runProgram(["ps", "-o", "user=", "-C", "mosquitto"]).output
            if geteuid() == 0 {
                let pid = try String(contentsOfFile: folder + "/mosquitto.pid", encoding: .utf8)
                var info = stat()
                #expect(stat("/proc/" + pid.prefix { $0.isNumber }, &info) == 0 && info.st_uid != 0, "\(user)")
            }
        }
    }

    /// The socket's folder had a name that anybody could compute, and was taken as it was found.
    @Test func theSocketFolderIsNobodyElses_F2() throws {
        try withFolder(deep: true) { folder in
            // What versions before took: made first by somebody else, as a folder or as a link.
            var hash: UInt64 = 0xcbf2_9ce4_8422_2325
            for byte in folder.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
            let computable = "/tmp/refold-" + String(hash, radix: 36)
            try FileManager.default.createDirectory(atPath: computable, withIntermediateDirectories: true)
            chmod(computable, 0o777)
            defer { try? FileManager.default.removeItem(atPath: computable) }
            let postgres = try PrivatePostgres(folder: folder) { _ in }
            let record = try String(contentsOfFile: folder + "/socket-folder", encoding: .utf8)
            let socket = String(record.prefix { !$0.isNewline })
            defer { try? FileManager.default.removeItem(atPath: socket) }
            #expect(socket != computable && socket.hasPrefix("/tmp/refold-"))
            var info = stat()
            #expect(lstat(socket, &info) == 0 && info.st_mode & 0o777 == 0o700)
            #expect(lstat(socket + "/.s.PGSQL.5432", &info) == 0 && info.st_mode & 0o077 == 0)
            #expect(postgres.url == PrivatePostgres.url(folder: folder) && postgres.url.contains("requirepeer="))
            if geteuid() == 0 {
                // Another user who gets that far is asked who they are, by the kernel.
                chmod(socket, 0o711)
                chmod(socket + "/.s.PGSQL.5432", 0o777)
                let other = try runProgram([
                    "setpriv", "--reuid", "games", "--regid", "games", "--clear-groups", "psql", "-h", socket, "-U",
                    "refold", "-Atqc", "select 1", "refold",
                ])
                #expect(other.code != 0 && other.output.contains("Peer authentication"), "\(other.output)")
            }
            postgres.stop()
            // A folder that is not private any more is left, and a new one made.
            chmod(socket, 0o777)
            let again = try PrivatePostgres(folder: folder) { _ in }
            defer { again.stop() }
            let moved = try String(contentsOfFile: folder + "/socket-folder", encoding: .utf8)
            #expect(moved != record)
            try? FileManager.default.removeItem(atPath: String(moved.prefix { !$0.isNewline }))
        }
    }

    @Test func foldersThatExistAreVerified_F2() throws {
        try withFolder { root in
            try PrivateFolder.make(root + "/new", owner: nil)
            try PrivateFolder.make(root + "/new", owner: nil)
            #expect(PrivateFolder.isPrivate(root + "/new", owner: nil))
            symlink(root + "/new", root + "/link")
            #expect(throws: ServiceError.self) { try PrivateFolder.make(root + "/link", owner: nil) }
            #expect(!PrivateFolder.isPrivate(root + "/link", owner: nil))
            chmod(root + "/new", 0o777)
            #expect(!PrivateFolder.isPrivate(root + "/new", owner: nil))
            guard geteuid() == 0, let games = Account(named: "games"), let nobody = Account(named: "nobody")
            else { return }
            chown(root + "/new", games.uid, games.gid)
            #expect(throws: ServiceError.self) { try PrivateFolder.make(root + "/new", owner: nil) }
            #expect(throws: ServiceError.self) { try PrivateFolder.make(root + "/new", owner: nobody) }
            try PrivateFolder.make(root + "/new", owner: games)
            #expect(PrivateFolder.isPrivate(root + "/new", owner: games))
        }
    }

    /// They inherited REFOLD_TOKEN and URLs with passwords.
    @Test func childrenGetNoSecrets_F23() throws {
        let ours = [
            "PATH": "/bin", "LC_ALL": "C", "AWS_REGION": "eu", "REFOLD_TOKEN": "t", "REFOLD_BROKER_URL": "u",
            "MQTT_PASSWORD": "p", "DATABASE_URL": "d", "NOTIFY_SOCKET": "n", "CREDENTIALS_DIRECTORY": "c",
        ]
        #expect(ChildEnvironment.minimal(ours) == ["PATH": "/bin", "LC_ALL": "C"])
        #expect(ChildEnvironment.withoutSettings(ours) == ["PATH": "/bin", "LC_ALL": "C", "AWS_REGION": "eu"])
        setenv("REFOLD_TOKEN_OF_TEST", "secret", 1)
        defer { unsetenv("REFOLD_TOKEN_OF_TEST") }
        #expect(try runProgram(["env"]).output.contains("REFOLD_TOKEN_OF_TEST") == false)
        try ShellCommand("test -z \"$REFOLD_TOKEN_OF_TEST\" && test -n \"$PATH\"", timeoutSeconds: 10)
            .run(path: "/x", file: "f")
    }

    /// `%f` came unchecked from a file, into the shell.
    @Test(arguments: [
        ("/data/a", "x; touch INJECTED; #.seg"), ("/data/a", "$(id).seg"), ("/data/a", ""), ("/data/a", "-rf"),
        ("/data/a", "a b"), ("/data/a", "../a"), ("/data/$(id)/a", "a.seg"), ("/data/a;b", "a.seg"),
        ("/data/a\nb", "a.seg"),
        ("/data/`id`", "a.seg"), ("/data/'x'", "a.seg"),
    ])
    func nothingIsSlippedIntoTheShell_F31(path: String, file: String) throws {
        try withFolder { folder in
            let command = ShellCommand("touch \(folder)/ran", timeoutSeconds: 10)
            #expect(throws: ShellCommand.Failure.self) { try command.run(path: path, file: file) }
            #expect(!FileManager.default.fileExists(atPath: folder + "/ran"))
            try command.run(path: "/data with spaces/ä", file: "00000000000000000000.seg")
        }
    }
}
