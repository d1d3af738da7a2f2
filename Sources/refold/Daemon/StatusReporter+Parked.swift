import ControlAPI
import Projecting
import Projections
import Synchronization

/// Parked keys, as the API shows them and takes them up.
extension StatusReporter {
    func parkedKeys() async -> [ParkedKeyRow] {
        projectors.flatMap { projector in projector.status.parked.map { Self.row($0, projector) } }
    }

    func retryParked(_ request: ParkedRetryRequest, timeout: Duration) async -> ParkedRetryAnswer? {
        let answer = Answer(), projectors = projectors
        Task {
            var all = ParkedRetryAnswer()
            for projector in projectors
            where request.projection.map({ $0 == projector.descriptor.name }) ?? true {
                let before = Dictionary(
                    projector.status.parked.map { ($0.key, $0) }, uniquingKeysWith: { first, _ in first })
                let result = await projector.retryParked(request.key.map { [FoldKey($0)] })
                guard let result else {
                    if !before.isEmpty { all.errors.append("\(projector.descriptor.name) does not run") }
                    continue
                }
                all.unparked += result.unparked.map { key in
                    Self.row(before[key] ?? ParkedKey(key: key, position: .init(0), reason: ""), projector)
                }
                all.parked += result.parked.map { Self.row($0, projector) }
                if let error = result.error { all.errors.append("\(projector.descriptor.name): \(error)") }
            }
            answer.value.withLock { $0 = all }
        }
        let deadline = ContinuousClock.now + timeout
        while ContinuousClock.now < deadline {
            if let done = answer.value.withLock({ $0 }) { return done }
            try? await Task.sleep(for: .milliseconds(10))
        }
        return nil
    }

    private final class Answer: Sendable { let value = Mutex<ParkedRetryAnswer?>(nil) }

    private static func row(_ parked: ParkedKey, _ projector: Projector) -> ParkedKeyRow {
        ParkedKeyRow(
            projection: projector.descriptor.name, partition: projector.partition, key: parked.key.description,
            position: parked.position.rawValue, reason: parked.reason)
    }
}
