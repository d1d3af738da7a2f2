// The limit that `refold-bench fold` and `refold-bench bulk` are measured against: the same log, the same folds with the
// same meaning (Sources/Projections), in C++ with simdjson On-Demand and an open-addressing table. A payload
// is parsed once for all projections.
//
//     fold LOG_FOLDER          device_status alone
//     fold LOG_FOLDER all      and connection events, dead letters, brokers, and what devices report of campaigns
//
// It prints {"events", "devices", "messages", "telemetry", "metrics_bytes", "events_per_second"}
//
// It reads schemas/log-format.md's segments: CRC32C of every block, LZ4, record walk, JSON, fold. Every payload is
// validated whole, strings and numbers that no field needs included, as Refold does. Rows are not written anywhere.
#include <fcntl.h>
#include <lz4.h>
#include <simdjson.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "payload.h"

extern "C" uint32_t refold_crc32c(uint32_t crc, const void *bytes, size_t length);

// ---- state -----------------------------------------------------------------------------------------------------

struct device {
    int64_t messages = 0, telemetry = 0, heartbeats = 0, acks = 0, rejected = 0, last_seq = 0, version = 0;
    int64_t first_seen = 0, last_seen = 0, last_telemetry = 0, last_heartbeat = 0, last_ack = 0;
    int64_t last_connected = 0, last_disconnected = 0, last_position = 0, rejected_position = -1;
    uint64_t shape = 0;
    bool has_seq = false, has_version = false, has_metrics = false;
    int8_t connected = -1;
    std::string metrics, site, reported, command_id, command_status;
};

/// Linear probing over slots of (tag, id); keys and states in vectors by id.
struct table {
    std::vector<uint64_t> slots = std::vector<uint64_t>(1024);
    std::vector<std::string> keys;
    std::vector<device> states;

    device &find(string_view key) {
        const uint64_t hash = hash_bytes(key, 0x2D358DCCAA6C78A5);
        size_t mask = slots.size() - 1, index = hash & mask;
        const uint64_t tag = hash >> 32;
        for (; slots[index]; index = (index + 1) & mask) {
            if (slots[index] >> 32 == tag) {
                const auto id = static_cast<uint32_t>(slots[index]) - 1;
                if (keys[id] == key) return states[id];
            }
        }
        keys.emplace_back(key);
        states.emplace_back();
        slots[index] = tag << 32 | keys.size();
        if (keys.size() * 3 > slots.size() * 2) grow();
        return states.back();
    }

    void grow() {
        std::vector<uint64_t> larger(slots.size() * 2);
        for (size_t id = 0; id < keys.size(); id++) {
            const uint64_t hash = hash_bytes(keys[id], 0x2D358DCCAA6C78A5);
            size_t index = hash & (larger.size() - 1);
            while (larger[index]) index = (index + 1) & (larger.size() - 1);
            larger[index] = hash >> 32 << 32 | (id + 1);
        }
        slots.swap(larger);
    }
};

// ---- the fold ----------------------------------------------------------------------------------------------------

struct event {
    uint8_t verdict, flags;
    int64_t at, position;
    string_view topic, payload, broker;
};

/// One device's part in one campaign.
struct report {
    int64_t reports = 0, late = 0, started = 0, completed = 0, last = 0, position = 0;
    double progress = -1;
    int8_t status = 0;  // 1 downloading, 2 installing, 3 success, 4 failed
    std::string error;
};

struct broker_row {
    int64_t messages = 0, last = 0, position = 0;
};

struct folder {
    table devices;
    od::parser parser;
    od::parser second;
    size_t capacity = 0;
    uint64_t events = 0;
    /// Whether the other projections are folded too, and their state.
    bool all = false;
    std::unordered_map<std::string, broker_row> brokers;
    std::unordered_map<std::string, report> reports;
    std::unordered_map<int64_t, std::array<int64_t, 2>> counts;
    std::string connection_rows, dead_letters;

    void append(std::string &rows, const event &e) {
        rows.append(reinterpret_cast<const char *>(&e.position), 8);
        rows.append(reinterpret_cast<const char *>(&e.at), 8);
        rows.append(e.topic);
        rows.append(e.payload);
    }

    void count(const event &e) {
        broker_row &row = brokers[std::string(e.broker)];
        row.messages++;
        row.last = e.at;
        row.position = e.position;
        if (e.verdict != 0) append(dead_letters, e);
    }

