import Enforcement
import Issuing
import MQTT
import Settings

extension EnforcedBroker {
    /// Nil: nothing is enforced at the broker.
    /// - Parameter commonName: `certificates.common_name`.
    init?(_ broker: Settings.Broker, timeoutSeconds: Int, commonName: String, _ service: CertificateService) {
        guard let crl = broker.crl else { return nil }
        self.init(
            name: broker.name, file: crl.file.map { CRLFile($0) },
            reload: crl.reloadCommand.map { ReloadCommand($0, timeoutSeconds: timeoutSeconds) },
            probe: crl.probe.map { address in
                var settings = BrokerSettings(
                    name: broker.name, host: address.host, port: address.port, clientID: "refold-canary")
                settings.tls = BrokerSettings.TLS(caFile: crl.probeCAFile, verify: broker.verify)
                return CanaryProbe(settings)
            },
            cutting: crl.cut.map { cut in
                ClientCutting(
                    cut.method(broker),
                    names: ClientNames(
                        clientID: cut.clientID, username: cut.username, commonName: commonName),
                    commonNames: service.commonNames)
            })
    }
}

extension Settings.Broker {
    var bansClients: Bool { if case .emqx = crl?.cut?.method { true } else { false } }
}

extension Settings.Broker.Cut {
    fileprivate func method(_ broker: Settings.Broker) -> ClientCutting.Method {
        switch method {
        case .dynsec(let address): .afterProof(DynsecCutter(broker.settings(at: address)))
        case .takeover(let address): .afterProof(TakeoverCutter(broker.settings(at: address)))
        case .emqx(let emqx):
            .ban(
                EMQXCutter(EMQXAPI(emqx.url, .login(username: emqx.user, password: emqx.password))),
                refreshSeconds: emqx.refreshSeconds)
        }
    }
}

extension Settings.Broker {
    /// A listener of the broker, as our own client.
    fileprivate func settings(at address: BrokerAddress) -> BrokerSettings {
        var settings = BrokerSettings(
            name: name, host: address.host, port: address.port, clientID: "refold-cutter")
        (settings.username, settings.password) = (address.username, address.password)
        if address.tls {
            settings.tls = BrokerSettings.TLS(caFile: caFile, certFile: certFile, keyFile: keyFile, verify: verify)
        }
        return settings
    }
}
