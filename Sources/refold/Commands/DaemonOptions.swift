import ArgumentParser
import ControlAPI
import Foundation

/// The flags of every verb that asks the daemon.
struct DaemonOptions: ParsableArguments {
    @Option(help: "The daemon's address: HOST:PORT. Default: REFOLD_HTTP, else 127.0.0.1:7480.") var http: String?
    @Option(help: "The daemon's data folder, for its token. Default: REFOLD_DATA, else ./data.") var data: String?
    @Flag(help: "Print JSON, one object a line.") var json = false

    static let addressDefault = "127.0.0.1:7480"

    var dataFolder: String { data ?? Self.environment("REFOLD_DATA") ?? "data" }

    /// Where the daemon listens; an address that means every interface is reached over loopback.
    var address: String {
        let address = http ?? Self.environment("REFOLD_HTTP") ?? Self.addressDefault
        guard let colon = address.lastIndex(of: ":"), !address.hasSuffix("]") else { return "\(address):7480" }
        let host = address[..<colon], port = address[address.index(after: colon)...]
        return switch host {
        case "", "0.0.0.0", "*": "127.0.0.1:\(port)"
        case "[::]", "::": "[::1]:\(port)"
        default: address
        }
    }

    /// REFOLD_TOKEN, else the file in the data folder; nil, with the reason, when there is neither.
    func token() -> Result<String, TokenFileError> {
        if let token = Self.environment("REFOLD_TOKEN") { return .success(token) }
        do {
            return .success(try TokenFile.load(inFolder: dataFolder))
        } catch {
            return .failure(error)
        }
    }

    var client: DaemonClient { DaemonClient(address: address, token: token()) }

    static func environment(_ name: String) -> String? {
        ProcessInfo.processInfo.environment[name].flatMap { $0.isEmpty ? nil : $0 }
    }
}

/// The flags of verbs that change something.
struct WriteOptions: ParsableArguments {
    @Option(help: "The tenant.") var tenant: String
    @Option(
        name: .customLong("idempotency-key"),
        help: "The same key gets the same answer for 24 hours: makes a repeated call safe.")
    var idempotencyKey: String?
}
