// JSON with simdjson On-Demand, and a check of everything that it would skip: every payload is validated whole, strings
// and numbers that no field needs included, as Refold does. For the limits alone.
#pragma once

#include <simdjson.h>

#include <charconv>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

using std::string_view;
namespace od = simdjson::ondemand;

template <class T> static T load(const uint8_t *p) {
    T value;
    std::memcpy(&value, p, sizeof value);
    return value;
}

static uint64_t mix(uint64_t a, uint64_t b) {
    const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

static uint64_t hash_bytes(string_view s, uint64_t seed) {
    uint64_t hash = seed ^ s.size();
    const auto *p = reinterpret_cast<const uint8_t *>(s.data());
    size_t left = s.size();
    for (; left > 16; p += 16, left -= 16) {
        hash = mix(load<uint64_t>(p) ^ 0xA0761D6478BD642F, load<uint64_t>(p + 8) ^ hash);
    }
    uint64_t a = 0, b = 0;
    std::memcpy(&a, p, std::min<size_t>(left, 8));
    if (left > 8) std::memcpy(&b, p + 8, left - 8);
    return mix(a ^ 0xE7037ED1A0B428DB, b ^ hash);
}

struct bad {};  // a dead letter

static bool is_number(string_view token, bool &integer) {
    while (!token.empty() && std::strchr(" \t\r\n", token.back())) token.remove_suffix(1);
    const char *p = token.data(), *end = p + token.size();
    auto digits = [&] {
        const char *begin = p;
        while (p < end && *p >= '0' && *p <= '9') p++;
        return p > begin;
    };
    if (p < end && *p == '-') p++;
    if (p < end && *p == '0') {
        p++;
    } else if (!digits()) {
        return false;
    }
    integer = true;
    bool exponent = false;
    if (p < end && *p == '.') {
        p++;
        integer = false;
        if (!digits()) return false;
    }
    if (p < end && (*p | 0x20) == 'e') {
        p++;
        integer = false;
        exponent = true;
        if (p < end && (*p == '+' || *p == '-')) p++;
        if (!digits()) return false;
    }
    // Beyond numeric's range: this fleet sends none; a conservative answer is enough here.
    if (exponent && token.size() > 8) return false;
    return p == end;
}

static string_view raw_string(od::value &value) {
    simdjson::ondemand::raw_json_string raw;
    if (value.get_raw_json_string().get(raw)) throw bad{};
    const char *begin = raw.raw();
    const char *end = begin;
    while (*end != '"') end += *end == '\\' ? 2 : 1;
    return {begin, static_cast<size_t>(end - begin)};
}

/// A string's text; escapes are undone (and checked) only where there are any.
static string_view text(od::value &value, bool escapes) {
    if (!escapes) return raw_string(value);
    string_view unescaped;
    if (value.get_string().get(unescaped)) throw bad{};
    if (unescaped.find('\0') != string_view::npos) throw bad{};
    return unescaped;
}

static string_view key_of(od::field &field, bool escapes, std::string &memory) {
    const char *begin = field.key().raw();
    const char *end = begin;
    while (*end != '"') end += *end == '\\' ? 2 : 1;
    if (!escapes || std::memchr(begin, '\\', end - begin) == nullptr) return {begin, static_cast<size_t>(end - begin)};
    string_view unescaped;
    if (field.unescaped_key().get(unescaped)) throw bad{};
    memory = unescaped;
    return memory;
}

enum class kind { null, boolean, integer, number, string, object, array };

static kind validate(od::value &value, bool escapes);

static kind validate_scalar(od::value &value, od::json_type type, bool escapes) {
    switch (type) {
    case od::json_type::string: text(value, escapes); return kind::string;
    case od::json_type::number: {
        bool integer = false;
        if (!is_number(value.raw_json_token(), integer)) throw bad{};
        return integer ? kind::integer : kind::number;
    }
    case od::json_type::boolean: {
        bool ignored;
        if (value.get_bool().get(ignored)) throw bad{};
        return kind::boolean;
    }
    default: {
        bool null;
        if (value.is_null().get(null) || !null) throw bad{};
        return kind::null;
    }
    }
}

static kind validate(od::value &value, bool escapes) {
    od::json_type type;
    if (value.type().get(type)) throw bad{};
    if (type == od::json_type::object) {
        od::object object;
        if (value.get_object().get(object)) throw bad{};
        std::string memory;
        for (auto result : object) {
            od::field field;
            if (std::move(result).get(field)) throw bad{};
            key_of(field, escapes, memory);
            validate(field.value(), escapes);
        }
        return kind::object;
    }
    if (type == od::json_type::array) {
        od::array array;
        if (value.get_array().get(array)) throw bad{};
        for (auto result : array) {
            od::value item;
            if (std::move(result).get(item)) throw bad{};
            validate(item, escapes);
        }
        return kind::array;
    }
    return validate_scalar(value, type, escapes);
}

/// metrics: scalars only; gives the object's bytes and a digest of its names.
static string_view metrics_of(od::document &document, od::value &value, bool escapes, uint64_t &shape) {
    od::object object;
    const char *const begin = value.raw_json_token().data();
    if (value.get_object().get(object)) throw bad{};
    uint64_t hash = 0xA0761D6478BD642F;
    std::string memory;
    for (auto result : object) {
        od::field field;
        if (std::move(result).get(field)) throw bad{};
        hash = hash_bytes(key_of(field, escapes, memory), hash);
        od::json_type type;
        if (field.value().type().get(type) || type == od::json_type::object || type == od::json_type::array
            || type == od::json_type::null) {
            throw bad{};
        }
        validate_scalar(field.value(), type, escapes);
    }
    shape = escapes ? 0 : hash | 1;
    const char *end;
    if (document.current_location().get(end)) throw bad{};
    while (end[-1] != '}') end--;
    return {begin, static_cast<size_t>(end - begin)};
}
