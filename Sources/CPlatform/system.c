#define _GNU_SOURCE
#include "refold_system.h"
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/timex.h>

void refold_set_thread_name(const char *name) { prctl(PR_SET_NAME, name, 0, 0, 0); }

int refold_spawn_close_from(posix_spawn_file_actions_t *actions, int first) {
    return posix_spawn_file_actions_addclosefrom_np(actions, first);
}

int refold_clock_is_synchronised(void) {
    struct timex clock = {.modes = 0};
    return adjtimex(&clock) != -1 && (clock.status & STA_UNSYNC) == 0;
}

int refold_memory_file(const char *name) { return memfd_create(name, MFD_CLOEXEC); }
