import Foundation
import Ingest
import MQTT
import TestSupport
import Testing

struct RetainedPublisherTests {
    private func publisher(_ server: MosquittoServer) -> RetainedPublisher {
        let publisher = RetainedPublisher(
            BrokerSettings(name: "b1", host: "127.0.0.1", port: server.port, clientID: "refold-test-checkpoint"),
            topic: "refold/00/checkpoint")
        publisher.start()
        return publisher
    }

    @Test func whoeverComesLaterFindsTheNewestValue() async throws {
        let server = try MosquittoServer()
        let publisher = publisher(server)
        for index in 0..<50 { publisher.publish(Array("value \(index)".utf8)) }
        #expect(await eventually { publisher.status.published > 0 })
        publisher.publish(Array("the last".utf8))
        #expect(await eventually { publisher.status.lastError == nil && publisher.status.published > 1 })
        let witness = try await MosquittoWitness(server, topic: "refold/+/checkpoint")
        #expect(await eventually { witness.arrivals.last?.payload == Array("the last".utf8) }, "\(witness.arrivals)")
        #expect(publisher.status.failures == 0)
        publisher.stop()
    }

    @Test func aBrokerThatIsAwayIsCountedAndTriedAgain() async throws {
        let server = try MosquittoServer(persistent: true)
        let publisher = publisher(server)
        publisher.publish(Array("one".utf8))
        #expect(await eventually { publisher.status.published == 1 })
        server.stop()
        publisher.publish(Array("two".utf8))
        #expect(await eventually { publisher.status.failures > 0 && publisher.status.lastError != nil })
        try server.start()
        #expect(await eventually { publisher.status.published == 2 && publisher.status.lastError == nil })
        publisher.stop()
    }
}
