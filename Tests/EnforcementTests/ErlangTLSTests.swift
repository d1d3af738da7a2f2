import Foundation
import MQTT
import Synchronization
import TestSupport
import Testing
@testable import Enforcement

/// EMQX's TLS is Erlang's, which fetches the CRL from the distribution point of the client's certificate. Behind it
/// here is a listener that answers any CONNECT with success.
struct ErlangListener {
    let port = freeLoopbackPort()
    private let process: ChildProcess

    /// - Parameter folder: of `TestCertificates`.
    init(_ folder: String) throws {
        let script = """
            {ok, _} = application:ensure_all_started(ssl), ok = inets:start(),
            {ok, Listener} = ssl:listen(\(port), [{ip, {127, 0, 0, 1}}, {active, false}, {mode, binary},
                {certfile, "\(folder)/server.pem"}, {keyfile, "\(folder)/server.key"},
                {cacertfile, "\(folder)/ca.pem"}, {verify, verify_peer}, {fail_if_no_peer_cert, true},
                {crl_check, true}, {crl_cache, {ssl_crl_cache, {internal, [{http, 3000}]}}}]),
            Serve = fun Again() ->
                {ok, Accepted} = ssl:transport_accept(Listener),
                case ssl:handshake(Accepted, 5000) of
                    {ok, Socket} ->
                        case ssl:recv(Socket, 0, 5000) of
                            {ok, _} -> ssl:send(Socket, <<16#20, 2, 0, 0>>), ssl:recv(Socket, 0, 1000);
                            _ -> ok
                        end,
                        ssl:close(Socket);
                    _ -> ok
                end,
                Again()
            end, Serve().
            """
        process = try ChildProcess(["/usr/bin/erl", "-noshell", "-eval", script], log: folder + "/erlang.log")
    }

    /// Serves a CRL in PEM over HTTP, as long as it is not empty.
    static func crlServer(path: String, _ crl: @escaping @Sendable () -> [UInt8]) throws -> ScriptedBroker {
        try ScriptedBroker { connection in
            while let request = connection.receiveHTTP() {
                let body = request.hasPrefix("GET \(path) ") ? crl() : []
                let status = body.isEmpty ? "404 Not Found" : "200 OK"
                try connection.send(Array("HTTP/1.1 \(status)\r\nContent-Length: \(body.count)\r\n\r\n".utf8) + body)
            }
        }
    }
}

struct ErlangTLSTests {
    private let authority: TestAuthority
    private let certificates: TestCertificates
    private let broker: ErlangListener

    init() throws {
        let folder = try makeTemporaryFolder("erlang")
        certificates = try TestCertificates(folder: folder)
        authority = try TestAuthority("ca", in: folder)
        broker = try ErlangListener(folder)
    }

    private func probe(_ issued: TestAuthority.Issued) -> CanaryProbe.Outcome {
        let settings = BrokerSettings(
            name: "emqx", host: "127.0.0.1", port: broker.port, clientID: "unused",
            tls: BrokerSettings.TLS(caFile: certificates.ca))
        return CanaryProbe(settings).perform(issued.identity, clientID: "canary")
    }

    @Test func theCRLComesFromTheDistributionPoint() async throws {
        let crl = Mutex<[UInt8]>([])
        let server = try ErlangListener.crlServer(path: "/ca.crl") { crl.withLock { $0 } }
        let url = "http://127.0.0.1:\(server.port)"
        let live = try authority.issue("acme/live", serial: 1, crlURL: url + "/ca.crl")
        let revoked = try authority.issue("acme/revoked", serial: 2, crlURL: url + "/ca.crl")
        let unknown = try authority.issue("acme/unknown", serial: 3, crlURL: url + "/other.crl")
        let without = try authority.issue("acme/without", serial: 4)
        let pem = CRLFile.pem(try authority.crl([2]))
        crl.withLock { $0 = pem }
        #expect(await eventually { probe(live) == .accepted })
        #expect(probe(revoked) == .refused(.certificateRevoked))
        // No CRL to be had: refused, as after a minute at EMQX.
        for issued in [unknown, without] {
            guard case .refused(.tlsAlert) = probe(issued) else {
                Issue.record("\(probe(issued))")
                continue
            }
        }
        #expect(probe(live) == .accepted)
    }
}
