/* launcher remove [MAPS...] PATH LAST... : remove a tree, the entries LAST of its top only at the end, as root of a user namespace where maps are given.

   Never follows a link, and needs few descriptors and little stack however deep the tree is: what lies deeper than MAX_DEPTH is moved up. */
#include "launcher.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_DEPTH = 64 };

static int top;
static unsigned moved;

static int open_directory(int at, const char *name) {
    int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int fd = openat(at, name, flags);
    if (fd < 0 && errno == EACCES && fchmodat(at, name, 0700, 0) == 0)
        fd = openat(at, name, flags);
    return fd;
}

static bool is_kept(const char *name, char **kept) {
    for (; kept != NULL && *kept != NULL; kept++)
        if (strcmp(*kept, name) == 0)
            return true;
    return false;
}

static void empty(int dir, int depth, char **kept);

static void remove_entry(int dir, const char *name, int depth) {
    char target[32];
    if (unlinkat(dir, name, 0) == 0 || errno == ENOENT)
        return;
    if (errno == EACCES && fchmod(dir, 0700) == 0 && unlinkat(dir, name, 0) == 0)
        return;
    if (errno != EISDIR && errno != EPERM)
        fail(name);
    if (depth >= MAX_DEPTH) {
        snprintf(target, sizeof target, ".deep-%u", moved++);
        if (renameat(dir, name, top, target) == 0)
            return;
    }
    int fd = open_directory(dir, name);
    if (fd < 0 && errno == ENOENT) /* somebody else removes it too */
        return;
    if (fd < 0)
        fail(name);
    empty(fd, depth + 1, NULL);
    if (unlinkat(dir, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
        fail(name);
}

/* Takes over the descriptor. */
static void empty(int fd, int depth, char **kept) {
    DIR *stream = fdopendir(fd);
    if (stream == NULL)
        fail("fdopendir");
    for (bool again = true; again;) {
        again = false;
        rewinddir(stream);
        for (struct dirent *entry; (entry = readdir(stream)) != NULL;) {
            if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 || is_kept(entry->d_name, kept))
                continue;
            remove_entry(fd, entry->d_name, depth);
            again = true;
        }
    }
    closedir(stream);
}

static int remove_now(const char *path, char **last) {
    top = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (top < 0 && errno == ENOENT)
        return 0;
    int scan = top >= 0 ? openat(top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (scan < 0)
        fail(path);
    empty(scan, 0, last);
    for (; *last != NULL; last++)
        if (unlinkat(top, *last, 0) != 0 && errno != ENOENT)
            fail(*last);
    if (rmdir(path) != 0 && errno != ENOENT)
        fail(path);
    return 0;
}

int remove_tree(char **argv) {
    struct maps maps = {0};
    int gate, status = 0;
    while (*argv != NULL && maps_option(&maps, &argv))
        ;
    if (*argv == NULL)
        fail_with("usage", "a path is needed");
    if (maps.uid == NULL)
        return remove_now(argv[0], argv + 1);
    pid_t pid = fork_outside_maps(CLONE_NEWUSER, &maps, &gate);
    if (pid == 0) {
        if (!wait_for_gate(gate))
            _exit(1);
        become_root(&maps);
        _exit(remove_now(argv[0], argv + 1));
    }
    open_gate(gate);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
