/// Bugs that a test can plant, to prove that the simulation would find them. Set around a piece of synchronous code by
/// `IngestFaults.$planted.withValue`; empty otherwise. Each is one place in the code, named there.
package struct IngestFaults: OptionSet, Sendable {
    package let rawValue: Int
    package init(rawValue: Int) { self.rawValue = rawValue }

    /// A redelivery matches any earlier delivery of its session, however old, whenever it comes.
    package static let matchesForEver = IngestFaults(rawValue: 1 << 0)
    /// A connection that was never answered is taken for one that delivered nothing.
    package static let ignoresUnansweredAttempts = IngestFaults(rawValue: 1 << 1)
    /// Packet ids of a broker that counts them anew in each connection are believed.
    package static let trustsAnyPacketID = IngestFaults(rawValue: 1 << 2)
    /// A session that the log did not create is read and acknowledged.
    package static let takesUnknownSessions = IngestFaults(rawValue: 1 << 3)
    /// A backlog is charged to the devices' rate limits as if it had been sent at once.
    package static let chargesBacklogs = IngestFaults(rawValue: 1 << 4)
    /// A redelivery whose packet id was acknowledged already is acknowledged too.
    package static let acknowledgesLateCopies = IngestFaults(rawValue: 1 << 5)

    @TaskLocal package static var planted: IngestFaults = []

    static func isPlanted(_ fault: IngestFaults) -> Bool { planted.contains(fault) }
}
