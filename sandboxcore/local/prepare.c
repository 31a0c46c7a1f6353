/* launcher prepare --plan FD --ready FD --caps HEX [--cwd DIR] [--read-only] [--single] [--pid-max N] -- PROGRAM ARG...

   The last step before the guest, inside the finished file tree and as its root: make directories and files of the plan (so that every link
   is resolved in here), close what is dangerous, give up capabilities, and become the program. */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Field `wanted` of the line of a passwd or group file whose first or third field is `key`; false: no such line. */
static bool lookup(const char *file, const char *key, int wanted, long *value) {
    char line[4096];
    FILE *stream = fopen(file, "re");
    bool found = false;
    while (stream != NULL && !found && fgets(line, sizeof line, stream) != NULL) {
        char *fields[4] = {0}, *rest = line;
        for (int i = 0; i < 4 && rest != NULL; i++)
            fields[i] = strsep(&rest, ":\n");
        if (fields[3] == NULL || (strcmp(fields[0], key) != 0 && strcmp(fields[2], key) != 0))
            continue;
        *value = strtol(fields[wanted], NULL, 10);
        found = true;
    }
    if (stream != NULL)
        fclose(stream);
    return found;
}

static bool digits(const char *text) {
    return *text != '\0' && text[strspn(text, "0123456789")] == '\0';
}

/* NAME, UID, NAME:GROUP or UID:GID. */
static bool owner(const char *text, long *uid, long *gid) {
    char *copy = strdup(text), *group = copy;
    const char *user = strsep(&group, ":");
    bool known = lookup("/etc/passwd", user, 2, uid);
    *gid = 0;
    if (known)
        lookup("/etc/passwd", user, 3, gid);
    else if (digits(user))
        *uid = strtol(user, NULL, 10), known = true;
    if (known && group != NULL && !lookup("/etc/group", group, 2, gid)) {
        known = digits(group);
        *gid = strtol(group, NULL, 10);
    }
    free(copy);
    return known;
}

static void give(const char *path, int fd, const char *whose, bool single) {
    long uid = 0, gid = 0;
    if (!owner(whose, &uid, &gid))
        fail_with("no such user in the sandbox", whose);
    int done = fchown(fd, (uid_t)uid, (gid_t)gid);
    if (done != 0 && !single)
        fail(path);
}

static void make_directory(char *path, mode_t mode, const char *whose, bool single) {
    struct stat info;
    make_parents(path);
    if (mkdir(path, 0700) == 0) {
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 || fchmod(fd, mode) != 0)
            fail(path);
        give(path, fd, whose, single);
        close(fd);
    } else if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode)) {
        errno = ENOTDIR;
        fail(path);
    }
}

static void copy_bytes(FILE *plan, int fd, size_t left, const char *path) {
    char block[65536];
    while (left > 0) {
        size_t got = fread(block, 1, left < sizeof block ? left : sizeof block, plan);
        if (got == 0 || write(fd, block, got) != (ssize_t)got)
            fail(path);
        left -= got;
    }
}

static void make_file(FILE *plan, char *path, mode_t mode, const char *whose, size_t size, bool single) {
    make_parents(path);
    if (unlink(path) != 0 && errno != ENOENT)
        fail(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600); /* not what a neighbour of a shared volume puts there meanwhile */
    if (fd < 0)
        fail(path);
    copy_bytes(plan, fd, size, path);
    give(path, fd, whose, single);
    if (fchmod(fd, mode) != 0 || close(fd) != 0)
        fail(path);
}

/* Make a mount read-only; flags that it has must be kept or the kernel refuses. */
static bool remount_read_only(const char *path) {
    struct statvfs info;
    if (statvfs(path, &info) != 0)
        return false;
    unsigned long flags = MS_REMOUNT | MS_BIND | MS_RDONLY;
    flags |= (info.f_flag & ST_NOSUID ? MS_NOSUID : 0) | (info.f_flag & ST_NODEV ? MS_NODEV : 0) | (info.f_flag & ST_NOEXEC ? MS_NOEXEC : 0);
    return mount(NULL, path, NULL, flags, NULL) == 0;
}

static bool seal(const char *path) {
    return mount(path, path, NULL, MS_BIND | MS_REC, NULL) == 0 && remount_read_only(path);
}

