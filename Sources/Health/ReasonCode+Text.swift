extension ReasonCode {
    /// The observed facts behind the code.
    public var meaning: String {
        switch self {
        case .brokerDisconnected:
            """
            There is no connection to the broker. A broker that freezes is detected when the keepalive is over: after \
            `broker.keepalive_seconds` (30 s), at most twice that.
            """
        case .brokerNotSubscribed:
            """
            The broker is connected, and no subscription at QoS 1 is in force: the SUBACK is outstanding, or it grants \
            QoS 0.
            """
        case .brokerSubscriptionRefused:
            """
            The broker answered SUBSCRIBE with a refusal (reason code 128 or above). Refold closes the connection and \
            retries with backoff, so `broker_disconnected` is reported too.
            """
        case .brokerQoSLowered:
            """
            The broker granted the subscription at QoS 0 (SUBACK). It does not wait for acknowledgements: messages in \
            flight are lost when the connection or the daemon ends.
            """
        case .brokerForeignSession:
            """
            The broker resumed a session of which this log has no record. It may belong to another log, where \
            acknowledging its messages would lose them. Refold acknowledges nothing and stays disconnected until a \
            restart, so `broker_disconnected` is reported too.
            """
        case .brokerTakenOver:
            """
            Another client used our session: the broker closed our connection with DISCONNECT 0x8E (MQTT 5.0), or the \
            packet ids of a resumed session at Mosquitto have a gap, which shows when the next message arrives. \
            Messages or a session that expired at the broker leave the same gap. Messages may be missing from the log. \
            NATS, RabbitMQ and EMQX over MQTT 3.1.1 renumber packet ids: there a second client shows only as \
            `broker_quick_drops`.
            """
        case .brokerSessionLost:
            """
            The broker had no session although this log has one on record. Messages published in between may be \
            missing from the log. `refold_broker_session_lost_total` counts them by broker since the start of Refold.
            """
        case .brokerSessionExpiryCapped:
            """
            The CONNACK shortens the session expiry that Refold requested. After a longer outage of Refold the broker \
            discards the session and its queue. Also clears when a later CONNACK grants the full expiry.
            """
        case .brokerQuickDrops:
            """
            The broker ended at least three connections in a row within 10 s of accepting them. Between two attempts \
            `broker_disconnected` is reported too.
            """
        case .brokerDropsMessages:
            """
            The broker's counter of dropped messages (`$SYS/broker/publish/messages/dropped`) grew. It counts the \
            drops for all clients of the broker. Drops stay invisible without the right to read `$SYS/broker/#`, and \
            at brokers without this topic.
            """
        case .brokerRedeliveryUnchecked:
            """
            The log could not be read back at a connection: redelivered messages are recorded again, and earlier \
            sessions and alarms of this broker may be unknown.
            """
        case .brokerDrainingOldSession:
            """
            This log used another client id before, and Refold drains that session into the log. The current session \
            subscribes once the old one has caught up; if it is subscribed already, it stays subscribed. `/readyz` \
            answers 503 until the drain completes.
            """
        case .ingestStuck:
            """
            The thread of a broker connection has not completed a round of its loop within its limit: 60 s, or 10 min \
            while it connects or reads the log back.
            """
        case .commandsRefused: "The broker refuses commands that Refold publishes to devices."
        case .commandsWaiting: "Commands to devices wait, and the connection that carries them is down."
        case .diskFull:
            """
            An append failed because the disk is full or no file descriptor is left. Refold closes the connection to \
            the broker: it reads and acknowledges nothing. A broker that sends nothing is not affected yet.
            """
        case .diskFilling:
            """
            At the rate of the last minutes the disk of the data folder is full within an hour. The alert fires when \
            it is full within 4 h.
            """
        case .logStuck:
            """
            A group commit (write and fdatasync) takes more than 60 s. Broker connections that wait for it are \
            reported as `ingest_stuck`.
            """
        case .logDamaged: "The scrubber found bytes that do not match their checksum, and no operator gave them up."
        case .segmentsDamaged: "Segment files are damaged and kept as they are, and no operator gave them up."
        case .segmentsNotSealed: "Full segments could not be packed and sealed."
        case .archiveBehind: "The `archive_command` fails, or is slower than the log grows."
        case .retentionBlocked:
            """
            A segment that the retention rules want removed could not be removed. The metric \
            `refold_retention_blocked` is also 1 while a segment waits for the archive, a projection or a snapshot.
            """
        case .logNotSigned: "The log's Merkle tree does not grow or its checkpoints are not signed."
        case .checkpointsStay: "Signed checkpoints could not be delivered to a destination."
        case .clockNotTrusted:
            """
            The wall clock stepped and is not trusted yet: received-at follows steady time until the clock returns or \
            the step is adopted. Or Refold started with a wall clock more than 5 min behind the log's last event: it \
            connects to no broker until the clock is right.
            """
        case .databaseUnreachable: "No connection to PostgreSQL, or it does not answer."
        case .databaseUnusable:
            """
            PostgreSQL answers and cannot be used: too old, a newer schema, tables of another log, a connection pooler \
            in transaction mode. The reason appears when the database comes up after Refold: if it answers at the \
            start, `refold run` exits with code 2 before ingest begins.
            """
        case .databaseReadOnly: "PostgreSQL accepts no writes: a standby, or `default_transaction_read_only`."
        case .databaseRights: "The database role lacks a right that Refold needs. The text has the GRANT."
        case .databaseConnections:
            """
            The server, the database or the role allows fewer connections than Refold may need at once.
            """
        case .projectionFailed: "A projection cannot continue. It retries every 30 s."
        case .projectionWaiting:
            """
            Every attempt of a projection to write its tables has failed for more than 5 s: no space, a lock, too many \
            connections, missing rights.
            """
        case .projectionPaused: "A projection is paused, by command or because its tables were rolled back."
        case .projectionLagging:
            """
            A projection's tables have lacked an event for more than 20 s. The alert waits for more than 60 s.
            """
        case .projectionStuck:
            """
            The thread of a projection has not completed a round of its loop within its limit: 60 s in code of its \
            own, 10 min in calls of the database or the log, which have shorter limits themselves.
            """
        case .keysParked: "The database refused the rows of single keys; their events wait in the log."
        case .tablesDiffer: "The last comparison of tables and log found rows that differ from the fold of the log."
        case .campaignsStopped: "The campaign engine cannot read back or record its decisions; commands are refused."
        case .tokensUnreadable: "Tokens cannot be read back from the log; only the data folder's token works."
        case .certificatesUnreadable:
            """
            Certificates cannot be read back from the log: none is issued or revoked, and no CRL is issued. With \
            `certificates.enforce: enforce` after a start, no message is received: messages wait at the brokers, whose \
            queues are limited.
            """
        case .renewalsWaiting:
            """
            Requests of devices that renew their certificates wait: the authority's key is missing or refused, the \
            sign command fails, or the log cannot be read. The devices keep their old certificates, which expire.
            """
        case .jobsUnreadable:
            "Jobs cannot be read back from the log, or decisions about them cannot be recorded; no job starts."
        case .jobsWaiting:
            "Jobs of a queue that is not paused could have started 15 minutes ago: workers for their kinds are missing."
        case .jobsPoisoned: "Attempts of a job ended without a result three times; it starts no more by itself."
        case .certificatesNotAudited:
            """
            The standing audit of certificates fails: `refold cert audit` fails, and `refold_certificate_findings` and \
            its alerts stay as they were.
            """
        case .crlNotIssued:
            """
            An authority's next CRL is due and cannot be issued: its key is missing or refused, the sign command \
            fails, or the list has a difference that no event explains. Revocations are recorded; brokers do not see \
            them yet.
            """
        case .crlExpiring:
            """
            As `crl_not_issued`, and less than a quarter of the last CRL's life is left. From its `nextUpdate` on, \
            which the text names, brokers refuse every client of the authority.
            """
        case .crlUnproved:
            """
            A broker's newest CRL is not proved to be in force: its file cannot be written, the reload command fails, \
            the broker still accepts a revoked certificate, or it refuses a live one. The text says which.
            """
        case .clientsUncut:
            """
            Clients of revoked certificates may still be connected to a broker: a disconnection failed, Refold does \
            not disconnect a client whose names another tenant's device may have, or a ban was not lifted. The text \
            has the broker's answer or the reason.
            """
        case .authorityExpiring:
            """
            An authority has no successor, and its own certificate expires within 30 days. No certificate is valid \
            beyond its authority's; from then on brokers refuse every client of it.
            """
        case .logLinesDropped: "Lines of the daemon's own log were dropped in the last minute: its output was blocked."
        case .descriptorsShort: "More than 90 % of the file descriptors that the process may have are open."
        }
    }

    /// What an operator does about it.
    public var remedy: String {
        switch self {
        case .brokerDisconnected: "See the error; check address, credentials and broker. Refold retries with backoff."
        case .brokerNotSubscribed: "Wait for the SUBACK; if it does not arrive, check the broker's access rules."
        case .brokerSubscriptionRefused: "Allow this user the filters, or set others in `brokers`."
        case .brokerQoSLowered:
            "Allow QoS 1 (Mosquitto: `max_qos`; cloud brokers: Maximum QoS). Refold subscribes again when it "
                + "reconnects; over MQTT 3.1.1 only in a new session."
        case .brokerForeignSession: "Set another `node`, or take the session over: `refold run --adopt-session`."
        case .brokerTakenOver:
            "Look for a second client with this client id in the broker's log and give it another `node` or "
                + "`client_id`; then `refold broker acknowledge NAME --reason TEXT`."
        case .brokerSessionLost:
            "Check the broker's persistence and session expiry, compare the gap, then "
                + "`refold broker acknowledge NAME --reason TEXT`."
        case .brokerSessionExpiryCapped:
            "Raise the broker's limit, or lower `broker.session_expiry_seconds`, or accept it: "
                + "`refold broker acknowledge NAME --reason TEXT`."
        case .brokerDrainingOldSession: "No action needed; clears when the drain completes."
        case .brokerQuickDrops: "See the broker's log; it may be a second client with our client id."
        case .brokerDropsMessages:
            "Raise the broker's queue limits (Mosquitto: `max_queued_messages`; EMQX: `max_mqueue_len`), then "
                + "`refold broker acknowledge NAME --reason TEXT`."
        case .brokerRedeliveryUnchecked: "Run `refold log verify`; clears at the next connection that can read the log."
        case .ingestStuck: "A restart, by systemd's watchdog or by hand. Report it with a stack trace of the thread."
        case .commandsRefused: "Allow this user to publish to `tenant/+/device/+/ota` and `…/certificate`."
        case .commandsWaiting: "See the error; the commands are sent once the connection is back."
        case .diskFull: "Free space in the data folder, or raise `LimitNOFILE`. Refold resumes by itself."
        case .diskFilling: "Free space, or configure `retention.bytes` and `archive_command`."
        case .logStuck: "The disk does not answer: check it. Nothing unacknowledged is lost by a restart."
        case .logDamaged: "`refold log verify`; restore the file from a backup or the archive, or `refold log repair`."
        case .segmentsDamaged: "`refold log verify` lists the loss; `refold log repair --accept-loss` accepts it."
        case .segmentsNotSealed: "See the error; Refold retries, unless the text asks for a restart."
        case .archiveBehind: "See the error of the `archive_command`; what is not archived is not removed."
        case .retentionBlocked: "See the error; check the rights in the data folder."
        case .logNotSigned: "See the error; check the key in the data folder."
        case .checkpointsStay: "See the error; check the destination."
        case .clockNotTrusted: "Check the clock's synchronisation (`timedatectl`)."
        case .databaseUnreachable: "Start PostgreSQL or repair the connection. The tables then catch up."
        case .databaseUnusable: "See the text; it names the next step."
        case .databaseReadOnly: "Promote the standby, or name the primary in the database URL."
        case .databaseRights:
            "Run the GRANT. Refold checks every 2 s; a projection that failed for lack of it retries within 30 s."
        case .databaseConnections: "Raise the limit that the text names."
        case .projectionFailed: "See its error; `refold replay rebuild NAME` rebuilds its tables."
        case .projectionWaiting: "See its error; the projection resumes when the cause is gone."
        case .projectionPaused: "`refold projection resume NAME`."
        case .projectionLagging: "After an outage the projection catches up. Otherwise look for locks and a slow disk."
        case .projectionStuck: "A restart, by systemd's watchdog or by hand. Report it with the thread's stack trace."
        case .keysParked: "`refold dead-letters parked` lists them; fix the cause, then `refold dead-letters retry`."
        case .tablesDiffer: "`refold replay verify` shows them; `refold replay rebuild` corrects them."
        case .jobsWaiting: "`refold queue list` shows queues and workers; start workers, or raise `jobs.workers`."
        case .jobsPoisoned:
            "`refold job list --status POISONED`; fix what ends its workers, then `refold job retry ID` or `cancel ID`."
        case .campaignsStopped, .tokensUnreadable, .certificatesUnreadable, .jobsUnreadable:
            "See the error; if the log is damaged: `refold log verify`. Refold retries every 2 s."
        case .crlUnproved:
            "Check the broker's crl_file, crl_reload_command and log; with EMQX, its `crl_cache` settings and that it "
                + "reaches `certificates.crl_url`. Refold retries every 5 s."
        case .clientsUncut:
            "See the error: check `crl_cut`, `crl_cut_url` and `emqx_api` settings; for shared names put `{tenant}` "
                + "into `crl_client_id` and `crl_username`, then restart Refold. Refold retries at least once a minute."
        case .crlNotIssued, .crlExpiring, .renewalsWaiting:
            "See the error; restore the key (docs/certificates.md). Refold retries every 10 s."
        case .certificatesNotAudited: "See the error. Refold retries every 5 s."
        case .authorityExpiring: "`refold ca rotate OLD --to NEW`, then issue new certificates; or `refold ca retire`."
        case .logLinesDropped: "Check the reader of the daemon's output, or the disk that it is written to."
        case .descriptorsShort: "Raise `LimitNOFILE`, or find the clients that keep connections open."
        }
    }
}
