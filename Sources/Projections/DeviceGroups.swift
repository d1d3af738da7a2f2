import Decisions
import Decoding
import EventModel

enum DeviceGroupTables {
    static let groups = 0, members = 1, settings = 2

    static let descriptor = ProjectionDescriptor(
        name: "device_groups", version: 1,
        tables: [
            Table(
                "device_groups_v1", write: .upsert,
                [
                    .key("id", .int8), .value("tenant_id", .text), .value("name", .text), .value("description", .text),
                    .value("query", .jsonb), .value("member_count", .int8), .value("created_at", .timestamptz),
                    .value("created_by", .text), .value("last_position", .int8), .value("deleted_position", .int8),
                ]),
            Table(
                "device_group_members_v1", write: .upsert,
                [
                    .key("group_id", .int8), .key("device_id", .text), .value("tenant_id", .text),
                    .value("is_member", .bool),
                    .value("added_at", .timestamptz), .value("position", .int8),
                ]),
            Table(
                "tenant_settings_v1", write: .upsert,
                [
                    .key("tenant_id", .text), .value("time_zone", .text), .value("updated_at", .timestamptz),
                    .value("updated_by", .text), .value("position", .int8),
                ]),
        ])
}

struct GroupState: RowState {
    /// Nil while no `group.created` was seen.
    var created: GroupCreated?
    /// As recorded.
    var query: [UInt8]?
    var createdAt = Moment()
    var memberCount: Int64 = 0
    var lastPosition = Position(0)
    var deletedPosition: Position?

    mutating func move(from old: borrowing ByteArena, to new: inout ByteArena) {}

    func encode(into rows: inout RowBuffer) {
        guard let created else { return }
        rows.beginRow(fieldCount: 10)
        rows.int8(created.id)
        rows.text(created.tenantID)
        rows.text(created.name)
        rows.optional(created.description) { $0.text($1) }
        rows.optional(query) { $0.jsonb($1) }
        rows.int8(memberCount)
        rows.moment(createdAt)
        rows.text(created.actor)
        rows.position(lastPosition)
        rows.optional(deletedPosition) { $0.position($1) }
    }

    mutating func decode(_ row: RowReader) {
        var created = GroupCreated(
            id: row.int8(0) ?? 0, tenantID: row.text(1) ?? "", name: row.text(2) ?? "", actor: row.text(7) ?? "")
        created.description = row.text(3)
        query = row.jsonb(4).map { Array($0) }
        self.created = created
        memberCount = row.int8(5) ?? 0
        createdAt = row.moment(6)
        lastPosition = Position(stored: row.int8(8) ?? 0)
        deletedPosition = row.int8(9).map { Position(stored: $0) }
    }
}

struct GroupMemberState: RowState {
    var isMember = false
    var tenant = ByteRef()
    var addedAt = Moment()
    var position = Position(0)

    mutating func move(from old: borrowing ByteArena, to new: inout ByteArena) { old.move(&tenant, to: &new) }
}

/// `device_groups`: groups, their members, and tenants' settings. A group and its members are one key: what is decided
/// of them comes seldom and together.
final class DeviceGroupFold: ProjectionFold {
    private let scope: FoldScope
    private let decoder: FactDecoder
    private var groups = KeyedTable<GroupState>()
    private var members = KeyedTable<GroupMemberState>()
    private var settings: [String: (event: TenantConfigured, at: Timestamp, position: Position)] = [:]
    private var keyBytes: [UInt8] = []

    init(_ scope: FoldScope, _ decoder: FactDecoder) {
        self.scope = scope
        self.decoder = decoder
    }

    var descriptor: ProjectionDescriptor { DeviceGroupTables.descriptor }
    var dirtyRowCount: Int { groups.dirty.count + members.dirty.count + settings.count }
    var pendingByteCount: Int { groups.dirtyByteCount + members.dirtyByteCount + settings.count * 64 }
    var stateByteCount: Int { groups.byteCount + members.byteCount }

    // MARK: rows that must be known

    func prepare(_ block: EventBlock, in range: Range<Position>) -> [LoadRequest] {
        groups.beginRound(isStart: scope.startsEmpty(at: range.lowerBound))
        members.beginRound(isStart: scope.startsEmpty(at: range.lowerBound))
        forEachOfOurs(block, in: range) { decision, _, _ in
            switch decision {
            case let event as GroupCreated: _ = touch(event.id)
            case let event as GroupDeleted: _ = touch(event.groupID)
            case let event as GroupMembers:
                _ = touch(event.groupID)
                for device in (event.removed ?? []) + (event.added ?? []) { _ = touch(event.groupID, device) }
            default: break
            }
        }
        let requests = [
            groups.takeUnknown(table: DeviceGroupTables.groups, encodeKey: CampaignKey.encodeCampaign),
            members.takeUnknown(table: DeviceGroupTables.members, encodeKey: CampaignKey.encodeDevice),
        ]
        return requests.compactMap { $0 }
    }

    private func forEachOfOurs(
        _ block: EventBlock, in range: Range<Position>, _ body: (any Decision, RecordView, Position) -> Void
    ) {
        let scan = decoder.scan(block)
        for index in 0..<scan.marks.count where scan.marks[index].kind == .decision {
            let position = block.base.advanced(by: index)
            guard range.contains(position) else { continue }
            let record = block.record(atOffset: Int(scan.offsets[index]))
            guard Self.mayBeOurs(record), let decision = decoder.decodeInternal(record).decision,
                let key = Self.key(of: decision), scope.includes(key, at: position)
            else { continue }
            body(decision, record, position)
        }
    }

