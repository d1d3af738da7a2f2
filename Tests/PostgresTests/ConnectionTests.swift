import Foundation
import TestSupport
import Testing
@testable import Postgres

func connect(_ database: String = "postgres") throws -> Connection {
    try Connection(DatabaseTarget(try PostgresServer.shared.get().url(database: database)))
}

@Suite struct ConnectionTests {
    @Test func valuesOfEveryTypeGoThereAndBack() throws {
        let connection = try connect()
        var p = Parameters()
        p.int8(-5 as Int64)
        p.int4(7)
        p.bool(true)
        p.text("é")
        p.bytea([0, 255])
        p.textArray(["a", "", "ü"])
        p.int8Array([1, -1])
        p.null(TypeID.text)
        p.text("")
        let result = try connection.query(
            "SELECT $1, $2, $3, $4, $5, array_length($6, 1), $7[2], $8, $9, 1.5::float8", p)
        #expect(result.rowCount == 1 && result.columnCount == 10)
        #expect(result.int8(0, 0) == -5)
        #expect(result.int4(0, 1) == 7)
        #expect(result.bool(0, 2) == true)
        #expect(result.text(0, 3) == "é")
        #expect(result.bytes(0, 4).map(Array.init) == [0, 255])
        #expect(result.int4(0, 5) == 3)
        #expect(result.int8(0, 6) == -1)
        #expect(result.text(0, 7) == nil)
        #expect(result.text(0, 8) == "")
        #expect(result.float8(0, 9) == 1.5)
    }

    @Test func emptyArrays() throws {
        var p = Parameters()
        p.textArray([])
        #expect(try connect().query("SELECT cardinality($1)", p).int4(0, 0) == 0)
    }

    @Test(arguments: [
        ("SELECT 1/0", "22012", PostgresError.Kind.refused),
        ("SELECT 'x'::int", "22P02", .refused),
        ("SELECT * FROM nowhere", "42P01", .refused),
        ("SELECT pg_terminate_backend(pg_backend_pid())", "57P01", .unavailable),
        ("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$", "40001", .serialization),
        ("DO $$ BEGIN RAISE SQLSTATE '53100'; END $$", "53100", .unavailable),
    ])
    func errorsAreClassified(sql: String, state: String, kind: PostgresError.Kind) throws {
        let connection = try connect()
        let error = #expect(throws: PostgresError.self) { try connection.exec(sql) }
        #expect(error?.sqlState == state && error?.kind == kind)
        #expect(connection.isUsable == (state != "57P01"))
    }

