import Deciding
import Decisions
import EventModel
import Foundation

// A minimal decider: notes that operators leave for each other. See docs/adding-a-decider.md.

struct NoteLeft: Decision {
    static let schemas = ["note.left/1"]
    var id: Int64
    var text: String
    var key: String?

    var envelope: Envelope {
        Envelope(tenantID: Envelope.everyTenant, actor: nil, subject: "note:\(id)", idempotencyKey: key)
    }
    var summary: String { "left note \(id)" }
}

struct NoteRemoved: Decision {
    static let schemas = ["note.removed/1"]
    var id: Int64

    var envelope: Envelope { Envelope(tenantID: Envelope.everyTenant, actor: nil, subject: "note:\(id)") }
    var summary: String { "removed note \(id)" }
}

struct NoteRejected: Decision {
    static let schemas = ["note.rejected/1"]
    var subject: String
    var reason: String

    var envelope: Envelope { Envelope(tenantID: Envelope.everyTenant, actor: nil, subject: subject) }
    var summary: String { "refused a request about \(subject): \(reason)" }
}

enum NoteEvent: DeciderEvent, Equatable {
    case left(NoteLeft)
    case removed(NoteRemoved)
    case rejected(NoteRejected)

    static let catalog = DecisionCatalog([NoteLeft.self, NoteRemoved.self, NoteRejected.self])

    init?(_ decision: any Decision, schema: String) {
        switch decision {
        case let event as NoteLeft: self = .left(event)
        case let event as NoteRemoved: self = .removed(event)
        case let event as NoteRejected: self = .rejected(event)
        default: return nil
        }
    }

    var decision: any Decision {
        switch self {
        case .left(let event): event
        case .removed(let event): event
        case .rejected(let event): event
        }
    }
}

struct Notes: Decider {
    enum Request: Sendable {
        case leave(String, key: String?)
        case remove(Int64)
    }
    enum Answer: Sendable, Equatable {
        case done(Position, id: Int64)
        case refused(Position, String)
    }
    struct Kept: Sendable, Equatable {
        var id: Int64
        var text: String
        var position: Position
    }
    typealias Ledger = IdempotencyLedger<Kept>

    static let storedName = "notes"
    static let storedVersion = 1

    private var texts: [Int64: String] = [:]
    private var nextID: Int64 = 1
    private var answers = Ledger(countMax: 1_000)

    init() {}

    mutating func apply(_ event: NoteEvent, at position: Position, time: Timestamp) {
        answers.expire(before: time)
        switch event {
        case .left(let event):
            texts[event.id] = event.text
            nextID = max(nextID, event.id.saturatingAdding(1))
            if let key = event.key {
                let kept = Kept(id: event.id, text: event.text, position: position)
                answers.remember(Self.key(key), .init(digest: nil, at: time, answer: kept))
            }
        case .removed(let event): texts[event.id] = nil
        case .rejected: break
        }
    }

    mutating func moveTimers(by microseconds: Int64) { answers.move(by: microseconds) }

    private static func key(_ key: String) -> Ledger.Key { .init(tenantID: Envelope.everyTenant, key: key) }

    func decide(_ request: Request, now: Timestamp) -> Outcome<NoteEvent, Answer> {
        switch request {
        case .leave(let text, let key):
            if let kept = key.flatMap({ answers.entry(for: Self.key($0), now: now) })?.answer {
                guard kept.text == text else { return refuse("note:\(kept.id)", idempotencyKeyReused) }
                return .repeated(.done(kept.position, id: kept.id))
            }
            return .append([.left(NoteLeft(id: nextID, text: text, key: key))])
        case .remove(let id):
            guard texts[id] != nil else { return refuse("note:\(id)", "there is no note \(id)") }
            return .append([.removed(NoteRemoved(id: id))])
        }
    }

    private func refuse(_ subject: String, _ reason: String) -> Outcome<NoteEvent, Answer> {
        .append([.rejected(NoteRejected(subject: subject, reason: reason))])
    }

    func answer(to request: Request, _ events: [NoteEvent], at positions: Range<Position>) -> Answer {
        switch events[0] {
        case .left(let event): .done(positions.lowerBound, id: event.id)
        case .removed(let event): .done(positions.lowerBound, id: event.id)
        case .rejected(let event): .refused(positions.lowerBound, event.reason)
        }
    }

    private struct Stored: Codable {
        struct Answer: Codable {
            var key: Ledger.Key
            var at: Timestamp
            var id: Int64
            var text: String
            var position: UInt64
        }
        var ids: [Int64]
        var texts: [String]
        var nextID: Int64
        var answers: [Answer]
    }

    func stored() -> [UInt8] {
        let sorted = texts.sorted { $0.key < $1.key }
        let kept = answers.uses.compactMap { use in
            answers.entries[use.key].map { entry in
                Stored.Answer(
                    key: use.key, at: use.at, id: entry.answer.id, text: entry.answer.text,
                    position: entry.answer.position.rawValue)
            }
        }
        return eventJSON(Stored(ids: sorted.map(\.key), texts: sorted.map(\.value), nextID: nextID, answers: kept))
    }

    init(stored: [UInt8]) throws {
        do {
            let form = try JSONDecoder().decode(Stored.self, from: Data(stored))
            texts = Dictionary(zip(form.ids, form.texts)) { $1 }
            nextID = form.nextID
            for item in form.answers {
                let kept = Kept(id: item.id, text: item.text, position: Position(item.position))
                answers.remember(item.key, .init(digest: nil, at: item.at, answer: kept))
            }
        } catch {
            throw UnreadableDecision("the notes in the snapshot cannot be understood (\(error))")
        }
    }
}
