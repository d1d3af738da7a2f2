extension ReasonCode {
    /// From which facts it is concluded.
    public var meaning: String {
        switch self {
        case .brokerDisconnected: "There is no connection to the broker."
        case .brokerNotSubscribed: "The broker is connected, and has not granted the subscription yet."
        case .brokerSubscriptionRefused: "The broker answered SUBSCRIBE with a refusal (reason code 128 or above)."
        case .brokerQoSLowered: """
            The broker granted the subscription at QoS 0 (SUBACK). It then sends without waiting for acknowledgements: \
            whatever is under way when the connection or this program ends is lost.
            """
        case .brokerForeignSession: """
            The broker resumed a session of which this log has no record. It belongs to another log; acknowledging its \
            messages would lose them there. Nothing is acknowledged.
            """
        case .brokerTakenOver: "Another client connected with our client id, and the broker ended our connection."
        case .brokerSessionLost: """
            The broker had no session although this log has one on record. Messages from the time in between may be \
            missing.
            """
        case .brokerSessionExpiryCapped: """
            The CONNACK shortens the session expiry that we asked for. After a longer outage of ours the broker \
            discards the session and its queue.
            """
        case .brokerQuickDrops: "The broker ended several connections in a row within seconds of accepting them."
        case .brokerDropsMessages: "The broker's counter of dropped messages ($SYS) grew."
        case .brokerRedeliveryUnchecked: """
            The log could not be read back after a reconnect, so redelivered messages are recorded again.
            """
        case .brokerDrainingOldSession: """
            This log used another client id before. Its session is emptied first; the new one is subscribed after that.
            """
        case .ingestStuck: """
            The thread of a broker connection has not completed a round of its loop within its limit: 60 s, or 10 min \
            while it connects or reads the log back.
            """
        case .commandsRefused: "The broker refuses commands that we publish to devices."
        case .commandsWaiting: "Commands to devices wait, and the connection that carries them is down."
        case .diskFull: "An append failed for lack of space. Nothing is read from the brokers or acknowledged."
        case .diskFilling: "At the rate of the last minutes the disk of the data folder is full within an hour."
        case .logStuck: "A group commit (write and fdatasync) takes more than 60 s."
        case .logDamaged: "The scrubber found bytes that do not match their checksum, and no operator gave them up."
        case .segmentsDamaged: "Segment files are damaged and kept as they are, and no operator gave them up."
        case .segmentsNotSealed: "Full segments could not be packed and sealed."
        case .archiveBehind: "The `archive_command` fails, or is slower than the log grows."
        case .retentionBlocked: "A segment that the retention rules want removed could not be removed."
        case .logNotSigned: "The log's Merkle tree does not grow or its checkpoints are not signed."
        case .checkpointsStay: "Signed checkpoints could not be brought to their destinations outside."
        case .clockNotTrusted: """
            The wall clock stepped and is not believed yet, or it is behind the log's last event. Received-at goes on \
            by steady time until the clock returns or the step has lasted.
            """
        case .databaseUnreachable: "No connection to PostgreSQL, or it does not answer."
        case .databaseUnusable: """
            PostgreSQL answers and cannot be used: too old, a newer schema, tables of another log, a connection pooler \
            in transaction mode.
            """
        case .databaseReadOnly: "PostgreSQL accepts no writes: a standby, or `default_transaction_read_only`."
        case .databaseRights: "The database role lacks a right that Refold needs. The text has the GRANT."
        case .databaseConnections: """
            The server, the database or the role allows fewer connections than Refold may need at once.
            """
        case .projectionFailed: "A projection cannot go on by itself. It tries again every 30 s."
        case .projectionWaiting: """
            Every attempt of a projection to write its tables has failed for more than 5 s: no space, a lock, too many \
            connections, missing rights.
            """
        case .projectionPaused: "A projection is paused, by command or because its tables were rolled back."
        case .projectionLagging: "A projection's tables have lacked an event for more than 20 s."
        case .projectionStuck: """
            The thread of a projection has not completed a round of its loop within its limit: 60 s in code of its \
            own, 10 min in calls of the database or the log, which have shorter limits themselves.
            """
        case .keysParked: "The database refused the rows of single keys; their events wait in the log."
        case .tablesDiffer: "The last comparison of tables and log found rows that the log does not give."
        case .campaignsStopped: "The decisions of campaigns cannot be read back or recorded; commands are refused."
        case .tokensUnreadable: "Tokens cannot be read back from the log; only the data folder's token works."
        case .logLinesDropped: "Lines of the program's log could not be written and were dropped."
        case .descriptorsShort: "More than 90 % of the file descriptors that the process may have are open."
        }
    }

    /// What an operator does about it.
    public var remedy: String {
        switch self {
        case .brokerDisconnected: "See the error; check address, credentials and the broker. It reconnects by itself."
        case .brokerNotSubscribed: "Wait for the SUBACK; if it does not come, check the broker's access rules."
        case .brokerSubscriptionRefused: "Allow this user the filters, or set others in `brokers`."
        case .brokerQoSLowered: "Allow QoS 1 (Mosquitto: `max_qos`; cloud brokers: Maximum QoS), then reconnect."
        case .brokerForeignSession: "Set another `node`, or take the session over: `refold run --adopt-session`."
        case .brokerTakenOver: """
            Give one of the two another `node` or `client_id`, then `refold broker acknowledge NAME --reason TEXT`.
            """
        case .brokerSessionLost: """
            Check the broker's persistence and session expiry, compare the gap, then \
            `refold broker acknowledge NAME --reason TEXT`.
            """
        case .brokerSessionExpiryCapped: """
            Raise the broker's limit, or lower `broker.session_expiry_seconds`, or accept it: \
            `refold broker acknowledge NAME --reason TEXT`.
            """
        case .brokerDrainingOldSession: "Nothing: it ends by itself."
        case .brokerQuickDrops: "See the broker's log; it may be a second client with our client id."
        case .brokerDropsMessages: """
            Raise the broker's queue limits (Mosquitto: `max_queued_messages`; EMQX: `max_mqueue_len`), then \
            `refold broker acknowledge NAME --reason TEXT`.
            """
        case .brokerRedeliveryUnchecked: "`refold log verify`; it ends with the next connection that reads the log."
        case .ingestStuck: "A restart, by systemd's watchdog or by hand. Report it with a stack trace of the thread."
        case .commandsRefused: "Allow this user to publish to `tenant/+/device/+/ota`."
        case .commandsWaiting: "See the error; the commands are sent once the connection is back."
        case .diskFull: "Make room in the data folder; it resumes by itself."
        case .diskFilling: "Make room, or let `retention.bytes` and `archive_command` do it."
        case .logStuck: "The disk does not answer: check it. Nothing unacknowledged is lost by a restart."
        case .logDamaged: "`refold log verify`; restore the file from a backup or the archive, or `refold log repair`."
        case .segmentsDamaged: "`refold log verify` says what is lost; `refold log repair --accept-loss` gives it up."
        case .segmentsNotSealed: "See the error; it tries again by itself."
        case .archiveBehind: "See the error of the `archive_command`; what is not archived is not removed."
        case .retentionBlocked: "See the error; check the rights in the data folder."
        case .logNotSigned: "See the error; check the key in the data folder."
        case .checkpointsStay: "See the error; check the destination."
        case .clockNotTrusted: "Check the clock's synchronisation (`timedatectl`)."
        case .databaseUnreachable: "Start PostgreSQL or mend the way to it. Tables catch up by themselves."
        case .databaseUnusable: "See the text; it names the way out."
        case .databaseReadOnly: "Promote the standby, or name the primary in the database URL."
        case .databaseRights: "Run the GRANT. It is noticed within seconds."
        case .databaseConnections: "Raise the limit that the text names."
        case .projectionFailed: "See its error; `refold replay rebuild NAME` makes its tables anew."
        case .projectionWaiting: "See its error; it goes on by itself when the cause is gone."
        case .projectionPaused: "`refold projection resume NAME`."
        case .projectionLagging: "After an outage it catches up by itself. Otherwise look for locks and a slow disk."
        case .projectionStuck: "A restart, by systemd's watchdog or by hand. Report it with the thread's stack trace."
        case .keysParked: "`refold dead-letters parked` says which and why; then `refold dead-letters retry`."
        case .tablesDiffer: "`refold replay verify` shows them; `refold replay rebuild` puts them right."
        case .campaignsStopped: "See the error; a damaged log: `refold log verify`. It tries again by itself."
        case .tokensUnreadable: "See the error; a damaged log: `refold log verify`. It tries again by itself."
        case .logLinesDropped: "Check who reads the program's output, and the disk that it goes to."
        case .descriptorsShort: "Raise `LimitNOFILE`, or find the clients that keep connections open."
        }
    }
}
