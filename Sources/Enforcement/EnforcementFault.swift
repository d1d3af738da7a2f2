/// Bugs that a test can plant, to prove that the simulation finds them. Each is one place in the code, named there.
///
/// Only a build with the condition `PLANTED_BUGS` can plant them: see Package.swift. In any other build `isPlanted` is
/// constant, so that the optimiser removes the bugs and this type. packaging/find-planted-bugs checks an executable.
enum EnforcementFault: String {
    /// The CRL file is renamed before its contents are on disk.
    case skipsFileSync
    /// The broker is told to reload before the file is replaced.
    case reloadsBeforeRename
    /// Clients are disconnected once the file is written.
    case cutsBeforeProof
    /// Bans are lifted once the broker could have fetched the CRL.
    case liftsBeforeProof
}

#if PLANTED_BUGS
extension EnforcementFault {
    @TaskLocal private static var planted: EnforcementFault?

    static func isPlanted(_ fault: EnforcementFault) -> Bool { planted == fault }

    fileprivate static func plant<R>(_ name: String, _ body: () throws -> R) rethrows -> R {
        guard let fault = EnforcementFault(rawValue: name) else {
            preconditionFailure("no planted bug is named \(name)")
        }
        return try $planted.withValue(fault, operation: body)
    }
}

/// Runs `body`, which must be synchronous, with the bug of that name (a case of `EnforcementFault`) in the enforcement.
package func withEnforcementFault<R>(_ name: String, _ body: () throws -> R) rethrows -> R {
    try EnforcementFault.plant(name, body)
}
#else
extension EnforcementFault {
    @inline(__always) static func isPlanted(_ fault: EnforcementFault) -> Bool { false }
}
#endif
