// libmosquitto 2.0: the MQTT client. Used through its poll-driven calls only; see Ingest for why.
#include <mosquitto.h>
#include <mqtt_protocol.h>
