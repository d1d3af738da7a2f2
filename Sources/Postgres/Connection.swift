import COpenSSL
import CPostgres
import Glibc
import Primitives

/// One connection. Not Sendable: it belongs to one thread or actor at a time, which its calls block.
public final class Connection {
    private(set) var handle: OpaquePointer  // PGconn *
    let target: DatabaseTarget
    private let interrupt: Interrupt?
    private let notices: NoticeBox
    /// An answer was left half-read: nothing more may be asked.
    private var abandoned = false

    /// Connects to the first address that answers; each may take the connect timeout. `notice` gets the server's
    /// notices and warnings.
    /// - Throws: `.unavailable` whatever the server's reason, a wrong password included; `.refused` for an
    ///   unreadable URL.
    public init(
        _ target: DatabaseTarget, interrupt: Interrupt? = nil, notice: @escaping (String) -> Void = { _ in }
    ) throws(PostgresError) {
        try target.check()
        self.target = target
        self.interrupt = interrupt
        notices = NoticeBox(notice)
        let addresses = try target.addresses()
        handle = try Self.start(target, addresses[0])
        takeNotices()
        // A throw from here on closes the handle in deinit: all properties are set.
        try connect(addresses)
        PQsetnonblocking(handle, 1)
    }

    /// Before anything is received: without it libpq writes notices to standard error, and waits for its reader.
    private func takeNotices() {
        PQsetNoticeProcessor(
            handle,
            { box, message in
                guard let box, let message else { return }
                Unmanaged<NoticeBox>.fromOpaque(box).takeUnretainedValue().receive(
                    String(cString: message).trimmed)
            }, Unmanaged.passUnretained(notices).toOpaque())
    }

    deinit { PQfinish(handle) }

    /// False once the connection is lost or was interrupted.
    public var isUsable: Bool { !abandoned && PQstatus(handle) == CONNECTION_OK }

    /// Major × 10,000 + minor: 150019 for 15.19.
    public var serverVersion: Int { Int(PQserverVersion(handle)) }

    public var isEncrypted: Bool { PQsslInUse(handle) == 1 }

    /// The server process that serves this connection.
    public var backendPID: Int32 { PQbackendPID(handle) }

    /// Runs one or more statements without parameters or rows.
    public func exec(_ sql: String, name: String? = nil) throws(PostgresError) {
        let name = name ?? String(sql.prefix(60))
        try begin(name)
        try check(PQsendQuery(handle, sql) == 1, name)
        try flush(name)
        _ = try drain(name)
    }

    /// Runs one statement; rows come in binary. `name` stands in errors.
    public func query(
        _ sql: String, _ parameters: Parameters = Parameters(), name: String? = nil
    ) throws(PostgresError) -> QueryResult {
        let name = name ?? String(sql.prefix(60))
        try begin(name)
        let sent = parameters.withC { values, lengths, formats in
            PQsendQueryParams(
                handle, sql, Int32(parameters.values.count), parameters.types, values, lengths, formats, 1)
        }
        try check(sent == 1, name)
        try flush(name)
        guard let result = try drain(name) else { throw lost(name) }
        return result
    }

    /// Prepares a statement for `pipeline`, under a name of the caller's.
    public func prepare(_ name: String, _ sql: String, types: [UInt32]) throws(PostgresError) {
        try begin(name)
        try check(PQsendPrepare(handle, name, sql, Int32(types.count), types) == 1, name)
        try flush(name)
        _ = try drain(name)
    }

    /// Begin, `body`, commit; rolls back when `body` throws.
    public func transaction<R>(_ body: () throws(PostgresError) -> R) throws(PostgresError) -> R {
        try exec("BEGIN")
        do {
            let result = try body()
            try exec("COMMIT")
            return result
        } catch {
            if isUsable { try? exec("ROLLBACK") }
            throw error
        }
    }

