import ArgumentParser
import Decisions
import Enforcement
import EventLog
import EventModel
import Foundation
import History
import Snapshots

extension CertificateCommand {
    struct AccessRules: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "acl", abstract: "Print a broker's access rules for devices with a live certificate.",
            discussion: """
                Each device may publish and subscribe to its own topics only. The username is the common name of its \
                certificate: set use_identity_as_username in Mosquitto, peer_cert_as_username = cn in EMQX. Reads the \
                log in --data; the daemon may be up or down. Run it again after devices were added, and let the \
                broker reload.

                Example: refold cert acl --broker-type mosquitto --refold-user refold --out /etc/mosquitto/devices.acl
                """)

        enum BrokerType: String, ExpressibleByArgument, CaseIterable {
            case mosquitto, emqx
        }

        @Option(name: .customLong("broker-type"), help: "mosquitto (acl_file) or emqx (acl.conf).")
        var brokerType: BrokerType
        @Option(help: "Only this tenant's devices. Default: all tenants'.") var tenant: String?
        @Option(
            name: .customLong("refold-user"), help: "Username of Refold at the broker: adds the rules that it needs.")
        var refoldUser: String?
        @Option(help: "Replace this file as a whole. Owner and mode stay. Default: standard output.") var out: String?
        @OptionGroup var data: DataOption

        func run() throws {
            let asOf = AsOf.offline(try data.openLog(), data.folder), now = wallClock()
            let devices = try reporting {
                let moment = Moment(end: Position(asOf.log.durableCount), time: now)
                return try asOf.certificates(at: moment) { row in access(row, now) }
            }
            let text: String
            do {
                text =
                    switch brokerType {
                    case .mosquitto: try AccessList.mosquitto(devices, refoldUser: refoldUser)
                    case .emqx: try AccessList.emqx(devices, refoldUser: refoldUser)
                    }
            } catch {
                throw ExitCode(1, printing: "\(error)")
            }
            guard let out else { return print(text, terminator: "") }
            do {
                try CRLFile.replace(out, with: Array(text.utf8))
            } catch {
                throw ExitCode(1, printing: "cannot replace \(out): \(error)")
            }
            printError("\(out): rules for " + counted(Set(devices).count, "device"))
        }

        /// Nil: not live, or another tenant's.
        private func access(_ row: NamedRow, _ now: Timestamp) -> DeviceAccess? {
            guard let status = row.text("status"), ["ACTIVE", "SUPERSEDED"].contains(status),
                let notAfter = row.text("not_after").flatMap({ Timestamp(rfc3339: $0) }),
                // RFC 5280, 4.1.2.5: the second of notAfter belongs to the validity.
                now.wholeSeconds <= notAfter.wholeSeconds, let tenantID = row.text("tenant_id"),
                tenant == nil || tenant == tenantID, let device = row.text("device_id"),
                let name = row.text("common_name")
            else { return nil }
            return DeviceAccess(username: name, tenant: tenantID, device: device)
        }
    }
}
