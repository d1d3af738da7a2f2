// Linux calls that Swift cannot import: variadic, or hidden behind _GNU_SOURCE.
#ifndef REFOLD_SYSTEM_H
#define REFOLD_SYSTEM_H

/// Names the calling thread; the kernel keeps the first 15 bytes.
void refold_set_thread_name(const char *name);
#include <spawn.h>
/// Closes every descriptor from `first` on in the child to be spawned (glibc 2.34).
int refold_spawn_close_from(posix_spawn_file_actions_t *actions, int first);
/// 1 when a time service disciplines the wall clock: adjtimex(2) without STA_UNSYNC. Setting the clock by hand clears
/// it until the service has confirmed the new time.
int refold_clock_is_synchronised(void);
/// memfd_create(2) with MFD_CLOEXEC: a descriptor, or -1 with errno.
int refold_memory_file(const char *name);
#include <sys/epoll.h>  // Swift's Glibc module leaves both out
#include <sys/eventfd.h>
#endif
