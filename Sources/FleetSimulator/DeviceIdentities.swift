import EventModel
import Foundation
import PKI

/// The devices' certificates and keys, one folder for all: `DEVICE.pem` and `DEVICE.key`. Answers the commands on
/// `…/certificate` as firmware does (docs/certificates.md): with a certificate request for a new key, then with a
/// connection that uses the new certificate, and a report. Belongs to the engine's thread.
final class DeviceIdentities {
    enum Step {
        case publish(FleetMessage)
        /// Connect again, with the new certificate.
        case reconnect(device: Int)
    }

    private struct Command: Decodable {
        var action: String
        var renewal_id: UInt64
        var serial: String
        var certificate: String?
        var chain: String?
    }

    private let folder: String
    private let shape: FleetShape
    /// The request of each device, to repeat it.
    private var requests: [Int: (renewal: UInt64, csr: String)] = [:]
    /// What each device reports once it is connected with its new certificate.
    private var reports: [Int: (renewal: UInt64, serial: String)] = [:]
    private(set) var installedCount = 0

    init(folder: String, shape: FleetShape) throws(FleetError) {
        (self.folder, self.shape) = (folder, shape)
        for device in 0..<shape.devices {
            try finishInstall(device)
            for path in [certificate(device), key(device)] where !FileManager.default.isReadableFile(atPath: path) {
                throw .invalid(
                    "--identities: cannot read \(path); issue it with `refold cert issue --tenant "
                        + "\(shape.tenant(ofDevice: device)) --device \(shape.device(device)) --generate-key P-256 "
                        + "--out \(folder)`")
            }
        }
    }

    func certificate(_ device: Int) -> String { "\(folder)/\(shape.device(device)).pem" }
    func key(_ device: Int) -> String { "\(folder)/\(shape.device(device)).key" }
    /// Of the request that is under way; it outlives the process.
    private func nextKey(_ device: Int) -> String { "\(folder)/\(shape.device(device)).next.key" }
    private func nextCertificate(_ device: Int) -> String { certificate(device) + ".next" }

    /// The process may have stopped when it had installed the new key and not yet its certificate.
    private func finishInstall(_ device: Int) throws(FleetError) {
        let path = nextCertificate(device)
        guard FileManager.default.fileExists(atPath: path), let pem = FileManager.default.contents(atPath: path),
            let certificate = try? Certificate.chain(pem: Array(pem)).first,
            let key = try? PrivateKey.load(key(device)), key.publicKey == certificate.publicKey
        else { return }
        try rename(path, self.certificate(device))
    }

    /// - Throws: `FleetError` when a file cannot be written.
    func received(_ payload: UnsafeRawBufferPointer, device: Int) throws(FleetError) -> [Step] {
        guard let command = try? JSONDecoder().decode(Command.self, from: Data(payload)) else { return [] }
        do {
            switch command.action {
            case "certificate_renew": return [try request(command, device)]
            case "certificate_install": return try install(command, device)
            default: return []
            }
        } catch {
            throw .ledger("cannot renew the certificate of \(shape.device(device)): \(error)")
        }
    }

    private func request(_ command: Command, _ device: Int) throws -> Step {
        if let known = requests[device], known.renewal == command.renewal_id {
            return message(device, "request", ["csr": known.csr], known.renewal)
        }
        let path = nextKey(device), key: PrivateKey
        if requests[device] == nil, FileManager.default.fileExists(atPath: path) {
            key = try PrivateKey.load(path)
        } else {
            try? FileManager.default.removeItem(atPath: path)
            key = try PrivateKey.generate()
            try key.create(path)
        }
        let request = try CertificateRequest.create(key: key, commonName: shape.device(device))
        let csr = String(decoding: try request.pem(), as: UTF8.self)
        requests[device] = (command.renewal_id, csr)
        return message(device, "request", ["csr": csr], command.renewal_id)
    }

    private func install(_ command: Command, _ device: Int) throws -> [Step] {
        let path = nextKey(device)
        guard let pem = command.certificate, FileManager.default.fileExists(atPath: path) else {
            // Installed already: the report was lost.
            guard reports[device] == nil, try serial(device) == SerialNumber(command.serial) else { return [] }
            return [report(device, command.renewal_id, command.serial)]
        }
        let chain = pem + (command.chain ?? "")
        guard let certificate = try? Certificate.chain(pem: Array(chain.utf8)).first,
            try PrivateKey.load(path).publicKey == certificate.publicKey
        else { return [] }
        // `finishInstall` goes on from each of these steps.
        try Data(chain.utf8).write(to: URL(fileURLWithPath: nextCertificate(device)))
        try rename(path, key(device))
        try rename(nextCertificate(device), self.certificate(device))
        requests[device] = nil
        reports[device] = (command.renewal_id, command.serial)
        installedCount += 1
        return [.reconnect(device: device)]
    }

    private func serial(_ device: Int) throws -> SerialNumber? {
        try Certificate.chain(pem: Array(Data(contentsOf: URL(fileURLWithPath: certificate(device))))).first?.serial
    }

    private func rename(_ path: String, _ target: String) throws(FleetError) {
        guard Foundation.rename(path, target) == 0 else {
            throw FleetError.ledger("cannot rename \(path): \(String(cString: strerror(errno)))")
        }
    }

    /// The device has a connection again.
    func connected(device: Int) -> [Step] {
        guard let (renewal, serial) = reports.removeValue(forKey: device) else { return [] }
        return [report(device, renewal, serial)]
    }

    private func report(_ device: Int, _ renewal: UInt64, _ serial: String) -> Step {
        message(device, "installed", ["serial": serial], renewal)
    }

    private func message(_ device: Int, _ topic: String, _ fields: [String: String], _ renewal: UInt64) -> Step {
        var json = JSONText()
        json.raw("{\"renewal_id\":\(renewal)")
        for (name, value) in fields {
            json.raw(",\"\(name)\":")
            json.string(value)
        }
        json.raw("}")
        return .publish(
            FleetMessage(
                device: device, kind: .other, topic: "\(shape.address(ofDevice: device))/certificate/\(topic)",
                payload: json.bytes))
    }
}
