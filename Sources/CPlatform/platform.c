#define _GNU_SOURCE
#include "CPlatform.h"
#include <errno.h>
#include <malloc.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

void coffer_tune_allocator(void) {
    // glibc refuses a larger threshold: half of what one of its heaps may hold.
    mallopt(M_MMAP_THRESHOLD, 32 * 1024 * 1024);
    mallopt(M_TRIM_THRESHOLD, 32 * 1024 * 1024);
}

void coffer_wipe(void *memory, size_t count) { explicit_bzero(memory, count); }

int coffer_constant_time_compare(const void *left, const void *right, size_t count) {
    const volatile unsigned char *a = left, *b = right;
    unsigned char difference = 0;
    for (size_t i = 0; i < count; i++) difference |= a[i] ^ b[i];
    return difference;
}

int coffer_memory_file(const char *name) { return memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING); }

int coffer_random(void *memory, size_t count) {
    unsigned char *next = memory;
    while (count > 0) {
        // Above 256 bytes a signal may cut the call short, or end it before the first byte.
        ssize_t got = getrandom(next, count, 0);
        if (got < 0) {
            if (errno == EINTR) continue;
            return errno;
        }
        next += got;
        count -= (size_t)got;
    }
    return 0;
}