    void ota(const event &e, string_view tenant, string_view id) {
        bool escapes;
        od::document document = open(e, escapes);
        int64_t campaign = 0;
        bool has_campaign = false;
        int8_t status = 0;
        double progress = -1;
        std::string error;
        fields(document, escapes, tenant, id, [&](string_view key, od::value &value) {
            if (key == "campaign_id") {
                campaign = integer(value);
                has_campaign = true;
            } else if (key == "status") {
                std::string word(text(value, escapes));
                for (char &c : word) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
                status = word == "DOWNLOADING" ? 1 : word == "INSTALLING" ? 2 : word == "SUCCESS" ? 3 : word == "FAILED" ? 4 : 0;
            } else if (key == "progress") {
                progress = std::clamp<double>(value.get_double().value(), 0, 100);
            } else if (key == "error") {
                error.assign(text(value, escapes));
            } else {
                return false;
            }
            return true;
        });
        if (!has_campaign || status == 0) throw bad{};
        std::string name(reinterpret_cast<const char *>(&campaign), 8);
        name.append(id);
        report &r = reports[name];
        r.reports++;
        r.last = e.at;
        r.position = e.position;
        if (r.status >= 3) {
            r.late++;
            return;
        }
        if (r.status == 0) r.started = e.at;
        r.status = status;
        if (progress >= 0) r.progress = progress;
        r.error.swap(error);
        if (status >= 3) {
            r.completed = e.at;
            counts[campaign][status - 3]++;
        }
    }

    void fold(const event &e) {
        events++;
        if (all) count(e);
        // tenant/{t}/device/{d}/{rest}
        if (e.topic.compare(0, 7, "tenant/") != 0) return;
        const size_t slash = e.topic.find('/', 7);
        if (slash == string_view::npos || e.topic.compare(slash, 8, "/device/") != 0) return;
        const size_t end = e.topic.find('/', slash + 8);
        if (end == string_view::npos) return;
        device &d = devices.find(e.topic.substr(0, end));
        if (e.verdict != 0) {
            d.rejected++;
            d.last_position = e.position;
            return;
        }
        d.messages++;
        if (d.messages == 1) d.first_seen = e.at;
        d.last_seen = e.at;
        d.last_position = e.position;
        const string_view rest = e.topic.substr(end + 1);
        try {
            if (rest == "telemetry") {
                telemetry(d, e, e.topic.substr(7, slash - 7), e.topic.substr(slash + 8, end - slash - 8));
            } else if (rest == "heartbeat") {
                heartbeat(d, e, e.topic.substr(7, slash - 7), e.topic.substr(slash + 8, end - slash - 8));
            } else if (rest == "shadow/reported") {
                shadow(d, e);
            } else if (rest == "commands/ack") {
                ack(d, e);
            } else if (rest == "connection") {
                connection(d, e);
                if (all) append(connection_rows, e);
            } else if (all && rest == "ota/status") {
                ota(e, e.topic.substr(7, slash - 7), e.topic.substr(slash + 8, end - slash - 8));
            }
        } catch (const bad &) {
            if (all) append(dead_letters, e);
        }
    }

    od::document open(const event &e, bool &escapes) {
        if (e.payload.size() > capacity) {
            capacity = e.payload.size() * 2;
            if (parser.allocate(capacity)) std::abort();
        }
        escapes = std::memchr(e.payload.data(), '\\', e.payload.size()) != nullptr;
        od::document document;
        if (parser.iterate(e.payload.data(), e.payload.size(), e.payload.size() + simdjson::SIMDJSON_PADDING).get(document)) {
            throw bad{};
        }
        return document;
    }

    static int64_t integer(od::value &value) {
        bool whole = false;
        const string_view token = value.raw_json_token();
        int64_t number;
        if (!is_number(token, whole) || !whole
            || std::from_chars(token.data(), token.data() + token.size(), number).ec != std::errc()) {
            throw bad{};
        }
        if (value.get_int64().get(number)) throw bad{};
        return number;
    }

    /// Walks the outermost object; `take` handles a field or says false.
    template <class Take> void fields(od::document &document, bool escapes, string_view tenant, string_view id, Take take) {
        od::object object;
        if (document.get_object().get(object)) throw bad{};
        std::string memory;
        for (auto result : object) {
            od::field field;
            if (std::move(result).get(field)) throw bad{};
            const string_view key = key_of(field, escapes, memory);
            if (take(key, field.value())) continue;
            if (key == "tenant_id" || key == "device_id") {
                od::json_type type;
                if (field.value().type().get(type)) throw bad{};
                if (type == od::json_type::null) {
                    validate(field.value(), escapes);
                } else if (type != od::json_type::string
                           || text(field.value(), escapes) != (key == "tenant_id" ? tenant : id)) {
                    throw bad{};
                }
                continue;
            }
            validate(field.value(), escapes);
        }
        const char *rest;  // a place is left: something follows the object
        if (!document.current_location().get(rest)) throw bad{};
    }

