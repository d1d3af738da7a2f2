// Counts heap allocations of one thread: the C allocation functions are interposed in the executable that links this.
#ifndef REFOLD_ALLOCATION_COUNTER_H
#define REFOLD_ALLOCATION_COUNTER_H
#include <stdint.h>

/// Starts counting the allocations of the calling thread at 0. Measurements do not nest.
void refold_allocations_start(void);

/// Stops counting. Returns the allocations of the calling thread since `refold_allocations_start`.
uint64_t refold_allocations_stop(void);
#endif
