import CCurl

/// libcurl's list of header lines.
final class HeaderList {
    private(set) var list: UnsafeMutablePointer<curl_slist>?

    /// - Throws: `.invalidRequest` for a name or value that RFC 9110, 5.5 and 5.6.2 do not allow: libcurl sends any
    ///   line as it is, a second header within it included.
    init(_ request: HTTPRequest) throws(HTTPClientError) {
        // Otherwise libcurl sends `Expect: 100-continue` with a large body, and the content type of HTML forms.
        let hasType = request.headers.contains { $0.name.lowercased() == "content-type" }
        var lines = hasType ? ["Expect:"] : ["Expect:", "Content-Type:"]
        for (name, value) in request.headers {
            guard !name.isEmpty, name.utf8.allSatisfy(Self.isToken), !Self.framing.contains(name.lowercased()) else {
                throw .invalid("invalid header name \(name.debugDescription)")
            }
            guard value.utf8.allSatisfy({ ($0 >= 0x20 || $0 == 0x09) && $0 != 0x7F }) else {
                throw .invalid("control character in the value of header \(name)")
            }
            // "Name:" without a value would remove the header.
            let isEmpty = value.utf8.allSatisfy { $0 == 0x20 || $0 == 0x09 }
            lines.append(isEmpty ? "\(name);" : "\(name): \(value)")
        }
        for line in lines {
            guard let longer = curl_slist_append(list, line) else { throw .invalid("no memory for the headers") }
            list = longer
        }
    }

    deinit { curl_slist_free_all(list) }

    /// Set by libcurl.
    private static let framing: Set<String> = ["content-length", "transfer-encoding", "connection", "expect"]

    private static func isToken(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        default: "!#$%&'*+-.^_`|~".utf8.contains(byte)
        }
    }
}

extension HTTPClientError {
    static func invalid(_ description: String) -> HTTPClientError {
        HTTPClientError(code: .invalidRequest, description: description)
    }
}

extension Duration {
    /// At least 1: 0 means "no limit" to libcurl. Rounded up, and at most 24 days.
    var milliseconds: Int {
        let (seconds, attoseconds) = components
        guard seconds >= 0 else { return 1 }
        guard seconds < 2_000_000 else { return 2_000_000_000 }
        return max(1, Int(seconds) * 1_000 + Int((attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000))
    }
}

extension String {
    init(nullTerminated characters: [CChar]) {
        self.init(decoding: characters.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
