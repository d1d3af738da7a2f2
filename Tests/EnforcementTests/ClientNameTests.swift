import Certificates
import Issuing
import TestSupport
import Testing
@testable import Enforcement

/// Which names are used to disconnect a device's client: never those that another tenant's device may have.
@Suite struct ClientNameTests {
    private struct Row: Sendable {
        var clientID = "{common_name}", commonName = "{tenant}/{device}", actual: String? = "acme/d1"
        /// Nil: the names are used.
        var problem: String?
        var isReadable = true

        var found: Result<String?, any Error> { isReadable ? .success(actual) : .failure(SystemError("EIO")) }
    }

    @Test func aNameThatMayBeAnotherTenantsIsNotUsed() async throws {
        let lab = try await EnforcerLab(), mine = try await lab.device("d1")
        let certificate = try #require(
            try await lab.certificates.certificate(mine.reference, tenantID: "acme"))
        let now = lab.log.now()
        func target(_ row: Row) async throws -> Result<ClientTarget, UnusableNames> {
            let names = ClientNames(clientID: row.clientID, username: "{common_name}", commonName: row.commonName)
            let cutting = ClientCutting(lab.takeover, names: names) { $0.map { _ in row.found } }
            return try await cutting.ownTargets([certificate], lab.registry, at: now)[0]
        }
        // One tenant alone: any name is its own.
        #expect(
            try await target(Row(clientID: "{device}")) == .success(ClientTarget(clientID: "d1")))
        #expect(try await target(Row(actual: "serial 17")).isUsed)

        let other = Operator(actor: "op", tenantID: "other")
        _ = try await lab.certificates.create(NewAuthority(id: "theirs", tenantID: "other"), by: other)
        let new = NewCertificate(tenantID: "other", deviceID: "d1", key: .generated(.p256))
        _ = try await lab.certificates.issue([new], by: other)
        let rows = [
            Row(clientID: "{device}", problem: "may have the same client id"),
            Row(clientID: "{tenant}-{device}", actual: nil), Row(),
            Row(commonName: "{device}", actual: "d1", problem: "may have the same client id"),
            Row(actual: "other/d1", problem: "may have the same client id"),
            Row(actual: "serial 17"),
            Row(clientID: "{tenant}:{common_name}", actual: "serial 17"),
            Row(actual: nil, problem: "not in the log any more"),
            Row(problem: "cannot be read: ", isReadable: false),
        ]
        for row in rows {
            switch try await target(row) {
            case .success: #expect(row.problem == nil, "\(row)")
            case .failure(let error): #expect(row.problem.map(error.description.contains) == true, "\(row): \(error)")
            }
        }
    }
}

extension Result where Failure == UnusableNames {
    fileprivate var isUsed: Bool { if case .success = self { true } else { false } }
}