static void seal_kernel_switches(void) {
    static const char *const paths[] = {"/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (access(paths[i], F_OK) == 0 && !seal(paths[i]))
            fail(paths[i]);
}

/* Records: "TYPE MODE OWNER PATH_LENGTH DATA_LENGTH\n", the path, the data. D is a directory, F a file, R a read-only one. */
static void follow(int fd, bool single) {
    FILE *plan = fdopen(fd, "r");
    char type, whose[256], path[4096];
    unsigned mode;
    size_t length, size;
    while (plan != NULL && fscanf(plan, "%c %u %255s %zu %zu", &type, &mode, whose, &length, &size) == 5) {
        if (fgetc(plan) != '\n' || length >= sizeof path || fread(path, 1, length, plan) != length)
            fail_with("plan", "malformed");
        path[length] = '\0';
        if (type == 'D')
            make_directory(path, (mode_t)mode, whose, single);
        else
            make_file(plan, path, (mode_t)mode, whose, size, single);
        if (type == 'R' && !seal(path))
            fail(path);
    }
    if (plan != NULL)
        fclose(plan);
}

static void set_switch(const char *path, const char *value) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (write(fd, value, strlen(value)) < 0)
            dprintf(2, "launcher: %s: %s\n", path, strerror(errno));
        close(fd);
    }
}

/* Since Linux 6.14 every pid namespace has its own highest pid, which bounds how many processes and threads there can be. Below it are
   300 numbers that the kernel gives out only once: they are skipped, or there could be as many more until they are used up. */
static void bound_pids(const char *highest) {
    set_switch("/proc/sys/kernel/pid_max", highest);
    set_switch("/proc/sys/kernel/ns_last_pid", "300");
}

static void keep_only(unsigned long long caps) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {0};
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    for (int cap = 0; cap < 64 && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        if ((caps >> cap & 1) == 0 && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0)
            fail("capabilities");
    for (int word = 0; word < 2; word++)
        data[word].effective = data[word].permitted = (unsigned)(caps >> (32 * word));
    if (syscall(SYS_capget, &header, NULL) != 0)
        fail("capabilities");
    struct __user_cap_data_struct had[2] = {0};
    syscall(SYS_capget, &header, had);
    for (int word = 0; word < 2; word++)
        data[word].effective = data[word].permitted &= had[word].permitted;
    if (syscall(SYS_capset, &header, data) != 0)
        fail("capabilities");
}

int prepare(char **argv) {
    long long plan = -1, ready = -1;
    const char *cwd = "/", *caps = "0", *pid_max = NULL;
    bool single = false, sealed = false;
    for (; *argv != NULL && strcmp(*argv, "--") != 0; argv++) {
        if (strcmp(*argv, "--single") == 0)
            single = true;
        else if (strcmp(*argv, "--read-only") == 0)
            sealed = true;
        else if (argv[1] != NULL && strcmp(*argv, "--plan") == 0)
            number(*++argv, &plan);
        else if (argv[1] != NULL && strcmp(*argv, "--ready") == 0)
            number(*++argv, &ready);
        else if (argv[1] != NULL && strcmp(*argv, "--caps") == 0)
            caps = *++argv;
        else if (argv[1] != NULL && strcmp(*argv, "--cwd") == 0)
            cwd = *++argv;
        else if (argv[1] != NULL && strcmp(*argv, "--pid-max") == 0)
            pid_max = *++argv;
        else
            fail_with("usage", *argv);
    }
    if (plan < 0 || ready < 0 || *argv == NULL || *++argv == NULL)
        fail_with("usage", "--plan, --ready and a program are needed");
    fcntl((int)ready, F_SETFD, FD_CLOEXEC);
    umask(022);
    follow((int)plan, single);
    if (pid_max != NULL)
        bound_pids(pid_max);
    seal_kernel_switches();
    if (sealed && !remount_read_only("/"))
        fail("/");
    if (chdir(cwd) != 0)
        fail(cwd);
    keep_only(strtoull(caps, NULL, 16));
    if (write((int)ready, "R", 1) != 1)
        fail("the client is gone");
    null_stdio();
    execv(*argv, argv);
    fail(*argv);
}
