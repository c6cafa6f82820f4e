/* Faults of a disk, for files of a journal only: LD_PRELOAD. Armed by faults_arm(seed, kinds, per_mille). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { SHORT = 1, WRITE_EIO = 2, FULL = 4, SYNC = 8, RENAME = 16, UNLINK = 32, OPEN = 64, READ = 128 };
static volatile unsigned kinds, per_mille;
static volatile unsigned long long state = 1;
static volatile unsigned long long counts[8];
static char ours[65536];

void faults_arm(unsigned long long seed, unsigned given, unsigned chance) {
    state = seed * 2654435761ULL + 88172645463325252ULL;
    per_mille = chance;
    kinds = given;
}
unsigned long long faults_count(int kind) { return counts[kind]; }

static int hit(int kind) {
    if (!(kinds & (1u << kind))) return 0;
    unsigned long long x = state;
    x ^= x << 13; x ^= x >> 7; x ^= x << 17;
    state = x;
    if ((x >> 20) % 1000 >= per_mille) return 0;
    counts[kind]++;
    return 1;
}
static int mine(const char *path) {
    const char *name = strrchr(path, '/');
    name = name ? name + 1 : path;
    return !strncmp(name, "journal-", 8) || !strncmp(name, "snapshot-", 9) || !strncmp(name, ".banditroute-", 13);
}
#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define KNOWN(fd) ((fd) >= 0 && (fd) < 65536 && ours[fd])

#define OPENAT(name) \
int name(int at, const char *path, int flags, ...) { \
    REAL(name); \
    mode_t mode = 0; \
    if (flags & O_CREAT) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } \
    int is = mine(path); \
    if (is && (flags & O_CREAT) && hit(6)) { errno = ENOSPC; return -1; } \
    int fd = real(at, path, flags, mode); \
    if (fd >= 0 && fd < 65536) ours[fd] = is; \
    return fd; \
}
OPENAT(openat)
OPENAT(openat64)

int close(int fd) {
    REAL(close);
    if (KNOWN(fd)) ours[fd] = 0;
    return real(fd);
}

/* A disk that is nearly full takes a part, without an error; only the next write says so. */
#define WRITES(name, params, args, short_args) \
ssize_t name params { \
    REAL(name); \
    if (KNOWN(fd)) { \
        if (hit(1)) { errno = EIO; return -1; } \
        if (hit(2)) { if (size > 8) real short_args; errno = ENOSPC; return -1; } \
        if (size > 1 && hit(0)) return real short_args; \
    } \
    return real args; \
}
WRITES(write, (int fd, const void *data, size_t size), (fd, data, size), (fd, data, size / 2))
WRITES(pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at), (fd, data, size / 2, at))
WRITES(pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at), (fd, data, size / 2, at))

int fsync(int fd) {
    REAL(fsync);
    if (hit(3)) { errno = EIO; return -1; }
    return real(fd);
}
int renameat(int a, const char *old, int b, const char *new) {
    REAL(renameat);
    if (mine(new) && hit(4)) { errno = EIO; return -1; }
    return real(a, old, b, new);
}
int unlinkat(int at, const char *path, int flags) {
    REAL(unlinkat);
    if (mine(path) && hit(5)) { errno = EIO; return -1; }
    return real(at, path, flags);
}
#define READS(name) \
ssize_t name(int fd, void *data, size_t size) { \
    REAL(name); \
    if (KNOWN(fd) && hit(7)) { errno = EIO; return -1; } \
    return real(fd, data, size); \
}
READS(read)
