#define _GNU_SOURCE
#include "CPlatform.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <unistd.h>

int coffer_spawn(char *const arguments[], char *const environment[], const int *descriptors, size_t count, pid_t *process, int *output,
                 int *errors) {
    int out[2], err[2];
    if (pipe2(out, O_CLOEXEC) != 0) return errno;
    if (pipe2(err, O_CLOEXEC) != 0) {
        int result = errno;
        close(out[0]);
        close(out[1]);
        return result;
    }
    // Where descriptors wait while their targets are filled: above every source, so that none is overwritten before it was copied.
    int waiting = err[1];
    for (size_t i = 0; i < count; i++) waiting = descriptors[i] > waiting ? descriptors[i] : waiting;
    waiting = (waiting > out[1] ? waiting : out[1]) + 1;
    if (waiting < 3 + (int)count) waiting = 3 + (int)count;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], waiting);
    posix_spawn_file_actions_adddup2(&actions, err[1], waiting + 1);
    for (size_t i = 0; i < count; i++) posix_spawn_file_actions_adddup2(&actions, descriptors[i], waiting + 2 + (int)i);
    for (int i = 0; i < (int)count + 2; i++) posix_spawn_file_actions_adddup2(&actions, waiting + i, 1 + i);
    posix_spawn_file_actions_addclosefrom_np(&actions, 3 + (int)count);
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
    int result = posix_spawn(process, arguments[0], &actions, &attributes, arguments, environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    close(out[1]);
    close(err[1]);
    if (result != 0) {
        close(out[0]);
        close(err[0]);
        return result;
    }
    *output = out[0];
    *errors = err[0];
    return 0;
}
