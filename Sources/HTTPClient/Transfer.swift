import CCurl
import Glibc
import Synchronization

/// State of one transfer. libcurl's callbacks write into it, on the thread that performs it.
/// `@unchecked Sendable`: only that thread touches what is received.
final class Transfer: @unchecked Sendable {
    let request: HTTPRequest
    private(set) var received: [UInt8] = []
    private(set) var isTooLarge = false
    private(set) var areHeadersComplete = false
    private let cancelled = Atomic<Bool>(false)

    init(_ request: HTTPRequest) { self.request = request }

    var isCancelled: Bool { cancelled.load(ordering: .relaxed) }

    /// From any thread. libcurl polls the flag at least once a second.
    func cancel() { cancelled.store(true, ordering: .relaxed) }

    /// libcurl reports a connection that is closed within the headers as success with an empty body.
    func receiveHeaderLine(_ line: UnsafeRawBufferPointer) {
        if line.starts(with: "HTTP/".utf8) { areHeadersComplete = false }
        if line.elementsEqual("\r\n".utf8) || line.elementsEqual("\n".utf8) { areHeadersComplete = true }
    }

    /// - Returns: false when that is more than the request allows.
    func receive(_ bytes: UnsafeRawBufferPointer) -> Bool {
        isTooLarge = bytes.count > request.responseBytesMax - received.count
        guard !isTooLarge else { return false }
        received += bytes
        return true
    }
}

/// An easy handle of libcurl, with its connections. One thread at a time.
/// `@unchecked Sendable`: it is handed from thread to thread under the lock of `HTTPClient`.
final class CurlHandle: @unchecked Sendable {
    private static let isReady = curl_global_init(Int(CURL_GLOBAL_DEFAULT)) == CURLE_OK
    private let curl: UnsafeMutableRawPointer

    init() throws(HTTPClientError) {
        guard Self.isReady, let curl = curl_easy_init() else {
            throw HTTPClientError(code: .notConnected, description: "libcurl cannot be initialised: no memory")
        }
        self.curl = curl
    }

    deinit { curl_easy_cleanup(curl) }

    /// Blocks until the response is complete.
    func perform(_ transfer: Transfer) throws(HTTPClientError) -> HTTPResponse {
        // Options hold pointers to this request.
        defer { curl_easy_reset(curl) }
        let headers = try HeaderList(transfer.request)
        try configure(transfer.request)
        try set(CURLOPT_HTTPHEADER, UnsafeMutableRawPointer(headers.list))
        try receive(into: transfer)
        var message = [CChar](repeating: 0, count: Int(CURL_ERROR_SIZE))
        let result = message.withUnsafeMutableBufferPointer { message in
            _ = refold_curl_set_pointer(curl, CURLOPT_ERRORBUFFER, message.baseAddress)
            return (transfer.request.body ?? []).withUnsafeBytes { body in
                if transfer.request.hasBody {
                    _ = refold_curl_set_size(curl, CURLOPT_POSTFIELDSIZE_LARGE, curl_off_t(body.count))
                    // With a null pointer libcurl would ask a callback for the body.
                    _ =
                        body.baseAddress.map { refold_curl_set_pointer(curl, CURLOPT_POSTFIELDS, .init(mutating: $0)) }
                        ?? refold_curl_set_string(curl, CURLOPT_COPYPOSTFIELDS, "")
                    _ = refold_curl_set_string(curl, CURLOPT_CUSTOMREQUEST, transfer.request.method.rawValue)
                }
                return withExtendedLifetime(headers) { curl_easy_perform(curl) }
            }
        }
        guard result == CURLE_OK else { throw error(result, transfer, String(nullTerminated: message)) }
        var status = 0
        guard transfer.areHeadersComplete, refold_curl_get_long(curl, CURLINFO_RESPONSE_CODE, &status) == CURLE_OK
        else {
            throw HTTPClientError(
                code: .outcomeUnknown, description: "the connection was closed within the headers of the response")
        }
        return HTTPResponse(status: status, body: transfer.received)
    }

