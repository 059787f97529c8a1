#ifndef COFFER_CPLATFORM_H
#define COFFER_CPLATFORM_H
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// Keeps freed buffers of up to 32 MiB inside the process, so that large chunks do not fault in fresh pages each time.
/// For the start of a server.
void coffer_tune_allocator(void);

/// Overwrites memory in a way the compiler may not remove (explicit_bzero).
void coffer_wipe(void *memory, size_t count);

/// Compares two byte strings of one length without an early exit. Returns 0 when equal.
int coffer_constant_time_compare(const void *left, const void *right, size_t count);

/// Fills the memory from the kernel's generator (getrandom(2), once it is seeded). Returns 0 or an errno.
int coffer_random(void *memory, size_t count);

/// memfd_create(2) with MFD_CLOEXEC | MFD_ALLOW_SEALING: a file that lives in memory alone. Returns -1 and sets errno.
int coffer_memory_file(const char *name);

/// CRC-32C (Castagnoli, RFC 3720 appendix B.4) of `count` bytes, continuing from `previous` (0 for the first piece).
uint32_t coffer_crc32c(uint32_t previous, const void *memory, size_t count);

/// Opens a file without a name in `directory` (O_TMPFILE, mode 0600). Returns -1 and sets errno.
int coffer_open_unnamed(const char *directory);

/// Renames a file unless the new name is taken (renameat2 RENAME_NOREPLACE; by a link where the file system cannot).
/// Returns 0 or an errno: EEXIST.
int coffer_rename_new(const char *from, const char *to);

/// Reserves room without changing the size (fallocate FALLOC_FL_KEEP_SIZE). Returns 0 or an errno.
int coffer_reserve(int file, int64_t offset, int64_t count);

/// Gives the blocks of a range back; it reads as zeros then (fallocate FALLOC_FL_PUNCH_HOLE). Returns 0 or an errno.
int coffer_punch_hole(int file, int64_t offset, int64_t count);

/// Starts writing a range to the medium without waiting (sync_file_range). Returns 0 or an errno.
int coffer_start_writing(int file, int64_t offset, int64_t count);

/// Names the calling thread for debuggers and process lists; 15 bytes count.
void coffer_name_thread(const char *name);

/// Starts a process in its own group with default signals: standard input from /dev/null, standard output and error into new pipes whose
/// reading ends are returned (close-on-exec), `descriptors` as 3, 4, …, and nothing else of the caller's open files. Returns 0 or an errno.
int coffer_spawn(char *const arguments[], char *const environment[], const int *descriptors, size_t count, pid_t *process, int *output,
                 int *errors);
#endif
