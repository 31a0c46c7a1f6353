/* launcher enter --holder PID:START --net K|-1 --at DIR [--root] [--single] [--limit N:SOFT:HARD]...
                  [--stage FLAGS NAME PATH SUBPATH]... -- PROGRAM ARG...

   Start a program (bubblewrap) in the namespaces of a holder, as a child of the holder, with what it mounts from collected below DIR in a mount
   namespace of its own: the root of the user namespace may not search the folders that lead to the originals. */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef OPEN_TREE_CLOEXEC
#define OPEN_TREE_CLOEXEC O_CLOEXEC
#endif
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#ifndef MOVE_MOUNT_F_EMPTY_PATH
#define MOVE_MOUNT_F_EMPTY_PATH 4
#endif

enum { MAX_STAGED = 512 };

struct staged {
    const char *flags, *name, *path, *below;
    int tree;
};

struct entry {
    pid_t holder;
    unsigned long long started;
    long long net;
    const char *at;
    bool privileged;
    struct maps maps;
    struct staged staged[MAX_STAGED];
    int count;
    int user_ns, pid_ns, net_ns;
};

static void open_namespaces(struct entry *e) {
    char path[64];
    int pidfd = (int)syscall(SYS_pidfd_open, e->holder, 0);
    if (pidfd < 0)
        fail("holder");
    snprintf(path, sizeof path, "/proc/%d/ns/user", (int)e->holder);
    e->user_ns = open(path, O_RDONLY | O_CLOEXEC);
    snprintf(path, sizeof path, "/proc/%d/ns/pid", (int)e->holder);
    e->pid_ns = open(path, O_RDONLY | O_CLOEXEC);
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)e->holder, NETNS_FD + (int)e->net);
    e->net_ns = e->net >= 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (e->user_ns < 0 || e->pid_ns < 0 || (e->net >= 0 && e->net_ns < 0))
        fail("holder");
    /* Checked after opening: had the number been used again by now, these would be another's. */
    if (start_time(e->holder) != e->started || syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0) != 0) {
        errno = ESRCH;
        fail("holder");
    }
    close(pidfd);
}

static int open_source(const struct staged *s) {
    int fd = open(s->path, O_PATH | O_CLOEXEC);
    if (fd < 0 || *s->below == '\0')
        return fd;
    /* A sandbox may have written in there: no link is followed. */
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    int inner = (int)syscall(SYS_openat2, fd, s->below, &how, sizeof how);
    close(fd);
    return inner;
}

static void clone_tree(struct staged *s, int user_ns) {
    int fd = open_source(s);
    if (fd < 0)
        fail(s->path);
    s->tree = (int)syscall(SYS_open_tree, fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    if (s->tree < 0)
        fail(s->path);
    close(fd);
    if (strchr(s->flags, 'i') == NULL)
        return;
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (unsigned)user_ns};
    if (syscall(SYS_mount_setattr, s->tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes, sizeof attributes) != 0)
        fail("idmap");
}

static void attach(const struct entry *e, const struct staged *s) {
    char target[512];
    struct stat info;
    snprintf(target, sizeof target, "%s/%s", e->at, s->name);
    make_parents(target);
    if (fstatat(s->tree, "", &info, AT_EMPTY_PATH) != 0)
        fail(s->path);
    if (S_ISDIR(info.st_mode) ? mkdir(target, 0755) != 0 : mknod(target, S_IFREG | 0644, 0) != 0)
        fail(target);
    if (syscall(SYS_move_mount, s->tree, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) != 0)
        fail(target);
    close(s->tree);
}