    /// `COPY … FROM STDIN`: sends `chunks`, which together are what the statement's format asks for. Returns
    /// the row count.
    @discardableResult
    public func copyIn(
        _ sql: String, chunks: [[UInt8]], name: String
    ) throws(PostgresError) -> Int {
        try begin(name)
        try check(PQsendQuery(handle, sql) == 1, name)
        try flush(name)
        guard let ready = try nextResult(name) else { throw lost(name) }
        guard ready.status == PGRES_COPY_IN else {
            _ = try? drain(name)
            throw failure(ready, name)
        }
        for chunk in chunks {
            // Pieces, flushed as they go: libpq would otherwise hold a copy of everything.
            for start in stride(from: 0, to: chunk.count, by: Self.copyPieceBytes) {
                let sent = chunk.withUnsafeBytes { bytes in
                    let piece = UnsafeRawBufferPointer(
                        rebasing: bytes[start..<min(start + Self.copyPieceBytes, bytes.count)])
                    return PQputCopyData(
                        handle, piece.baseAddress?.assumingMemoryBound(to: CChar.self), Int32(piece.count))
                }
                try check(sent == 1, name)
                try flush(name)
            }
        }
        try check(PQputCopyEnd(handle, nil) == 1, name)
        try flush(name)
        return try drain(name)?.affectedRowCount ?? 0
    }

    private static let copyPieceBytes = 128 << 10

    // MARK: Waiting

    /// libpq refuses to send on a connection that it knows is lost; say so in our words, first.
    func begin(_ name: String) throws(PostgresError) {
        guard isUsable else { throw lost(name) }
    }

    func check(_ sent: Bool, _ name: String) throws(PostgresError) {
        guard !sent else { return }
        abandoned = true
        throw lost(name)
    }

    /// Sends what libpq has buffered, reading meanwhile, so that two full buffers cannot wait for each other.
    func flush(_ name: String) throws(PostgresError) {
        while true {
            switch PQflush(handle) {
            case 0: return
            case 1:
                try wait(for: POLLIN | POLLOUT, name)
                try check(PQconsumeInput(handle) == 1, name)
            default: try check(false, name)
            }
        }
    }

    /// The next result; nil when the current statement has no more. A server that ends the session says why
    /// and hangs up: `error`, if there was one already, tells more than the loss of the connection and is
    /// thrown in its place.
    func nextResult(_ name: String, after error: PostgresError? = nil) throws(PostgresError) -> QueryResult? {
        do {
            while PQisBusy(handle) == 1 {
                try wait(for: POLLIN, name)
                try check(PQconsumeInput(handle) == 1, name)
            }
        } catch let loss {
            throw error ?? loss
        }
        return PQgetResult(handle).map(QueryResult.init(owning:))
    }

    /// Reads a statement's results to the end; the last one, or the first error.
    private func drain(_ name: String) throws(PostgresError) -> QueryResult? {
        var last: QueryResult?, first: PostgresError?
        while let result = try nextResult(name, after: first) {
            switch result.status {
            case PGRES_COMMAND_OK, PGRES_TUPLES_OK, PGRES_EMPTY_QUERY: last = result
            case PGRES_COPY_IN: PQputCopyEnd(handle, "no data was expected here")
            case PGRES_COPY_OUT: abandoned = true; throw failure(result, name)
            default: first = first ?? failure(result, name)
            }
        }
        if let first { throw first }
        return last
    }

    func wait(for events: Int32, _ name: String) throws(PostgresError) {
        if tlsPendingBytes > 0 { return }
        do {
            try poll(events, name, deadline: monotonicMilliseconds() + target.responseTimeoutSeconds * 1000)
        } catch {
            abandoned = true
            throw error
        }
    }

    /// Over TLS a whole record is decrypted at once. What does not fit into libpq's buffer (records of
    /// servers since 17, and of poolers, may be larger than its 8 KiB of room) waits where poll(2) cannot see
    /// it.
    private var tlsPendingBytes: Int {
        guard let ssl = PQsslStruct(handle, "OpenSSL") else { return 0 }
        return Int(SSL_pending(OpaquePointer(ssl)))
    }

