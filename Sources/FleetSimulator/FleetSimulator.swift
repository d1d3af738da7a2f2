// FleetSimulator: simulated devices over real MQTT at QoS 1: births and last wills, telemetry, shadows, answers to OTA
// commands, and the usual misbehaviour (duplicates, late and reordered messages, malformed ones, lost connections),
// at a set rate and reproducible by seed.
//
// Lifecycle: connect all → publish at the rate → wait for the acknowledgements → say farewell. `FleetGenerator` is the
// pure part and can be used without a broker; `FleetEngine` is the loop on a thread of its own.
//
// Invariants: a publish counts as acknowledged only after its PUBACK; what is unacknowledged when a connection breaks
// is sent again with DUP, so the broker may hold it twice and never not at all; a device's messages leave in their
// order; memory is bounded by the windows and 20,000 waiting messages, whatever the broker does.
import CMosquitto
import Glibc
import Synchronization
import Threading

public final class FleetSimulator: Sendable {
    public let settings: FleetSettings
    private let latest = Mutex(FleetStatistics())
    private let isStopping = Atomic<Bool>(false)

    /// Throws `FleetError.invalid` when the settings cannot be meant.
    public init(_ settings: FleetSettings) throws(FleetError) {
        try settings.validate()
        self.settings = settings
    }

    /// What has been done so far; at most 0.2 s old while `run` is under way.
    public var statistics: FleetStatistics { latest.withLock { $0 } }

    /// Ends `run` in order: nothing new is published, acknowledgements are waited for, devices leave.
    public func stop() { isStopping.store(true, ordering: .relaxed) }

    /// Runs the fleet to its end, or until `stop` or the task's cancellation; then the ledger is complete.
    /// Throws `FleetError.unreachable` when not a single connection could be made.
    /// SIGPIPE is ignored from here on: OpenSSL writes to sockets that may be closed.
    public func run() async throws -> FleetStatistics {
        try await withTaskCancellationHandler {
            try await onOwnThread("fleet") {
                signal(SIGPIPE, SIG_IGN)
                mosquitto_lib_init()
                return try FleetEngine(self.settings).run(
                    shouldStop: { self.isStopping.load(ordering: .relaxed) },
                    observe: { snapshot in self.latest.withLock { $0 = snapshot } })
            }
        } onCancel: {
            stop()
        }
    }
}