    /// The first of two hosts accepts and never answers: the second is tried when the connect timeout is over.
    @Test func aSilentHostIsLeftForTheNext_rubypg618() throws {
        let silent = try SilentListener(), folder = try PostgresServer.shared.get().folder
        let url = "host=127.0.0.1,\(folder) port=\(silent.port),5432 dbname=postgres user=postgres"
        let began = ContinuousClock.now
        let connection = try Connection(DatabaseTarget(url, connectTimeoutSeconds: 1))
        #expect(try connection.query("SELECT 1").int4(0, 0) == 1)
        #expect((.seconds(1) ... .seconds(3)).contains(ContinuousClock.now - began))
        let error = #expect(throws: PostgresError.self) {
            try Connection(
                DatabaseTarget(
                    "host=127.0.0.1,\(folder)/none port=\(silent.port),5432 dbname=postgres", connectTimeoutSeconds: 1))
        }
        #expect(error?.kind == .unavailable && error?.message.contains("127.0.0.1:\(silent.port)") == true)
        #expect(error?.message.contains("/none") == true, "every address is named: \(error?.message ?? "")")
    }

    @Test func everyAddressOfTheURLIsTried() throws {
        func addresses(_ url: String) throws -> [[String]] {
            try DatabaseTarget(url).addresses().map { $0.keywords.map { "\($0.0)=\($0.1)" } }
        }
        #expect(try addresses("postgresql:///fleet") == [[]])
        #expect(try addresses("postgresql://u@127.0.0.1:5433/fleet") == [[]])
        #expect(
            try addresses("postgresql://u@127.0.0.1:5433,127.0.0.2:5434/fleet") == [
                ["host=127.0.0.1", "hostaddr=127.0.0.1", "port=5433"],
                ["host=127.0.0.2", "hostaddr=127.0.0.2", "port=5434"],
            ])
        #expect(
            try addresses("host=/a,/b port=5433 dbname=x") == [["host=/a", "port=5433"], ["host=/b", "port=5433"]])
        #expect(
            try addresses("host=db hostaddr=10.0.0.1,10.0.0.2 dbname=x").map(\.last)
                == ["hostaddr=10.0.0.1", "hostaddr=10.0.0.2"])
    }

    @Test func connectionErrorsHideThePassword() throws {
        let targets = [
            "postgresql://u:hunter2secret@127.0.0.1:1/db", "postgresql://u:hunter2secret@[/db",
            "password=hunter2secret host",
            "host=/nowhere password=hunter2secret user=hunter2secret",
        ]
        for url in targets {
            let error = #expect(throws: PostgresError.self) { try Connection(DatabaseTarget(url)) }
            let text = error.map { "\($0)" } ?? ""
            #expect(!text.contains("hunter2secret") && text.count > 20, "\(text)")
        }
    }

    @Test(arguments: [("", 5), ("?connect_timeout=2", 2), ("?connect_timeout=0", 5)])
    func theUrlsTimeoutCounts(query: String, seconds: Int) {
        #expect(DatabaseTarget("postgresql://h/d\(query)").connectTimeoutSecondsInForce == seconds)
    }

    @Test func targetsAreDescribedWithoutSecrets() {
        #expect(DatabaseTarget("postgresql://u:secret@h:5433/d").description == "u@h:5433/d")
        #expect(DatabaseTarget("postgresql://u:secret@[").description == "(unreadable database URL)")
    }

    @Test func aWrongRoleIsUnavailable() throws {
        let url = try PostgresServer.shared.get().url(user: "nobody_here")
        let error = #expect(throws: PostgresError.self) { try Connection(DatabaseTarget(url)) }
        #expect(error?.kind == .unavailable)
        #expect(error?.message.contains("nobody_here") == true)
    }

    @Test func pipelineIsOneTransactionAndSurvivesItsErrors() throws {
        let connection = try connect()
        try connection.exec("CREATE TEMP TABLE t (a int8 PRIMARY KEY)")
        try connection.prepare("ins", "INSERT INTO t VALUES ($1)", types: [TypeID.int8])
        func insert(_ values: [Int64]) throws -> [Int] {
            var pipeline = Pipeline()
            for value in values {
                var p = Parameters()
                p.int8(value)
                pipeline.execute("ins", p)
            }
            return try connection.run(pipeline).map(\.affectedRowCount)
        }
        #expect(try insert([1, 2]) == [1, 1])
        let error = #expect(throws: PostgresError.self) { try insert([3, 1, 4]) }
        #expect(error?.sqlState == "23505" && error?.statement == "ins")
        #expect(try connection.query("SELECT count(*) FROM t").int8(0, 0) == 2)
        #expect(try insert([3]) == [1])
    }

    @Test func aLargePipelineDoesNotDeadlock() throws {
        let connection = try connect()
        try connection.prepare("echo", "SELECT $1", types: [TypeID.text])
        var pipeline = Pipeline()
        let text = String(repeating: "x", count: 200_000)
        for _ in 0..<100 {
            var p = Parameters()
            p.text(text)
            pipeline.execute("echo", p)
        }
        #expect(try connection.run(pipeline).allSatisfy { $0.text(0, 0)?.utf8.count == 200_000 })
    }

    @Test func deferredErrorsAtCommitAreSeen() throws {
        let connection = try connect()
        try connection.exec("CREATE TEMP TABLE d (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        var pipeline = Pipeline()
        pipeline.execute(sql: "INSERT INTO d VALUES (1)")
        pipeline.execute(sql: "INSERT INTO d VALUES (1)")
        let error = #expect(throws: PostgresError.self) { try connection.run(pipeline) }
        #expect(error?.sqlState == "23505")
        #expect(try connection.query("SELECT count(*) FROM d").int8(0, 0) == 0)
    }

    @Test func copyTakesBinaryRowsAndReportsBadOnes() throws {
        let connection = try connect()
        try connection.exec("CREATE TEMP TABLE c (a int8)")
        var rows: [UInt8] = Array("PGCOPY\n".utf8) + [0xFF, 0x0D, 0x0A, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        for value in 0..<50_000 as Range<Int64> {
            rows.put(Int16(1))
            rows.put(Int32(8))
            rows.put(value)
        }
        let good = rows + [0xFF, 0xFF]
        let count = try connection.copyIn("COPY c FROM STDIN BINARY", chunks: [good], name: "c")
        #expect(count == 50_000)
        let bad = rows + [0, 9]
        #expect(throws: PostgresError.self) {
            try connection.copyIn("COPY c FROM STDIN BINARY", chunks: [bad], name: "c")
        }
        #expect(throws: PostgresError.self) {
            try connection.copyIn("COPY nowhere FROM STDIN", chunks: [], name: "n")
        }
        #expect(try connection.query("SELECT sum(a)::int8 FROM c").int8(0, 0) == 1_249_975_000)
    }

    @Test func transactionsRollBack() throws {
        let connection = try connect()
        try connection.exec("CREATE TEMP TABLE r (a int8)")
        #expect(throws: PostgresError.self) {
            try connection.transaction { () throws(PostgresError) in
                try connection.exec("INSERT INTO r VALUES (1)")
                try connection.exec("SELECT 1/0")
            }
        }
        #expect(try connection.query("SELECT count(*) FROM r").int8(0, 0) == 0)
    }

    @Test func noticesAreRouted() throws {
        let seen = Notices()
        let connection = try Connection(DatabaseTarget(try PostgresServer.shared.get().url())) { seen.texts.append($0) }
        try connection.exec("DO $$ BEGIN RAISE NOTICE 'hello'; END $$")
        #expect(seen.texts.contains { $0.contains("hello") })
    }

    @Test func anInterruptEndsAWaitingStatement() async throws {
        let interrupt = Interrupt()
        let connection = try Connection(DatabaseTarget(try PostgresServer.shared.get().url()), interrupt: interrupt)
        let started = ContinuousClock.now
        // A thread, since the cooperative pool is full of tests that block.
        Thread.detachNewThread {
            usleep(50_000)
            interrupt.signal()
        }
        let error = #expect(throws: PostgresError.self) { try connection.exec("SELECT pg_sleep(30)") }
        #expect(error?.kind == .unavailable)
        #expect(ContinuousClock.now - started < .seconds(10))
        #expect(!connection.isUsable)
    }

    private final class Notices { var texts: [String] = [] }
}

