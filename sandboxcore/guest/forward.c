/* Small services for containers that have nothing of their own: a way to a port, and something to run. */
#include "guest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* What a container runs that has no command: waits to be told to end, and buries orphans. */
int pause_main(void) {
    sigset_t awaited;
    int number;
    sigemptyset(&awaited);
    sigaddset(&awaited, SIGTERM);
    sigaddset(&awaited, SIGINT);
    sigaddset(&awaited, SIGCHLD);
    sigprocmask(SIG_BLOCK, &awaited, NULL);
    while (sigwait(&awaited, &number) == 0 && number == SIGCHLD)
        while (waitpid(-1, NULL, WNOHANG) > 0) continue;
    return 0;
}

static int dial(uint16_t port) {
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&four, sizeof four) == 0) return fd;
    int first = errno;
    if (fd >= 0) close(fd);
    fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&six, sizeof six) == 0) return fd;
    if (fd >= 0) close(fd);
    errno = first;
    return -1;
}

/* Until the end of the input, or until nobody wants the output any more (only pipes and sockets tell). */
static bool copy(int from, int to) {
    static char buffer[65536];
    struct pollfd watched[2] = {{.fd = from, .events = POLLIN}, {.fd = to}};
    for (;;) {
        if (poll(watched, 2, -1) < 0) {
            if (errno == EINTR) continue;
            return false;
        }
        if (watched[1].revents & (POLLERR | POLLHUP)) return false;
        if (!watched[0].revents) continue;
        ssize_t n = read(from, buffer, sizeof buffer);
        if (n <= 0) return n == 0;
        for (ssize_t done = 0; done < n;) {
            ssize_t m = write(to, buffer + done, (size_t)(n - done));
            if (m < 0 && errno != EINTR) return false;
            if (m > 0) done += m;
        }
    }
}

/* Connects stdin and stdout to a port of the loopback. The first byte out says whether it came about: '+', or '-' and why. */
int connect_main(int argc, char **argv) {
    int port = argc > 0 ? atoi(argv[0]) : 0;
    int fd = port > 0 && port < 65536 ? dial((uint16_t)port) : (errno = EINVAL, -1);
    if (fd < 0) {
        printf("-%s\n", strerror(errno));
        return fflush(stdout) != 0;
    }
    signal(SIGPIPE, SIG_IGN);
    if (write(1, "+", 1) != 1) return 1;
    pid_t child = fork();
    if (child < 0) return 1;
    if (child == 0) {
        close(1);
        if (copy(0, fd)) shutdown(fd, SHUT_WR);
        _exit(0);
    }
    close(0);
    copy(fd, 1);
    kill(child, SIGKILL); /* who has no more to say is taken to be done listening */
    waitpid(child, NULL, 0);
    return 0;
}
