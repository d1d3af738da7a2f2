// LZ4 block compression of commit blocks.
#include <lz4.h>
#include <lz4hc.h>
