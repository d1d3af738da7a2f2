import Decisions
import Decoding
import EventModel

enum DeviceGroupTables {
    static let groups = 0, members = 1, settings = 2

    static let descriptor = ProjectionDescriptor(
        name: "device_groups", version: 1,
        tables: [GroupState.table, GroupMemberState.table, TenantSettingsRow.table])
}

struct GroupState: RowState {
    static let table = Table("device_groups_v1", write: .upsert, Self.self)

    /// `group.created` was seen: `created`.
    var isCreated = false
    var created = GroupCreated(id: 0, tenantID: "", name: "", actor: "")
    /// As recorded.
    var query: [UInt8]?
    var createdAt = OptionalTime()
    var memberCount: Int64 = 0
    var lastPosition = Position(0)
    var deletedPosition: Position?

    mutating func columns(_ row: inout some RowVisitor, _ key: inout CampaignKey, _ arena: inout ByteArena) {
        row.key("id", &key.id)
        row.value("tenant_id", &created.tenantID)
        row.value("name", &created.name)
        row.value("description", &created.description)
        row.jsonb("query", &query)
        row.value("member_count", &memberCount)
        row.value("created_at", &createdAt)
        row.value("created_by", &created.actor)
        row.value("last_position", &lastPosition)
        row.value("deleted_position", &deletedPosition)
    }

    mutating func didLoad(_ key: CampaignKey) {
        isCreated = true
        created.id = key.id
    }
}

struct GroupMemberState: RowState {
    static let table = Table("device_group_members_v1", write: .upsert, Self.self)

    var isMember = false
    var tenant = ByteRef()
    var addedAt = OptionalTime()
    var position = Position(0)

    mutating func columns(_ row: inout some RowVisitor, _ key: inout CampaignKey, _ arena: inout ByteArena) {
        row.key("group_id", &key.id)
        row.key("device_id", &key.device)
        row.text("tenant_id", &tenant, &arena)
        row.value("is_member", &isMember)
        row.value("added_at", &addedAt)
        row.value("position", &position)
    }
}

struct TenantSettingsRow: TableRow {
    static let table = Table("tenant_settings_v1", write: .upsert, Self.self)

    var event = TenantConfigured(tenantID: "", timeZone: "", actor: "")
    var at = OptionalTime(), position = Position(0)

    mutating func columns(_ row: inout some RowVisitor) {
        row.key("tenant_id", &event.tenantID)
        row.value("time_zone", &event.timeZone)
        row.value("updated_at", &at)
        row.value("updated_by", &event.actor)
        row.value("position", &position)
    }
}

/// `device_groups`: groups, their members, and tenants' settings. A group and its members are one key: what is decided
/// of them comes seldom and together.
final class DeviceGroupFold: ProjectionFold {
    private let scope: FoldScope
    private let decoder: FactDecoder
    private var groups = KeyedTable<GroupState>()
    private var members = KeyedTable<GroupMemberState>()
    private var settings: [String: TenantSettingsRow] = [:]
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
            groups.takeUnknown(table: DeviceGroupTables.groups),
            members.takeUnknown(table: DeviceGroupTables.members),
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
        if table == DeviceGroupTables.groups { groups.load(row) } else { members.load(row) }
    }

    // MARK: folding

    func fold(_ block: EventBlock, in range: Range<Position>) {
        defer { precondition(!groups.hasUnknown && !members.hasUnknown, "a block is prepared before it is folded") }
        forEachOfOurs(block, in: range) { decision, record, position in
            let at = record.receivedAt
            switch decision {
            case let event as GroupCreated:
                change(event.id, position) { group in
                    guard !group.isCreated else { return false }
                    group.isCreated = true
                    group.created = event
                    group.query = jsonMember("query", of: record.payload).map { Array($0) }
                    group.createdAt = OptionalTime(at)
                    return true
                }
            case let event as GroupDeleted:
                change(event.groupID, position) { group in
                    guard group.isCreated else { return false }
                    group.deletedPosition = position
                    return true
                }
            case let event as GroupMembers: apply(event, at, position)
            case let event as TenantConfigured:
                settings[event.tenantID] = TenantSettingsRow(event: event, at: OptionalTime(at), position: position)
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
            guard group.isCreated else { return false }
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
                    state.addedAt = OptionalTime(at)
                    state.position = position
                    arena.put(event.tenantID, in: &state.tenant)
                }
                members.markDirty(id)
                group.memberCount += 1
            }
            return true
        }
    }

    // MARK: rows out

    func drain(into rows: inout [RowBuffer]) {
        groups.drain(into: &rows[DeviceGroupTables.groups])
        members.drain(into: &rows[DeviceGroupTables.members])
        for (_, row) in settings.sorted(by: { $0.key < $1.key }) { rows[DeviceGroupTables.settings].append(row) }
        settings.removeAll()
    }

    func shrink(toBytes byteCount: Int) {
        groups.shrink(toBytes: byteCount / 4)
        members.shrink(toBytes: byteCount - byteCount / 4)
    }
}
