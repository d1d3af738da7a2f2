/// Bugs that a test can plant, to prove that the simulation finds them. Each is one place in the code, named there.
///
/// Only a build with the condition `PLANTED_BUGS` can plant them: see Package.swift. In any other build `isPlanted` is
/// constant, so that the optimiser removes the bugs and this type. packaging/find-planted-bugs checks an executable.
enum CertificatesFault: String {
    /// An entry leaves with the first CRL after its certificate's expiry, not after one CRL listed it.
    case dropsEntriesAtExpiry
    /// A CRL's number is the time in seconds, also after the clock was set back.
    case numbersByClock
    /// A snapshot lacks one entry of each authority.
    case forgetsEntryInSnapshots
}

#if PLANTED_BUGS
extension CertificatesFault {
    @TaskLocal private static var planted: CertificatesFault?

    static func isPlanted(_ fault: CertificatesFault) -> Bool { planted == fault }

    fileprivate static func plant<R>(_ name: String, _ body: () throws -> R) rethrows -> R {
        guard let fault = CertificatesFault(rawValue: name) else {
            preconditionFailure("no planted bug is named \(name)")
        }
        return try $planted.withValue(fault, operation: body)
    }
}

/// Runs `body`, which must be synchronous, with the bug of that name (a case of `CertificatesFault`) in the registry.
package func withCertificatesFault<R>(_ name: String, _ body: () throws -> R) rethrows -> R {
    try CertificatesFault.plant(name, body)
}
#else
extension CertificatesFault {
    @inline(__always) static func isPlanted(_ fault: CertificatesFault) -> Bool { false }
}
#endif