    private func poll(_ events: Int32, _ name: String, deadline: Int) throws(PostgresError) {
        while true {
            var descriptors = [
                pollfd(fd: PQsocket(handle), events: Int16(events), revents: 0),
                pollfd(fd: interrupt?.descriptor ?? -1, events: Int16(POLLIN), revents: 0),
            ]
            let left = deadline - monotonicMilliseconds()
            let slice = interrupt.map { $0.descriptor < 0 } ?? false ? min(left, Interrupt.pollMilliseconds) : left
            let ready = left > 0 ? systemPoll(&descriptors, 2, Int32(clamping: slice)) : 0
            if ready < 0 && errno == EINTR { continue }
            if ready < 0 { throw unavailable("cannot wait for an answer: \(String(cString: strerror(errno)))", name) }
            if ready == 0, slice < left, interrupt?.isSignalled == false { continue }
            if descriptors[1].revents != 0 || interrupt?.isSignalled == true {
                throw unavailable("interrupted, because the program stops", name)
            }
            if ready == 0 { throw unavailable("no answer from \(target.description) in time", name) }
            return
        }
    }

    private static func start(_ target: DatabaseTarget, _ address: DatabaseTarget.Address) throws(PostgresError)
        -> OpaquePointer
    {
        let keywords = target.keywords + address.keywords
        let names = keywords.map { strdup($0.0) } + [nil], values = keywords.map { strdup($0.1) } + [nil]
        defer { for pointer in names + values { free(pointer) } }
        let started = names.map { UnsafePointer($0) }.withUnsafeBufferPointer { names in
            values.map { UnsafePointer($0) }.withUnsafeBufferPointer { values in
                PQconnectStartParams(names.baseAddress, values.baseAddress, 1)
            }
        }
        guard let started else {
            throw PostgresError(sqlState: nil, message: "out of memory", statement: "connect", kind: .unavailable)
        }
        return started
    }

    /// libpq's asynchronous calls go on to the next address when one refuses, and wait for ever for one that accepts
    /// and says nothing. So each address is an attempt of its own here, with its own deadline.
    private func connect(_ addresses: [DatabaseTarget.Address]) throws(PostgresError) {
        var failures: [String] = []
        for (index, address) in addresses.enumerated() {
            if index > 0 {
                let next = try Self.start(target, address)
                PQfinish(handle)
                abandoned = false
                handle = next
                takeNotices()
            }
            do {
                return try finishConnecting()
            } catch {
                if addresses.count == 1 || interrupt?.isSignalled == true { throw error }
                failures.append("\(address.description): \(error.message)")
            }
        }
        throw unavailable(failures.joined(separator: "; "), "connect")
    }

    private func finishConnecting() throws(PostgresError) {
        let deadline = monotonicMilliseconds() + target.connectTimeoutSecondsInForce * 1000
        var events = POLLOUT
        while PQstatus(handle) != CONNECTION_BAD {
            try poll(events, "connect", deadline: deadline)
            switch PQconnectPoll(handle) {
            case PGRES_POLLING_OK: return
            case PGRES_POLLING_READING: events = POLLIN
            case PGRES_POLLING_WRITING: events = POLLOUT
            default: throw lost("connect")
            }
        }
        throw lost("connect")
    }

    // MARK: Errors

    func failure(_ result: QueryResult, _ name: String) -> PostgresError {
        result.error(statement: name, lost: PQstatus(handle) != CONNECTION_OK)
    }

    func lost(_ name: String) -> PostgresError {
        let message = String(cString: PQerrorMessage(handle)).trimmed
        return unavailable(message.isEmpty ? "the connection is lost" : target.redact(message), name)
    }

    private func unavailable(_ message: String, _ name: String) -> PostgresError {
        PostgresError(sqlState: nil, message: message, statement: name, kind: .unavailable)
    }
}

/// What a C callback can find again. Lives as long as its connection.
private final class NoticeBox {
    let receive: (String) -> Void
    init(_ receive: @escaping (String) -> Void) { self.receive = receive }
}

func monotonicMilliseconds() -> Int { Int(SystemTime.monotonicMicroseconds() / 1_000) }

/// poll(2) by a name that `Connection.poll` does not hide.
private func systemPoll(_ descriptors: inout [pollfd], _ count: nfds_t, _ milliseconds: Int32) -> Int32 {
    poll(&descriptors, count, milliseconds)
}
