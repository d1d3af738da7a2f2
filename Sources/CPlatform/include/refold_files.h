// File operations of Linux that Swift cannot import.
#ifndef REFOLD_FILES_H
#define REFOLD_FILES_H
#include <stdint.h>

/// fallocate(2), mode 0. Returns 0 or an errno.
int refold_fallocate(int descriptor, int64_t offset, int64_t length);

/// Locks a whole file for writing, by open file description (fcntl(2), F_OFD_SETLK): the lock ends with the last
/// descriptor, and another open in the same process conflicts too. Returns 0 or an errno (EAGAIN: somebody has it).
int refold_lock_file(int descriptor);

/// Gives it up at once, also where a child between fork and exec still shares the descriptor.
void refold_unlock_file(int descriptor);

/// Whether somebody else holds such a lock: 1 or 0, or -errno. Takes none.
int refold_file_is_locked(int descriptor);

/// Locks a folder by flock(2), without waiting: no deleted file takes this lock away. Returns 0 or an errno
/// (EWOULDBLOCK: another descriptor holds it; EBADF and others: the file system has no such locks, e.g. NFS).
int refold_lock_folder(int descriptor);

/// Releases it at once, also where a child between fork and exec still shares the descriptor.
void refold_unlock_folder(int descriptor);

/// Whether another descriptor holds such a lock: 1 or 0, or -errno. Takes a shared lock for a moment, which makes
/// `refold_lock_folder` fail meanwhile.
int refold_folder_is_locked(int descriptor);
#endif
