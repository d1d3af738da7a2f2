#include "walk.h"

namespace refold {

bool start(refold_parser &parser, const uint8_t *bytes, size_t count, walker &out) {
    if (count == 0 || count > (size_t{1} << 30)) return false;
    if (count > parser.capacity || !parser.first_stage) {
        const size_t capacity = count < 4096 ? 4096 : count * 2;
        parser.capacity = 0;
        if (simdjson::get_active_implementation()->create_dom_parser_implementation(capacity, 1, parser.first_stage)) {
            throw std::bad_alloc();
        }
        parser.capacity = capacity;
    }
    if (parser.first_stage->stage1(bytes, count, simdjson::stage1_mode::regular)) return false;
    out.bytes = bytes;
    out.count = static_cast<uint32_t>(count);
    out.at = parser.first_stage->structural_indexes.get();
    out.tokens = parser.first_stage->n_structural_indexes;
    out.escapes = std::memchr(bytes, '\\', count) != nullptr;
    out.open = &parser.open;
    return true;
}

static int hex4(const uint8_t *p, const uint8_t *limit) {
    if (limit - p < 4) return -1;
    int value = 0;
    for (int i = 0; i < 4; i++) {
        const uint8_t c = p[i], lower = c | 0x20;
        if (is_digit(c)) {
            value = value * 16 + (c - '0');
        } else if (lower >= 'a' && lower <= 'f') {
            value = value * 16 + (lower - 'a' + 10);
        } else {
            return -1;
        }
    }
    return value;
}

bool check_escapes(walker &w, span text) {
    const uint8_t *p = text.start, *const limit = p + text.count;
    while ((p = static_cast<const uint8_t *>(std::memchr(p, '\\', limit - p))) != nullptr) {
        if (limit - p < 2) return false;
        const uint8_t c = p[1];
        p += 2;
        if (c != 'u') {
            if (std::memchr("\"\\/bfnrt", c, 8) == nullptr) return false;
            continue;
        }
        const int unit = hex4(p, limit);
        if (unit < 0) return false;
        p += 4;
        if (unit == 0) w.report(REFOLD_PROBLEM_NUL);
        if (unit >= 0xDC00 && unit <= 0xDFFF) w.report(REFOLD_PROBLEM_SURROGATE);
        if (unit >= 0xD800 && unit <= 0xDBFF) {
            const int low = limit - p >= 6 && p[0] == '\\' && p[1] == 'u' ? hex4(p + 2, limit) : -1;
            if (low >= 0xDC00 && low <= 0xDFFF) {
                p += 6;
            } else {
                w.report(REFOLD_PROBLEM_SURROGATE);
            }
        }
    }
    return true;
}

static size_t put_utf8(uint32_t code, uint8_t *out) {
    if (code < 0x80) {
        out[0] = static_cast<uint8_t>(code);
        return 1;
    }
    if (code < 0x800) {
        out[0] = static_cast<uint8_t>(0xC0 | code >> 6);
        out[1] = static_cast<uint8_t>(0x80 | (code & 0x3F));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = static_cast<uint8_t>(0xE0 | code >> 12);
        out[1] = static_cast<uint8_t>(0x80 | (code >> 6 & 0x3F));
        out[2] = static_cast<uint8_t>(0x80 | (code & 0x3F));
        return 3;
    }
    out[0] = static_cast<uint8_t>(0xF0 | code >> 18);
    out[1] = static_cast<uint8_t>(0x80 | (code >> 12 & 0x3F));
    out[2] = static_cast<uint8_t>(0x80 | (code >> 6 & 0x3F));
    out[3] = static_cast<uint8_t>(0x80 | (code & 0x3F));
    return 4;
}

size_t unescape(span text, uint8_t *out) {
    const uint8_t *p = text.start, *const limit = p + text.count;
    uint8_t *o = out;
    while (p < limit) {
        if (*p != '\\') {
            *o++ = *p++;
            continue;
        }
        const uint8_t c = p[1];
        p += 2;
        switch (c) {
        case 'b': *o++ = '\b'; break;
        case 'f': *o++ = '\f'; break;
        case 'n': *o++ = '\n'; break;
        case 'r': *o++ = '\r'; break;
        case 't': *o++ = '\t'; break;
        case 'u': {
            uint32_t code = static_cast<uint32_t>(hex4(p, limit));
            p += 4;
            if (code >= 0xD800 && code <= 0xDBFF && limit - p >= 6) {
                code = 0x10000 + ((code - 0xD800) << 10) + (static_cast<uint32_t>(hex4(p + 2, limit)) - 0xDC00);
                p += 6;
            }
            o += put_utf8(code, o);
            break;
        }
        default: *o++ = c;
        }
    }
    return static_cast<size_t>(o - out);
}

void check_magnitude(walker &w, const uint8_t *p, const uint8_t *end) {
    if (*p == '-') p++;
    // numeric.c, set_var_from_str: the weight is that of the first digit that is not zero, the scale that of the last.
    int64_t whole = 0, fraction = 0, leading = 0;
    bool nonzero = false;
    for (; p < end && is_digit(*p); p++, whole++) {
        nonzero = nonzero || *p != '0';
        if (!nonzero) leading++;
    }
    if (p < end && *p == '.') {
        for (p++; p < end && is_digit(*p); p++, fraction++) {
            nonzero = nonzero || *p != '0';
            if (!nonzero) leading++;
        }
    }
    int64_t exponent = 0;
    if (p < end) {
        p++;
        const bool negative = *p == '-';
        if (*p == '-' || *p == '+') p++;
        for (; p < end; p++) {
            if (exponent < 10'000'000) exponent = exponent * 10 + (*p - '0');
        }
        if (negative) exponent = -exponent;
    }
    const int64_t before_point = nonzero ? whole - leading + exponent : 1;
    const int64_t scale = fraction - exponent > 0 ? fraction - exponent : 0;
    if (before_point > 131'072 || scale > 16'383 || exponent > 200'000) {
        w.report(REFOLD_PROBLEM_NUMBER);
        return;
    }
    w.plain_digits += static_cast<size_t>((before_point > 1 ? before_point : 1) + scale);
    if (w.plain_digits > plain_digits_max) w.report(REFOLD_PROBLEM_NUMBER);
}

bool skip_container(walker &w, uint32_t depth) {
    std::vector<uint8_t> &open = *w.open;
    open.clear();
    uint8_t top = 0;
    for (;;) {
        // At an opening bracket: its closing one is two code points on, in ASCII.
        top = w.peek() + 2;
        w.next++;
        open.push_back(top);
        if (depth + open.size() > depth_max) w.report(REFOLD_PROBLEM_DEPTH);
        bool closed = w.peek() == top;
        if (closed) w.next++;
        for (;;) {
            if (closed) {
                open.pop_back();
                if (open.empty()) return true;
                top = open.back();
                const uint8_t after = w.peek();
                w.next++;
                if (after == ',') {
                    closed = false;
                } else if (after != top) {
                    return false;
                }
                if (closed) continue;
            }
            span ignored;
            if (top == '}' && !key(w, ignored)) return false;
            const uint8_t first = w.peek();
            if (first == '{' || first == '[') break;
            type kind;
            if (!value(w, depth, kind, ignored)) return false;
            const uint8_t after = w.peek();
            w.next++;
            if (after == top) {
                closed = true;
            } else if (after != ',') {
                return false;
            }
        }
    }
}

}  // namespace refold
