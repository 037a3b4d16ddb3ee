/* What the compiled parts ask of sixteen bytes of an address. */
#ifndef PYTRACECON_ADDRESSES_H
#define PYTRACECON_ADDRESSES_H

#include <stdint.h>
#include <string.h>

/* Which of 65,536 bits an address has. */
static inline uint32_t address_bit(const char *address)
{
	uint64_t halves[2];

	memcpy(halves, address, sizeof(halves));
	return (halves[0] * 0x9e3779b97f4a7c15 ^ halves[1]) * 0xff51afd7ed558ccd >> 48;
}

#endif
