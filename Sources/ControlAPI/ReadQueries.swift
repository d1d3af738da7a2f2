import Decisions
import EventModel

// What the API reads from the tables. The executable implements it; tests give a stand-in.

/// One JSON object as text, in UTF-8, as the database made it: rows pass through undecoded.
public struct JSONRow: Sendable, Equatable {
    public let text: String
    public init(_ text: String) { self.text = text }
}

public struct KeyedPage<Key: Sendable & Equatable>: Sendable, Equatable {
    public var rows: [JSONRow]
    /// Where the next page begins (`after`); nil when this is the last.
    public var next: Key?

    public init(rows: [JSONRow], next: Key? = nil) {
        self.rows = rows
        self.next = next
    }
}

/// A page of rows in the order of an id or a position.
public typealias JSONPage = KeyedPage<Int64>
/// A page of rows in the order of a device id.
public typealias JSONTextPage = KeyedPage<String>

/// A page of rows in the order of their id or position: at most `limit` of those beyond `after`.
public struct PageRequest: Sendable, Equatable {
    public var limit: Int
    public var after: Int64?
    /// Backwards: `after` is then the one before which the page begins.
    public var newestFirst = false

    public static let limitDefault = 100
    public static let limitMax = 1_000
}

/// The same in the order of device ids.
public struct TextPageRequest: Sendable, Equatable {
    public var limit: Int
    public var after: String?
}

public struct DeadLetterFilter: Sendable, Equatable {
    public var tenantID: String?
    public var deviceID: String?
    public var reason: String?
}

/// What is given must hold; `search` is the beginning of a device id.
public struct DeviceFilter: Sendable, Equatable {
    /// ONLINE, STALE, OFFLINE.
    public var status: String?
    public var siteID: String?
    public var firmwareVersion: String?
    public var search: String?
}

/// What is given must hold; `search` is the beginning of a device id.
public struct CampaignDeviceFilter: Sendable, Equatable {
    /// An `OTADeviceStatus`.
    public var status: String?
    /// An `OTAFailureKind`.
    public var failureKind: String?
    public var search: String?
}

/// Rows of the tables. Objects have the tables' column names; times are RFC 3339; a dead letter's payload is
/// `payload_base64`. Where a tenant is named, row-level security holds: rows of another are not there.
public protocol ReadQueries: Sendable {
    /// `{"tenant_id", "devices", "online", "stale", "offline"}`, by name; of one tenant, or of all.
    func tenants(only tenant: String?) async throws(QueryError) -> [JSONRow]
    func device(tenant: String, device: String) async throws(QueryError) -> JSONRow?
    func devices(tenant: String, filter: DeviceFilter, page: TextPageRequest) async throws(QueryError) -> JSONTextPage
    /// `{"online", "stale", "offline"}`: how many of the tenant's devices.
    func fleet(tenant: String) async throws(QueryError) -> JSONRow
    /// The decisions about a certificate, and what came of them at brokers, in the order of positions.
    func certificateEvents(
        tenant: String, authority: String, serial: String, page: PageRequest
    ) async throws(QueryError) -> JSONPage
    /// What happened to a device: connection reports (`kind` connection) and its parts in campaigns (`kind` campaign),
    /// each with `position`, `at` and `details`, in the order of positions.
    func deviceHistory(tenant: String, device: String, page: PageRequest) async throws(QueryError) -> JSONPage
    /// The tenant's devices that a group's query finds now, in the order of their ids.
    func resolve(tenant: String, query: GroupQuery) async throws(QueryError) -> [String]

    func firmware(tenant: String, page: PageRequest) async throws(QueryError) -> JSONPage
    func firmware(tenant: String, id: Int64) async throws(QueryError) -> JSONRow?

    func groups(tenant: String, page: PageRequest) async throws(QueryError) -> JSONPage
    func group(tenant: String, id: Int64) async throws(QueryError) -> JSONRow?
    /// Of a list; none for a group that is a query.
    func groupMembers(tenant: String, id: Int64, page: TextPageRequest) async throws(QueryError) -> JSONTextPage
    /// `{"tenant_id", "time_zone", …}`; nil: the defaults hold.
    func tenantSettings(tenant: String) async throws(QueryError) -> JSONRow?

    /// With the `firmware_version` that it installs.
    func campaigns(tenant: String, status: String?, page: PageRequest) async throws(QueryError) -> JSONPage
    func campaign(tenant: String, id: Int64) async throws(QueryError) -> JSONRow?
    func campaignDevices(
        tenant: String, id: Int64, filter: CampaignDeviceFilter, page: TextPageRequest
    ) async throws(QueryError) -> JSONTextPage
    /// The timeline: one object a decision, by position.
    func campaignEvents(tenant: String, id: Int64, page: PageRequest) async throws(QueryError) -> JSONPage
    /// `{"at", "dispatched", "succeeded", "failed", "skipped"}`: the counts as they stood at `at`, the end of a minute
    /// or of several; at most 500 objects, oldest first.
    func campaignProgress(tenant: String, id: Int64) async throws(QueryError) -> [JSONRow]
    /// `{"status", "failure_kind", "error", "devices", "examples": [device id]}`, most devices first; at most 50.
    func campaignFailures(tenant: String, id: Int64) async throws(QueryError) -> [JSONRow]

    /// `subject`: `campaign:7`, `firmware:3`, `group:2`, `tenant:…`; nil: all of the tenant's.
    func auditLogs(tenant: String, subject: String?, page: PageRequest) async throws(QueryError) -> JSONPage

    func deadLetters(_ filter: DeadLetterFilter, page: PageRequest) async throws(QueryError) -> JSONPage
    /// All that was found wrong with the event at `position`.
    func deadLetters(at position: UInt64) async throws(QueryError) -> [JSONRow]
}

public enum QueryError: Error, Sendable {
    /// The database cannot be reached at the moment.
    case unavailable(String)
    /// The database answers, and not in time: tables are locked, or too many reads wait.
    case busy(String)
    /// The client has gone; nobody reads the answer.
    case cancelled
    /// The query failed; the text is for the daemon's log, not for the caller.
    case failed(String)
}