    private func configure(_ request: HTTPRequest) throws(HTTPClientError) {
        guard !request.url.utf8.contains(0) else { throw .invalid("the URL contains a NUL byte") }
        guard request.url.hasPrefix("http://") || request.url.hasPrefix("https://") else {
            throw .invalid("the URL does not begin with http:// or https://")
        }
        try set(CURLOPT_URL, request.url)
        // The path is sent as it is, with its dots.
        try set(CURLOPT_PATH_AS_IS, 1)
        try set(CURLOPT_DISALLOW_USERNAME_IN_URL, 1)
        // HTTP/0.9, which would accept any bytes as a response, is off by default.
        try set(CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1)
        try set(CURLOPT_NOPROXY, "*")
        try set(CURLOPT_NOSIGNAL, 1)
        // Otherwise a time-out waits for the thread that resolves the name.
        try set(CURLOPT_QUICK_EXIT, 1)
        // No child process inherits the connection.
        _ = refold_curl_set_socket(curl) { _, socket, _ in
            _ = fcntl(socket, F_SETFD, FD_CLOEXEC)
            return Int32(CURL_SOCKOPT_OK)
        }
        try set(CURLOPT_TIMEOUT_MS, request.timeout.milliseconds)
        try set(CURLOPT_CONNECTTIMEOUT_MS, request.connectTimeout.milliseconds)
        switch request.method {
        case .get: try set(CURLOPT_HTTPGET, 1)
        case .post, .put, .delete: try set(CURLOPT_CUSTOMREQUEST, request.method.rawValue)
        }
        // On a reused connection that the server has closed meanwhile, libcurl sends the request again.
        if !request.method.isIdempotent {
            try set(CURLOPT_FRESH_CONNECT, 1)
            try set(CURLOPT_FORBID_REUSE, 1)
        }
    }

    private func receive(into transfer: Transfer) throws(HTTPClientError) {
        let context = Unmanaged.passUnretained(transfer).toOpaque()
        _ = refold_curl_set_write(curl) { bytes, size, count, context in
            guard let bytes, let context else { return 0 }
            let transfer = Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue()
            return transfer.receive(UnsafeRawBufferPointer(start: bytes, count: size * count)) ? size * count : 0
        }
        try set(CURLOPT_WRITEDATA, context)
        _ = refold_curl_set_header(curl) { bytes, size, count, context in
            guard let bytes, let context else { return 0 }
            Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue()
                .receiveHeaderLine(UnsafeRawBufferPointer(start: bytes, count: size * count))
            return size * count
        }
        try set(CURLOPT_HEADERDATA, context)
        _ = refold_curl_set_progress(curl) { context, _, _, _, _ in
            context.map { Unmanaged<Transfer>.fromOpaque($0).takeUnretainedValue().isCancelled ? 1 : 0 } ?? 0
        }
        try set(CURLOPT_XFERINFODATA, context)
        try set(CURLOPT_NOPROGRESS, 0)
    }

    private func error(_ result: CURLcode, _ transfer: Transfer, _ message: String) -> HTTPClientError {
        if transfer.isTooLarge {
            return HTTPClientError(
                code: .responseTooLarge,
                description: "the response exceeds \(transfer.request.responseBytesMax) bytes")
        }
        let text = message.isEmpty ? String(cString: curl_easy_strerror(result)) : message
        switch result {
        case CURLE_ABORTED_BY_CALLBACK: return HTTPClientError(code: .cancelled, description: "cancelled")
        case CURLE_OPERATION_TIMEDOUT where wasSent: return HTTPClientError(code: .timedOut, description: text)
        case CURLE_URL_MALFORMAT, CURLE_LOGIN_DENIED: return .invalid(text)
        case CURLE_COULDNT_CONNECT:
            var number = 0
            _ = refold_curl_get_long(curl, CURLINFO_OS_ERRNO, &number)
            let reason = number > 0 ? String(cString: strerror(Int32(clamping: number))) : text
            return HTTPClientError(code: .notConnected, description: reason)
        default: return HTTPClientError(code: wasSent ? .outcomeUnknown : .notConnected, description: text)
        }
    }

    private var wasSent: Bool {
        var bytes = 0
        return refold_curl_get_long(curl, CURLINFO_REQUEST_SIZE, &bytes) == CURLE_OK && bytes > 0
    }

    private func set(_ option: CURLoption, _ value: Int) throws(HTTPClientError) {
        try check(refold_curl_set_long(curl, option, value))
    }
    private func set(_ option: CURLoption, _ value: String) throws(HTTPClientError) {
        try check(refold_curl_set_string(curl, option, value))
    }
    private func set(_ option: CURLoption, _ value: UnsafeMutableRawPointer?) throws(HTTPClientError) {
        try check(refold_curl_set_pointer(curl, option, value))
    }
    private func check(_ result: CURLcode) throws(HTTPClientError) {
        guard result == CURLE_OK else { throw .invalid(String(cString: curl_easy_strerror(result))) }
    }
}
