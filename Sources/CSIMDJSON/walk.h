// The grammar of RFC 8259 over the token positions that simdjson's first stage found, plus what PostgreSQL 15 asks
// beyond it (src/backend/utils/adt/jsonb.c, numeric.c).
//
// What the first stage has ensured: the payload is UTF-8, strings are closed and hold no raw control characters, and
// `at` lists the place of every `{ } [ ] : ,`, of every string's opening quote and of the first byte of every other
// run.
#pragma once

#include <simdjson.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "include/simdjson_shim.h"

struct refold_parser {
    std::unique_ptr<simdjson::internal::dom_parser_implementation> first_stage;
    size_t capacity = 0;
    std::vector<uint8_t> open;     // brackets that are open during a walk
    std::vector<uint8_t> scratch;  // unescaped strings, merged objects
};

namespace refold {

constexpr uint32_t depth_max = 512;
/// Digits that all numbers of a payload may have together when written out, as jsonb writes them: `1e131071` is eight
/// bytes in and 131,072 out, so that a payload of nothing else could not be read back.
constexpr size_t plain_digits_max = 1 << 20;

struct walker {
    const uint8_t *bytes;
    uint32_t count;
    const uint32_t *at;
    uint32_t tokens;
    uint32_t next = 0;
    bool escapes = false;
    uint8_t problem = REFOLD_PROBLEM_NONE;
    size_t plain_digits = 0;
    std::vector<uint8_t> *open;

    bool done() const { return next == tokens; }
    /// The byte of the next token, 0 at the end.
    uint8_t peek() const { return next < tokens ? bytes[at[next]] : 0; }
    void report(uint8_t found) {
        if (problem == REFOLD_PROBLEM_NONE) problem = found;
    }
};

/// A string's inside, without the quotes, or any value's place.
struct span {
    const uint8_t *start = nullptr;
    uint32_t count = 0;
};

inline bool is_space(uint8_t c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }
inline bool is_digit(uint8_t c) { return static_cast<uint8_t>(c - '0') < 10; }

/// Runs the first stage. False: not UTF-8, an unclosed string, a raw control character, or nothing at all.
bool start(refold_parser &parser, const uint8_t *bytes, size_t count, walker &out);
/// The escapes between two quotes: false when malformed. Reports NUL and lone surrogates.
bool check_escapes(walker &w, span text);
/// Undoes escapes that `check_escapes` has accepted. `out` has room for `text.count` bytes; returns the length.
size_t unescape(span text, uint8_t *out);
/// Numbers with an exponent or of more than 300 bytes: reports those beyond numeric, and adds up their digits.
void check_magnitude(walker &w, const uint8_t *start, const uint8_t *end);
/// An array or object that begins at the next token. `depth` containers are open around it.
bool skip_container(walker &w, uint32_t depth);

/// The string that begins at the next token.
inline bool string(walker &w, span &out) {
    const uint32_t begin = w.at[w.next];
    w.next++;
    // Between a closing quote and the next token there is only white space.
    uint32_t end = (w.next < w.tokens ? w.at[w.next] : w.count) - 1;
    while (w.bytes[end] != '"') end--;
    out = {w.bytes + begin + 1, end - begin - 1};
    if (__builtin_expect(w.escapes, 0)) return check_escapes(w, out);
    return true;
}

/// A number, whose kind it tells: `integer` when it has neither fraction nor exponent.
inline bool number(walker &w, span &out, bool &integer) {
    const uint8_t *const begin = w.bytes + w.at[w.next];
    const uint8_t *const limit = w.bytes + w.count;
    const uint8_t *p = begin;
    if (*p == '-') p++;
    if (p == limit || !is_digit(*p)) return false;
    if (*p == '0') {
        p++;
    } else {
        while (p < limit && is_digit(*p)) p++;
    }
    bool exponent = false;
    integer = true;
    if (p < limit && *p == '.') {
        integer = false;
        p++;
        const uint8_t *fraction = p;
        while (p < limit && is_digit(*p)) p++;
        if (p == fraction) return false;
    }
    if (p < limit && (*p | 0x20) == 'e') {
        integer = false;
        exponent = true;
        p++;
        if (p < limit && (*p == '+' || *p == '-')) p++;
        const uint8_t *digits = p;
        while (p < limit && is_digit(*p)) p++;
        if (p == digits) return false;
    }
    // A quote that follows directly would be no token of its own.
    if (p < limit && !is_space(*p) && *p != ',' && *p != '}' && *p != ']') return false;
    w.next++;
    out = {begin, static_cast<uint32_t>(p - begin)};
    if (__builtin_expect(exponent || out.count > 300, 0)) check_magnitude(w, begin, p);
    return true;
}

inline bool literal(walker &w, const char *word, uint32_t length) {
    const uint32_t begin = w.at[w.next];
    if (w.count - begin < length || std::memcmp(w.bytes + begin, word, length) != 0) return false;
    const uint32_t end = begin + length;
    if (end < w.count) {
        const uint8_t after = w.bytes[end];
        if (!is_space(after) && after != ',' && after != '}' && after != ']') return false;
    }
    w.next++;
    return true;
}

/// What a value is; `number_` without fraction and exponent is `integer`.
enum class type : uint8_t { absent, null, boolean, integer, number_, string, object, array };

/// Any value at the next token: checks all of it, gives its kind and place (of a string: its inside).
inline bool value(walker &w, uint32_t depth, type &kind, span &out) {
    const uint8_t first = w.peek();
    switch (first) {
    case '"':
        kind = type::string;
        return string(w, out);
    case '{':
    case '[': {
        const uint8_t *begin = w.bytes + w.at[w.next];
        if (!skip_container(w, depth)) return false;
        kind = first == '{' ? type::object : type::array;
        out = {begin, static_cast<uint32_t>(w.bytes + w.at[w.next - 1] + 1 - begin)};
        return true;
    }
    case 't':
        kind = type::boolean;
        return literal(w, "true", 4);
    case 'f':
        kind = type::boolean;
        return literal(w, "false", 5);
    case 'n':
        kind = type::null;
        return literal(w, "null", 4);
    default: {
        bool integer = false;
        if (w.done() || !number(w, out, integer)) return false;
        kind = integer ? type::integer : type::number_;
        return true;
    }
    }
}

/// A member's name and the colon behind it.
inline bool key(walker &w, span &out) {
    if (w.peek() != '"' || !string(w, out) || w.peek() != ':') return false;
    w.next++;
    return true;
}

}  // namespace refold
