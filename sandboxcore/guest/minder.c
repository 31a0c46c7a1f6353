/*
 * A minder is a process a command: a child subreaper, so that whatever the command forks, in whatever session, stays a
 * descendant of it. It starts the program, keeps the deadline, kills the tree until waitid says that nobody is left, and
 * tells the keeper how it ended. It outlives the program while there are descendants, and the keeper if that dies.
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
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

enum { KILL_LIMIT_MS = 1500, KILL_AGAIN_MS = 1000, KILL_AGAIN_MOST_MS = 60000, CONTROL = 6 };

void close_above(int lowest) {
    if (syscall(SYS_close_range, (unsigned)lowest, ~0U, 0) == 0) return;
    DIR *dir = opendir("/proc/self/fd"); /* Linux before 5.9 */
    if (!dir) {
        for (int fd = lowest; fd < 65536; fd++) close(fd);
        return;
    }
    for (struct dirent *entry; (entry = readdir(dir));) {
        int fd = atoi(entry->d_name);
        if (fd >= lowest && fd != dirfd(dir)) close(fd);
    }
    closedir(dir);
}

static void close_between(int first, int last) {
    if (first > last || syscall(SYS_close_range, (unsigned)first, (unsigned)last, 0) == 0) return;
    for (int fd = first; fd <= last; fd++) close(fd);
}

/* Move descriptors to 3 and up and close all others but the standard ones; the others first, so that there is room even at the limit. */
bool keep_only(const int *fds, int count) {
    int kept[8], high[8];
    memcpy(kept, fds, (size_t)count * sizeof *kept);
    for (int i = 1; i < count; i++)
        for (int j = i; j > 0 && kept[j - 1] > kept[j]; j--) {
            int other = kept[j];
            kept[j] = kept[j - 1];
            kept[j - 1] = other;
        }
    int next = 3;
    for (int i = 0; i < count; i++) {
        close_between(next, kept[i] - 1);
        if (kept[i] >= next) next = kept[i] + 1;
    }
    close_above(next);
    for (int i = 0; i < count; i++)
        if ((high[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3 + count)) < 0) return false;
    for (int i = 0; i < count; i++) dup3(high[i], 3 + i, O_CLOEXEC);
    close_above(3 + count);
    return true;
}

static bool contains(const pid_t *list, size_t n, pid_t pid) {
    for (size_t i = 0; i < n; i++)
        if (list[i] == pid) return true;
    return false;
}

static int kill_one(pid_t pid, const pid_t *spare, size_t spared) {
    if (contains(spare, spared, pid)) return 0;
    return kill(pid, SIGKILL) < 0 && errno == EPERM;
}

/* /proc may belong to another pid namespace, where the numbers mean other processes. */
static bool own_proc(void) {
    char self[32];
    ssize_t n = readlink("/proc/self", self, sizeof self - 1);
    if (n <= 0) return false;
    self[n] = 0;
    return atoi(self) == getpid();
}

static int kill_listed(const pid_t *spare, size_t spared) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    FILE *file = own_proc() ? fopen(path, "re") : NULL;
    if (!file) return -1;
    int failed = 0, pid;
    while (fscanf(file, "%d", &pid) == 1) failed += kill_one(pid, spare, spared);
    fclose(file);
    return failed;
}

/* Without /proc: ask of each pid whether it is a child. The newest pid bounds the search; a wrapped counter widens it. */
static int kill_scanned(const pid_t *spare, size_t spared) {
    static pid_t highest;
    pid_t newest = vfork();
    if (newest == 0) _exit(0);
    if (newest > 0) {
        if (newest < highest) highest = 4194304;
        else highest = newest;
        waitpid(newest, NULL, 0);
    } else if (!highest) {
        highest = 4194304;
    }
    int failed = 0;
    for (pid_t pid = 2; pid <= highest; pid++) {
        siginfo_t info = {0};
        if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0)
            failed += kill_one(pid, spare, spared);
    }
    return failed;
}

int kill_children(const pid_t *spare, size_t spared) {
    int failed = kill_listed(spare, spared);
    return failed >= 0 ? failed : kill_scanned(spare, spared);
}

struct minder {
    int control; /* -1 once the keeper is gone */
    int signals;
    pid_t leader;
    bool ended, reported;
    int status;
    struct rusage usage;
    uint64_t deadline; /* 0: none */
    uint32_t pause_ms; /* until what could not be killed is tried again */
    uint8_t why;
};

static void tell(struct minder *m, const struct report *report) {
    if (m->control < 0) return;
    if (send(m->control, report, sizeof *report, MSG_NOSIGNAL) < 0 && errno != EAGAIN) m->control = -1;
}

/* Reap what has ended; false when no child is left. */
static bool reap(struct minder *m) {
    for (;;) {
        int status;
        struct rusage usage;
        pid_t pid = wait4(-1, &status, WNOHANG, &usage);
        if (pid < 0 && errno == EINTR) continue;
        if (pid < 0) return false;
        if (pid == 0) return true;
        if (pid != m->leader) continue;
        m->ended = true;
        m->status = status;
        m->usage = usage;
    }
}

