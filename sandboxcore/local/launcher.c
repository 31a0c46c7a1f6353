/* Dispatch, and the few things that all parts need. */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void fail(const char *what) {
    int saved = errno;
    dprintf(2, "launcher: %s: %s (errno %d)\n", what, strerror(saved), saved);
    _exit(1);
}

void fail_with(const char *what, const char *why) {
    dprintf(2, "launcher: %s: %s\n", what, why);
    _exit(1);
}

void number(const char *text, long long *value) {
    char *end = NULL;
    errno = 0;
    *value = text != NULL ? strtoll(text, &end, 10) : 0;
    if (text == NULL || end == text || *end != '\0' || errno != 0)
        fail_with("not a number", text != NULL ? text : "(nothing)");
}

unsigned long long start_time(pid_t pid) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0)
        close(fd);
    if (got <= 0)
        return 0;
    text[got] = '\0';
    /* The second field is the program's name, which may hold anything but ends at the last parenthesis. */
    char *at = strrchr(text, ')');
    for (int field = 2; at != NULL && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at != NULL ? strtoull(at, NULL, 10) : 0;
}

pid_t self_outside(void) {
    char text[32];
    ssize_t got = readlink("/proc/self", text, sizeof text - 1);
    if (got <= 0)
        fail("proc: /proc/self");
    text[got] = '\0';
    return (pid_t)atoi(text);
}

void null_stdio(void) {
    int fd = open("/dev/null", O_RDWR);
    if (fd < 0)
        fail("/dev/null");
    for (int target = 0; target <= 2; target++)
        dup2(fd, target);
    if (fd > 2)
        close(fd);
}

void make_parents(char *path) {
    for (char *at = strchr(path + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
        *at = '\0';
        if (mkdir(path, 0755) != 0 && errno != EEXIST)
            fail(path);
        *at = '/';
    }
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*run)(char **);
    } commands[] = {{"hold", hold}, {"enter", enter}, {"prepare", prepare}, {"map", map}, {"remove", remove_tree}};

    for (size_t i = 0; argc >= 2 && i < sizeof commands / sizeof *commands; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argv + 2);
    dprintf(2, "usage: launcher hold|enter|prepare|map|remove ...\n");
    return 2;
}
