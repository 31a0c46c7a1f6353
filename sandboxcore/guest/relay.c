/*
 * A relay is what a runtime's exec runs: it finds or starts the keeper, hands it the exec's stdin and stdout, and ends with
 * the stream. The keeper detaches from the exec, so that it and its commands outlive stream, API server and client.
 */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static const char banner[] = "\nSANDBOXCORE GUEST 1\n";

static int complain(const char *what) {
    fprintf(stderr, "sandboxcore guest: %s: %s\n", what, strerror(errno));
    return 125;
}

/* Ours alone: another user who made it first could put a socket of his own there. */
static bool private_folder(const char *path) {
    struct stat st;
    if (mkdir(path, 0700) < 0 && errno != EEXIST) return false;
    if (lstat(path, &st) < 0) return false;
    if (S_ISDIR(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 077)) return true;
    errno = EACCES;
    return false;
}

static int connect_to(const struct sockaddr_un *address) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof *address) == 0) return fd;
    if (fd >= 0) close(fd);
    return -1;
}

static _Noreturn void detach(int listener) {
    setsid();
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++) {
        if (null >= 0) dup2(null, fd);
        else close(fd); /* an image without /dev/null: nothing of ours uses them */
    }
    listener = fcntl(listener, F_DUPFD_CLOEXEC, 3);
    dup3(listener, 3, O_CLOEXEC);
    close_above(4);
    char *none = NULL;
    struct keeper_options options = {.listen = 3, .log = -1, .log_old = -1, .status = -1, .argv = &none};
    keeper_main(&options);
}

/* A socket with a keeper behind it; without one it must not stay, as whoever connects to it would wait in vain. */
static bool fork_keeper(const struct sockaddr_un *address, int lock) {
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unlink(address->sun_path);
    pid_t pid = -1;
    if (bind(listener, (const struct sockaddr *)address, sizeof *address) == 0) {
        if (chmod(address->sun_path, 0600) == 0 && listen(listener, 128) == 0) pid = fork();
        if (pid == 0) {
            close(lock);
            detach(listener);
        }
        int error = errno;
        if (pid < 0) unlink(address->sun_path);
        errno = error;
    }
    close(listener);
    return pid > 0;
}

/* Under the lock: a second relay waits, and then finds the socket of the first one's keeper. */
static int start_keeper(const struct sockaddr_un *address, const char *lock_path) {
    int lock = open(lock_path, O_CREAT | O_RDWR | O_CLOEXEC, 0600), fd = -1;
    if (lock < 0) return -1;
    if (flock(lock, LOCK_EX) == 0) {
        fd = connect_to(address);
        if (fd < 0 && fork_keeper(address, lock)) fd = connect_to(address);
    }
    int error = errno;
    close(lock); /* also where it failed: the relay may live for long with a keeper in another folder */
    errno = error;
    return fd;
}

static bool hand_over(int fd) {
    union {
        char bytes[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    int fds[2] = {0, 1};
    struct iovec v = {(char *)"F", 1};
    struct msghdr message = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof fds);
    memcpy(CMSG_DATA(head), fds, sizeof fds);
    return sendmsg(fd, &message, MSG_NOSIGNAL) == 1;
}

static bool name_socket(const char *folder, struct sockaddr_un *address, char *lock_path, size_t room) {
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    int n = snprintf(address->sun_path, sizeof address->sun_path, "%s/v%d.sock", folder, PROTOCOL_VERSION);
    int m = snprintf(lock_path, room, "%s/v%d.lock", folder, PROTOCOL_VERSION);
    errno = ENAMETOOLONG;
    return n < (int)sizeof address->sun_path && m < (int)room;
}

/* The first folder that can be ours has the keeper, or gets one: the order is the same for every relay. */
static int reach_keeper(char **folders, int count) {
    struct sockaddr_un address;
    char lock_path[sizeof address.sun_path];
    for (int i = 0; i < count; i++) {
        if (!name_socket(folders[i], &address, lock_path, sizeof lock_path) || !private_folder(folders[i])) {
            complain(folders[i]);
            continue;
        }
        int fd = connect_to(&address);
        if (fd < 0) fd = start_keeper(&address, lock_path);
        if (fd >= 0) return fd;
        complain(address.sun_path);
    }
    return -1;
}

int relay_main(int argc, char **argv) {
    char *folders[16];
    int count = 0;
    for (int i = 0; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--dir") == 0 && count < (int)(sizeof folders / sizeof *folders)) folders[count++] = argv[i + 1];
        else if (strcmp(argv[i], "--user") == 0) settings.default_user = argv[i + 1];
        else if (strcmp(argv[i], "--home") == 0) settings.default_home = argv[i + 1];
    }
    int fd = reach_keeper(folders, count);
    if (fd < 0) {
        printf("\nSANDBOXCORE FAIL no folder for the guest's socket: none of those tried is writable\n");
        return fflush(stdout) ? 126 : 125;
    }
    if (write(1, banner, sizeof banner - 1) != sizeof banner - 1 || !hand_over(fd)) return complain("handing over");
    close(0);
    close(1);
    char end;
    while (read(fd, &end, 1) < 0 && errno == EINTR) continue;
    return 0;
}