static void wait_signal(struct minder *m, int timeout_ms) {
    struct pollfd fd = {.fd = m->signals, .events = POLLIN};
    struct signalfd_siginfo info;
    if (poll(&fd, 1, timeout_ms) > 0) while (read(m->signals, &info, sizeof info) > 0) continue;
}

/* Kill until nobody is left, or until what is left is proven to resist. */
static uint32_t kill_tree(struct minder *m) {
    uint64_t limit = now_ms() + KILL_LIMIT_MS;
    int resisting = 0;
    for (int pause = 0;; pause = pause < 8 ? pause + 1 : 8) {
        resisting = kill_children(NULL, 0);
        if (!reap(m)) return 0;
        if (now_ms() > limit) return resisting > 0 ? (uint32_t)resisting : 1;
        wait_signal(m, 1 + pause);
    }
}

static uint64_t microseconds(struct timeval t) { return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_usec; }

static void report_end(struct minder *m, uint32_t unkillable) {
    if (m->reported) return;
    m->reported = true;
    struct report report = {.kind = REPORT_EXIT, .why = m->why, .unkillable = unkillable};
    report.signaled = m->ended ? WIFSIGNALED(m->status) : 1;
    report.value = !m->ended ? SIGKILL : report.signaled ? WTERMSIG(m->status) : WEXITSTATUS(m->status);
    report.user_us = microseconds(m->usage.ru_utime);
    report.system_us = microseconds(m->usage.ru_stime);
    report.max_rss_kib = (uint64_t)m->usage.ru_maxrss;
    tell(m, &report);
}

static void kill_and_report(struct minder *m, uint8_t why) {
    if (!m->ended) m->why = why;
    uint32_t unkillable = m->pause_ms ? (uint32_t)kill_children(NULL, 0) : kill_tree(m);
    report_end(m, unkillable);
    if (!unkillable && !m->pause_ms) {
        m->deadline = 0;
        return;
    }
    /* It may have become possible, or have left us its children. */
    m->pause_ms = m->pause_ms * 2 > KILL_AGAIN_MOST_MS ? KILL_AGAIN_MOST_MS : m->pause_ms ? m->pause_ms * 2 : KILL_AGAIN_MS;
    m->deadline = now_ms() + m->pause_ms;
}

static void obey(struct minder *m) {
    struct order order;
    ssize_t n = recv(m->control, &order, sizeof order, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        close(m->control);
        m->control = -1; /* the keeper is gone or has forgotten us: go on, the deadline still counts */
    } else if (n == sizeof order && order.kind == ORDER_KILL) {
        kill_and_report(m, WHY_KILLED);
    } else if (n == sizeof order && order.kind == ORDER_SIGNAL && !m->ended) {
        kill(m->leader, order.signal);
    }
}

static int patience(const struct minder *m) {
    if (!m->deadline) return -1;
    uint64_t now = now_ms();
    return now >= m->deadline ? 0 : m->deadline - now > INT_MAX ? INT_MAX : (int)(m->deadline - now);
}

static _Noreturn void mind(struct minder *m) {
    for (;;) {
        bool children = reap(m);
        if (m->ended) report_end(m, 0);
        if (!children) _exit(0);
        struct pollfd fds[2] = {{.fd = m->signals, .events = POLLIN}, {.fd = m->control, .events = POLLIN}};
        int n = poll(fds, 2, patience(m));
        if (n > 0 && fds[0].revents) wait_signal(m, 0);
        if (n > 0 && fds[1].revents) obey(m);
        if (m->deadline && now_ms() >= m->deadline) kill_and_report(m, WHY_TIMEOUT);
    }
}

/* --- Starting the program --- */

struct start {
    const struct request *request;
    struct identity who;
    char **env;
    bool terminal;
    volatile bool victim;
    volatile int error;
    volatile uint8_t phase;
};

static bool same_name(const char *a, const char *b) {
    size_t n = strcspn(a, "=");
    return strncmp(a, b, n) == 0 && b[n] == '=';
}

static bool overridden(const char *entry, char **by) {
    for (; by && *by; by++)
        if (same_name(entry, *by)) return true;
    return false;
}

/* The container's environment, HOME of whom we become, and over them what the client asked for. */
static char **environment(const struct request *request, const struct identity *who) {
    static char home[sizeof who->home + 5];
    size_t n = 0, m = 0, used = 0;
    for (char **e = settings.base_env; *e; e++) n++;
    for (char **e = request->env; e && *e; e++) m++;
    char **env = calloc(n + m + 2, sizeof *env);
    if (!env) return NULL;
    char *own[2] = {home, NULL};
    bool as_default = !*request->user && *settings.default_home;
    if (who->change) snprintf(home, sizeof home, "HOME=%s", as_default ? settings.default_home : who->home);
    else own[0] = NULL;
    for (char **e = settings.base_env; *e; e++)
        if (!overridden(*e, request->env) && !overridden(*e, own)) env[used++] = *e;
    if (own[0] && !overridden(own[0], request->env)) env[used++] = own[0];
    for (char **e = request->env; e && *e; e++)
        if (!overridden(*e, e + 1)) env[used++] = *e;
    return env;
}

