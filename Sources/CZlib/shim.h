// zlib: gzip (RFC 1952) for what is handed out as files.
#include <zlib.h>
