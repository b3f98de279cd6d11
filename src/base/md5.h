/* MD5 (RFC 1321), for identities that bhyve derives with it (serial numbers, MAC addresses). Not for security. */
#ifndef BASE_MD5_H
#define BASE_MD5_H

#include "base/types.h"

void md5(const void *data, size_t len, uint8_t out[16]);

#endif
