#include <algorithm>
#include <cstdint>
#include <string_view>
#include <unordered_set>

#include "walk.h"

using namespace refold;

namespace {

struct member {
    std::string_view name;  // unescaped
    span whole;             // `"name": value`
};

/// Reads an object that was accepted before. Names with escapes are unescaped into `names`, which must not move.
bool read_members(
    refold_parser &parser, refold_bytes object, std::vector<std::unique_ptr<uint8_t[]>> &names,
    std::vector<member> &out, size_t &plain_digits) {
    walker w;
    if (!start(parser, object.start, object.count, w) || w.peek() != '{') return false;
    w.next++;
    if (w.peek() == '}') return true;
    for (;;) {
        span name, ignored;
        type kind;
        const uint8_t *begin = w.bytes + w.at[w.next];
        if (!key(w, name) || !value(w, 1, kind, ignored)) return false;
        const uint8_t *end = w.bytes + w.at[w.next];
        while (is_space(end[-1])) end--;
        std::string_view plain(reinterpret_cast<const char *>(name.start), name.count);
        if (w.escapes && plain.find('\\') != std::string_view::npos) {
            names.emplace_back(new uint8_t[name.count]);
            plain = {reinterpret_cast<const char *>(names.back().get()), unescape(name, names.back().get())};
        }
        out.push_back({plain, {begin, static_cast<uint32_t>(end - begin)}});
        if (w.peek() != ',') break;
        w.next++;
    }
    plain_digits += w.plain_digits;
    return true;
}

refold_bytes merge(refold_parser &parser, refold_bytes older, refold_bytes newer, size_t limit, int &only_newer, size_t &weight) {
    std::vector<std::unique_ptr<uint8_t[]>> names;
    std::vector<member> before, after;
    size_t plain_digits = 0;
    only_newer = 1;
    size_t older_digits = 0;
    weight = SIZE_MAX;
    if (!read_members(parser, older, names, before, older_digits)
        || !read_members(parser, newer, names, after, plain_digits)) {
        return newer;
    }
    weight = newer.count + plain_digits;
    plain_digits += older_digits;
    std::unordered_set<std::string_view> renewed;
    if (after.size() > 16) {
        for (const member &m : after) renewed.insert(m.name);
    }
    auto is_renewed = [&](const member &old) {
        if (after.size() > 16) return renewed.count(old.name) != 0;
        return std::any_of(after.begin(), after.end(), [&](const member &m) { return m.name == old.name; });
    };
    std::vector<uint8_t> &out = parser.scratch;
    out.clear();
    for (const member &old : before) {
        if (is_renewed(old)) continue;
        out.push_back(out.empty() ? '{' : ',');
        out.insert(out.end(), old.whole.start, old.whole.start + old.whole.count);
    }
    if (out.empty()) return newer;
    for (const member &m : after) {
        out.push_back(',');
        out.insert(out.end(), m.whole.start, m.whole.start + m.whole.count);
    }
    out.push_back('}');
    if (out.size() + plain_digits > limit) return newer;
    only_newer = 0;
    weight = out.size() + plain_digits;
    return {out.data(), out.size()};
}

}  // namespace

extern "C" refold_bytes refold_merge_objects(
    refold_parser *parser, refold_bytes older, refold_bytes newer, size_t limit, int *only_newer, size_t *weight) {
    try {
        return merge(*parser, older, newer, limit, *only_newer, *weight);
    } catch (...) {
        std::abort();
    }
}
