import Foundation
import Testing
import Yams
@testable import ControlAPI

/// `schemas/openapi.yaml` is true: the same paths and methods as the router, the same access, the same fields.
@Suite struct OpenAPITests {
    let document: [String: Any]
    let paths: [String: [String: Any]]

    init() throws {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let text = try String(contentsOf: root.appendingPathComponent("schemas/openapi.yaml"), encoding: .utf8)
        document = try #require(try Yams.load(yaml: text) as? [String: Any])
        paths = try #require(document["paths"] as? [String: [String: Any]])
    }

    static let methods = ["get", "post", "put", "patch", "delete"]

    @Test func routesAndPathsAreTheSame() {
        let described = Set(
            paths.flatMap { path, item in
                item.keys.filter(Self.methods.contains).map { "\($0.uppercased()) \(path)" }
            })
        let api = StandIn().api()
        // Pages are for people; their addresses and files are no interface.
        let pages = Set(api.pageRoutes.map { "\($0.method.rawValue) \($0.path)" })
        let routed = Set(api.router().routes.map { "\($0.method.rawValue) \($0.path)" }).subtracting(pages)
        #expect(described.subtracting(routed).sorted() == [], "described, and not there")
        #expect(routed.subtracting(described).sorted() == [], "there, and not described")
    }

    @Test func accessIsTheSame() throws {
        for route in StandIn().api().routes {
            let operation = try #require(paths[route.path]?[route.method.rawValue.lowercased()] as? [String: Any])
            let security = (operation["security"] ?? document["security"]) as? [[String: Any]] ?? []
            let named = security.map { $0.keys.sorted() }
            switch route.access {
            case .open: #expect(named == [[]], "\(route.path)")
            case .read(.viewer): #expect(named == [[], ["token"], ["csrf", "session"]], "\(route.path)")
            case .read: #expect(named == [["token"], ["csrf", "session"]], "\(route.path)")
            case .write: #expect(named == [["token"], ["csrf", "session"]], "\(route.path)")
            }
        }
    }

    @Test func everyOperationHasAnIDAndProblems() {
        var ids: [String] = []
        for (path, item) in paths {
            for case let (method, operation as [String: Any]) in item where Self.methods.contains(method) {
                ids.append(operation["operationId"] as? String ?? "")
                let responses = operation["responses"] as? [String: Any]
                #expect(responses?["default"] != nil, "\(method) \(path) says nothing of problems")
            }
        }
        #expect(Set(ids).count == ids.count && !ids.contains(""))
    }

    @Test func requestFieldsAreTheSame() throws {
        let schemas = try #require((document["components"] as? [String: Any])?["schemas"] as? [String: [String: Any]])
        func fields(_ name: String) -> Set<String> { Set((schemas[name]?["properties"] as? [String: Any] ?? [:]).keys) }
        #expect(fields("FirmwareRequest") == Set(FirmwareBody.fields))
        #expect(fields("LossRequest") == Set(LossBody.fields))
        #expect(fields("AcknowledgeRequest") == Set(AcknowledgeBody.fields))
        #expect(fields("ParkedRetryRequest") == Set(ParkedRetryBody.fields))
        #expect(fields("LoginRequest") == Set(LoginBody.fields))
        #expect(fields("TokenRequest") == Set(TokenBody.fields))
        #expect(fields("CampaignRequest") == Set(CampaignBody.fields))
        #expect(fields("AuthorityRequest") == Set(AuthorityBody.fields))
        #expect(fields("ForeignAuthorityRequest") == Set(ForeignAuthorityBody.fields))
        #expect(fields("CertificateRequest") == Set(CertificatesBody.Item.fields))
        #expect(fields("CertificateImport") == Set(CertificateImportBody.Item.fields))
        #expect(fields("RevocationRequest") == Set(CertificateChangeBody.fields))
        #expect(fields("JobRequest") == Set(JobsBody.Item.fields))
        #expect(fields("JobCancelRequest") == Set(JobCancelBody.fields))
        #expect(fields("JobMoveRequest") == Set(JobMoveBody.fields))
        #expect(fields("LeaseRequest") == Set(LeaseBody.fields))
        #expect(fields("HeartbeatRequest") == Set(HeartbeatBody.fields))
        #expect(fields("ResultRequest") == Set(ResultBody.fields))
        #expect(fields("ResultsRequest") == Set(ResultsBody.fields))
        #expect(fields("QueuePauseRequest") == Set(QueuePauseBody.fields))
        #expect(fields("RateRequest") == Set(RateBody.fields))
    }

    @Test func referencesResolve() {
        func check(_ value: Any) {
            if let object = value as? [String: Any] {
                if let reference = object["$ref"] as? String {
                    let target = reference.split(separator: "/").dropFirst().reduce(document as Any?) { node, key in
                        (node as? [String: Any])?[String(key)]
                    }
                    #expect(target != nil, "\(reference)")
                }
                object.values.forEach(check)
            } else if let array = value as? [Any] {
                array.forEach(check)
            }
        }
        check(document)
    }
}
