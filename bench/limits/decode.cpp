// The limit of sequential decoding: the same bytes read, checked and walked in C++, with nothing around it.
// It does what the format asks of a reader: header and stored CRC32C, salt, padding, LZ4, and every record's bounds.
//
//     decode DATA/log        prints one JSON object
#include <dirent.h>
#include <fcntl.h>
#include <lz4.h>
#include <nmmintrin.h>
#include <unistd.h>
#include <wmmintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

[[noreturn]] void fail(const std::string &what) {
    std::fprintf(stderr, "decode: %s\n", what.c_str());
    std::exit(1);
}

template <class T> T get(const uint8_t *p) {
    T value;
    std::memcpy(&value, p, sizeof value);
    return value;
}

// Three streams at once, joined by carry-less multiplication: the crc32 instruction has a latency of three cycles.
constexpr size_t lane = 1024;
uint64_t shift_one, shift_two;

uint32_t times_x(uint32_t crc) { return (crc >> 1) ^ ((crc & 1) ? 0x82F63B78u : 0); }

void prepare_crc() {
    uint32_t value = 0x80000000u;
    for (size_t bit = 0; bit < 2 * lane * 8 - 33; bit++) {
        value = times_x(value);
        if (bit + 1 == lane * 8 - 33) shift_one = value;
    }
    shift_two = value;
}

uint64_t shift(uint64_t crc, uint64_t constant) {
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((int64_t)crc), _mm_cvtsi64_si128((int64_t)constant), 0);
    return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

uint32_t crc32c(const uint8_t *p, size_t length) {
    uint64_t a = 0xFFFFFFFFu;
    for (; length >= 3 * lane; p += 3 * lane, length -= 3 * lane) {
        uint64_t b = 0, c = 0;
        for (size_t i = 0; i < lane; i += 8) {
            a = _mm_crc32_u64(a, get<uint64_t>(p + i));
            b = _mm_crc32_u64(b, get<uint64_t>(p + lane + i));
            c = _mm_crc32_u64(c, get<uint64_t>(p + 2 * lane + i));
        }
        a = shift(a, shift_two) ^ shift(b, shift_one) ^ c;
    }
    for (; length >= 8; p += 8, length -= 8) a = _mm_crc32_u64(a, get<uint64_t>(p));
    uint32_t rest = (uint32_t)a;
    while (length--) rest = _mm_crc32_u8(rest, *p++);
    return ~rest;
}

struct Totals {
    uint64_t events = 0, payload_bytes = 0;
};

void walk(const uint8_t *records, size_t length, uint32_t count, Totals &totals) {
    size_t offset = 0;
    uint32_t seen = 0;
    while (offset < length) {
        if (length - offset < 32) fail("a record is cut short");
        const uint8_t *r = records + offset;
        uint64_t size = get<uint32_t>(r), payload = get<uint32_t>(r + 24);
        uint64_t parts = 32 + (uint64_t)r[7] + get<uint16_t>(r + 18) + get<uint32_t>(r + 20) + payload;
        if (size > length - offset || parts != size || r[4] < 1 || r[4] > 5 || r[5] > 6) fail("a record is malformed");
        totals.payload_bytes += payload;
        offset += size;
        seen++;
    }
    if (seen != count) fail("a block holds another number of records than it says");
    totals.events += seen;
}

void segment(const std::string &path, std::vector<uint8_t> &input, std::vector<uint8_t> &output, Totals &totals) {
    int fd = open(path.c_str(), O_RDONLY);
    if (fd < 0) fail("cannot open " + path);
    uint8_t page[4096];
    if (pread(fd, page, sizeof page, 0) != (ssize_t)sizeof page || std::memcmp(page, "RFOLDSEG", 8) != 0)
        fail(path + " is no segment");
    if (crc32c(page, 4092) != get<uint32_t>(page + 4092)) fail(path + ": the header is damaged");
    uint64_t salt = get<uint64_t>(page + 32);
    size_t start = 4096, filled = 0, used = 0;  // input[used..<filled] is the file from `start` on
    auto ensure = [&](size_t wanted) {
        if (filled - used >= wanted) return true;
        std::memmove(input.data(), input.data() + used, filled - used);
        start += used;
        filled -= used;
        used = 0;
        if (input.size() < wanted) input.resize(wanted);
        ssize_t count = pread(fd, input.data() + filled, input.size() - filled, (off_t)(start + filled));
        if (count < 0) fail("cannot read " + path);
        filled += (size_t)count;
        return filled >= wanted;
    };
    while (ensure(72)) {
        const uint8_t *h = input.data() + used;
        if (get<uint32_t>(h) != 0x4B4C4252u) break;  // zeroes: the end
        if (crc32c(h + 8, 64) != get<uint32_t>(h + 4) || get<uint64_t>(h + 48) != salt) fail(path + ": a header is damaged");
        uint32_t raw = get<uint32_t>(h + 8), stored = get<uint32_t>(h + 12), count = get<uint32_t>(h + 16);
        uint32_t codec = get<uint32_t>(h + 20);
        if (raw > 64u << 20 || stored > raw) fail(path + ": impossible lengths");
        size_t whole = (72 + (size_t)stored + 4095) / 4096 * 4096;
        if (!ensure(whole)) fail(path + ": a block is cut short");
        h = input.data() + used;
        if (crc32c(h + 72, stored) != get<uint32_t>(h + 64)) fail(path + ": a block is damaged");
        for (size_t i = 72 + stored; i < whole; i++)
            if (h[i] != 0) fail(path + ": the padding is not zero");
        const uint8_t *records = h + 72;
        if (codec == 1) {
            if (output.size() < raw) output.resize(raw);
            if (LZ4_decompress_safe((const char *)h + 72, (char *)output.data(), (int)stored, (int)raw) != (int)raw)
                fail(path + ": a block cannot be unpacked");
            records = output.data();
        }
        walk(records, raw, count, totals);
        used += whole;
    }
    close(fd);
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 2) fail("usage: decode DATA/log");
    prepare_crc();
    std::string folder = argv[1];
    std::vector<std::string> names;
    DIR *directory = opendir(folder.c_str());
    if (!directory) fail("cannot open " + folder);
    while (dirent *entry = readdir(directory)) {
        std::string name = entry->d_name;
        if (name.size() == 24 && name.substr(20) == ".seg") names.push_back(name);
    }
    closedir(directory);
    std::sort(names.begin(), names.end());
    std::vector<uint8_t> input(256 << 10), output(1 << 20);
    Totals totals;
    double seconds = 0;
    for (int pass = 0; pass < 2; pass++) {  // the first brings the bytes into memory
        totals = Totals();
        auto begin = std::chrono::steady_clock::now();
        for (const auto &name : names) segment(folder + "/" + name, input, output, totals);
        seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    }
    std::printf("{\"events\": %llu, \"payload_bytes\": %llu, \"seconds\": %.6f, \"events_per_second\": %.0f}\n",
                (unsigned long long)totals.events, (unsigned long long)totals.payload_bytes, seconds, totals.events / seconds);
}
