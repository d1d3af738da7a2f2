import EventModel
import FoundationEssentials
import HTTPTypes
import Hummingbird
import NIOCore

// What routes read from a request and write into a response.

extension Request {
    /// The body as `T`. Unknown fields are refused by name, so that a misspelt option is not lost in silence.
    /// - Throws: `Problem` 400 (no JSON), 413, 415, 422 (JSON of another shape).
    func json<T: BodyFields>(_ type: T.Type) async throws -> T {
        let bytes = try await collected()
        guard bytes.readableBytes > 0 else {
            if let empty = T.whenEmpty { return empty }
            throw Problem(.badRequest, "body_required", "this request needs a JSON body")
        }
        let mediaType = headers[.contentType]?.split(separator: ";").first?
            .trimmingCharacters(in: .whitespaces).lowercased()
        guard mediaType == "application/json" else {
            throw Problem(
                .unsupportedMediaType, "unsupported_media_type", "send `Content-Type: application/json`",
                headers: [.accept: "application/json"])
        }
        let data = Data(bytes.readableBytesView)
        do {
            return try JSONDecoder().decode(Strict<T>.self, from: data).value
        } catch let error as DecodingError {
            // The decoder says of 1.5 where a whole number belongs that the data is no JSON.
            if case .dataCorrupted(let context) = error, context.codingPath.isEmpty,
                (try? JSONDecoder().decode(Anything.self, from: data)) != nil
            {
                throw Problem(
                    .unprocessableContent, "invalid_body", "a number is not whole, or beyond what its field can hold")
            }
            throw Problem(error)
        }
    }

    /// Whatever is JSON.
    private struct Anything: Decodable { init(from decoder: any Decoder) {} }

    private func collected() async throws -> ByteBuffer {
        if let length = headers[.contentLength].flatMap({ Int($0) }), length > ControlAPI.bodyBytesMax {
            throw ProblemMiddleware.tooLarge
        }
        return try await body.collect(upTo: ControlAPI.bodyBytesMax)
    }

