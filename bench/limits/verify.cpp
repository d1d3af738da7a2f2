// The limit for `refold log verify`: the same walk over the same files in C++, with nothing around it.
//
//     verify LOG_FOLDER      file headers, block headers, checksums, padding, continuity of positions and times
//
// Prints one JSON object: bytes, blocks, events, seconds. Exits with 1 at the first thing that is wrong.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

extern "C" uint32_t refold_crc32c(uint32_t crc, const void *bytes, size_t count);

template <typename T> static T at(const uint8_t *p, size_t offset) {
    T value;
    memcpy(&value, p + offset, sizeof value);
    return value;
}

static bool is_zero(const uint8_t *p, size_t count) {
    for (; count >= 8; p += 8, count -= 8)
        if (at<uint64_t>(p, 0)) return false;
    for (; count; p++, count--)
        if (*p) return false;
    return true;
}

struct Totals {
    uint64_t bytes = 0, blocks = 0, events = 0, expected = 0;
    int64_t last_time = INT64_MIN;
    bool begun = false;
};

// A window over a file that moves forward, in large reads.
struct Window {
    static constexpr size_t chunk = 256 << 10;
    int fd;
    uint64_t start = 0;
    size_t count = 0;
    std::vector<uint8_t> buffer;
    explicit Window(int fd) : fd(fd), buffer(4 * chunk) {}

    // `length` bytes from `offset` on, or fewer at the end of the file.
    const uint8_t *get(uint64_t offset, size_t length, size_t &got) {
        if (offset < start || offset > start + count) start = offset, count = 0;
        size_t have = start + count - offset;
        if (have < length) {
            memmove(buffer.data(), buffer.data() + (offset - start), have);
            start = offset;
            count = have;
            size_t wanted = std::max(length, chunk);
            if (buffer.size() < wanted) buffer.resize(2 * wanted);
            while (count < wanted) {
                ssize_t n = pread(fd, buffer.data() + count, wanted - count, start + count);
                if (n <= 0) break;
                count += n;
            }
            have = count;
        }
        got = std::min(have, length);
        return buffer.data() + (offset - start);
    }
};

[[noreturn]] static void damaged(const std::string &path, uint64_t offset, const char *what) {
    fprintf(stderr, "%s: offset %llu: %s\n", path.c_str(), (unsigned long long)offset, what);
    exit(1);
}

static void walk(const std::string &path, Totals &t) {
    int fd = open(path.c_str(), O_RDONLY);
    if (fd < 0) damaged(path, 0, "cannot be opened");
    Window window(fd);
    size_t got;
    const uint8_t *page = window.get(0, 4096, got);
    if (got < 4096 || memcmp(page, "RFOLDSEG", 8) || refold_crc32c(0, page, 4092) != at<uint32_t>(page, 4092))
        damaged(path, 0, "bad header");
    uint64_t salt = at<uint64_t>(page, 32), base = at<uint64_t>(page, 40);
    if (t.begun && base != t.expected) damaged(path, 0, "not the next position");
    t.expected = base;
    t.begun = true;
    t.bytes += 4096;
    uint64_t offset = 4096;
    while (true) {
        const uint8_t *head = window.get(offset, 72, got);
        if (is_zero(head, got)) break;
        if (got < 72 || memcmp(head, "RBLK", 4) || refold_crc32c(0, head + 8, 64) != at<uint32_t>(head, 4)) break;
        uint32_t raw = at<uint32_t>(head, 8), stored = at<uint32_t>(head, 12), count = at<uint32_t>(head, 16);
        uint64_t first = at<uint64_t>(head, 24);
        int64_t first_time = at<int64_t>(head, 32), last_time = at<int64_t>(head, 40);
        if (at<uint64_t>(head, 48) != salt || !stored || stored > raw || raw > 64u << 20 || !count || count > raw / 32
            || first_time > last_time || at<uint64_t>(head, 56) > first || at<uint32_t>(head, 68))
            damaged(path, offset, "a header that cannot be");
        if (first != t.expected || first_time < t.last_time) damaged(path, offset, "not the next position or time");
        uint32_t crc = at<uint32_t>(head, 64);
        size_t whole = (72 + size_t(stored) + 4095) & ~size_t(4095);
        const uint8_t *block = window.get(offset, whole, got);
        if (got < 72 + size_t(stored) || refold_crc32c(0, block + 72, stored) != crc) damaged(path, offset, "checksum");
        if (!is_zero(block + 72 + stored, got - 72 - stored)) damaged(path, offset, "padding");
        t.expected += count;
        t.last_time = last_time;
        t.events += count;
        t.blocks++;
        t.bytes += whole;
        offset += whole;
    }
    close(fd);
}

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "usage: verify LOG_FOLDER\n"), 2;
    std::vector<std::string> names;
    DIR *folder = opendir(argv[1]);
    if (!folder) return perror(argv[1]), 2;
    while (dirent *entry = readdir(folder)) {
        std::string name = entry->d_name;
        if (name.size() == 24 && name.substr(20) == ".seg") names.push_back(name);
    }
    closedir(folder);
    std::sort(names.begin(), names.end());
    auto began = std::chrono::steady_clock::now();
    Totals t;
    for (auto &name : names) walk(std::string(argv[1]) + "/" + name, t);
    double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    printf("{\"bytes\": %llu, \"blocks\": %llu, \"events\": %llu, \"seconds\": %.6f}\n", (unsigned long long)t.bytes,
           (unsigned long long)t.blocks, (unsigned long long)t.events, seconds);
}