    struct common {
        string_view site;
        bool has_site = false, has_seq = false;
        int64_t seq = 0;

        bool take(string_view key, od::value &value, bool escapes) {
            if (key != "seq" && key != "site_id" && key != "ts") return false;
            od::json_type type;
            if (value.type().get(type)) throw bad{};
            if (type == od::json_type::null) {
                validate(value, escapes);
            } else if (key == "seq") {
                seq = integer(value);
                has_seq = true;
            } else if (type != od::json_type::string) {
                throw bad{};
            } else if (key == "ts") {
                text(value, escapes);
            } else {
                site = text(value, escapes);
                has_site = true;
            }
            return true;
        }

        void store(device &d) const {
            if (has_site) d.site.assign(site);
            if (has_seq) {
                d.last_seq = seq;
                d.has_seq = true;
            }
        }
    };

    void telemetry(device &d, const event &e, string_view tenant, string_view id) {
        bool escapes;
        od::document document = open(e, escapes);
        common c;
        string_view metrics;
        uint64_t shape = 0;
        fields(document, escapes, tenant, id, [&](string_view key, od::value &value) {
            if (key == "metrics") {
                metrics = metrics_of(document, value, escapes, shape);
                return true;
            }
            return c.take(key, value, escapes);
        });
        if (!metrics.data()) throw bad{};
        d.telemetry++;
        d.last_telemetry = e.at;
        c.store(d);
        if (!d.has_metrics || (shape != 0 && shape == d.shape)) {
            d.metrics.assign(metrics);
            d.shape = shape;
            d.has_metrics = true;
        } else {
            merge(d, metrics, shape);
        }
    }

    void merge(device &d, string_view newer, uint64_t shape) {
        std::unordered_set<std::string> names;
        auto walk = [&](string_view json, auto each) {
            simdjson::padded_string padded(json);
            od::document document;
            od::object object;
            if (second.iterate(padded).get(document) || document.get_object().get(object)) throw bad{};
            for (auto result : object) {
                od::field field;
                if (std::move(result).get(field)) throw bad{};
                const char *begin = field.key().raw() - 1;
                string_view name = field.unescaped_key();
                std::string copy(name);
                string_view token = field.value().raw_json_token();
                while (!token.empty() && std::strchr(" \t\r\n", token.back())) token.remove_suffix(1);
                each(copy, string_view(begin, token.data() + token.size() - begin));
            }
        };
        walk(newer, [&](const std::string &name, string_view) { names.insert(name); });
        std::string merged;
        walk(d.metrics, [&](const std::string &name, string_view whole) {
            if (names.count(name)) return;
            merged += merged.empty() ? '{' : ',';
            merged += whole;
        });
        if (merged.empty()) {
            d.metrics.assign(newer);
            d.shape = shape;
            return;
        }
        walk(newer, [&](const std::string &, string_view whole) { (merged += ',') += whole; });
        merged += '}';
        d.metrics.swap(merged);
        d.shape = 0;
    }

    void heartbeat(device &d, const event &e, string_view tenant, string_view id) {
        bool escapes;
        od::document document = open(e, escapes);
        common c;
        fields(document, escapes, tenant, id, [&](string_view key, od::value &v) { return c.take(key, v, escapes); });
        d.heartbeats++;
        d.last_heartbeat = e.at;
        c.store(d);
    }

    void shadow(device &d, const event &e) {
        bool escapes, has_version = false;
        od::document document = open(e, escapes);
        int64_t version = 0;
        string_view reported;
        fields(document, escapes, {}, {}, [&](string_view key, od::value &value) {
            if (key == "version") {
                version = integer(value);
                has_version = true;
                return true;
            }
            if (key != "reported") return false;
            od::object object;
            if (validate(value, escapes) != kind::object) throw bad{};
            return true;
        });
        if (!has_version) throw bad{};
        if (d.has_version && version <= d.version) {
            d.rejected_position = e.position;
            return;
        }
        const size_t at = e.payload.find("\"reported\"");
        if (at == string_view::npos) throw bad{};
        d.has_version = true;
        d.version = version;
        d.reported.assign(e.payload.substr(at));
    }

    void ack(device &d, const event &e) {
        bool escapes;
        od::document document = open(e, escapes);
        std::string command, status;
        fields(document, escapes, {}, {}, [&](string_view key, od::value &value) {
            if (key != "command_id" && key != "status") return false;
            (key == "status" ? status : command) = text(value, escapes);
            return true;
        });
        d.acks++;
        d.last_ack = e.at;
        d.command_id.swap(command);
        d.command_status.swap(status);
    }

