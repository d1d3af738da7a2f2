import EventModel

/// What was answered under which idempotency key: one key has one answer for 24 hours of event time.
struct Answers: Sendable, Equatable {
    struct Key: Sendable, Hashable, Codable {
        let tenantID: String
        let key: String
    }

    struct Stored: Sendable, Equatable {
        let digest: String?
        let at: Timestamp
        var answer: CommandAnswer
    }

    struct Expiry: Sendable, Equatable {
        let at: Timestamp
        let key: Key
    }

    var stored: [Key: Stored] = [:]
    var expiries: [Expiry] = []

    /// The answer given under this key, with the digest of the command it was given to; nil when none is in force.
    func inForce(tenantID: String, key: String, now: Timestamp) -> Stored? {
        guard let stored = stored[Key(tenantID: tenantID, key: key)],
            now.microseconds - stored.at.microseconds < CampaignState.answerMicroseconds
        else { return nil }
        return stored
    }

    mutating func remember(
        _ tenantID: String, _ key: String?, _ digest: String?, _ time: Timestamp, _ answer: CommandAnswer
    ) {
        guard let key else { return }
        let answerKey = Key(tenantID: tenantID, key: key)
        stored[answerKey] = Stored(digest: digest, at: time, answer: answer)
        expiries.append(Expiry(at: time, key: answerKey))
    }

    mutating func expire(before now: Timestamp) {
        var count = 0
        for expiry in expiries {
            guard
                now.microseconds - expiry.at.microseconds >= CampaignState.answerMicroseconds
                    || expiries.count - count >= CampaignState.answersMax
            else { break }
            // A key that was used again after it expired has a later answer, which stays.
            if stored[expiry.key]?.at == expiry.at { stored[expiry.key] = nil }
            count += 1
        }
        if count > 0 { expiries.removeFirst(count) }
    }
}
