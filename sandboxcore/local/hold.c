/* launcher hold --dir ENV --nets N MAPS... : start the holder of an environment.

   The holder is PID 1 of the environment's pid namespace, inside its user namespace, and keeps its network namespaces. All
   that runs in the environment dies with it, by the kernel, at once. It ends by itself when the lease is over, which it reads from
   the file `lease` (seconds since the epoch, with a fraction) whenever its timer fires; SIGUSR1 makes it look at once. */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void loopback_up(void) {
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) != 0)
        fail("netns: loopback");
    close(fd);
}

static void make_network(int index) {
    if (unshare(CLONE_NEWNET) != 0)
        fail("netns");
    loopback_up();
    int fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || dup3(fd, NETNS_FD + index, O_CLOEXEC) < 0)
        fail("netns: /proc/self/ns/net");
    close(fd);
}

/* Milliseconds since the epoch; -1 where the file is in the middle of being written. */
static long long lease_end(int lease) {
    char text[64];
    ssize_t got = pread(lease, text, sizeof text - 1, 0);
    if (got <= 0)
        return -1;
    text[got] = '\0';
    char *end = NULL;
    double seconds = strtod(text, &end);
    return end != text && *end == '\n' ? (long long)(seconds * 1000) : -1;
}

static void arm(int timer, int lease) {
    struct timespec clock;
    clock_gettime(CLOCK_REALTIME, &clock);
    long long now = (long long)clock.tv_sec * 1000 + clock.tv_nsec / 1000000, end = lease_end(lease);
    if (end >= 0 && end <= now)
        _exit(0);
    if (end < 0)
        end = now + 1000;
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(end / 1000), .tv_nsec = (long)(end % 1000) * 1000000}};
    if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL) != 0)
        _exit(1);
}

_Noreturn static void keep(int lease, int signals, int timer) {
    struct pollfd watched[] = {{.fd = signals, .events = POLLIN}, {.fd = timer, .events = POLLIN}};
    struct signalfd_siginfo news;
    unsigned long long fired;
    for (;;) {
        arm(timer, lease);
        if (poll(watched, 2, -1) < 0)
            continue;
        while (read(signals, &news, sizeof news) > 0)
            ;
        while (read(timer, &fired, sizeof fired) > 0)
            ;
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
}

_Noreturn static void holder(const struct maps *maps, int gate, int done, int lease, int nets) {
    sigset_t set;
    if (!wait_for_gate(gate))
        _exit(1);
    setsid();
    become_root(maps);
    prctl(PR_SET_NAME, "sandbox-holder");
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    int timer = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    if (signals < 0 || timer < 0 || chdir("/") != 0)
        fail("hold");
    for (int i = 0; i < nets; i++)
        make_network(i);
    if (write(done, "k", 1) != 1)
        _exit(1);
    close(done);
    null_stdio();
    keep(lease, signals, timer);
}

static void note_holder(int dir, pid_t pid, unsigned long long started) {
    int fd = openat(dir, "holder.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || dprintf(fd, "%d %llu\n", (int)pid, started) < 0 || close(fd) != 0 || renameat(dir, "holder.new", dir, "holder") != 0)
        fail("the environment's folder");
}

/* What the client had open is not for a process that outlives it. */
static void close_inherited(int dir, int lease) {
    for (int fd = 3; fd < 4096; fd++)
        if (fd != dir && fd != lease)
            close(fd);
}

int hold(char **argv) {
    struct maps maps = {0};
    const char *folder = NULL;
    long long nets = 0;
    int gate, done[2];
    while (*argv != NULL) {
        if (maps_option(&maps, &argv))
            continue;
        if (strcmp(*argv, "--dir") == 0)
            folder = argv[1];
        else if (strcmp(*argv, "--nets") == 0)
            number(argv[1], &nets);
        else
            fail_with("usage", *argv);
        argv += 2;
    }
    if (folder == NULL || nets > MAX_NETNS)
        fail_with("usage", "--dir is needed, and at most 256 networks are possible");
    int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int lease = dir >= 0 ? openat(dir, "lease", O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
    if (lease < 0)
        fail("the environment's folder");
    close_inherited(dir, lease);
    /* Held until this process ends, and by whoever removes the folder: no note of a holder comes in between, to be removed unread.
       In a folder that is removed the note can't be made. */
    (void)flock(dir, LOCK_EX);
    if (pipe2(done, O_CLOEXEC) != 0)
        fail("pipe");
    pid_t pid = fork_outside_maps(CLONE_NEWUSER | CLONE_NEWPID, &maps, &gate);
    if (pid == 0) {
        close(done[0]);
        close(dir);
        holder(&maps, gate, done[1], lease, (int)nets);
    }
    close(done[1]);
    unsigned long long started = start_time(pid);
    /* The note comes before the first life sign: whatever dies from here on, the holder can be found by others. */
    note_holder(dir, pid, started);
    open_gate(gate);
    char byte;
    if (read(done[0], &byte, 1) != 1)
        return 1;
    dprintf(1, "%d %llu\n", (int)pid, started);
    return 0;
}