@Suite struct TLSTests {
    @Test func answersOfAllSizesArriveOverTLS() throws {
        let server = try PostgresServer(started: false)
        let port = freeLoopbackPort()
        try server.configureTLS(port: port)
        try server.start()
        let url = "postgresql://postgres@127.0.0.1:\(port)/postgres?sslmode=require"
        let connection = try Connection(DatabaseTarget(url, responseTimeoutSeconds: 5))
        #expect(connection.isEncrypted)
        for size in stride(from: 4000, to: 64_000, by: 1777) {
            let rows = try connection.query("SELECT repeat('x', \(size) + i) FROM generate_series(1, 20) AS i")
            #expect(rows.rowCount == 20 && rows.text(19, 0)?.utf8.count == size + 20)
        }
    }

    @Test func aServerThatIsNotTheOneNamedIsRefused() throws {
        let server = try PostgresServer(started: false)
        let port = freeLoopbackPort()
        try server.configureTLS(port: port)
        try server.start()
        let url =
            "postgresql://postgres@127.0.0.1:\(port)/postgres?sslmode=verify-full&sslrootcert=/nowhere.pem"
        let error = #expect(throws: PostgresError.self) { try Connection(DatabaseTarget(url)) }
        #expect(error?.kind == .unavailable && error?.message.contains("/nowhere.pem") == true)
    }
}

/// Accepts connections (the kernel does, up to the backlog) and never says a word.
final class SilentListener {
    let port: Int
    private let descriptor: Int32

    init() throws {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        self.descriptor = descriptor
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let bound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) == 0 && getsockname(descriptor, $0, &length) == 0
            }
        }
        port = Int(UInt16(bigEndian: address.sin_port))
        guard bound, listen(descriptor, 16) == 0 else { throw SystemError("no listener") }
    }

    deinit { close(descriptor) }
}