    /// 1 to 255 visible ASCII characters.
    func idempotencyKey() throws(Problem) -> String? {
        guard let key = headers[.idempotencyKey] else { return nil }
        guard (1...255).contains(key.utf8.count), key.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
            throw Problem(
                .badRequest, "idempotency_key_invalid", "Idempotency-Key must be 1 to 255 visible ASCII characters")
        }
        return key
    }

    func query(_ name: String) -> String? {
        uri.queryParameters[Substring(name)].map { String($0) }
    }

    func query<T: FixedWidthInteger>(_ name: String, _ range: ClosedRange<T>) throws(Problem) -> T? {
        guard let text = query(name) else { return nil }
        guard let value = T(text), range.contains(value) else {
            throw Problem(
                .badRequest, "query_invalid",
                "\(name) must be a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }

    /// A tenant, a device or a reason to filter by: all of them keep to the grammar of ids.
    func idQuery(_ name: String) throws(Problem) -> String? {
        guard let value = query(name) else { return nil }
        guard DeviceTopic.isID(value) else {
            throw Problem(.badRequest, "query_invalid", "\(name) is 1 to 128 characters of A-Z a-z 0-9 . _ : -")
        }
        return value
    }

    func query(_ name: String, oneOf words: [String]) throws(Problem) -> String? {
        guard let value = query(name) else { return nil }
        guard words.contains(value) else {
            throw Problem(.badRequest, "query_invalid", "\(name) must be one of: \(words.joined(separator: ", "))")
        }
        return value
    }

    /// Text as devices report it, of which PostgreSQL knows neither NUL nor what is no UTF-8.
    func textQuery(_ name: String) throws(Problem) -> String? {
        guard let value = query(name) else { return nil }
        guard (1...255).contains(value.utf8.count), !value.utf8.contains(0) else {
            throw Problem(.badRequest, "query_invalid", "\(name) must be 1 to 255 bytes of text")
        }
        return value
    }

    /// - Parameter ordered: the caller may ask for the newest first (`order=newest`).
    func page(ordered: Bool = false) throws(Problem) -> PageRequest {
        PageRequest(
            limit: try query("limit", 1...PageRequest.limitMax) ?? PageRequest.limitDefault,
            after: try query("after", 0...Int64.max),
            newestFirst: ordered ? try query("order", oneOf: ["oldest", "newest"]) == "newest" : false)
    }

    func textPage() throws(Problem) -> TextPageRequest {
        TextPageRequest(
            limit: try query("limit", 1...PageRequest.limitMax) ?? PageRequest.limitDefault,
            after: try idQuery("after"))
    }

    /// A misspelt parameter is an error, not a filter that does nothing.
    func allowQuery(_ names: String...) throws(Problem) {
        for (name, _) in uri.queryParameters where !names.contains(String(name)) {
            let known = names.isEmpty ? "none" : names.joined(separator: ", ")
            throw Problem(.badRequest, "query_unknown", "this path takes these query parameters: \(known)")
        }
    }
}

extension APIContext {
    /// A tenant or device id in the path.
    func id(_ name: String) throws(Problem) -> String {
        let raw = parameters.get(name) ?? ""
        guard let value = raw.removingPercentEncoding, DeviceTopic.isID(value) else {
            throw Problem(.badRequest, "id_invalid", "the \(name) id is 1 to 128 characters of A-Z a-z 0-9 . _ : -")
        }
        return value
    }

    /// A number in the path; what is none names nothing.
    func number<T: FixedWidthInteger>(_ name: String, _ type: T.Type = T.self) throws(Problem) -> T {
        guard let value = parameters.get(name).flatMap({ T($0) }), value >= 0 else {
            throw Problem(.notFound, "not_found", "\(name) is a whole number")
        }
        return value
    }
}

extension Response {
    /// - Throws: `EncodingError` for a number that is not finite: JSON has none (RFC 8259, 6). `ProblemMiddleware` logs
    ///   it and answers 500.
    static func json(_ value: some Encodable, status: HTTPResponse.Status = .ok) throws -> Response {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return json(text: String(decoding: try encoder.encode(value), as: UTF8.self), status: status)
    }

    /// What a client may keep and ask for again with `If-None-Match`: 304 when it has the same.
    static func kept(_ headers: HTTPFields, tag: String, _ request: Request, _ body: () throws -> ByteBuffer) rethrows
        -> Response
    {
        var headers = headers
        headers[.eTag] = tag
        headers[.cacheControl] = "no-cache"
        headers[.xContentTypeOptions] = "nosniff"
        let known = request.headers[.ifNoneMatch]?.split(separator: ",").map { $0.drop { $0 == " " } } ?? []
        if known.contains(where: { $0 == tag }) { return Response(status: .notModified, headers: headers) }
        return Response(status: .ok, headers: headers, body: .init(byteBuffer: try body()))
    }

    static func json(text: String, status: HTTPResponse.Status = .ok) -> Response {
        Response(
            status: status,
            headers: [.contentType: "application/json", .cacheControl: "no-store", .xContentTypeOptions: "nosniff"],
            body: .init(byteBuffer: ByteBuffer(string: text + "\n")))
    }

    /// `{"items": […], "next": …}`.
    static func page(_ page: JSONPage) -> Response {
        let items = page.rows.map(\.text).joined(separator: ",")
        return json(text: #"{"items":[\#(items)],"next":\#(page.next.map(String.init) ?? "null")}"#)
    }

    static func page(_ page: JSONTextPage) -> Response {
        let items = page.rows.map(\.text).joined(separator: ",")
        // Ids need no escaping.
        return json(text: #"{"items":[\#(items)],"next":\#(page.next.map { "\"\($0)\"" } ?? "null")}"#)
    }

    static func items(_ rows: [JSONRow]) -> Response {
        json(text: #"{"items":[\#(rows.map(\.text).joined(separator: ","))]}"#)
    }
}

/// A request's body: its fields are known by name.
protocol BodyFields: Decodable, Sendable {
    static var fields: [String] { get }
    /// What no body at all means; nil when one is needed.
    static var whenEmpty: Self? { get }
}

extension BodyFields {
    static var whenEmpty: Self? { nil }
}

/// Any name of a field.
struct AnyKey: CodingKey {
    let stringValue: String
    var intValue: Int? { nil }
    init(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }
}

struct Strict<T: BodyFields>: Decodable {
    let value: T

    init(from decoder: any Decoder) throws {
        let keys = try decoder.container(keyedBy: AnyKey.self).allKeys.map(\.stringValue)
        if let unknown = keys.filter({ !T.fields.contains($0) }).min() {
            throw DecodingError.dataCorrupted(
                .init(
                    codingPath: decoder.codingPath + [AnyKey(stringValue: unknown)],
                    debugDescription: "is not a field; there are: \(T.fields.joined(separator: ", "))"))
        }
        value = try T(from: decoder)
    }
}

extension Problem {
    init(_ error: DecodingError) {
        func place(_ path: [any CodingKey]) -> String {
            path.reduce(into: "") { text, key in
                if let index = key.intValue {
                    text += "[\(index)]"
                } else {
                    text += (text.isEmpty ? "" : ".") + key.stringValue
                }
            }
        }
        switch error {
        case .keyNotFound(let key, let context):
            self.init(.unprocessableContent, "invalid_body", "\(place(context.codingPath + [key])) is required")
        case .typeMismatch(let type, let context), .valueNotFound(let type, let context):
            let name = place(context.codingPath)
            self.init(
                .unprocessableContent, "invalid_body",
                "\(name.isEmpty ? "the body" : name) must be \(Self.word(for: type))")
        case .dataCorrupted(let context) where context.codingPath.isEmpty:
            self.init(.badRequest, "invalid_json", "the body is not JSON")
        case .dataCorrupted(let context):
            self.init(
                .unprocessableContent, "invalid_body", "\(place(context.codingPath)) \(context.debugDescription)")
        @unknown default:
            self.init(.badRequest, "invalid_json", "the body cannot be read")
        }
    }

    private static func word(for type: any Any.Type) -> String {
        switch type {
        case is String.Type: "a string"
        case is Int64.Type, is Int.Type: "a whole number"
        case is Double.Type: "a number"
        case is [String].Type, is [Any].Type: "an array"
        default: "an object"
        }
    }
}

extension HTTPField.Name {
    static let xContentTypeOptions = HTTPField.Name("X-Content-Type-Options")!
}
