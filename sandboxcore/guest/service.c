/* The service's own command, where the guest is the init of a local sandbox: restarted by policy, its output kept in a log. */
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LOG_MAX = 8 << 20, BACKOFF_FIRST_MS = 100, BACKOFF_MOST_MS = 10000, SETTLED_MS = 10000 };

static struct {
    const struct keeper_options *options;
    struct request request;
    struct watch control, out;
    int hold; /* the write end of its standard input, kept open; or the terminal */
    uint32_t restarts, backoff_ms;
    uint64_t began, again_at;
    struct report end;
    bool ended;
} service = {.control = {.fd = -1}, .out = {.fd = -1}, .hold = -1};

static void status(const char *line) {
    if (service.options->status >= 0) (void)!write(service.options->status, line, strlen(line));
}

static void rotate(int log, int old) {
    struct stat st;
    if (fstat(log, &st) < 0 || st.st_size < LOG_MAX) return;
    off_t from = 0;
    if (old >= 0 && ftruncate(old, 0) == 0 && lseek(old, 0, SEEK_SET) == 0)
        while (from < st.st_size && sendfile(old, log, &from, (size_t)(st.st_size - from)) > 0) continue;
    (void)!ftruncate(log, 0);
}

static bool copy_output(void) {
    static char buffer[65536];
    ssize_t n = read(service.out.fd, buffer, sizeof buffer);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    if (n <= 0) {
        watch_close(&service.out);
        return false;
    }
    if (service.options->log >= 0) {
        (void)!write(service.options->log, buffer, (size_t)n);
        rotate(service.options->log, service.options->log_old);
    }
    return true;
}

static void output_ready(struct watch *watch, uint32_t events) {
    (void)watch, (void)events;
    copy_output();
}

static int exit_code(void) { return service.end.signaled ? 128 + service.end.value : service.end.value; }

static bool wants_restart(void) {
    const char *policy = service.options->restart;
    if (strncmp(policy, "on-failure", 10) == 0) {
        bool limited = policy[10] == ':';
        return exit_code() != 0 && (!limited || service.restarts < (uint32_t)atoi(policy + 11));
    }
    return strcmp(policy, "always") == 0 || strcmp(policy, "unless-stopped") == 0;
}

/* The sandbox ends with its command, as a container does: everything in the pid namespace goes with us. */
static _Noreturn void leave(void) {
    char line[64];
    /* More than a pipe holds, and so all that the command wrote; what it has left running may write on without end. */
    for (int i = 0; i < 32 && service.out.fd >= 0 && copy_output(); i++) continue;
    snprintf(line, sizeof line, "exit %d %d %u\n", exit_code(), service.end.signaled ? service.end.value : 0, service.restarts);
    status(line);
    connections_flush(); /* the ends of commands that came before this one */
    _exit(exit_code());
}

static void after_end(void) {
    uint64_t now = now_ms();
    if (!wants_restart()) leave();
    if (now - service.began > SETTLED_MS) service.backoff_ms = BACKOFF_FIRST_MS;
    service.again_at = now + service.backoff_ms;
    service.backoff_ms = service.backoff_ms * 2 > BACKOFF_MOST_MS ? BACKOFF_MOST_MS : service.backoff_ms * 2;
    service.restarts++;
    if (service.hold >= 0) close(service.hold);
    service.hold = -1;
}

static void control_ready(struct watch *watch, uint32_t events) {
    (void)events;
    struct report report;
    char line[64];
    ssize_t n = recv(watch->fd, &report, sizeof report, MSG_DONTWAIT);
    if (n < 0 && errno == ECONNRESET) n = recv(watch->fd, &report, sizeof report, MSG_DONTWAIT); /* it left an order unread */
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n != sizeof report) { /* its minder was killed */
        report = (struct report){.kind = REPORT_EXIT, .signaled = 1, .value = SIGKILL};
        minders_lost = 40;
    }
    if (report.kind == REPORT_STARTED) {
        snprintf(line, sizeof line, "start %d\n", report.value);
        status(line);
        return;
    }
    watch_close(watch);
    if (report.kind == REPORT_FAILED) {
        snprintf(line, sizeof line, "failed %d %d\n", report.value, report.phase);
        status(line);
        connections_flush();
        _exit(report.value == ENOENT ? 127 : 126);
    }
    service.end = report;
    after_end();
}

static int open_input(int *theirs) {
    int pair[2];
    if (pipe2(pair, O_CLOEXEC) < 0) return -1;
    *theirs = pair[0];
    if (service.options->stdin_open) return pair[1];
    close(pair[1]);
    return -1;
}

static bool open_terminal(int *theirs, int *ours) {
    int unlock = 0, master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock) < 0) return false;
    char name[64];
    if (ptsname_r(master, name, sizeof name)) return false;
    *ours = master;
    *theirs = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    return *theirs >= 0;
}

static void run(void) {
    int control[2], out[2] = {-1, -1}, in = -1;
    bool terminal = service.options->tty && open_terminal(&in, &out[0]);
    service.request.flags = terminal ? SPAWN_PTY : 0;
    if (terminal) out[1] = fcntl(in, F_DUPFD_CLOEXEC, 0);
    else if (pipe2(out, O_CLOEXEC) == 0) service.hold = open_input(&in);
    if (in < 0 || out[1] < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0) {
        status("failed 24 1\n"); /* EMFILE */
        _exit(126);
    }
    watch_close(&service.out);
    service.out = (struct watch){.fd = out[0], .ready = output_ready};
    fcntl(out[0], F_SETFL, O_NONBLOCK);
    watch_want(&service.out, EPOLLIN);
    service.control = (struct watch){.fd = control[0], .ready = control_ready};
    watch_want(&service.control, EPOLLIN);
    service.began = now_ms();
    start_minder(&service.request, control[1], in, out[1], out[1]);
    close(control[1]);
    close(in);
    close(out[1]);
}

void service_start(const struct keeper_options *options) {
    service.options = options;
    service.backoff_ms = BACKOFF_FIRST_MS;
    status("ready\n");
    if (!options->argv[0]) return;
    service.request = (struct request){.columns = 80, .rows = 24, .user = "", .cwd = "", .argv = options->argv};
    run();
}

void service_tick(uint64_t now, uint64_t *next) {
    if (!service.again_at) return;
    if (now < service.again_at) {
        sooner(next, service.again_at);
        return;
    }
    service.again_at = 0;
    run();
}
