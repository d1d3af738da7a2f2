#define _GNU_SOURCE
#include "refold_system.h"
#include <sys/prctl.h>

void refold_set_thread_name(const char *name) { prctl(PR_SET_NAME, name, 0, 0, 0); }
