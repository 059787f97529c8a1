#ifndef COFFER_CPLATFORM_H
#define COFFER_CPLATFORM_H
#include <stddef.h>

/// Keeps freed buffers of up to 64 MiB inside the process, so that large chunks do not fault in fresh pages each time.
void coffer_tune_allocator(void);

/// Overwrites memory in a way the compiler may not remove (explicit_bzero).
void coffer_wipe(void *memory, size_t count);

/// Compares two byte strings of one length without an early exit. Returns 0 when equal.
int coffer_constant_time_compare(const void *left, const void *right, size_t count);

/// memfd_create(2) with MFD_CLOEXEC | MFD_ALLOW_SEALING: a file that lives in memory alone. Returns -1 and sets errno.
int coffer_memory_file(const char *name);
#endif
