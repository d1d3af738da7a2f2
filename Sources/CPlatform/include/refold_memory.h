// What the processor can be told, and Swift has no word for.
#ifndef REFOLD_MEMORY_H
#define REFOLD_MEMORY_H
#include <stddef.h>

/// Asks for `size` bytes at `start` to be brought into the caches, to be read and written soon. Never faults.
static inline void refold_prefetch(const void *start, ptrdiff_t size) {
    const char *line = (const char *)start;
    for (ptrdiff_t at = 0; at < size; at += 64) __builtin_prefetch(line + at, 1, 3);
}
#endif
