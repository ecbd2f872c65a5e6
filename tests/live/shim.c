/* A disk that misbehaves on command: preloaded into a node, it stands before the calls that write and sync files.
 *
 * DISK_FAULTS_CONTROL names a file of one page that the row writes and this code maps: byte 0 is the fault of syncs and
 * byte 1 that of writes: 0 none, 'h' the call hangs until the byte changes, 'e' it fails with EIO, 'f' it fails with
 * ENOSPC. At offset 8 the calls that met a fault are counted. DISK_FAULTS_BELOW is the directory whose files are meant.
 * DISK_FAULTS_TRACE names a file that gets a line for each write at an offset and each sync.
 *
 * Reads, and calls that the node makes without the C library, are not touched. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

struct control {
    _Atomic unsigned char sync, write;
    unsigned char unused[6];
    _Atomic uint64_t hits;
};

static struct control *control;
static const char *below;
static int trace = -1;

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("DISK_FAULTS_CONTROL"), *lines = getenv("DISK_FAULTS_TRACE");
    below = getenv("DISK_FAULTS_BELOW");
    int fd = file && below ? open(file, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) {
        return;
    }
    void *page = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    control = page == MAP_FAILED ? NULL : page;
    if (lines) {
        trace = open(lines, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    }
}

static int is_below(const char *path) {
    return path && strncmp(path, below, strlen(below)) == 0;
}

/* The path of an open file, if it is one of those that are meant. */
static int path_of(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0) {
        return 0;
    }
    path[length] = 0;
    return is_below(path);
}

/* Waits for the end of a hang. Returns -1 with errno set when the call must fail. */
static int meet(_Atomic unsigned char *fault) {
    unsigned char now = *fault;
    if (now == 0) {
        return 0;
    }
    control->hits++;
    while (*fault == 'h') {
        struct timespec moment = {0, 1000000};
        nanosleep(&moment, NULL);
    }
    now = *fault;
    errno = now == 'e' ? EIO : ENOSPC;
    return now == 0 ? 0 : -1;
}

static int before(int fd, _Atomic unsigned char *fault, const char *what, off_t at) {
    char path[PATH_MAX];
    if (!control || (*fault == 0 && trace < 0) || !path_of(fd, path, sizeof path)) {
        return 0;
    }
    int met = meet(fault);
    if (trace >= 0) {
        int error = errno;
        dprintf(trace, "%s %lld %s %s\n", what, (long long)at, met ? "failed" : "done", path);
        errno = error;
    }
    return met;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fsync(int fd) {
    return before(fd, &control->sync, "sync", 0) ? -1 : NEXT(fsync)(fd);
}

int fdatasync(int fd) {
    return before(fd, &control->sync, "sync", 0) ? -1 : NEXT(fdatasync)(fd);
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t at) {
    return before(fd, &control->write, "write", at) ? -1 : NEXT(pwrite64)(fd, bytes, size, at);
}

ssize_t write(int fd, const void *bytes, size_t size) {
    if (control && control->write != 0) {
        char path[PATH_MAX];
        if (path_of(fd, path, sizeof path) && meet(&control->write)) {
            return -1;
        }
    }
    return NEXT(write)(fd, bytes, size);
}

int unlink(const char *path) {
    if (control && control->write == 'h' && is_below(path)) {
        meet(&control->write);
    }
    return NEXT(unlink)(path);
}

int rename(const char *from, const char *to) {
    if (control && control->write == 'h' && is_below(to)) {
        meet(&control->write);
    }
    return NEXT(rename)(from, to);
}

int open64(const char *path, int flags, ...) {
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list more;
        va_start(more, flags);
        mode = va_arg(more, mode_t);
        va_end(more);
    }
    if (control && control->write == 'h' && is_below(path)) {
        meet(&control->write);
    }
    return NEXT(open64)(path, flags, mode);
}
