// Reads packets with libmosquitto so that an assertion of the library ends the connection and not the process, and so
// that a topic which is no text ends nothing.
#ifndef REFOLD_GUARDED_READ_H
#define REFOLD_GUARDED_READ_H

struct mosquitto;

/// What `refold_guarded_read` returns for a packet on which the library asserts; no MOSQ_ERR_ code.
#define REFOLD_ERR_ASSERTION 1000

/// `read(client, 1)`. libmosquitto 2.0.11 asserts on properties that it does not know (property__read logs with a null
/// client), so that any broker could end the process with one packet. After REFOLD_ERR_ASSERTION the client may only be
/// destroyed; what the library had allocated for that packet is leaked.
int refold_guarded_read(int (*read)(struct mosquitto *, int), struct mosquitto *client);
#endif
