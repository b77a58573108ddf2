/*
 * Preloaded into a process (LD_PRELOAD), notes in what order its files are written, synced, renamed and removed. A line
 * of the ledger is one write to a file opened for appending, so lines of all threads, and of the process itself, stand
 * in the order in which they happened.
 *
 *   open PATH | flush PATH SIZE | sync PATH SIZE | syncdir PATH | rename OLD NEW | unlink PATH | fail CALL PATH
 *
 * SIZE of a sync is what the file held before the call: the bytes that the call has made durable.
 *
 * SYNC_LEDGER       file of the ledger
 * SYNC_LEDGER_DIR   only paths that begin with this are noted
 * SYNC_LEDGER_GRAVE directory that keeps a link to every removed log
 * SYNC_LEDGER_FAIL  "fdatasync:12" or "flush:12": this call on a log fails, once, with EIO or ENOSPC
 * SYNC_LEDGER_KILL  the process dies by SIGKILL right after the line of this number
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REAL(result, name, ...) static result (*real)(__VA_ARGS__); if (!real) *(void **)&real = dlsym(RTLD_NEXT, name)

static void note(const char *format, ...) {
  static int ledger = -1;
  char line[3 * PATH_MAX];
  const char *file = getenv("SYNC_LEDGER");
  va_list args;
  if (ledger < 0 && (file == NULL || (ledger = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) < 0)) return;
  va_start(args, format);
  int length = vsnprintf(line, sizeof line, format, args);
  va_end(args);
  if (length > 0 && write(ledger, line, (size_t)length) != length) abort();
  static int lines;
  const char *last = getenv("SYNC_LEDGER_KILL");
  if (__atomic_add_fetch(&lines, 1, __ATOMIC_SEQ_CST) == (last == NULL ? -1 : atoi(last))) kill(getpid(), SIGKILL);
}

static int watched(const char *path) {
  const char *dir = getenv("SYNC_LEDGER_DIR");
  return dir != NULL && path != NULL && strncmp(path, dir, strlen(dir)) == 0;
}

static int is_log(const char *path) {
  size_t length = strlen(path);
  return length > 4 && strcmp(path + length - 4, ".log") == 0;
}

/* The watched path behind a descriptor, or 0. */
static int path_of(int fd, char *path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, PATH_MAX - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return watched(path);
}

/* Whether this is the call that was chosen to fail. */
static int fails(const char *call, const char *path) {
  static int flushes, syncs;
  const char *spec = getenv("SYNC_LEDGER_FAIL");
  size_t length = strlen(call);
  if (!is_log(path)) return 0;
  int number = __atomic_add_fetch(call[0] == 'f' && call[1] == 'l' ? &flushes : &syncs, 1, __ATOMIC_SEQ_CST);
  if (spec == NULL || strncmp(spec, call, length) != 0 || spec[length] != ':' || atoi(spec + length + 1) != number) return 0;
  note("fail %s %s\n", call, path);
  return 1;
}

static int synced(int fd, int (*real)(int)) {
  char path[PATH_MAX];
  struct stat before;
  if (!path_of(fd, path) || fstat(fd, &before) != 0) return real(fd);
  if (fails("fdatasync", path)) {
    errno = EIO;
    return -1;
  }
  int result = real(fd);
  if (result == 0 && S_ISDIR(before.st_mode)) note("syncdir %s\n", path);
  else if (result == 0) note("sync %s %lld\n", path, (long long)before.st_size);
  return result;
}

int fdatasync(int fd) {
  REAL(int, "fdatasync", int);
  return synced(fd, real);
}

int fsync(int fd) {
  REAL(int, "fsync", int);
  return synced(fd, real);
}

FILE *fopen64(const char *path, const char *mode) {
  REAL(FILE *, "fopen64", const char *, const char *);
  FILE *file = real(path, mode);
  if (file != NULL && mode[0] != 'r' && watched(path)) note("open %s\n", path);
  return file;
}

/* Node opens files so; LevelDB only its lock, which holds nothing. */
int open64(const char *path, int flags, ...) {
  REAL(int, "open64", const char *, int, ...);
  va_list args;
  va_start(args, flags);
  mode_t mode = (flags & O_CREAT) != 0 ? (mode_t)va_arg(args, int) : 0;
  va_end(args);
  int fd = real(path, flags, mode);
  if (fd >= 0 && (flags & O_TRUNC) != 0 && watched(path)) note("open %s\n", path);
  return fd;
}

int fflush_unlocked(FILE *file) {
  REAL(int, "fflush_unlocked", FILE *);
  char path[PATH_MAX];
  struct stat after;
  int known = file != NULL && path_of(fileno_unlocked(file), path);
  if (known && fails("flush", path)) {
    errno = ENOSPC;
    return EOF;
  }
  int result = real(file);
  if (known && result == 0 && fstat(fileno_unlocked(file), &after) == 0) note("flush %s %lld\n", path, (long long)after.st_size);
  return result;
}

int rename(const char *from, const char *to) {
  REAL(int, "rename", const char *, const char *);
  int result = real(from, to);
  if (result == 0 && watched(to)) note("rename %s %s\n", from, to);
  return result;
}

int unlink(const char *path) {
  REAL(int, "unlink", const char *);
  const char *grave = getenv("SYNC_LEDGER_GRAVE");
  if (watched(path) && grave != NULL && is_log(path)) {
    char kept[PATH_MAX];
    snprintf(kept, sizeof kept, "%s/%s", grave, strrchr(path, '/') + 1);
    if (link(path, kept) != 0) abort();
  }
  int result = real(path);
  if (result == 0 && watched(path)) note("unlink %s\n", path);
  return result;
}
