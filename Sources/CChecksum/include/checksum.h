// CRC32C (Castagnoli, RFC 3720 appendix B.4): the checksum of every header and block on disk.
#ifndef REFOLD_CHECKSUM_H
#define REFOLD_CHECKSUM_H
#include <stddef.h>
#include <stdint.h>

/// Extends `crc` (0 to begin with) over `length` bytes. Uses the SSE4.2 or ARMv8 instruction where there is one.
uint32_t refold_crc32c(uint32_t crc, const void *bytes, size_t length);
/// The table-driven form, for machines without the instruction and for testing the other against.
uint32_t refold_crc32c_portable(uint32_t crc, const void *bytes, size_t length);
#endif
