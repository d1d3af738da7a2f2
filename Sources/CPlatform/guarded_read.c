#define _GNU_SOURCE
#include "include/refold_guarded_read.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

static _Thread_local sigjmp_buf return_point;
static _Thread_local int is_reading;

int refold_guarded_read(int (*read)(struct mosquitto *, int), struct mosquitto *client) {
    if (sigsetjmp(return_point, 0)) return REFOLD_ERR_ASSERTION;
    is_reading = 1;
    int result = read(client, 1);
    is_reading = 0;
    return result;
}

// The linker exports the following two because shared libraries refer to them, so that libmosquitto's calls come here.

#ifdef __GLIBC__
// The C library's own would abort. No Swift frame lies between `refold_guarded_read` and an assertion of the parser.
__attribute__((noreturn)) void __assert_fail(
    const char *assertion, const char *file, unsigned int line, const char *function) {
    if (is_reading) {
        is_reading = 0;
        siglongjmp(return_point, 1);
    }
    fprintf(stderr, "%s:%u: %s: Assertion `%s' failed.\n", file, line, function ? function : "?", assertion);
    abort();
}
#endif

// The library ends a connection over a topic that is not UTF-8 or holds control characters (MQTT 5.0, 1.5.4). A broker
// that lets such a publish pass (NATS 2.9) delivers it again and again, and nothing behind it ever arrives. While we
// read, every string passes: the gate refuses the topic, and the message is on record. A zero byte would cut the topic
// short, and is replaced by one that is in no text.
int mosquitto_validate_utf8(const char *text, int length) {
    if (is_reading) {
        for (int at = 0; at < length; at++) {
            if (text[at] == 0) ((char *)text)[at] = (char)0xFF;
        }
        return 0;
    }
    typedef int (*validate)(const char *, int);
    // Threads look it up at the same time, and find the same.
    static _Atomic(validate) found;
    validate own = found;
    if (!own) found = own = (validate)dlsym(RTLD_NEXT, "mosquitto_validate_utf8");
    return own ? own(text, length) : 3;  // MOSQ_ERR_INVAL
}
