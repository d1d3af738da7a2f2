/// Bugs that a test can plant, to prove that the simulation finds them. Each is one place in the code, named there.
///
/// Only a build with the condition `PLANTED_BUGS` can plant them: see Package.swift. In any other build `isPlanted` is
/// constant, so that the optimiser removes the bugs and this type. packaging/find-planted-bugs checks an executable.
enum IngestFault: String {
    /// A redelivery matches any earlier delivery of its session, however old, whenever it comes.
    case matchesForEver
    /// A connection that was never answered is taken for one that delivered nothing.
    case ignoresUnansweredAttempts
    /// Packet ids of a broker that counts them anew in each connection are believed.
    case trustsAnyPacketID
    /// A session that the log did not create is read and acknowledged.
    case takesUnknownSessions
    /// A backlog is charged to the devices' rate limits as if it had been sent at once.
    case chargesBacklogs
    /// A redelivery whose packet id was acknowledged already is acknowledged too.
    case acknowledgesLateCopies
    /// The gate learns of a revocation when it is durable, not when it gets its place in the log.
    case marksAfterAppend
    /// A revocation does not wait for batches that are judged and have no place in the log yet.
    case judgesOutOfOrder
}

#if PLANTED_BUGS
extension IngestFault {
    @TaskLocal private static var planted: IngestFault?

    static func isPlanted(_ fault: IngestFault) -> Bool { planted == fault }

    fileprivate static func plant<R>(_ name: String, _ body: () throws -> R) rethrows -> R {
        guard let fault = IngestFault(rawValue: name) else { preconditionFailure("no planted bug is named \(name)") }
        return try $planted.withValue(fault, operation: body)
    }
}

/// Runs `body`, which must be synchronous, with the bug of that name (a case of `IngestFault`) in ingest.
package func withIngestFault<R>(_ name: String, _ body: () throws -> R) rethrows -> R {
    try IngestFault.plant(name, body)
}
#else
extension IngestFault {
    @inline(__always) static func isPlanted(_ fault: IngestFault) -> Bool { false }
}
#endif
