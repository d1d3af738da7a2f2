// A publisher that costs as little as it can: QoS 1, pipelined, MQTT 3.1.1 written by hand over K plain connections.
//
//   flood --port P --count N [--devices D] [--connections K] [--window W] [--rate R]
//
// Each message is telemetry of about 170 bytes. W is the most that one connection has unacknowledged; R is messages a
// second over all connections (0: as fast as they are acknowledged). Prints one line of JSON.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { OUT_BYTES = 1 << 16, MESSAGE_BYTES_MAX = 512, CONNECTIONS_MAX = 64 };

struct connection {
    int socket;
    long sent, acknowledged;
    unsigned short packet_id;
    size_t out_start, out_end, in_count;
    unsigned char out[OUT_BYTES], in[4096];
};

static struct connection connections[CONNECTIONS_MAX];
static long count = 100000, devices = 10000, produced, *sequences;
static double rate;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fail(const char *what)
{
    fprintf(stderr, "flood: %s: %s\n", what, strerror(errno));
    exit(3);
}

static void open_connection(struct connection *c, int number, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->socket = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(c->socket, (struct sockaddr *)&address, sizeof address) != 0) fail("cannot connect");
    int one = 1;
    setsockopt(c->socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    char id[32];
    int length = snprintf(id, sizeof id, "flood-%d-%d", (int)getpid(), number);
    unsigned char packet[64] = {
        0x10, (unsigned char)(12 + length), 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 0, 0, (unsigned char)length};
    memcpy(packet + 14, id, (size_t)length);
    if (write(c->socket, packet, 14 + (size_t)length) < 0) fail("CONNECT");
    unsigned char answer[4];
    if (recv(c->socket, answer, 4, MSG_WAITALL) != 4 || answer[3] != 0) {
        fprintf(stderr, "flood: the broker refuses the connection\n");
        exit(3);
    }
    fcntl(c->socket, F_SETFL, O_NONBLOCK);
}

/// Appends the next PUBLISH to the connection's buffer.
static void produce(struct connection *c, int number, int k)
{
    // A device keeps to one connection where K divides D: its messages stay in order.
    long device = (c->sent * k + number) % devices, sequence = ++sequences[device];
    char topic[96], payload[256];
    int t = snprintf(topic, sizeof topic, "tenant/t%ld/device/dev-%06ld/telemetry", device % 2, device);
    unsigned hash = (unsigned)(device * 2654435761u + (unsigned long)sequence * 40503u);
    int p = snprintf(payload, sizeof payload,
        "{\"ts\":\"2026-01-01T%02ld:%02ld:%02ldZ\",\"site_id\":\"site-%02ld\",\"seq\":%ld,"
        "\"metrics\":{\"temperature\":%.2f,"
        "\"humidity\":%.1f,\"voltage\":%.3f,\"rssi\":-%u,\"door_open\":%s}}",
        sequence / 3600 % 24, sequence / 60 % 60, sequence % 60, device % 50, sequence, 15 + (hash & 1023) / 100.0,
        30 + (hash >> 10 & 511) / 10.0, 3 + (hash >> 4 & 1023) / 1000.0, 40 + (hash >> 20 & 63),
        hash & 1 << 26 ? "true" : "false");
    int remaining = 2 + t + 2 + p;
    unsigned char *out = c->out + c->out_end;
    *out++ = 0x32;
    if (remaining > 127) *out++ = (unsigned char)(remaining & 127) | 128, *out++ = (unsigned char)(remaining >> 7);
    else *out++ = (unsigned char)remaining;
    *out++ = (unsigned char)(t >> 8), *out++ = (unsigned char)t;
    memcpy(out, topic, (size_t)t), out += t;
    if (++c->packet_id == 0) c->packet_id = 1;
    *out++ = (unsigned char)(c->packet_id >> 8), *out++ = (unsigned char)c->packet_id;
    memcpy(out, payload, (size_t)p), out += p;
    c->out_end = (size_t)(out - c->out);
    c->sent++, produced++;
}

static void flush_out(struct connection *c)
{
    while (c->out_start < c->out_end) {
        ssize_t sent = send(c->socket, c->out + c->out_start, c->out_end - c->out_start, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) return;
        if (sent < 0) fail("send");
        c->out_start += (size_t)sent;
    }
    c->out_start = c->out_end = 0;
}

/// Counts PUBACKs: packets of four bytes, and nothing else comes.
static void receive(struct connection *c)
{
    while (1) {
        ssize_t got = recv(c->socket, c->in + c->in_count, sizeof c->in - c->in_count, 0);
        if (got < 0 && errno == EAGAIN) return;
        if (got <= 0) fail("the broker hung up");
        c->in_count += (size_t)got;
        size_t packets = c->in_count / 4;
        for (size_t i = 0; i < packets; i++) if (c->in[i * 4] == 0x40) c->acknowledged++;
        memmove(c->in, c->in + packets * 4, c->in_count -= packets * 4);
    }
}

int main(int argc, char **argv)
{
    int port = 1883, k = 4, window = 1000;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--port")) port = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--count")) count = atol(argv[i + 1]);
        else if (!strcmp(argv[i], "--devices")) devices = atol(argv[i + 1]);
        else if (!strcmp(argv[i], "--connections")) k = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--window")) window = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--rate")) rate = atof(argv[i + 1]);
        else { fprintf(stderr, "unknown option %s\n", argv[i]); return 2; }
    }
    if (k < 1 || k > CONNECTIONS_MAX || devices < 1 || window < 1 || window > 65535) {
        fprintf(stderr, "flood: 1 to %d connections, a window of 1 to 65535, at least one device\n", CONNECTIONS_MAX);
        return 2;
    }
    sequences = calloc((size_t)devices, sizeof *sequences);
    for (int i = 0; i < k; i++) open_connection(&connections[i], i, port);
    double begin = now();
    long acknowledged = 0;
    struct pollfd entries[CONNECTIONS_MAX];
    while (acknowledged < count) {
        long allowed = rate > 0 ? (long)((now() - begin) * rate) + 1 : count;
        if (allowed > count) allowed = count;
        acknowledged = 0;
        for (int i = 0; i < k; i++) {
            struct connection *c = &connections[i];
            receive(c);
            while (produced < allowed && c->sent - c->acknowledged < window
                   && OUT_BYTES - c->out_end > MESSAGE_BYTES_MAX)
                produce(c, i, k);
            flush_out(c);
            acknowledged += c->acknowledged;
            entries[i] = (struct pollfd){c->socket, POLLIN | (c->out_end ? POLLOUT : 0), 0};
        }
        if (acknowledged < count) poll(entries, (nfds_t)k, rate > 0 ? 1 : 1000);
    }
    double seconds = now() - begin;
    printf("{\"acknowledged\": %ld, \"seconds\": %.3f, \"messages_per_second\": %.0f}\n", acknowledged, seconds,
        (double)acknowledged / seconds);
    for (int i = 0; i < k; i++) {
        unsigned char disconnect[2] = {0xE0, 0};
        if (write(connections[i].socket, disconnect, 2) == 2) close(connections[i].socket);
    }
    return 0;
}
