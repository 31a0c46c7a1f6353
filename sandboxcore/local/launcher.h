/* What the parts of the launcher share. It makes the namespaces of local environments and gets processes into them. */
#ifndef SANDBOXCORE_LAUNCHER_H
#define SANDBOXCORE_LAUNCHER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Descriptors of the holder that others find under /proc/PID/fd: its network namespaces, from this number on. */
enum { NETNS_FD = 100, MAX_NETNS = 256 };

/* How ids inside a new user namespace map to those outside. */
struct maps {
    const char *uid, *gid; /* lines "INSIDE OUTSIDE COUNT", separated by commas */
    bool tools;            /* written by newuidmap and newgidmap, which know what the system allows */
    bool single;           /* one id only: setgroups has to be given up */
};

_Noreturn void fail(const char *what);                      /* "launcher: WHAT: ERROR (errno N)"; exit status 1 */
_Noreturn void fail_with(const char *what, const char *why); /* the same without an errno */
bool maps_option(struct maps *maps, char ***argv);          /* takes one of --uid-map, --gid-map, --tools, --single */
unsigned long long start_time(pid_t pid);                   /* field 22 of /proc/PID/stat; 0: no such process */
pid_t self_outside(void);                                   /* own pid as the host's /proc knows it */
void become_root(const struct maps *maps);                  /* id 0 of the user namespace that the caller is in */
pid_t fork_outside_maps(int flags, const struct maps *maps, int *gate);
bool wait_for_gate(int gate);
void open_gate(int gate);
void null_stdio(void);
void number(const char *text, long long *value);
void make_parents(char *path);

int hold(char **argv);
int enter(char **argv);
int prepare(char **argv);
int map(char **argv);
int remove_tree(char **argv);

#endif
