#include "CPlatform.h"
#include <string.h>

#if defined(__x86_64__)
#include <nmmintrin.h>

__attribute__((target("sse4.2"))) static uint32_t crc32c_instruction(uint32_t crc, const unsigned char *p, size_t count) {
    uint64_t wide = crc;
    for (; count >= 8; p += 8, count -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        wide = _mm_crc32_u64(wide, word);
    }
    crc = (uint32_t)wide;
    for (; count > 0; p++, count--) crc = _mm_crc32_u8(crc, *p);
    return crc;
}
#endif

static uint32_t crc32c_portable(uint32_t crc, const unsigned char *p, size_t count) {
    // Half a byte at a time: the table is 64 bytes and needs no initialisation.
    static const uint32_t table[16] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
        0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
    };
    for (; count > 0; p++, count--) {
        crc = table[(crc ^ *p) & 15] ^ (crc >> 4);
        crc = table[(crc ^ (*p >> 4)) & 15] ^ (crc >> 4);
    }
    return crc;
}

uint32_t coffer_crc32c(uint32_t previous, const void *memory, size_t count) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) return ~crc32c_instruction(~previous, memory, count);
#endif
    return ~crc32c_portable(~previous, memory, count);
}
