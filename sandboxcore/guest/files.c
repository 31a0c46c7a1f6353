/*
 * File operations: each runs in a process of its own that is fed and drained like a command, so that a slow disk holds up
 * nobody else and users, flow control, resuming and cancelling come for free. Success is REPORT_EXIT 0, else an errno.
 *
 * Nothing is fsync'ed: the sandbox does not outlive its machine, and rename alone makes a write atomic for readers.
 */
#include "guest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { COPY = 1 << 18, LARGE = 1 << 20, SMALL = 1 << 16 };

static int control_fd;

static void say(uint8_t kind, int value) {
    struct report report = {.kind = kind, .value = value, .phase = PHASE_FILE};
    send(control_fd, &report, sizeof report, MSG_NOSIGNAL);
}

static _Noreturn void refuse(int error, uint8_t phase) {
    struct report report = {.kind = REPORT_FAILED, .value = error, .phase = phase};
    send(control_fd, &report, sizeof report, MSG_NOSIGNAL);
    _exit(0);
}

static _Noreturn void finish(int error) {
    say(error ? REPORT_FAILED : REPORT_EXIT, error);
    _exit(0);
}

static bool commit_seen;

static bool cancelled(void) {
    struct order order;
    ssize_t n = recv(control_fd, &order, sizeof order, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    if (n != sizeof order || order.kind != ORDER_COMMIT) return true;
    commit_seen = true;
    return false;
}

/* A FIFO whose reader is slow. Whoever does not want the write any more need not wait for that reader. */
static int wait_for_reader(int fd) {
    struct pollfd fds[2] = {{.fd = fd, .events = POLLOUT}, {.fd = control_fd, .events = POLLIN}};
    if (poll(fds, 2, -1) < 0) return errno == EINTR ? 0 : errno;
    return fds[1].revents && cancelled() ? ECANCELED : 0;
}

static int write_all(int fd, const void *data, size_t n) {
    for (const char *at = data; n;) {
        ssize_t done = write(fd, at, n);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0 && errno == EAGAIN) {
            int error = wait_for_reader(fd);
            if (error) return error;
            continue;
        }
        if (done < 0) return errno;
        at += done;
        n -= (size_t)done;
    }
    return 0;
}

/* --- read --- */

