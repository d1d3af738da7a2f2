// LD_PRELOAD library that shifts the wall clock of one process, so that tests step the clock of a real daemon, of
// PostgreSQL and of brokers without touching the machine's clock.
//
//     cc -O2 -shared -fPIC -o clock_shim.so clock_shim.c
//     CLOCK_SHIM_OFFSET_FILE=/path/offset LD_PRELOAD=$PWD/clock_shim.so refold run …
//
// The file holds an offset in seconds as decimal text (`259200`, `-7300.5`). It is read again at most every 10 ms; a
// missing, empty or malformed file is an offset of 0. Replace it by rename(2), so that no reader sees half of it.
//
// Shifted: CLOCK_REALTIME and its coarse variant in clock_gettime, gettimeofday, time, timespec_get, and the absolute
// deadlines on CLOCK_REALTIME of condition variables, semaphores and mutexes (otherwise a deadline computed from the
// shifted clock would be compared with the real one). Not shifted: the monotonic clocks, timerfd, file times, raw
// futex and other direct system calls. Child processes inherit both variables.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define NANOS_PER_SECOND 1000000000LL
#define REREAD_NANOS 10000000LL

static _Atomic int64_t offset_nanos;
static _Atomic int64_t read_at_nanos = INT64_MIN / 2;

static int real_gettime(clockid_t clock, struct timespec *out) {
    return (int)syscall(SYS_clock_gettime, clock, out);
}

static int64_t nanos_of(struct timespec t) { return (int64_t)t.tv_sec * NANOS_PER_SECOND + t.tv_nsec; }

static struct timespec time_of(int64_t nanos) {
    struct timespec t = {.tv_sec = nanos / NANOS_PER_SECOND, .tv_nsec = nanos % NANOS_PER_SECOND};
    if (t.tv_nsec < 0) {
        t.tv_nsec += NANOS_PER_SECOND;
        t.tv_sec -= 1;
    }
    return t;
}

/// Parses without libc: callers may be inside a signal handler, malloc, or the dynamic loader.
static int64_t parse(const char *text, ssize_t count) {
    int64_t whole = 0, fraction = 0, unit = NANOS_PER_SECOND;
    ssize_t i = 0;
    int negative = 0, digits = 0;
    while (i < count && (text[i] == ' ' || text[i] == '\n')) i++;
    if (i < count && (text[i] == '-' || text[i] == '+')) negative = text[i++] == '-';
    for (; i < count && text[i] >= '0' && text[i] <= '9' && digits < 10; i++, digits++) {
        whole = whole * 10 + (text[i] - '0');
    }
    if (i < count && text[i] == '.') {
        for (i++; i < count && text[i] >= '0' && text[i] <= '9' && unit > 1; i++) {
            unit /= 10;
            fraction += (text[i] - '0') * unit;
        }
    }
    // 9e9 seconds is the year 2255, the last that fits into nanoseconds.
    if (whole > 9000000000LL) return 0;
    int64_t nanos = whole * NANOS_PER_SECOND + fraction;
    return negative ? -nanos : nanos;
}

static int64_t offset(void) {
    struct timespec now;
    real_gettime(CLOCK_MONOTONIC, &now);
    int64_t at = nanos_of(now), last = atomic_load_explicit(&read_at_nanos, memory_order_acquire);
    if (at - last >= REREAD_NANOS && atomic_compare_exchange_strong(&read_at_nanos, &last, at)) {
        int saved = errno;
        char text[64];
        const char *path = getenv("CLOCK_SHIM_OFFSET_FILE");
        int64_t found = 0;
        int file = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0) : -1;
        if (file >= 0) {
            ssize_t count = syscall(SYS_read, file, text, sizeof text);
            if (count > 0) found = parse(text, count);
            syscall(SYS_close, file);
        }
        atomic_store_explicit(&offset_nanos, found, memory_order_release);
        errno = saved;
    }
    return atomic_load_explicit(&offset_nanos, memory_order_acquire);
}

int clock_gettime(clockid_t clock, struct timespec *out) {
    int result = real_gettime(clock, out);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        *out = time_of(nanos_of(*out) + offset());
    }
    return result;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    *out = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *out, int base) {
    if (base != TIME_UTC) return 0;
    return clock_gettime(CLOCK_REALTIME, out) == 0 ? base : 0;
}

/// The deadline on the real clock. A condition variable may run on CLOCK_MONOTONIC, which its waiter does not say: the
/// clock that is nearer to the deadline is the one that it was computed from.
static clockid_t deadline_on(const struct timespec *deadline, struct timespec *real) {
    struct timespec steady, wall;
    real_gettime(CLOCK_MONOTONIC, &steady);
    real_gettime(CLOCK_REALTIME, &wall);
    int64_t shift = offset(), wanted = nanos_of(*deadline);
    int64_t from_wall = llabs(wanted - (nanos_of(wall) + shift)), from_steady = llabs(wanted - nanos_of(steady));
    int is_steady = from_steady < from_wall;
    *real = is_steady ? *deadline : time_of(wanted - shift);
    return is_steady ? CLOCK_MONOTONIC : CLOCK_REALTIME;
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *deadline) {
    struct timespec real;
    clockid_t clock = deadline_on(deadline, &real);
    return pthread_cond_clockwait(condition, mutex, clock, &real);
}

int sem_timedwait(sem_t *semaphore, const struct timespec *deadline) {
    struct timespec real = time_of(nanos_of(*deadline) - offset());
    return sem_clockwait(semaphore, CLOCK_REALTIME, &real);
}

int pthread_mutex_timedlock(pthread_mutex_t *mutex, const struct timespec *deadline) {
    struct timespec real = time_of(nanos_of(*deadline) - offset());
    return pthread_mutex_clocklock(mutex, CLOCK_REALTIME, &real);
}
