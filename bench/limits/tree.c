// The limit of deriving the Merkle tree: the same hashes in C, by OpenSSL's low-level calls, over records that lie in
// memory one behind the other (`refold-bench tree --dump FILE`), with nothing around it.
//
//     tree FILE        prints one JSON object
#define OPENSSL_SUPPRESS_DEPRECATED
#include <fcntl.h>
#include <openssl/sha.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void sha256(const uint8_t *bytes, size_t length, uint8_t *out) {
    SHA256_CTX context;
    SHA256_Init(&context);
    SHA256_Update(&context, bytes, length);
    SHA256_Final(out, &context);
}

// 0x01, then two hashes: the right one is written behind the left one.
static uint8_t stack[64][65];
static uint64_t count;

static void push(uint8_t hash[32]) {
    int level = 0;
    for (uint64_t n = count++; n & 1; n >>= 1, level++) {
        memcpy(stack[level] + 33, hash, 32);
        sha256(stack[level], 65, hash);
    }
    memcpy(stack[level] + 1, hash, 32);
}

static void root(uint8_t hash[32]) {
    int have = 0;
    for (int level = 0; level < 64; level++) {
        if (!(count >> level & 1)) continue;
        if (have) {
            memcpy(stack[level] + 33, hash, 32);
            sha256(stack[level], 65, hash);
        } else {
            memcpy(hash, stack[level] + 1, 32);
            have = 1;
        }
    }
}

static void derive(const uint8_t *records, size_t length) {
    static uint8_t canonical[1 + 65536];
    count = 0;
    for (int level = 0; level < 64; level++) stack[level][0] = 1;
    for (size_t offset = 0; offset < length;) {
        const uint8_t *record = records + offset;
        uint32_t whole, payload;
        memcpy(&whole, record, 4);
        memcpy(&payload, record + 24, 4);
        size_t head = whole - payload;
        if (head > 32 + 65471) {
            fprintf(stderr, "tree: names longer than the benchmark's\n");
            exit(1);
        }
        uint8_t hash[32];
        memcpy(canonical + 1, record, head);
        sha256(record + head, payload, canonical + 1 + head);
        sha256(canonical, 1 + head + 32, hash);
        push(hash);
        offset += whole;
    }
}

int main(int argc, char **argv) {
    int file = argc == 2 ? open(argv[1], O_RDONLY) : -1;
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0) {
        fprintf(stderr, "usage: tree FILE, of refold-bench tree --dump\n");
        return 2;
    }
    size_t length = (size_t)status.st_size;
    const uint8_t *records = mmap(NULL, length, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
    if (records == MAP_FAILED) return 1;
    double best = 1e9;
    uint8_t hash[32] = {0};
    for (int pass = 0; pass < 2; pass++) {
        double begin = now();
        derive(records, length);
        double seconds = now() - begin;
        if (seconds < best) best = seconds;
    }
    root(hash);
    printf("{\"events\": %lu, \"root\": \"", count);
    for (int i = 0; i < 32; i++) printf("%02x", hash[i]);
    printf("\", \"seconds\": %f, \"events_per_second\": %f}\n", best, count / best);
    return 0;
}