static void build_stage(struct entry *e) {
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) != 0)
        fail("mountns");
    for (int i = 0; i < e->count; i++)
        clone_tree(&e->staged[i], e->user_ns);
    if (mount("tmpfs", e->at, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755") != 0)
        fail("stage");
    for (int i = 0; i < e->count; i++)
        attach(e, &e->staged[i]);
}

static void limit(const char *text) {
    long long kind, soft, hard;
    char *copy = strdup(text), *rest = NULL;
    number(strtok_r(copy, ":", &rest), &kind);
    number(strtok_r(NULL, ":", &rest), &soft);
    number(strtok_r(NULL, ":", &rest), &hard);
    free(copy);
    struct rlimit wanted = {soft < 0 ? RLIM_INFINITY : (rlim_t)soft, hard < 0 ? RLIM_INFINITY : (rlim_t)hard};
    if (setrlimit((int)kind, &wanted) != 0)
        fail("limit");
}

static void parse_holder(struct entry *e, const char *text) {
    char *end = NULL;
    e->holder = (pid_t)strtol(text, &end, 10);
    e->started = *end == ':' ? strtoull(end + 1, NULL, 10) : 0;
}

static char **parse(struct entry *e, char **argv) {
    for (; *argv != NULL && strcmp(*argv, "--") != 0; argv++) {
        if (strcmp(*argv, "--root") == 0)
            e->privileged = true;
        else if (strcmp(*argv, "--single") == 0)
            e->maps.single = true;
        else if (argv[1] != NULL && strcmp(*argv, "--holder") == 0)
            parse_holder(e, *++argv);
        else if (argv[1] != NULL && strcmp(*argv, "--net") == 0)
            number(*++argv, &e->net);
        else if (argv[1] != NULL && strcmp(*argv, "--at") == 0)
            e->at = *++argv;
        else if (argv[1] != NULL && strcmp(*argv, "--limit") == 0)
            limit(*++argv);
        else if (strcmp(*argv, "--stage") == 0 && e->count < MAX_STAGED && argv[1] && argv[2] && argv[3] && argv[4]) {
            e->staged[e->count++] = (struct staged){argv[1], argv[2], argv[3], argv[4], -1};
            argv += 4;
        } else
            fail_with("usage", *argv);
    }
    if (e->at == NULL || *argv == NULL || argv[1] == NULL)
        fail_with("usage", "--at and a program are needed");
    return argv + 1;
}

/* Twice, so that the program's parent is the holder, which reaps it: the kernel lets a pid namespace end only when all of its
   processes were reaped, and an outer parent may never do that. Who called is answered when the program has been executed. */
static int fork_into_holder(void) {
    int ends[2], status = 0;
    char byte;
    if (pipe2(ends, O_CLOEXEC) != 0)
        fail("pipe");
    pid_t first = fork();
    if (first < 0)
        fail("fork");
    if (first > 0) {
        close(ends[1]);
        while (waitpid(first, &status, 0) < 0 && errno == EINTR)
            ;
        _exit(read(ends[0], &byte, 1) == 0 && WIFEXITED(status) ? WEXITSTATUS(status) : 1);
    }
    pid_t second = fork();
    if (second < 0)
        fail("fork");
    if (second > 0)
        _exit(0);
    return ends[1];
}

/* Bubblewrap looks its child up under /proc, by the pid that it has in this namespace. */
static void show_own_processes(bool privileged) {
    /* The stage of real root is in a mount namespace that is no longer ours to change. */
    if (privileged && unshare(CLONE_NEWNS) != 0)
        fail("mountns");
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) != 0)
        fail("proc");
}

int enter(char **argv) {
    static struct entry e = {.net = -1};
    argv = parse(&e, argv);
    open_namespaces(&e);
    /* Real root collects before it gives up its rights; anybody else has the rights only in the namespace. */
    if (e.privileged)
        build_stage(&e);
    if (setns(e.user_ns, CLONE_NEWUSER) != 0)
        fail("userns");
    become_root(&e.maps);
    if (!e.privileged)
        build_stage(&e);
    if (e.net_ns >= 0 && setns(e.net_ns, CLONE_NEWNET) != 0)
        fail("netns");
    if (setns(e.pid_ns, CLONE_NEWPID) != 0)
        fail("pidns");
    int verdict = fork_into_holder();
    setsid();
    pid_t pid = self_outside();
    dprintf(1, "%d %llu\n", (int)pid, start_time(pid));
    show_own_processes(e.privileged);
    if (dup2(0, 1) < 0 || chdir("/") != 0)
        fail("stdio");
    execv(*argv, argv);
    (void)!write(verdict, "x", 1);
    fail(*argv);
}
