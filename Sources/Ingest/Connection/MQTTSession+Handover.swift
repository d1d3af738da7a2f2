import CMosquitto
import EventModel

// The topic of a `Handover`, and what lies before and behind its marker.

extension MQTTSession {
    /// Call before publishing the marker or a probe. A subscription or publication that is refused shows in that
    /// nothing comes back.
    func joinHandover(_ handover: Handover) {
        self.handover = handover
        mosquitto_subscribe(handle, nil, handover.topic, 1)
    }

    func publishMarker(_ handover: Handover) { publish(handover.marker, for: handover) }

    func publishProbe(_ handover: Handover) {
        hasProbe = false
        publish(handover.probe, for: handover)
    }

    private func publish(_ payload: [UInt8], for handover: Handover) {
        mosquitto_publish(handle, nil, handover.topic, Int32(payload.count), payload, 1, false)
    }

    /// Messages go into the inbox again.
    func leaveHandover(_ handover: Handover) {
        (self.handover, isBehindMarker) = (nil, false)
        mosquitto_unsubscribe(handle, nil, handover.topic)
    }

    /// Consumes a marker or probe of any exchange.
    func takesHandover(_ message: mosquitto_message) -> Bool {
        let text = UnsafeRawBufferPointer(start: message.payload, count: Int(message.payloadlen))
        guard Handover.isOurs(text) else { return false }
        handoverMessages += 1
        // At QoS 0 a message overtakes what is queued.
        guard let handover, message.qos == 1 else { return true }
        if text.elementsEqual(handover.marker) { isBehindMarker = true }
        if text.elementsEqual(handover.probe) { hasProbe = true }
        return true
    }

    /// True if the inbox contains a device message that was not retained.
    var hasLiveMessages: Bool {
        var isThere = false
        inbox.forEach { if $0.isLive { isThere = true } }
        return isThere
    }

    /// Removes the first live messages.
    /// - Returns: `count`.
    func dropLiveMessages(_ count: Int) -> Int {
        guard count > 0 else { return 0 }
        var kept = RecordBatch(), left = count
        inbox.forEach { record in
            if record.isLive, left > 0 {
                left -= 1
            } else {
                kept.append(record, verdict: record.verdict)
            }
        }
        inbox = kept
        // An offset into the old inbox; the filter stays open until the next SUBACK.
        resumeEnd = nil
        return count - left
    }

    func moveBehindToInbox() {
        guard !behind.isEmpty else { return }
        inbox.append(behind)
        behind.removeAll()
        // An earlier commit may have taken this note for its own.
        hasClaims = true
    }
}
