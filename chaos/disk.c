/* Preloaded into a part: while the byte in the file that KLINKET_CHAOS_DISK names is set, nothing is written to the disk that
KLINKET_CHAOS_STATE is on, as if it had become read-only. A disk with a file open for writing cannot be remounted so. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const volatile char none = 0;
static const volatile char *lost = &none;
static dev_t disk;

#define REAL(name, type, ...) static type (*real)(__VA_ARGS__); if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("KLINKET_CHAOS_DISK"), *folder = getenv("KLINKET_CHAOS_STATE");
    struct stat found;
    if (!name || !folder || stat(folder, &found)) return;
    disk = found.st_dev;
    int file = open(name, O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    void *mapped = mmap(NULL, 1, PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) lost = mapped;
    close(file);
}

static int refused(int file) {
    struct stat found;
    if (!*lost || fstat(file, &found) || found.st_dev != disk || !S_ISREG(found.st_mode)) return 0;
    errno = EROFS;
    return 1;
}

static int refused_at(const char *path) {
    struct stat found;
    if (!*lost || lstat(path, &found) || found.st_dev != disk) return 0;
    errno = EROFS;
    return 1;
}

ssize_t write(int file, const void *bytes, size_t count) {
    REAL("write", ssize_t, int, const void *, size_t);
    return refused(file) ? -1 : real(file, bytes, count);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t where) {
    REAL("pwrite64", ssize_t, int, const void *, size_t, off64_t);
    return refused(file) ? -1 : real(file, bytes, count, where);
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t where) { return pwrite64(file, bytes, count, where); }

int ftruncate64(int file, off64_t size) {
    REAL("ftruncate64", int, int, off64_t);
    return refused(file) ? -1 : real(file, size);
}

int ftruncate(int file, off_t size) { return ftruncate64(file, size); }

int unlink(const char *path) {
    REAL("unlink", int, const char *);
    return refused_at(path) ? -1 : real(path);
}

int rename(const char *from, const char *to) {
    REAL("rename", int, const char *, const char *);
    return refused_at(from) ? -1 : real(from, to);
}

static int opened(int file, int flags) {
    if (file < 0 || (flags & O_ACCMODE) == O_RDONLY || !refused(file)) return file;
    close(file);
    errno = EROFS;
    return -1;
}

#define MODE(flags) mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }

int open64(const char *path, int flags, ...) {
    MODE(flags)
    REAL("open64", int, const char *, int, ...);
    return opened(real(path, flags, mode), flags);
}

int open(const char *path, int flags, ...) {
    MODE(flags)
    REAL("open", int, const char *, int, ...);
    return opened(real(path, flags, mode), flags);
}