static int copy_file(int from, int to) {
    for (;;) { /* in the kernel where the file allows it; some (in /proc) do not */
        ssize_t n = sendfile(to, from, NULL, COPY);
        if (n > 0 || (n < 0 && errno == EINTR)) continue;
        if (n == 0) break; /* end, or a file without a size: try to read once more */
        if (errno != EINVAL && errno != ENOSYS) return errno;
        break;
    }
    static char buffer[COPY];
    for (;;) {
        ssize_t n = read(from, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n < 0 ? errno : 0;
        int error = write_all(to, buffer, (size_t)n);
        if (error) return error;
    }
}

static int read_file(const struct request *r, int out) {
    int fd = open(r->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    struct stat st;
    if (fd < 0) return errno;
    if (fstat(fd, &st) < 0) return errno;
    if (S_ISDIR(st.st_mode)) return EISDIR;
    if (!S_ISREG(st.st_mode) && !S_ISCHR(st.st_mode)) return EINVAL;
    if (r->flags & FILE_FLAG && S_ISREG(st.st_mode) && st.st_size > SMALL) return EFBIG;
    if (r->offset && lseek(fd, (off_t)r->offset, SEEK_SET) < 0) return errno;
    say(REPORT_STARTED, 0);
    return copy_file(fd, out);
}

/* --- write --- */

static int make_parents(char *path, mode_t mode) {
    for (char *at = path + 1; (at = strchr(at, '/')); at++) {
        *at = 0;
        int failed = mkdir(path, mode) < 0 && errno != EEXIST ? errno : 0;
        struct stat st;
        /* An existing folder answers EACCES or EROFS where its parent can't be written, not EEXIST. */
        if (failed && stat(path, &st) == 0 && S_ISDIR(st.st_mode)) failed = 0;
        *at = '/';
        if (failed) return failed;
    }
    return 0;
}

struct draft {
    char target[PATH_MAX], name[PATH_MAX + 64];
    int fd;
    bool named;  /* `name` exists and has to go on failure */
    bool direct; /* a device: written in place */
    struct stat old;
    bool replaces;
};

static void name_draft(struct draft *d) {
    uint64_t unique;
    random_bytes(&unique, sizeof unique);
    const char *slash = strrchr(d->target, '/');
    int folder = slash ? (int)(slash - d->target) + 1 : 0;
    snprintf(d->name, sizeof d->name, "%.*s.sandboxcore-%016llx.tmp", folder, d->target, (unsigned long long)unique);
}

static int open_draft(struct draft *d, mode_t mode) {
    char folder[PATH_MAX] = ".";
    const char *slash = strrchr(d->target, '/');
    if (slash) snprintf(folder, sizeof folder, "%.*s", slash == d->target ? 1 : (int)(slash - d->target), d->target);
    d->fd = open(folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, mode & 0777); /* leaves nothing behind whatever happens to us */
    if (d->fd >= 0) return 0;
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL && errno != ENOENT) return errno;
    name_draft(d);
    d->fd = open(d->name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, mode & 0777);
    if (d->fd < 0) return errno;
    d->named = true;
    return 0;
}

/* Through links, as open() would go; also through one that leads to what is not there yet. */
static int follow_links(char target[PATH_MAX]) {
    char real[PATH_MAX], link[PATH_MAX];
    for (int depth = 0; depth < 40; depth++) {
        if (realpath(target, real)) {
            strcpy(target, real);
            return 0;
        }
        if (errno != ENOENT) return errno;
        ssize_t n = readlink(target, link, sizeof link - 1);
        if (n < 0) return 0;
        link[n] = 0;
        const char *slash = strrchr(target, '/');
        int folder = *link == '/' || !slash ? 0 : (int)(slash - target) + 1;
        n = snprintf(real, sizeof real, "%.*s%s", folder, target, link);
        if ((size_t)n >= sizeof real) return ENAMETOOLONG;
        strcpy(target, real);
    }
    return ELOOP;
}

static int begin(struct draft *d, const struct request *r) {
    if (strlen(r->path) >= sizeof d->target) return ENAMETOOLONG;
    strcpy(d->target, r->path);
    size_t n = strlen(d->target);
    if (n == 0) return ENOENT;
    int error = follow_links(d->target);
    if (error) return error;
    n = strlen(d->target);
    d->replaces = stat(d->target, &d->old) == 0;
    if (d->replaces && S_ISDIR(d->old.st_mode)) return EISDIR;
    if (d->target[n - 1] == '/' && !d->replaces) return EISDIR;
    if (d->replaces && faccessat(AT_FDCWD, d->target, W_OK, AT_EACCESS) < 0) return errno;
    if (d->replaces && !S_ISREG(d->old.st_mode)) {
        d->direct = true;
        d->fd = open(d->target, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
        return d->fd < 0 ? errno : 0;
    }
    if (!d->replaces) error = make_parents(d->target, 0755);
    return error ? error : open_draft(d, 0600);
}

static bool committed(void) {
    struct order order;
    return commit_seen || (recv(control_fd, &order, sizeof order, 0) == sizeof order && order.kind == ORDER_COMMIT);
}

static int link_draft(struct draft *d) {
    if (d->named) return 0;
    char self[64];
    snprintf(self, sizeof self, "/proc/self/fd/%d", d->fd);
    name_draft(d);
    if (linkat(AT_FDCWD, self, AT_FDCWD, d->name, AT_SYMLINK_FOLLOW) < 0 && linkat(d->fd, "", AT_FDCWD, d->name, AT_EMPTY_PATH) < 0)
        return errno;
    d->named = true;
    return 0;
}

/* A file that is itself a mount point (/etc/hosts in a container) can't be renamed over: the one case that is not atomic. */
static int overwrite(struct draft *d) {
    int from = open(d->name, O_RDONLY | O_CLOEXEC), to = open(d->target, O_WRONLY | O_TRUNC | O_CLOEXEC);
    int error = from < 0 || to < 0 ? errno : copy_file(from, to);
    if (!error && close(to) < 0) error = errno;
    unlink(d->name);
    d->named = false;
    return error;
}

static bool swap(const char *one, const char *other) { /* musl has renameat2 from 1.2.5 */
    return syscall(SYS_renameat2, AT_FDCWD, one, AT_FDCWD, other, 2 /* RENAME_EXCHANGE */) == 0;
}

/*
 * Where a large file replaces another one ext4 has rename start writing it to the disk, which takes longer than all the rest. An
 * exchange does not, and is as atomic. It is left alone where the old file is the larger one: overlayfs may have to copy that up.
 */
static bool exchange(struct draft *d, off_t size) {
    if (!d->replaces || size < LARGE || d->old.st_size > size) return false;
    if (!swap(d->name, d->target)) return false;
    if (unlink(d->name) == 0) return true;
    swap(d->name, d->target); /* what was there is no file any more */
    return false;
}

static int place_draft(struct draft *d, const struct request *r) {
    mode_t mode = r->mode >= 0 ? (mode_t)r->mode : d->replaces ? d->old.st_mode : 0644;
    if (d->replaces && (d->old.st_uid != geteuid() || d->old.st_gid != getegid()))
        (void)!fchown(d->fd, d->old.st_uid, d->old.st_gid);
    if (fchmod(d->fd, mode & 07777) < 0) return errno;
    int error = link_draft(d);
    if (error) return error;
    struct stat st;
    if (fstat(d->fd, &st) < 0) return errno;
    int failed = close(d->fd);
    d->fd = -1;
    if (failed < 0) return errno;
    if (exchange(d, st.st_size) || rename(d->name, d->target) == 0) {
        d->named = false;
        return 0;
    }
    return errno == EBUSY || errno == EXDEV ? overwrite(d) : errno;
}

static int fill(int in, int fd) {
    static char buffer[COPY];
    for (;;) {
        ssize_t n = read(in, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n < 0 ? errno : 0;
        int error = write_all(fd, buffer, (size_t)n);
        if (error) return error;
    }
}

static int write_file(const struct request *r, int in) {
    static struct draft d;
    int error = begin(&d, r);
    if (error) return error;
    say(REPORT_STARTED, 0);
    error = fill(in, d.fd);
    if (!error && !committed()) error = ECANCELED;
    if (!error && !d.direct) error = place_draft(&d, r);
    if (d.named) unlink(d.name);
    if (d.fd >= 0) close(d.fd); /* so that its room is free again when the failure is told */
    return error;
}

/* --- stat and list: u8 type, u32 mode, uid, gid, u64 size, i64 modified in ns, u32 length and name, u32 length and target --- */

static int describe(int out, int folder, const char *name, const char *shown, int flags) {
    struct stat st;
    char target[PATH_MAX];
    ssize_t linked = 0;
    if (fstatat(folder, name, &st, flags) < 0) return errno;
    if (S_ISLNK(st.st_mode) && (linked = readlinkat(folder, name, target, sizeof target)) < 0) return errno;
    uint8_t record[64], *p = record;
    p = put_u8(p, S_ISREG(st.st_mode) ? 1 : S_ISDIR(st.st_mode) ? 2 : S_ISLNK(st.st_mode) ? 3 : 4);
    p = put_u32(p, st.st_mode & 07777);
    p = put_u32(p, st.st_uid);
    p = put_u32(p, st.st_gid);
    p = put_u64(p, (uint64_t)st.st_size);
    p = put_u64(p, (uint64_t)st.st_mtim.tv_sec * 1000000000ULL + (uint64_t)st.st_mtim.tv_nsec);
    p = put_u32(p, (uint32_t)strlen(shown));
    int error = write_all(out, record, (size_t)(p - record));
    if (!error) error = write_all(out, shown, strlen(shown));
    put_u32(record, (uint32_t)linked);
    if (!error) error = write_all(out, record, 4);
    return error ? error : write_all(out, target, (size_t)linked);
}

static int stat_file(const struct request *r, int out) {
    return describe(out, AT_FDCWD, r->path, r->path, r->flags & FILE_FLAG ? 0 : AT_SYMLINK_NOFOLLOW);
}

static bool dots(const char *name) { return strcmp(name, ".") == 0 || strcmp(name, "..") == 0; }

static int list_folder(const struct request *r, int out) {
    DIR *dir = opendir(r->path);
    if (!dir) return errno;
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (!entry) return errno;
        if (dots(entry->d_name)) continue;
        int error = describe(out, dirfd(dir), entry->d_name, entry->d_name, AT_SYMLINK_NOFOLLOW);
        if (error && error != ENOENT) return error; /* gone since: not there */
    }
}

/* --- remove and mkdir --- */

/* By folder descriptors, so that a link put in place of a folder in between leads nowhere. */
static int remove_below(int folder, const char *name) {
    if (unlinkat(folder, name, 0) == 0) return 0;
    if (errno != EISDIR && errno != EPERM) return errno;
    int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return errno;
    DIR *dir = fdopendir(fd);
    if (!dir) return errno;
    int error = 0;
    for (struct dirent *entry; !error && (entry = readdir(dir));)
        if (!dots(entry->d_name) && (error = remove_below(fd, entry->d_name)) == ENOENT) error = 0; /* somebody was faster */
    closedir(dir);
    if (error) return error;
    return unlinkat(folder, name, AT_REMOVEDIR) < 0 ? errno : 0;
}

static int remove_path(const struct request *r) {
    if (r->flags & FILE_FLAG) return remove_below(AT_FDCWD, r->path);
    if (unlink(r->path) == 0) return 0;
    if (errno != EISDIR && errno != EPERM) return errno;
    return rmdir(r->path) < 0 ? errno : 0;
}

/* Of the folder just made and of nothing else: its parent's owner may have put a link in its place. */
static int give_mode(const char *path, mode_t mode) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return errno;
    int error = fchmod(fd, mode) < 0 ? errno : 0;
    close(fd);
    return error;
}

static int make_folder(const struct request *r) {
    char path[PATH_MAX];
    struct stat st;
    if (strlen(r->path) >= sizeof path) return ENAMETOOLONG;
    strcpy(path, r->path);
    int error = r->flags & FILE_FLAG && *path ? make_parents(path, 0755) : 0;
    if (error) return error;
    if (mkdir(path, 0700) == 0) return give_mode(path, (mode_t)r->mode & 07777);
    error = errno;
    if (!(r->flags & FILE_FLAG) || stat(path, &st) < 0) return error;
    return S_ISDIR(st.st_mode) ? 0 : EEXIST;
}

_Noreturn void files_main(const struct request *request, int control, int in, int out) {
    control_fd = control;
    if (!keep_only((int[]){control, in, out}, 3)) refuse(errno, PHASE_SPAWN);
    control_fd = 3;
    umask(022);

    struct identity who;
    int error = identify(*request->user ? request->user : settings.default_user, &who);
    if (!error) error = become(&who);
    if (error) refuse(error, PHASE_USER);
    switch (request->op) {
        case OP_READ: finish(read_file(request, 5));
        case OP_WRITE: finish(write_file(request, 4));
        case OP_STAT: finish(stat_file(request, 5));
        case OP_LIST: finish(list_folder(request, 5));
        case OP_REMOVE: finish(remove_path(request));
        case OP_MKDIR: finish(make_folder(request));
        default: finish(ENOSYS);
    }
}
