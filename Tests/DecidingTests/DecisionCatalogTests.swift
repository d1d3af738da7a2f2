import Decisions
import Testing

/// Every decision is known by its schema, and says what it is about.
struct DecisionCatalogTests {
    @Test func everySchemaHasAType() {
        let names =
            CampaignSchema.allCases.map(\.rawValue) + AccessSchema.allCases.map(\.rawValue)
            + CertificateSchema.allCases.map(\.rawValue) + JobSchema.allCases.map(\.rawValue) + [
                "campaign.dispatched/1"
            ]
        #expect(DecisionCatalog.all.schemas == names.sorted())
        for name in names {
            #expect(DecisionCatalog.all.type(of: name)?.schemas.contains(name) == true, "\(name)")
        }
        #expect(DecisionCatalog.all.type(of: "campaign.created/99") == nil)
    }

    @Test func subjectsAreWhatADecisionDependsOn() {
        var event = CampaignCreated(
            id: 7, tenantID: "t", name: "n", firmwareVersionID: 3, rolloutStrategy: "immediate", totalDevices: 1,
            actor: "ann")
        event.targetGroupID = 4
        event.idempotencyKey = "k"
        #expect(event.envelope.subjects == ["campaign:7", "firmware:3", "group:4", "key:t/k"])
        let refused = CommandRejected(
            command: "campaign.create", subject: "", tenantID: "t", actor: "ann", reason: "no such group")
        #expect(refused.envelope.subjects.isEmpty, "what was not created is no subject")
        #expect(refused.summary == "campaign.create was refused: no such group")
    }
}