static const char *variable(char **env, const char *name) {
    size_t n = strlen(name);
    for (; *env; env++)
        if (strncmp(*env, name, n) == 0 && (*env)[n] == '=') return *env + n + 1;
    return NULL;
}

/* As execvpe does, but never through a shell; the errno of the last real candidate wins over "not found". */
static int execute(char **argv, char **env) {
    const char *name = argv[0];
    if (!*name) return ENOENT;
    if (strchr(name, '/')) {
        execve(name, argv, env);
        return errno;
    }
    const char *path = variable(env, "PATH");
    if (!path) path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    int error = ENOENT;
    char candidate[PATH_MAX];
    for (const char *at = path;; at++) {
        size_t n = strcspn(at, ":");
        int length = n ? snprintf(candidate, sizeof candidate, "%.*s/%s", (int)n, at, name) : snprintf(candidate, sizeof candidate, "%s", name);
        if (length > 0 && (size_t)length < sizeof candidate) {
            execve(candidate, argv, env);
            if (errno != ENOENT && errno != ENOTDIR) error = errno;
        }
        at += n;
        if (!*at) return error;
    }
}

static int enter(const struct request *request, const struct identity *who, volatile uint8_t *phase) {
    *phase = PHASE_USER;
    int error = become(who);
    if (error) return error;
    *phase = PHASE_CWD;
    return *request->cwd && chdir(request->cwd) < 0 ? errno : 0;
}

/* By the system call: libc keeps two signals for itself and would leave them as whoever started us had them. */
static void reset_signals(void) {
    unsigned long by_default[8] = {0}; /* the kernel's struct sigaction: no handler, no flags, an empty mask */
    for (int number = 1; number < NSIG; number++) syscall(SYS_rt_sigaction, number, by_default, NULL, 8);
}

/*
 * So that the kernel takes a command before the keeper when memory runs out. Best effort: raising it is always allowed. A keeper that
 * is not root can't open the file of its own kind, which may not be looked at, and has to wait until the program runs.
 */
static bool prefer_as_victim(const char *path) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool done = write(fd, "1000", 4) == 4;
    close(fd);
    return done;
}

/* Runs in a vfork child: the minder's memory, so nothing is allocated and little is written. */
static _Noreturn void launch(struct start *s) {
    reset_signals();
    setsid();
    if (s->terminal) ioctl(3, TIOCSCTTY, 0);
    dup2(3, 0);
    dup2(4, 1);
    dup2(5, 2);
    s->victim = prefer_as_victim("/proc/self/oom_score_adj");
    syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, &settings.nofile, NULL);
    int error = enter(s->request, &s->who, &s->phase);
    if (!error) {
        s->phase = PHASE_EXEC;
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        error = execute(s->request->argv, s->env);
    }
    s->error = error;
    _exit(127);
}

static _Noreturn void fail(struct minder *m, int error, uint8_t phase) {
    struct report report = {.kind = REPORT_FAILED, .value = error, .phase = phase};
    tell(m, &report);
    _exit(0);
}

_Noreturn void minder_main(const struct request *request, int control, int in, int out, int err) {
    uint64_t began = now_ms();
    struct minder m = {.control = control};
    if (!keep_only((int[]){in, out, err, control}, 4)) fail(&m, errno, PHASE_SPAWN);
    m.control = CONTROL;
    if (request->timeout_ms) m.deadline = began + 1 + request->timeout_ms; /* the clock's part of a millisecond was left out */

    sigset_t all, child;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    m.signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    prctl(PR_SET_CHILD_SUBREAPER, 1);

    static struct start start;
    start.request = request;
    int error = identify(*request->user ? request->user : settings.default_user, &start.who);
    if (error) fail(&m, error, PHASE_USER);
    start.env = environment(request, &start.who);
    if (!start.env || m.signals < 0) fail(&m, ENOMEM, PHASE_SPAWN);
    start.terminal = request->flags & SPAWN_PTY;
    if (start.terminal && start.who.change) (void)!fchown(3, start.who.uid, (gid_t)-1);

    pid_t pid = vfork();
    if (pid == 0) launch(&start);
    if (pid < 0) fail(&m, errno, PHASE_SPAWN);
    if (start.error) {
        waitpid(pid, NULL, 0);
        fail(&m, start.error, start.phase);
    }
    m.leader = pid;
    struct report started = {.kind = REPORT_STARTED, .value = pid};
    tell(&m, &started);
    for (int fd = 3; fd < CONTROL; fd++) close(fd);
    if (!start.victim && own_proc()) {
        char path[48];
        snprintf(path, sizeof path, "/proc/%d/oom_score_adj", (int)pid);
        prefer_as_victim(path);
    }
    mind(&m);
}
