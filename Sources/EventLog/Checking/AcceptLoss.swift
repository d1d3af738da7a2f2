import EventModel

extension FileLog {
    /// Records that an operator gives up what is damaged in `ranges`, one event (`log.loss_accepted/1`) a damage. Only
    /// what is found damaged now, has cost events and has no signature yet is signed for: never a readable event.
    /// Returns the new acceptances when they are durable; from then on readers go on behind the damage. Blocks.
    /// - Throws: `LogError`, `AppendError`.
    public func acceptLosses(
        in ranges: [Range<Position>], operatorName: String, reason: String
    ) throws -> [AcceptedLoss] {
        var damages: [LogDamage] = []
        for range in ranges {
            for damage in try verify(range).unaccepted where !damages.contains(damage) { damages.append(damage) }
        }
        guard !damages.isEmpty else { return [] }
        var batch = RecordBatch()
        for damage in damages {
            let range = damage.range
            let event = LossAccepted(
                from: range.positions.lowerBound.rawValue, to: range.positions.upperBound.rawValue - 1,
                segment: String(range.segment.split(separator: "/").last ?? ""), firstByte: range.bytes.lowerBound,
                lastByte: max(range.bytes.lowerBound, range.bytes.upperBound - 1), damage: range.reason, reason: reason,
                operatorName: operatorName)
            batch.append(
                kind: .system, schema: LogSchema.lossAccepted.rawValue, receivedAt: options.clock.now(),
                json: eventJSON(event))
        }
        let positions = try append(&batch)
        let reader = try reader(from: positions.lowerBound)
        let block = EventBlock()
        var accepted: [AcceptedLoss] = []
        while accepted.count < damages.count, try reader.read(into: block, atLeast: 1) {
            block.forEach { record, position in
                guard positions.contains(position), let loss = AcceptedLoss(record, at: position) else { return }
                catalog.losses.add(loss)
                accepted.append(loss)
            }
        }
        // Only a hint for the next start: without it the log is searched.
        try? catalog.losses.writeHints(catalog)
        return accepted
    }
}
