// Interposes malloc and its relatives. The dynamic linker resolves the shared libraries' references (libswiftCore,
// libFoundation, libstdc++) to the executable's definitions first, so their allocations are counted too. Each
// definition calls the C library's own allocator, which keeps `free` and `malloc_usable_size` valid as they are
// (glibc manual, "Replacing malloc").
//
// One call is one allocation, `realloc` included. Outside a measurement the cost is one thread-local addition.
#define _GNU_SOURCE
#include "allocation_counter.h"
#include <errno.h>
#include <features.h>
#include <stddef.h>

#ifndef __GLIBC__
#error "the allocation counter needs glibc's __libc_malloc"
#endif

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *pointer, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

// Initial-exec: access to a variable of this model never allocates.
#define THREAD_LOCAL static _Thread_local __attribute__((tls_model("initial-exec")))
/// 1 during a measurement, otherwise 0.
THREAD_LOCAL uint64_t step;
THREAD_LOCAL uint64_t allocations;

void refold_allocations_start(void) {
    allocations = 0;
    step = 1;
}

uint64_t refold_allocations_stop(void) {
    step = 0;
    return allocations;
}

// A sanitizer has an allocator of its own, which these would bypass.
#if !__has_feature(thread_sanitizer) && !__has_feature(address_sanitizer)
#define INTERPOSED __attribute__((visibility("default")))

INTERPOSED void *malloc(size_t size) {
    allocations += step;
    return __libc_malloc(size);
}

INTERPOSED void *calloc(size_t count, size_t size) {
    allocations += step;
    return __libc_calloc(count, size);
}

INTERPOSED void *realloc(void *pointer, size_t size) {
    allocations += step;
    return __libc_realloc(pointer, size);
}

INTERPOSED void *memalign(size_t alignment, size_t size) {
    allocations += step;
    return __libc_memalign(alignment, size);
}

INTERPOSED void *aligned_alloc(size_t alignment, size_t size) {
    allocations += step;
    return __libc_memalign(alignment, size);
}

INTERPOSED int posix_memalign(void **result, size_t alignment, size_t size) {
    if (alignment % sizeof(void *) != 0 || alignment == 0 || (alignment & (alignment - 1)) != 0) return EINVAL;
    allocations += step;
    int before = errno;
    void *memory = __libc_memalign(alignment, size);
    errno = before;
    if (memory == NULL) return ENOMEM;
    *result = memory;
    return 0;
}
#endif
