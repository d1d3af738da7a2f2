import Certificates
import Deciding
import Ingest

/// Keeps the gate's check exact: revocations and holds enter it at their place in the log, everything else once it is
/// durable and folded. Where the append of a revocation fails (disk full), messages that are judged before that is
/// known are refused for it.
public struct GateFeed: DecisionFollower {
    private let check: CertificateCheck

    public init(_ check: CertificateCheck) { self.check = check }

    public func recovered(_ state: CertificateRegistry) {
        var loaded = LiveCertificates()
        state.forEachValidity { loaded.set(tenantID: $0, deviceID: $1, $2) }
        check.load(loaded)
    }

    public func willAppend(_ events: [RegistryEvent], to state: CertificateRegistry) {
        var ended: [Device: Set<CertificateReference>] = [:]
        for case .changed(let event) in events where event.change == .revoked || event.change == .held {
            guard let reference = CertificateReference("\(event.authority)/\(event.serial)") else { continue }
            ended[Device(tenantID: event.tenantID, deviceID: event.deviceID), default: []].insert(reference)
        }
        let changes = ended.map { device, references in
            let (tenant, name) = (device.tenantID, device.deviceID)
            return (device, state.validity(tenantID: tenant, deviceID: name, without: references))
        }
        check.beginQueueing { live in
            for (device, validity) in changes {
                live.set(tenantID: device.tenantID, deviceID: device.deviceID, validity)
            }
        }
    }

    public func queued() { check.endQueueing() }

    public func settle(_ events: [RegistryEvent], in state: CertificateRegistry) {
        var devices: Set<Device> = []
        for event in events {
            switch event {
            case .added(let event): devices.insert(Device(tenantID: event.tenantID, deviceID: event.deviceID))
            case .changed(let event): devices.insert(Device(tenantID: event.tenantID, deviceID: event.deviceID))
            // Nothing else changes whether a device may send.
            default: break
            }
        }
        guard !devices.isEmpty else { return }
        check.update { live in
            for device in devices {
                let (tenant, name) = (device.tenantID, device.deviceID)
                live.set(tenantID: tenant, deviceID: name, state.validity(tenantID: tenant, deviceID: name))
            }
        }
    }

    private struct Device: Hashable {
        let tenantID: String
        let deviceID: String
    }
}
