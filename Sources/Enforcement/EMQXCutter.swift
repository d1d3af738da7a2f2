import Glibc

/// Bans, then kicks, then queries until the client is gone. The ban keeps the client out until EMQX has fetched the CRL
/// (within 15 minutes by default) and no TLS session from before can be resumed; then call `lift`.
///
/// A username finds the client's connections only where EMQX takes it from the certificate
/// (`peer_cert_as_username = cn`).
public struct EMQXCutter: ClientCutter {
    private let api: EMQXAPI
    private let banSeconds: Int64
    private let confirmSeconds: Double

    /// - Parameters:
    ///   - banSeconds: how long a ban lasts that is never lifted.
    ///   - confirmSeconds: how long EMQX may take to close the connections.
    public init(_ api: EMQXAPI, banSeconds: Int64 = 30 * 86_400, confirmSeconds: Double = 3) {
        self.api = api
        self.banSeconds = banSeconds
        self.confirmSeconds = confirmSeconds
    }

    public func cut(_ clients: [ClientTarget]) -> [CutOutcome] {
        let connected = Self.each(clients) { client throws(EMQXError) in try banned(client) }
        let all = connected.reduce(into: Set<String>()) { if case .success(let ids) = $1 { $0.formUnion(ids) } }
        do throws(EMQXError) {
            if !all.isEmpty { try api.kickOut(all.sorted()) }
        } catch {
            return clients.map { _ in .failed(error: error.description) }
        }
        let deadline = Deadline(in: .seconds(confirmSeconds))
        let confirmed = Self.each(Array(zip(clients, connected))) { pair throws(EMQXError) in
            try confirm(pair.0, connected: pair.1, deadline)
        }
        return confirmed.map { result in
            switch result {
            case .success(let outcome): outcome
            case .failure(let error): .failed(error: error.description)
            }
        }
    }

    /// Results of `call` for each item. After three requests in a row without a response, the remaining items fail
    /// without a request.
    private static func each<Item, R>(
        _ items: [Item], _ call: (Item) throws(EMQXError) -> R
    ) -> [Result<R, EMQXError>] {
        var results: [Result<R, EMQXError>] = [], unreachable = 0
        for item in items {
            if unreachable == 3, let last = results.last {
                results.append(last)
                continue
            }
            let result = Result { () throws(EMQXError) in try call(item) }
            results.append(result)
            if case .failure(let error) = result, error.status == nil { unreachable += 1 } else { unreachable = 0 }
        }
        return results
    }

    /// Lifts the bans of `cut`.
    public func lift(_ client: ClientTarget) throws(EMQXError) {
        if let username = client.username { try api.unban(.username, username) }
        if let clientID = client.clientID { try api.unban(.clientID, clientID) }
    }

    /// Bans the client and returns the ids under which it is connected. The username first: its owner could connect
    /// under another client id.
    private func banned(_ client: ClientTarget) throws(EMQXError) -> Set<String> {
        guard client.username != nil || client.clientID != nil else {
            throw EMQXError(status: nil, description: "neither a username nor a client id is known")
        }
        let until = Int64(time(nil)) + banSeconds
        if let username = client.username {
            try api.ban(.username, username, reason: "certificate revoked", untilSeconds: until)
        }
        let ids = try connectedIDs(client)
        // Last, because this also disconnects.
        if let clientID = client.clientID {
            try api.ban(.clientID, clientID, reason: "certificate revoked", untilSeconds: until)
        }
        return ids
    }

    private func connectedIDs(_ client: ClientTarget) throws(EMQXError) -> Set<String> {
        var ids: Set<String> = []
        if let username = client.username {
            for found in try api.clients(username: username) where found.isConnected { ids.insert(found.clientID) }
        }
        if let clientID = client.clientID, try api.client(clientID)?.isConnected == true { ids.insert(clientID) }
        return ids
    }

    private func confirm(
        _ client: ClientTarget, connected: Result<Set<String>, EMQXError>, _ deadline: Deadline
    ) throws(EMQXError) -> CutOutcome {
        let before = try connected.get()
        var rest: Set<String>
        repeat {
            rest = try connectedIDs(client)
            // A client that was disconnected is listed for a moment.
            if !rest.isEmpty { usleep(50_000) }
        } while !rest.isEmpty && deadline.milliseconds > 0
        guard rest.isEmpty else {
            return .stillConnected(reason: "EMQX lists the client ids \(Self.list(rest))")
        }
        if before.isEmpty { return .wasNotConnected }
        return .cut(evidence: "banned and kicked; EMQX no longer lists the client ids \(Self.list(before))")
    }

    private static func list(_ ids: Set<String>) -> String {
        ids.sorted().map(\.debugDescription).joined(separator: ", ")
    }
}
