/* The keeper: one a sandbox and user. It owns the commands' pipes and the output that no client has acknowledged. */
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EVENTS = 128, ORPHAN_PAUSE_MS = 5 };

struct keeper_facts facts;
int minders_lost;

static int epoll_fd = -1;
static pid_t *minders;
static size_t minder_count, minder_room;
static void **graves;
static size_t grave_count, grave_room;

static bool make_room(void *list, size_t count, size_t *room, size_t size) {
    if (count < *room) return true;
    size_t wanted = *room ? *room * 2 : 64;
    void *grown = realloc(*(void **)list, wanted * size);
    if (!grown) return false;
    *(void **)list = grown;
    *room = wanted;
    return true;
}

void watch_want(struct watch *watch, uint32_t events) {
    if (watch->fd < 0 || watch->events == events) return;
    struct epoll_event event = {.events = events, .data.ptr = watch};
    int how = !watch->events ? EPOLL_CTL_ADD : !events ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
    if (epoll_ctl(epoll_fd, how, watch->fd, &event) == 0) watch->events = events;
}

void watch_close(struct watch *watch) {
    if (watch->fd < 0) return;
    watch_want(watch, 0); /* closing alone is not enough: a relay may hold another copy of the descriptor */
    close(watch->fd);
    watch->fd = -1;
}

void free_later(void *object) {
    if (make_room(&graves, grave_count, &grave_room, sizeof *graves)) graves[grave_count++] = object;
}

static void bury(void) {
    while (grave_count) free(graves[--grave_count]);
}

/* Fork the process that runs and minds one command, or that does one file operation. */
pid_t start_minder(const struct request *request, int control, int in, int out, int err) {
    if (!make_room(&minders, minder_count, &minder_room, sizeof *minders)) {
        errno = ENOMEM;
        return -1;
    }
    pid_t pid = fork();
    if (pid == 0) {
        if (request->op) files_main(request, control, in, out);
        minder_main(request, control, in, out, err);
    }
    if (pid > 0) minders[minder_count++] = pid;
    return pid;
}

void forget_minder(pid_t pid) {
    for (size_t i = 0; i < minder_count; i++)
        if (minders[i] == pid) {
            minders[i] = minders[--minder_count];
            return;
        }
}

/* What a killed minder was minding has become ours: nobody can vouch for it any more. */
static void kill_orphans(uint64_t now, uint64_t *next) {
    static uint64_t again_at;
    if (!minders_lost) return;
    if (now >= again_at) {
        kill_children(minders, minder_count);
        minders_lost--;
        again_at = now + ORPHAN_PAUSE_MS;
    }
    sooner(next, again_at);
}

static void reap(struct watch *watch, uint32_t events) {
    (void)events;
    struct signalfd_siginfo info[8];
    while (read(watch->fd, info, sizeof info) > 0) continue;
    for (pid_t pid; (pid = waitpid(-1, NULL, WNOHANG)) > 0;) forget_minder(pid);
}

/*
 * An exec by runc has now and then its hard limit, or one less, as its soft one (opencontainers/runc#4195): runc sets the limit from
 * outside while the Go runtime raises it inside. The container's first process has what was meant, unless it has lowered its soft
 * limit itself: then commands begin with that, and may raise it again.
 */
static void mend_descriptor_limit(void) {
    struct rlimit *ours = &settings.nofile;
    unsigned long long soft, hard;
    char line[256];
    FILE *limits = fopen("/proc/1/limits", "re");
    while (limits && fgets(line, sizeof line, limits))
        if (sscanf(line, "Max open files %llu %llu", &soft, &hard) == 2 && hard == ours->rlim_max && soft < ours->rlim_cur)
            ours->rlim_cur = soft;
    if (limits) fclose(limits);
}

static void raise_descriptor_limit(bool is_init) {
    getrlimit(RLIMIT_NOFILE, &settings.nofile);
    if (!is_init && settings.nofile.rlim_cur + 1 >= settings.nofile.rlim_max) mend_descriptor_limit();
    struct rlimit most = {settings.nofile.rlim_max, settings.nofile.rlim_max};
    if (most.rlim_cur > 1 << 20) most.rlim_cur = 1 << 20;
    setrlimit(RLIMIT_NOFILE, &most);
}

static void loop_once(void) {
    uint64_t now = now_ms(), next = UINT64_MAX;
    connections_tick(now, &next);
    clients_tick(now, &next);
    commands_tick(now, &next);
    service_tick(now, &next);
    kill_orphans(now, &next);
    connections_flush();
    bury();

    struct epoll_event events[EVENTS];
    int timeout = next == UINT64_MAX ? -1 : next <= now ? 0 : next - now > 60000 ? 60000 : (int)(next - now);
    int n = epoll_wait(epoll_fd, events, EVENTS, timeout);
    for (int i = 0; i < n; i++) {
        struct watch *watch = events[i].data.ptr;
        if (watch->fd >= 0 && watch->events) watch->ready(watch, events[i].events);
    }
}

_Noreturn void keeper_main(const struct keeper_options *options) {
    prctl(PR_SET_DUMPABLE, 0); /* another process of the same user can neither trace nor read it */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGCHLD, SIG_DFL); /* whoever started us may have ignored it, and then no end would be told */
    umask(022);
    raise_descriptor_limit(options->init);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    random_bytes(facts.boot, sizeof facts.boot);
    facts.init = options->init;

    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    static struct watch signals = {.ready = reap}, listener = {.ready = accept_connection};
    signals.fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    listener.fd = options->listen;
    fcntl(listener.fd, F_SETFL, O_NONBLOCK);
    fcntl(listener.fd, F_SETFD, FD_CLOEXEC);
    watch_want(&signals, EPOLLIN);
    watch_want(&listener, EPOLLIN);
    if (options->init) service_start(options);
    for (;;) loop_once();
}
