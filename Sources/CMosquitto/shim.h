// libmosquitto 2.0: the MQTT client. Used through its poll-driven calls only; see Ingest for why.
// eventfd, which Swift's Glibc leaves out, is what wakes the poll around it.
#include <mosquitto.h>
#include <mqtt_protocol.h>
#include <sys/eventfd.h>
