/* New user namespaces and the ids in them. See user_namespaces(7). */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

bool maps_option(struct maps *maps, char ***argv) {
    const char *name = **argv;
    if (strcmp(name, "--tools") == 0)
        maps->tools = true;
    else if (strcmp(name, "--single") == 0)
        maps->single = true;
    else if (strcmp(name, "--uid-map") == 0 && (*argv)[1] != NULL)
        maps->uid = *++*argv;
    else if (strcmp(name, "--gid-map") == 0 && (*argv)[1] != NULL)
        maps->gid = *++*argv;
    else
        return false;
    ++*argv;
    return true;
}

static void write_file(pid_t pid, const char *name, const char *text) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        fail(name);
    close(fd);
}

static void run_tool(const char *tool, pid_t pid, const char *lines) {
    char *argv[64] = {(char *)tool}, target[16], *copy = strdup(lines), *rest = NULL;
    int count = 1;
    snprintf(target, sizeof target, "%d", (int)pid);
    argv[count++] = target;
    for (char *word = strtok_r(copy, " ,", &rest); word != NULL && count < 63; word = strtok_r(NULL, " ,", &rest))
        argv[count++] = word;
    pid_t child = fork();
    if (child < 0)
        fail("fork");
    if (child == 0) {
        dup2(2, 1);
        execvp(tool, argv);
        fail(tool);
    }
    int status = 0;
    waitpid(child, &status, 0);
    free(copy);
    if (status != 0)
        fail_with(tool, "it refused the id map; see /etc/subuid and /etc/subgid");
}

static void write_maps(pid_t pid, const struct maps *maps) {
    if (maps->tools) {
        run_tool("newuidmap", pid, maps->uid);
        run_tool("newgidmap", pid, maps->gid);
        return;
    }
    const char *names[] = {"uid_map", "gid_map"}, *lines[] = {maps->uid, maps->gid};
    if (maps->single)
        write_file(pid, "setgroups", "deny");
    for (int i = 0; i < 2; i++) {
        char *text = strdup(lines[i]);
        for (char *at = text; *at != '\0'; at++)
            if (*at == ',')
                *at = '\n';
        write_file(pid, names[i], text);
        free(text);
    }
}

void become_root(const struct maps *maps) {
    /* Under a single map setgroups is forbidden; the groups of the user that started it then stay. */
    if (!maps->single && setgroups(0, NULL) != 0)
        fail("setgroups");
    if (setresgid(0, 0, 0) != 0 || setresuid(0, 0, 0) != 0)
        fail("setuid");
    /* A change of ids closes /proc/PID to the owner of the namespace, who has to join it. */
    prctl(PR_SET_DUMPABLE, 1);
}

/* Forks into new namespaces (flags as for clone) whose ids are mapped. The child blocks in wait_for_gate() until
   open_gate(); if the parent dies before that, so does the child. Returns as fork does. */
pid_t fork_outside_maps(int flags, const struct maps *maps, int *gate) {
    int ends[2];
    if (maps->uid == NULL || maps->gid == NULL)
        fail_with("usage", "--uid-map and --gid-map are needed");
    if (pipe2(ends, O_CLOEXEC) != 0)
        fail("pipe");
    pid_t pid = (pid_t)syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid < 0)
        fail("userns");
    if (pid == 0) {
        close(ends[1]);
        *gate = ends[0];
        return 0;
    }
    close(ends[0]);
    *gate = ends[1];
    write_maps(pid, maps);
    return pid;
}

bool wait_for_gate(int gate) {
    char byte;
    bool open = read(gate, &byte, 1) == 1;
    close(gate);
    return open;
}

void open_gate(int gate) {
    if (write(gate, "g", 1) != 1)
        fail("the child is gone");
    close(gate);
}

/* launcher map MAPS... [--] PROGRAM ARG... : run a program as root of a new user namespace, and end as it does. */
int map(char **argv) {
    struct maps maps = {0};
    int gate, status = 0;
    while (*argv != NULL && maps_option(&maps, &argv))
        ;
    if (*argv != NULL && strcmp(*argv, "--") == 0)
        argv++;
    if (*argv == NULL)
        fail_with("usage", "a program is needed");
    pid_t pid = fork_outside_maps(CLONE_NEWUSER, &maps, &gate);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (!wait_for_gate(gate))
            _exit(1);
        become_root(&maps);
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* the change of ids cleared it */
        execvp(*argv, argv);
        fail(*argv);
    }
    open_gate(gate);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