    /// By the first letters of the schema: what is decided most often is about campaigns.
    private static func mayBeOurs(_ record: RecordView) -> Bool {
        record.topic.starts(with: "group.".utf8) || record.topic.starts(with: "tenant.".utf8)
    }

    private static func key(of decision: any Decision) -> String? {
        switch decision {
        case let event as GroupCreated: "group/\(event.id)"
        case let event as GroupMembers: "group/\(event.groupID)"
        case let event as GroupDeleted: "group/\(event.groupID)"
        case let event as TenantConfigured: "settings/\(event.tenantID)"
        default: nil
        }
    }

    func keys(of record: RecordView) -> [FoldKey] {
        guard record.kind == .decision, Self.mayBeOurs(record) else { return [] }
        return decoder.decodeInternal(record).decision.flatMap(Self.key).map { [FoldKey($0)] } ?? []
    }

    private func touch(_ group: Int64) -> UInt32 {
        CampaignKey.make(group, [], into: &keyBytes)
        return keyBytes.withUnsafeBytes { groups.touch($0) }
    }

    private func touch(_ group: Int64, _ device: String) -> UInt32 {
        CampaignKey.make(group, device.utf8, into: &keyBytes)
        return keyBytes.withUnsafeBytes { members.touch($0) }
    }

    func load(table: Int, row: RowReader) {
        guard let group = row.int8(0) else { return }
        switch table {
        case DeviceGroupTables.groups: groups.states[Int(touch(group))].decode(row)
        case DeviceGroupTables.members:
            guard let device = row.text(1) else { return }
            members.update(touch(group, device)) { state, arena in
                row.text(2, into: &state.tenant, in: &arena)
                state.isMember = row.bool(3) ?? false
                state.addedAt = row.moment(4)
                state.position = Position(stored: row.int8(5) ?? 0)
            }
        default: break
        }
    }

    // MARK: folding

    func fold(_ block: EventBlock, in range: Range<Position>) {
        defer { precondition(!groups.hasUnknown && !members.hasUnknown, "a block is prepared before it is folded") }
        forEachOfOurs(block, in: range) { decision, record, position in
            let at = record.receivedAt
            switch decision {
            case let event as GroupCreated:
                change(event.id, position) { group in
                    guard group.created == nil else { return false }
                    group.created = event
                    group.query = jsonMember("query", of: record.payload).map { Array($0) }
                    group.createdAt = Moment(at)
                    return true
                }
            case let event as GroupDeleted:
                change(event.groupID, position) { group in
                    guard group.created != nil else { return false }
                    group.deletedPosition = position
                    return true
                }
            case let event as GroupMembers: apply(event, at, position)
            case let event as TenantConfigured: settings[event.tenantID] = (event, at, position)
            default: break
            }
        }
    }

    private func change(_ id: Int64, _ position: Position, _ body: (inout GroupState) -> Bool) {
        let row = touch(id)
        guard body(&groups.states[Int(row)]) else { return }
        groups.states[Int(row)].lastPosition = position
        groups.markDirty(row)
    }

    private func apply(_ event: GroupMembers, _ at: Timestamp, _ position: Position) {
        change(event.groupID, position) { group in
            guard group.created != nil else { return false }
            let tenant = Array(event.tenantID.utf8)
            for device in event.removed ?? [] {
                let id = touch(event.groupID, device)
                guard members.states[Int(id)].isMember else { continue }
                members.states[Int(id)].isMember = false
                members.states[Int(id)].position = position
                members.markDirty(id)
                group.memberCount -= 1
            }
            for device in event.added ?? [] {
                let id = touch(event.groupID, device)
                guard !members.states[Int(id)].isMember else { continue }
                members.update(id) { state, arena in
                    state.isMember = true
                    state.addedAt = Moment(at)
                    state.position = position
                    tenant.withUnsafeBytes { arena.put($0, in: &state.tenant) }
                }
                members.markDirty(id)
                group.memberCount += 1
            }
            return true
        }
    }

    // MARK: rows out

    func drain(into rows: inout [RowBuffer]) {
        groups.drain { id, table in table.states[Int(id)].encode(into: &rows[DeviceGroupTables.groups]) }
        members.drain { id, table in
            let key = table.key(id), state = table.states[Int(id)]
            rows[DeviceGroupTables.members].beginRow(fieldCount: 6)
            rows[DeviceGroupTables.members].int8(CampaignKey.campaign(key))
            rows[DeviceGroupTables.members].text(key.dropFirst(8))
            rows[DeviceGroupTables.members].text(state.tenant, in: table.arena)
            rows[DeviceGroupTables.members].bool(state.isMember)
            rows[DeviceGroupTables.members].moment(state.addedAt)
            rows[DeviceGroupTables.members].position(state.position)
        }
        for (tenant, setting) in settings.sorted(by: { $0.key < $1.key }) {
            rows[DeviceGroupTables.settings].beginRow(fieldCount: 5)
            rows[DeviceGroupTables.settings].text(tenant)
            rows[DeviceGroupTables.settings].text(setting.event.timeZone)
            rows[DeviceGroupTables.settings].timestamptz(setting.at)
            rows[DeviceGroupTables.settings].text(setting.event.actor)
            rows[DeviceGroupTables.settings].position(setting.position)
        }
        settings.removeAll()
    }

    func shrink(toBytes byteCount: Int) {
        groups.shrink(toBytes: byteCount / 4)
        members.shrink(toBytes: byteCount - byteCount / 4)
    }
}