    void connection(device &d, const event &e) {
        bool escapes;
        od::document document = open(e, escapes);
        std::string status;
        fields(document, escapes, {}, {}, [&](string_view key, od::value &value) {
            if (key != "status") return false;
            status = text(value, escapes);
            return true;
        });
        d.connected = status == "CONNECTED";
        (d.connected ? d.last_connected : d.last_disconnected) = e.at;
    }
};

// ---- the log (schemas/log-format.md) ------------------------------------------------------------------------------

static void fail(const std::string &what) {
    std::fprintf(stderr, "fold: %s\n", what.c_str());
    std::exit(1);
}

static void fold_segment(const std::string &path, folder &f, std::vector<uint8_t> &raw) {
    const int fd = ::open(path.c_str(), O_RDONLY);
    struct stat info;
    if (fd < 0 || ::fstat(fd, &info) != 0) fail("cannot read " + path);
    const size_t size = static_cast<size_t>(info.st_size);
    const auto *bytes = static_cast<const uint8_t *>(::mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0));
    if (bytes == MAP_FAILED || size < 4096 || load<uint64_t>(bytes) != 0x474553444C4F4652) fail("no segment: " + path);
    const uint64_t salt = load<uint64_t>(bytes + 32);
    size_t offset = 4096;
    while (offset + 72 <= size) {
        const uint8_t *header = bytes + offset;
        if (load<uint32_t>(header) != 0x4B4C4252 || load<uint64_t>(header + 48) != salt
            || load<uint32_t>(header + 4) != refold_crc32c(0, header + 8, 64)) {
            break;
        }
        const uint32_t raw_bytes = load<uint32_t>(header + 8), stored = load<uint32_t>(header + 12);
        const uint32_t count = load<uint32_t>(header + 16), codec = load<uint32_t>(header + 20);
        if (offset + 72 + stored > size || load<uint32_t>(header + 64) != refold_crc32c(0, header + 72, stored)) {
            fail("a damaged block in " + path);
        }
        if (raw.size() < raw_bytes + simdjson::SIMDJSON_PADDING) raw.resize(raw_bytes + simdjson::SIMDJSON_PADDING);
        if (codec == 0) {
            std::memcpy(raw.data(), header + 72, stored);
        } else if (LZ4_decompress_safe(reinterpret_cast<const char *>(header + 72), reinterpret_cast<char *>(raw.data()),
                                       static_cast<int>(stored), static_cast<int>(raw_bytes))
                   != static_cast<int>(raw_bytes)) {
            fail("LZ4 refuses a block in " + path);
        }
        int64_t position = load<int64_t>(header + 24);
        const uint8_t *record = raw.data();
        for (uint32_t i = 0; i < count; i++, position++) {
            const uint32_t length = load<uint32_t>(record), payload = load<uint32_t>(record + 24);
            const uint16_t topic = load<uint16_t>(record + 18);
            const uint32_t properties = load<uint32_t>(record + 20);
            if (length != 32u + record[7] + topic + properties + payload) fail("a record's lengths disagree");
            if (record[4] == 1 && !(record[6] & 4)) {
                const auto *text = reinterpret_cast<const char *>(record);
                f.fold({record[5], record[6], load<int64_t>(record + 8), position,
                        {text + 32 + record[7], topic}, {text + length - payload, payload}, {text + 32, record[7]}});
            }
            record += length;
        }
        offset += (72 + stored + 4095) & ~size_t{4095};
    }
    ::munmap(const_cast<uint8_t *>(bytes), size);
    ::close(fd);
}

int main(int argc, char **argv) {
    if (argc < 2 || argc > 3) fail("usage: fold LOG_FOLDER [all]");
    std::vector<std::string> paths;
    for (const auto &entry : std::filesystem::directory_iterator(argv[1])) {
        if (entry.path().extension() == ".seg") paths.push_back(entry.path());
    }
    std::sort(paths.begin(), paths.end());
    folder f;
    f.all = argc == 3;
    std::vector<uint8_t> raw;
    const auto begin = std::chrono::steady_clock::now();
    for (const auto &path : paths) fold_segment(path, f, raw);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    int64_t messages = 0, telemetry = 0;
    size_t metrics = 0;
    for (const device &d : f.devices.states) {
        messages += d.messages;
        telemetry += d.telemetry;
        metrics += d.metrics.size();
    }
    std::printf(
        "{\"events\": %llu, \"devices\": %zu, \"messages\": %lld, \"telemetry\": %lld, \"metrics_bytes\": %zu, "
        "\"seconds\": %.3f, \"events_per_second\": %.0f}\n",
        static_cast<unsigned long long>(f.events), f.devices.states.size(), static_cast<long long>(messages),
        static_cast<long long>(telemetry), metrics, seconds, static_cast<double>(f.events) / seconds);
}
