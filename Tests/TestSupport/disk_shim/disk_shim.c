// LD_PRELOAD library with which fdatasync and fsync do not return for as long as a file exists, as on a dying drive or
// a network volume whose server is away.
//
//     cc -O2 -shared -fPIC -o disk_shim.so disk_shim.c
//     DISK_SHIM_HANG_FILE=/path/hang LD_PRELOAD=$PWD/disk_shim.so refold run …
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static void wait_while_it_hangs(void) {
    const char *path = getenv("DISK_SHIM_HANG_FILE");
    while (path && access(path, F_OK) == 0)
        usleep(5000);
}

int fdatasync(int descriptor) {
    wait_while_it_hangs();
    return (int)syscall(SYS_fdatasync, descriptor);
}

int fsync(int descriptor) {
    wait_while_it_hangs();
    return (int)syscall(SYS_fsync, descriptor);
}
