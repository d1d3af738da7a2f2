// MQTT: a client of a broker, over libmosquitto, for whoever connects to one.
//
//     BrokerSettings      where a broker is, and how to connect: TLS, session, limits
//     ReconnectBackoff    how long to wait before the next attempt
//     PublishLink         one connection that publishes at QoS 1 and collects acknowledgements; belongs to one thread
//     RetainedPublisher   keeps one retained message current, on a thread of its own
//
// Receiving is `Ingest`, whose session acknowledges only what is durable.
//
// Invariants. Nothing is kept from one connection to the next: a renewed certificate is read again. A message counts as
// sent when the broker has acknowledged it; its owner publishes it again on the next connection otherwise.
import CMosquitto
import COpenSSL

package enum MQTTLibrary {
    private static let loaded: Void = { _ = mosquitto_lib_init() }()
    /// Before the first client; any number of times.
    package static func load() { loaded }
}

/// Sets a client up for TLS; returns what is wrong with the files.
package func setMosquittoTLS(_ client: OpaquePointer, _ tls: BrokerSettings.TLS) -> String? {
    let folder = tls.caFile == nil ? String(cString: X509_get_default_cert_dir()) : nil
    // Without a callback OpenSSL would ask the terminal for the passphrase of a key.
    let result = mosquitto_tls_set(client, tls.caFile, folder, tls.certFile, tls.keyFile) { _, _, _, _ in 0 }
    guard result == MOSQ_ERR_SUCCESS.rawValue else {
        return "TLS: cannot read the certificate files (\(String(cString: mosquitto_strerror(result))))"
    }
    if !tls.verify {
        mosquitto_tls_opts_set(client, SSL_VERIFY_NONE, nil, nil)
        mosquitto_tls_insecure_set(client, true)
    }
    return nil
}
