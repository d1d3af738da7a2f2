import Certificates
import Deciding
import EventLog
import EventModel
import Foundation
import HTTPTypes
import Hummingbird
import NIOCore
import PKI
import Threading
@testable import ControlAPI
@testable import Issuing

/// The routes in front of the real registry and its services, on a real log.
struct CertificateSite: Sendable {
    let system = StandIn()
    let crls: CRLService
    private let client: RouterClient
    static let now = Timestamp(rfc3339: "2026-06-01T12:00:00Z")!

    struct Answer: Sendable {
        let status: Int
        let headers: HTTPFields
        let body: ByteBuffer
        var text: String { String(buffer: body) }
        var json: JSONObject { JSONObject((try? JSONSerialization.jsonObject(with: Data(buffer: body))) ?? [:]) }
        var code: String? { json["code"].string }
    }

    /// A JSON value of an answer.
    struct JSONObject {
        let value: Any?
        init(_ value: Any?) { self.value = value }
        subscript(_ key: String) -> JSONObject { JSONObject((value as? [String: Any])?[key]) }
        var string: String? { value as? String }
        var integer: Int? { value as? Int }
        var items: [JSONObject] { (value as? [Any] ?? []).map { JSONObject($0) } }
        var isNull: Bool { value is NSNull }
        var keys: Set<String> { Set((value as? [String: Any] ?? [:]).keys) }
    }

    private init(folder: String, log: FileLog) {
        let clock: @Sendable () -> Timestamp = { Self.now }
        let registry = DeciderService<CertificateRegistry>(writer: DecisionWriter(log), source: log, clock: clock)
        let keys = AuthorityKeys(
            folder: folder + "/authorities", passphrase: nil, signCommand: nil, commandTimeoutSeconds: 10)
        let options = IssuingOptions()
        crls = CRLService(
            registry: registry, keys: keys, policy: options.crl, executor: ThreadExecutor(name: "crl"), clock: clock)
        var access = system.api().system
        access.certificates = CertificateService(
            registry: registry, source: log, keys: keys, options: options, clock: clock)
        access.crls = crls
        access.certificateAudit = CertificateAudit(registry: registry, keys: keys, clock: clock) { _, _, _, _ in
            throw QueryError.unavailable("no database in this test")
        }
        client = RouterClient(ControlAPI(system: access, policy: system.api().policy).router())
    }

    static func with(_ body: (CertificateSite) async throws -> Void) async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("refold-api-\(UUID().uuidString)")
        let log = try FileLog.open(directory: folder.path + "/log")
        defer {
            log.close()
            try? FileManager.default.removeItem(at: folder)
        }
        try await body(CertificateSite(folder: folder.path, log: log))
    }

    /// - Parameters:
    ///   - path: behind `/api/v1/`.
    ///   - token: nil: the data folder's.
    func send(
        _ method: HTTPRequest.Method, _ path: String, _ body: String? = nil, token: String? = nil, key: String? = nil
    ) async throws -> Answer {
        var headers: HTTPFields = [.authorization: "Bearer \(token ?? StandIn.token)"]
        if body != nil { headers[.contentType] = "application/json" }
        headers[.idempotencyKey] = key
        return try await open(method, "/api/v1/\(path)", headers, body)
    }

    func open(
        _ method: HTTPRequest.Method, _ uri: String, _ headers: HTTPFields = [:], _ body: String? = nil
    ) async throws -> Answer {
        let response = try await client.execute(
            uri: uri, method: method, headers: headers, body: body.map { ByteBuffer(string: $0) })
        return Answer(status: response.status.code, headers: response.headers, body: response.body)
    }

    /// Creates an authority of the tenant acme, or of all tenants.
    func authority(_ id: String, tenant: String? = "acme", _ fields: String = "") async throws -> Answer {
        let path = tenant.map { "tenants/\($0)/authorities" } ?? "authorities"
        return try await send(.post, path, #"{"id":"\#(id)"\#(fields)}"#)
    }

    /// Issues a certificate with a generated key to a device of acme.
    func issue(_ device: String, _ fields: String = "", tenant: String = "acme") async throws -> Answer {
        try await send(
            .post, "tenants/\(tenant)/certificates", #"{"device":"\#(device)","generate_key":"P-256"\#(fields)}"#)
    }

    static func request(_ name: String = "any") throws -> String {
        let key = try PrivateKey.generate()
        return String(decoding: try CertificateRequest.create(key: key, commonName: name).pem(), as: UTF8.self)
            .replacing("\n", with: "\\n")
    }
}
