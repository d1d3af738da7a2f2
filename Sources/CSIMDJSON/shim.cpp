#include <charconv>
#include <new>

#include "walk.h"

using namespace refold;

namespace {

struct found {
    type kind = type::absent;
    span place;
};

constexpr uint32_t bit(int field) { return 1u << field; }

/// Which fields a payload of each kind has; the others are kept and not looked at.
constexpr uint32_t fields_of[REFOLD_KIND_COUNT] = {
    bit(REFOLD_FIELD_TS) | bit(REFOLD_FIELD_SITE_ID) | bit(REFOLD_FIELD_SEQ) | bit(REFOLD_FIELD_METRICS),
    bit(REFOLD_FIELD_TS) | bit(REFOLD_FIELD_SITE_ID) | bit(REFOLD_FIELD_SEQ),
    bit(REFOLD_FIELD_VERSION) | bit(REFOLD_FIELD_REPORTED),
    bit(REFOLD_FIELD_COMMAND_ID) | bit(REFOLD_FIELD_STATUS) | bit(REFOLD_FIELD_DETAILS),
    bit(REFOLD_FIELD_CAMPAIGN_ID) | bit(REFOLD_FIELD_STATUS) | bit(REFOLD_FIELD_PROGRESS) | bit(REFOLD_FIELD_ERROR),
    bit(REFOLD_FIELD_STATUS),
    bit(REFOLD_FIELD_REJECTED),
};
constexpr uint32_t required_of[REFOLD_KIND_COUNT] = {
    bit(REFOLD_FIELD_METRICS), 0, bit(REFOLD_FIELD_VERSION) | bit(REFOLD_FIELD_REPORTED),
    bit(REFOLD_FIELD_COMMAND_ID) | bit(REFOLD_FIELD_STATUS), bit(REFOLD_FIELD_CAMPAIGN_ID) | bit(REFOLD_FIELD_STATUS),
    bit(REFOLD_FIELD_STATUS), bit(REFOLD_FIELD_REJECTED),
};

template <size_t N> bool is(span name, const char (&word)[N]) { return std::memcmp(name.start, word, N - 1) == 0; }

/// The field of that name, −1 when it is none. By length first, so that each name costs one comparison.
int field_named(span name) {
    switch (name.count) {
    case 2: return is(name, "ts") ? REFOLD_FIELD_TS : -1;
    case 3: return is(name, "seq") ? REFOLD_FIELD_SEQ : -1;
    case 5: return is(name, "error") ? REFOLD_FIELD_ERROR : is(name, "count") ? REFOLD_FIELD_REJECTED : -1;
    case 6: return is(name, "status") ? REFOLD_FIELD_STATUS : -1;
    case 7:
        return is(name, "metrics")   ? REFOLD_FIELD_METRICS
               : is(name, "site_id") ? REFOLD_FIELD_SITE_ID
               : is(name, "version") ? REFOLD_FIELD_VERSION
               : is(name, "details") ? REFOLD_FIELD_DETAILS
                                     : -1;
    case 8: return is(name, "reported") ? REFOLD_FIELD_REPORTED : is(name, "progress") ? REFOLD_FIELD_PROGRESS : -1;
    case 9: return is(name, "tenant_id") ? REFOLD_FIELD_TENANT_ID : is(name, "device_id") ? REFOLD_FIELD_DEVICE_ID : -1;
    case 10: return is(name, "command_id") ? REFOLD_FIELD_COMMAND_ID : -1;
    case 11: return is(name, "campaign_id") ? REFOLD_FIELD_CAMPAIGN_ID : -1;
    default: return -1;
    }
}

uint64_t load(const uint8_t *p, size_t count) {
    uint64_t word = 0;
    std::memcpy(&word, p, count);
    return word;
}

uint64_t mix(uint64_t a, uint64_t b) {
    const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

/// Extends a digest over one name, its length included, so that names cannot run into each other.
uint64_t digest(uint64_t seed, span name) {
    const uint8_t *p = name.start;
    size_t left = name.count;
    uint64_t hash = seed ^ (left * 0x9E37'79B9'7F4A'7C15);
    while (left > 8) {
        hash = mix(hash ^ load(p, 8), 0xA076'1D64'78BD'642F);
        p += 8;
        left -= 8;
    }
    return mix(hash ^ load(p, left), 0xE703'7ED1'A0B4'28DB);
}

/// metrics: an object of numbers, booleans and strings. `kind` becomes `array` when a value is of another type.
bool metrics(walker &w, found &out, uint64_t &shape) {
    const uint8_t *begin = w.bytes + w.at[w.next];
    bool flat = true;
    uint64_t hash = 0x2D35'8DCC'AA6C'78A5;
    w.next++;
    if (w.peek() == '}') {
        w.next++;
    } else {
        for (;;) {
            span name, ignored;
            type kind;
            if (!key(w, name) || !value(w, 2, kind, ignored)) return false;
            hash = digest(hash, name);
            flat = flat && kind != type::null && kind != type::object && kind != type::array;
            const uint8_t after = w.peek();
            w.next++;
            if (after == '}') break;
            if (after != ',') return false;
        }
    }
    out.kind = flat ? type::object : type::array;
    out.place = {begin, static_cast<uint32_t>(w.bytes + w.at[w.next - 1] + 1 - begin)};
    // Names that are spelled in several ways, and numbers that grow when they are written out, are for the long way.
    shape = w.escapes || w.plain_digits != 0 ? 0 : (hash == 0 ? 1 : hash);
    return true;
}

/// The members of the outermost object. The last of several members of one name counts, as in jsonb.
bool members(walker &w, uint32_t wanted, found *fields, uint64_t &shape, std::vector<uint8_t> &scratch) {
    w.next++;
    if (w.peek() == '}') {
        w.next++;
        return true;
    }
    for (;;) {
        span name;
        if (!key(w, name)) return false;
        int field;
        if (w.escapes && std::memchr(name.start, '\\', name.count) != nullptr) {
            scratch.resize(name.count);
            const size_t plain = unescape(name, scratch.data());
            field = field_named({scratch.data(), static_cast<uint32_t>(plain)});
        } else {
            field = field_named(name);
        }
        const bool kept = field >= 0 && (wanted & bit(field)) != 0;
        found ignored, &place = kept ? fields[field] : ignored;
        if (kept && field == REFOLD_FIELD_METRICS && w.peek() == '{') {
            if (!metrics(w, place, shape)) return false;
        } else if (!value(w, 1, place.kind, place.place)) {
            return false;
        }
        const uint8_t after = w.peek();
        w.next++;
        if (after == '}') return true;
        if (after != ',') return false;
    }
}

/// A string's text, unescaped into the parser's memory where needed. The memory was reserved for the whole payload.
refold_bytes text(const walker &w, span place, std::vector<uint8_t> &scratch, size_t &used) {
    if (!w.escapes || std::memchr(place.start, '\\', place.count) == nullptr) return {place.start, place.count};
    uint8_t *out = scratch.data() + used;
    const size_t count = unescape(place, out);
    used += place.count;
    return {out, count};
}

bool parse_integer(span place, int64_t &out) {
    const char *begin = reinterpret_cast<const char *>(place.start);
    return std::from_chars(begin, begin + place.count, out).ec == std::errc();
}

/// Clamped to 0 to 100; what a double cannot hold is beyond one of the ends.
double parse_progress(span place) {
    const char *begin = reinterpret_cast<const char *>(place.start), *end = begin + place.count;
    double number = 0;
    if (std::from_chars(begin, end, number).ec != std::errc()) {
        const char *exponent = begin;
        while (exponent < end && (*exponent | 0x20) != 'e') exponent++;
        const bool tiny = exponent + 1 < end && exponent[1] == '-';
        number = *begin == '-' || tiny ? 0 : 100;
    }
    return number > 0 ? (number < 100 ? number : 100) : 0;
}

uint8_t fail(refold_message &out, uint8_t error, int field = REFOLD_FIELD_COUNT) {
    out.field = static_cast<uint8_t>(field);
    out.error = error;
    return error;
}

bool has_type(int field, const found &f, int64_t &integer) {
    switch (field) {
    case REFOLD_FIELD_SEQ:
    case REFOLD_FIELD_VERSION:
    case REFOLD_FIELD_CAMPAIGN_ID:
    case REFOLD_FIELD_REJECTED:
        return f.kind == type::integer && parse_integer(f.place, integer);
    case REFOLD_FIELD_PROGRESS:
        return f.kind == type::integer || f.kind == type::number_;
    case REFOLD_FIELD_METRICS:
    case REFOLD_FIELD_REPORTED:
    case REFOLD_FIELD_DETAILS:
        return f.kind == type::object;
    default:
        return f.kind == type::string;
    }
}

void put(int field, const found &f, const walker &w, std::vector<uint8_t> &scratch, size_t &used, refold_message &out) {
    switch (field) {
    case REFOLD_FIELD_SEQ:
    case REFOLD_FIELD_VERSION:
    case REFOLD_FIELD_CAMPAIGN_ID:
    case REFOLD_FIELD_REJECTED:
        out.has_integer = 1;
        break;
    case REFOLD_FIELD_PROGRESS:
        out.has_progress = 1;
        out.progress = parse_progress(f.place);
        break;
    case REFOLD_FIELD_METRICS:
    case REFOLD_FIELD_REPORTED:
    case REFOLD_FIELD_DETAILS:
        out.object = {f.place.start, f.place.count};
        break;
    case REFOLD_FIELD_SITE_ID: out.site_id = text(w, f.place, scratch, used); break;
    case REFOLD_FIELD_COMMAND_ID: out.command_id = text(w, f.place, scratch, used); break;
    case REFOLD_FIELD_STATUS: out.status = text(w, f.place, scratch, used); break;
    case REFOLD_FIELD_ERROR: out.error_text = text(w, f.place, scratch, used); break;
    default: break;
    }
}

/// An optional `tenant_id` or `device_id` must be the topic's.
uint8_t check_address(
    const walker &w, const found *fields, int field, const uint8_t *id, size_t id_count, std::vector<uint8_t> &scratch,
    size_t &used, refold_message &out) {
    const found &f = fields[field];
    if (f.kind == type::absent || f.kind == type::null) return REFOLD_JSON_OK;
    if (f.kind != type::string) return fail(out, REFOLD_JSON_INVALID_TYPE, field);
    const refold_bytes given = text(w, f.place, scratch, used);
    if (given.count == id_count && std::memcmp(given.start, id, id_count) == 0) return REFOLD_JSON_OK;
    return fail(
        out, field == REFOLD_FIELD_TENANT_ID ? REFOLD_JSON_TENANT_MISMATCH : REFOLD_JSON_DEVICE_MISMATCH, field);
}

void decode(
    refold_parser &parser, int kind, const uint8_t *payload, size_t count, const uint8_t *tenant, size_t tenant_count,
    const uint8_t *device, size_t device_count, refold_message &out) {
    const uint32_t address = bit(REFOLD_FIELD_TENANT_ID) | bit(REFOLD_FIELD_DEVICE_ID);
    const uint32_t own = fields_of[kind];
    // An older agent may put anything there; only what can be a command's id is looked at.
    const uint32_t lenient = kind == REFOLD_OTA ? bit(REFOLD_FIELD_COMMAND_ID) : 0;
    out = refold_message{};
    out.field = REFOLD_FIELD_COUNT;
    walker w;
    found fields[REFOLD_FIELD_COUNT];
    if (!start(parser, payload, count, w)) return void(fail(out, REFOLD_JSON_INVALID));
    const bool object = w.peek() == '{';
    found ignored;
    const bool whole = object ? members(w, own | lenient | address, fields, out.shape, parser.scratch)
                              : value(w, 0, ignored.kind, ignored.place);
    if (!whole || !w.done()) return void(fail(out, REFOLD_JSON_INVALID));
    out.problem = w.problem;
    if (w.problem != REFOLD_PROBLEM_NONE) return void(fail(out, REFOLD_JSON_UNREPRESENTABLE));
    if (!object) return void(fail(out, REFOLD_JSON_NOT_AN_OBJECT));
    size_t used = 0;
    if (w.escapes && parser.scratch.size() < count) parser.scratch.resize(count);
    if (check_address(w, fields, REFOLD_FIELD_TENANT_ID, tenant, tenant_count, parser.scratch, used, out)
        || check_address(w, fields, REFOLD_FIELD_DEVICE_ID, device, device_count, parser.scratch, used, out)) {
        return;
    }
    for (uint32_t left = own; left; left &= left - 1) {
        const int field = __builtin_ctz(left);
        const found &f = fields[field];
        if (f.kind == type::absent || f.kind == type::null) {
            if (required_of[kind] & bit(field)) return void(fail(out, REFOLD_JSON_MISSING_FIELD, field));
            continue;
        }
        if (!has_type(field, f, out.integer)) return void(fail(out, REFOLD_JSON_INVALID_TYPE, field));
        put(field, f, w, parser.scratch, used, out);
    }
    if (lenient != 0) {
        const found &f = fields[REFOLD_FIELD_COMMAND_ID];
        if (f.kind == type::integer) out.command_id = {f.place.start, f.place.count};
        if (f.kind == type::string) out.command_id = text(w, f.place, parser.scratch, used);
    }
}

}  // namespace

extern "C" refold_parser *refold_parser_create(void) { return new (std::nothrow) refold_parser; }
extern "C" void refold_parser_destroy(refold_parser *parser) { delete parser; }

// Only memory can run out below, and a process without memory cannot go on: no exception crosses into C.
extern "C" void refold_decode(
    refold_parser *parser, int kind, const uint8_t *payload, size_t count, const uint8_t *tenant, size_t tenant_count,
    const uint8_t *device, size_t device_count, refold_message *out) {
    try {
        decode(*parser, kind, payload, count, tenant, tenant_count, device, device_count, *out);
    } catch (...) {
        std::abort();
    }
}

extern "C" int refold_check_json(refold_parser *parser, const uint8_t *payload, size_t count, uint8_t *problem) {
    try {
        walker w;
        found ignored;
        *problem = REFOLD_PROBLEM_NONE;
        if (!start(*parser, payload, count, w) || !value(w, 0, ignored.kind, ignored.place) || !w.done()) {
            return REFOLD_JSON_INVALID;
        }
        *problem = w.problem;
        return w.problem == REFOLD_PROBLEM_NONE ? REFOLD_JSON_OK : REFOLD_JSON_UNREPRESENTABLE;
    } catch (...) {
        std::abort();
    }
}
