// The limit that ingest is measured against: a bare libmosquitto subscriber, QoS 1, that counts and stores nothing.
//
//   subscriber --port P --count N [--loop poll|forever] [--filter F]
//
// `poll` (the default, and the faster one here) reads until nothing is left and then writes the acknowledgements;
// `forever` is mosquitto_loop_forever. Prints one line of JSON: the rate from the first message to the last.
#include <mosquitto.h>
#include <mqtt_protocol.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static long wanted = 100000, seen;
static double first, last;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void on_message(struct mosquitto *m, void *context, const struct mosquitto_message *message)
{
    (void)context, (void)message;
    if (seen++ == 0) first = now();
    if (seen == wanted) {
        last = now();
        mosquitto_disconnect(m);
    }
}

static void on_connect(struct mosquitto *m, void *filter, int reason)
{
    if (reason == 0) mosquitto_subscribe(m, NULL, filter, 1);
}

// `linger` µs pass between a packet's arrival and reading, so that more come at once; 0: none.
static void run_poll(struct mosquitto *m, int linger)
{
    mosquitto_threaded_set(m, true);
    while (seen < wanted) {
        int socket = mosquitto_socket(m);
        struct pollfd entry = {socket, POLLIN | (mosquitto_want_write(m) ? POLLOUT : 0), 0};
        if (poll(&entry, 1, 1000) > 0 && linger > 0) usleep(linger);
        for (int batch = 0; batch < 4096 && seen < wanted; batch++) {
            long before = seen;
            if (mosquitto_loop_read(m, 1) != MOSQ_ERR_SUCCESS) return;
            struct pollfd more = {socket, POLLIN, 0};
            if (seen == before && poll(&more, 1, 0) <= 0) break;
        }
        // Corked, the acknowledgements of 4 bytes each leave in full segments.
        int cork = 1;
        setsockopt(socket, IPPROTO_TCP, TCP_CORK, &cork, sizeof cork);
        if (mosquitto_loop_write(m, 1) != MOSQ_ERR_SUCCESS) return;
        cork = 0;
        if (seen < wanted) setsockopt(socket, IPPROTO_TCP, TCP_CORK, &cork, sizeof cork);
        mosquitto_loop_misc(m);
    }
}

int main(int argc, char **argv)
{
    int port = 1883;
    int linger = 0;
    const char *loop = "poll";
    char *filter = "tenant/+/device/+/#";
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--port")) port = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--count")) wanted = atol(argv[i + 1]);
        else if (!strcmp(argv[i], "--linger")) linger = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--loop")) loop = argv[i + 1];
        else if (!strcmp(argv[i], "--filter")) filter = argv[i + 1];
        else { fprintf(stderr, "unknown option %s\n", argv[i]); return 2; }
    }
    mosquitto_lib_init();
    struct mosquitto *m = mosquitto_new("bench-subscriber", true, filter);
    mosquitto_int_option(m, MOSQ_OPT_PROTOCOL_VERSION, MQTT_PROTOCOL_V5);
    mosquitto_int_option(m, MOSQ_OPT_RECEIVE_MAXIMUM, 16384);
    mosquitto_int_option(m, MOSQ_OPT_TCP_NODELAY, 1);
    mosquitto_connect_callback_set(m, on_connect);
    mosquitto_message_callback_set(m, on_message);
    if (mosquitto_connect(m, "127.0.0.1", port, 60) != MOSQ_ERR_SUCCESS) {
        fprintf(stderr, "cannot connect to 127.0.0.1:%d\n", port);
        return 3;
    }
    if (!strcmp(loop, "forever")) mosquitto_loop_forever(m, -1, 1);
    else run_poll(m, linger);
    double seconds = last - first;
    printf("{\"messages\": %ld, \"seconds\": %.3f, \"messages_per_second\": %.0f}\n", seen, seconds,
        (double)seen / seconds);
    mosquitto_destroy(m);
    return seen == wanted ? 0 : 1;
}
