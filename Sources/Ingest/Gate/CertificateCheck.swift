import Threading

/// Lets the gates of all brokers see which devices have a live certificate, exact by log position.
///
/// A gate keeps the read lock from its first verdict until its batch has its place in the log (`LogWriter.append`,
/// `queued`). A revocation is entered under the write lock, which is kept until the revocation has its place. So a
/// batch is judged without the revocation if and only if it is before it in the log. No thread waits for a disk under
/// this lock: a gate that is held or disconnected, and a log that is full or dead, block neither side.
///
/// `@unchecked Sendable`: `devices` is read and changed under the lock only.
public final class CertificateCheck: @unchecked Sendable {
    /// Whether messages of devices without a live certificate are refused; false: they pass, and are counted.
    public let refuses: Bool
    private let lock = ReadWriteLock()
    /// Nil until the registry has been read from the log.
    private var devices: LiveCertificates?

    public init(refuses: Bool) { self.refuses = refuses }

    // MARK: For the gates

    /// Whether verdicts can be given: otherwise no message is received.
    public var isReady: Bool {
        lock.lockForReading()
        defer { lock.unlock() }
        return devices != nil || !refuses
    }

    /// Drop the value, and call `endJudging` on the same thread, once the batch has its place in the log.
    /// - Returns: nil before the certificates have been read: all messages pass then.
    /// - Precondition: `isReady`.
    func beginJudging() -> LiveCertificates? {
        lock.lockForReading()
        defer { if IngestFault.isPlanted(.judgesOutOfOrder) { lock.unlock() } }
        precondition(devices != nil || !refuses, "messages are judged before the certificates have been read")
        return devices
    }

    func endJudging() {
        guard !IngestFault.isPlanted(.judgesOutOfOrder) else { return }
        lock.unlock()
    }

    // MARK: For the registry

    package func load(_ loaded: LiveCertificates) {
        var loaded: LiveCertificates? = loaded
        lock.lockForWriting()
        if let devices { loaded!.version = devices.version + 1 }
        // The former value is freed outside of the lock.
        swap(&loaded, &devices)
        lock.unlock()
    }

    /// Applies decisions that are about to be enqueued, and keeps the write lock until `endQueueing` (same thread).
    package func beginQueueing(_ change: (inout LiveCertificates) -> Void) {
        guard !IngestFault.isPlanted(.marksAfterAppend) else { return }
        lock.lockForWriting()
        if devices != nil { change(&devices!) }
    }

    package func endQueueing() {
        guard !IngestFault.isPlanted(.marksAfterAppend) else { return }
        lock.unlock()
    }

    package func update(_ change: (inout LiveCertificates) -> Void) {
        lock.lockForWriting()
        defer { lock.unlock() }
        if devices != nil { change(&devices!) }
    }
}
