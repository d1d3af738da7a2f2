#include "checksum.h"
#include <string.h>

// Slicing-by-8 tables are built once, at load, from the reflected polynomial 0x82F63B78 (RFC 3720).
static uint32_t table[8][256];

__attribute__((constructor)) static void build_table(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ ((crc & 1) ? 0x82F63B78u : 0);
        table[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int slice = 1; slice < 8; slice++)
            table[slice][i] = (table[slice - 1][i] >> 8) ^ table[0][table[slice - 1][i] & 0xFF];
}

uint32_t refold_crc32c_portable(uint32_t crc, const void *bytes, size_t length) {
    const unsigned char *p = bytes;
    crc = ~crc;
    while (length >= 8) {
        uint32_t low, high;
        memcpy(&low, p, 4);
        memcpy(&high, p + 4, 4);
        low ^= crc;
        crc = table[7][low & 0xFF] ^ table[6][(low >> 8) & 0xFF] ^ table[5][(low >> 16) & 0xFF] ^ table[4][low >> 24]
            ^ table[3][high & 0xFF] ^ table[2][(high >> 8) & 0xFF] ^ table[1][(high >> 16) & 0xFF] ^ table[0][high >> 24];
        p += 8;
        length -= 8;
    }
    while (length--) crc = (crc >> 8) ^ table[0][(crc ^ *p++) & 0xFF];
    return ~crc;
}

#if defined(__x86_64__)
#include <nmmintrin.h>
#include <wmmintrin.h>

// The crc32 instruction has a latency of 3 cycles and a throughput of 1: three independent streams keep it busy.
// Their partial results are joined by a carry-less multiplication with x^(8 * distance) mod P.
static uint64_t shift_constant[2];
enum { LANE = 1024 };

static uint32_t multiply_by_x(uint32_t crc) { return (crc >> 1) ^ ((crc & 1) ? 0x82F63B78u : 0); }

__attribute__((constructor(102))) static void build_shift_constants(void) {
    // x^(n - 33) reflected, as PCLMULQDQ + crc32 of the product gives crc * x^n.
    for (int lane = 1; lane <= 2; lane++) {
        uint32_t value = 0x80000000u;
        for (int bit = 0; bit < lane * LANE * 8 - 33; bit++) value = multiply_by_x(value);
        shift_constant[lane - 1] = value;
    }
}

__attribute__((target("sse4.2,pclmul"))) static uint32_t shift(uint32_t crc, uint64_t constant) {
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi32_si128((int)crc), _mm_cvtsi64_si128((long long)constant), 0);
    return (uint32_t)_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

__attribute__((target("sse4.2,pclmul"))) static uint32_t crc32c_hardware(uint32_t crc, const void *bytes, size_t length) {
    const unsigned char *p = bytes;
    uint64_t a = (uint32_t)~crc;
    while (length >= 3 * LANE) {
        uint64_t b = 0, c = 0;
        for (size_t i = 0; i < LANE; i += 8) {
            uint64_t x, y, z;
            memcpy(&x, p + i, 8);
            memcpy(&y, p + LANE + i, 8);
            memcpy(&z, p + 2 * LANE + i, 8);
            a = _mm_crc32_u64(a, x);
            b = _mm_crc32_u64(b, y);
            c = _mm_crc32_u64(c, z);
        }
        a = shift((uint32_t)a, shift_constant[1]) ^ shift((uint32_t)b, shift_constant[0]) ^ c;
        p += 3 * LANE;
        length -= 3 * LANE;
    }
    while (length >= 8) {
        uint64_t x;
        memcpy(&x, p, 8);
        a = _mm_crc32_u64(a, x);
        p += 8;
        length -= 8;
    }
    uint32_t rest = (uint32_t)a;
    while (length--) rest = _mm_crc32_u8(rest, *p++);
    return ~rest;
}

static int has_hardware;
__attribute__((constructor)) static void detect(void) {
    __builtin_cpu_init();
    has_hardware = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
}

uint32_t refold_crc32c(uint32_t crc, const void *bytes, size_t length) {
    return has_hardware ? crc32c_hardware(crc, bytes, length) : refold_crc32c_portable(crc, bytes, length);
}
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>

uint32_t refold_crc32c(uint32_t crc, const void *bytes, size_t length) {
    const unsigned char *p = bytes;
    crc = ~crc;
    while (length >= 8) {
        uint64_t x;
        memcpy(&x, p, 8);
        crc = __crc32cd(crc, x);
        p += 8;
        length -= 8;
    }
    while (length--) crc = __crc32cb(crc, *p++);
    return ~crc;
}
#else
uint32_t refold_crc32c(uint32_t crc, const void *bytes, size_t length) {
    return refold_crc32c_portable(crc, bytes, length);
}
#endif
