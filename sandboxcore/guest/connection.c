/* Connections and clients: handshake, fencing, the frames that come in, and fair queueing of those that go out. */
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RX_FIRST = 16 << 10, RX_USUAL = 512 << 10, DIRECT = 16 << 10, QUEUE_HARD = 1 << 20, WORTH_PASSING = 32 << 10 };

struct connection {
    struct connection *next;
    struct watch in, out; /* the same descriptor twice, or the two that a relay handed over */
    struct watch relay;   /* ends with the connection; -1 where the stream is the socket itself */
    bool fresh, closing;
    struct client *client;
    uint64_t since;
    uint8_t *rx;
    size_t rx_length, rx_room;
    struct ring tx;
    struct {
        uint32_t id;
        uint64_t offset;
        size_t left;
    } passing; /* the rest of an F_STDIN frame, which is given to its command as it comes */
};

static struct connection *connections;
static struct client *clients;
static size_t client_count;

/* --- going out --- */

static void end_connection(struct connection *c) {
    if (c->closing) return;
    c->closing = true;
    if (c->client && c->client->connection == c) {
        c->client->connection = NULL;
        c->client->gone_since = now_ms();
    }
    watch_close(&c->in);
    watch_close(&c->out);
    watch_close(&c->relay);
}

static bool send_now(struct connection *c, struct iovec *v, int spans, size_t *sent) {
    ssize_t n = writev(c->out.fd, v, spans);
    *sent = n > 0 ? (size_t)n : 0;
    if (n >= 0 || errno == EAGAIN || errno == EINTR) return true;
    end_connection(c);
    return false;
}

static void flush(struct connection *c) {
    while (!c->closing && ring_used(&c->tx)) {
        struct iovec v[2];
        int spans = ring_view(&c->tx, c->tx.head, SIZE_MAX, v);
        size_t sent;
        if (!send_now(c, v, spans, &sent) || !sent) break;
        ring_discard(&c->tx, c->tx.head + sent);
    }
    if (!c->closing) watch_want(&c->out, ring_used(&c->tx) ? EPOLLOUT : 0);
}

size_t connection_queued(const struct connection *c) { return ring_used(&c->tx); }

static void queue_bytes(struct connection *c, const void *data, size_t n) {
    if (!c->closing && !ring_append(&c->tx, data, n)) end_connection(c);
}

void say_frame(struct connection *c, uint8_t type, uint32_t id, const void *payload, size_t n) {
    uint8_t header[HEADER];
    put_header(header, type, id, n);
    queue_bytes(c, header, sizeof header);
    queue_bytes(c, payload, n);
}

/* Small pieces are gathered; a large one goes straight from the command's ring to the socket. */
void say_output(struct connection *c, uint32_t id, uint8_t index, uint64_t offset, const struct iovec *v, int spans, size_t n) {
    uint8_t head[HEADER + 9];
    put_u64(put_u8(put_header(head, F_OUTPUT, id, 9 + n), index), offset);
    struct iovec all[3] = {{head, sizeof head}};
    memcpy(all + 1, v, (size_t)spans * sizeof *v);
    size_t sent = 0;
    if (n >= DIRECT) {
        flush(c);
        if (c->closing || (!ring_used(&c->tx) && !send_now(c, all, spans + 1, &sent))) return;
    }
    for (int i = 0; i <= spans; i++) {
        size_t skip = sent < all[i].iov_len ? sent : all[i].iov_len;
        sent -= skip;
        queue_bytes(c, (uint8_t *)all[i].iov_base + skip, all[i].iov_len - skip);
    }
}

/* Let the client's commands speak in turn until the connection has enough to do. */
static void pump(struct connection *c) {
    struct client *client = c->client;
    while (client && client->first && !c->closing && ring_used(&c->tx) < QUEUE_MAX) {
        struct command *command = client->first;
        client->first = command->queue_next;
        command->queued = false;
        if (command_emit(command, c)) command_queue(command);
    }
}


void connections_flush(void) {
    for (struct connection **at = &connections; *at;) {
        struct connection *c = *at;
        if (!c->closing) {
            do { /* until all is said, or the connection takes no more: nothing else would wake us */
                pump(c);
                flush(c);
            } while (!c->closing && !ring_used(&c->tx) && c->client && c->client->first);
            watch_want(&c->in, ring_used(&c->tx) < QUEUE_HARD ? EPOLLIN : 0);
        }
        if (!c->closing) {
            at = &c->next;
            continue;
        }
        *at = c->next;
        free(c->rx);
        ring_free(&c->tx);
        free_later(c);
    }
}

static void writable(struct watch *watch, uint32_t events) {
    struct connection *c = OWNER(watch, struct connection, out);
    if (events & EPOLLERR) end_connection(c);
    else flush(c); /* commands get their turn at the end of the round */
}

/* --- clients --- */

static void refuse(struct connection *c, uint8_t reason, const char *text) {
    uint8_t payload[128], *p = put_u8(payload, reason);
    size_t n = strlen(text);
    memcpy(put_u32(p, (uint32_t)n), text, n);
    say_frame(c, F_REFUSED, 0, payload, 5 + n);
    flush(c);
    end_connection(c);
}

static void each_command(struct client *client, void (*act)(struct command *)) {
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct command *c = client->buckets[i], *next; c; c = next) {
            next = c->bucket_next;
            act(c);
        }
}

/* A record without commands is a few bytes that keep a late SPAWN from running again; the oldest makes room. */
static bool evict(void) {
    struct client **oldest = NULL;
    for (struct client **at = &clients; *at; at = &(*at)->next)
        if (!(*at)->connection && !(*at)->command_count && (!oldest || (*at)->gone_since < (*oldest)->gone_since)) oldest = at;
    if (!oldest) return false;
    struct client *gone = *oldest;
    *oldest = gone->next;
    client_count--;
    free_later(gone);
    return true;
}

static struct client *client_named(const uint8_t *id) {
    for (struct client *client = clients; client; client = client->next)
        if (memcmp(client->id, id, CLIENT_ID) == 0) return client;
    if (client_count >= CLIENTS_MAX && !evict()) return NULL;
    struct client *client = calloc(1, sizeof *client);
    if (!client) return NULL;
    memcpy(client->id, id, CLIENT_ID);
    client->next = clients;
    clients = client;
    client_count++;
    return client;
}

static void lease_ran_out(struct command *c) {
    command_kill(c, WHY_LEASE);
    command_abandon(c);
}

void clients_tick(uint64_t now, uint64_t *next) {
    for (struct client *client = clients; client; client = client->next) {
        if (client->connection || !client->command_count) continue;
        uint64_t end = client->gone_since + client->lease_ms;
        if (now >= end) each_command(client, lease_ran_out);
        else sooner(next, end);
    }
}

static uint8_t *state_of(struct client *client, uint8_t *p) {
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct command *c = client->buckets[i]; c; c = c->bucket_next)
            if (!c->abandoned) p = put_u64(put_u32(p, c->id), c->in_received);
    return p;
}

static size_t kept_count(const struct client *client) {
    size_t n = 0;
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct command *c = client->buckets[i]; c; c = c->bucket_next) n += !c->abandoned;
    return n;
}

static void welcome(struct connection *c, struct client *client) {
    size_t n = kept_count(client);
    uint8_t *payload = malloc(1 + BOOT_ID + 16 + n * 12), *p = payload;
    if (!payload) {
        end_connection(c);
        return;
    }
    p = put_u8(p, PROTOCOL_VERSION);
    memcpy(p, facts.boot, BOOT_ID);
    p = put_u32(p + BOOT_ID, geteuid());
    p = put_u32(p, (uint32_t)getpid());
    p = put_u32(p, client->highest);
    p = put_u32(p, (uint32_t)n);
    p = state_of(client, p);
    say_frame(c, F_WELCOME, 0, payload, (size_t)(p - payload));
    free(payload);
}

static void abandon_unlisted(struct client *client, const uint8_t *listed, size_t n) {
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct command *c = client->buckets[i], *next; c; c = next) {
            next = c->bucket_next;
            bool found = false;
            for (size_t j = 0; j < n && !found; j++) {
                struct reader r = {listed + j * 20, 4, false};
                found = read_u32(&r) == c->id;
            }
            if (!found) command_abandon(c);
        }
}

static void hello(struct connection *c, struct reader *r) {
    uint8_t version = read_u8(r);
    const uint8_t *id = read_bytes(r, CLIENT_ID);
    uint32_t generation = read_u32(r), lease_ms = read_u32(r), n = read_u32(r);
    if (version != PROTOCOL_VERSION) return refuse(c, REFUSE_VERSION, "this guest speaks protocol version 1");
    if (r->bad || !id || r->left != (size_t)n * 20) return refuse(c, REFUSE_PROTOCOL, "malformed HELLO");
    struct client *client = client_named(id);
    if (!client) return refuse(c, REFUSE_FULL, "too many clients hold commands");
    if (generation <= client->generation) return refuse(c, REFUSE_STALE, "a newer connection of this client is here");

    client->generation = generation;
    client->lease_ms = lease_ms;
    if (client->connection) end_connection(client->connection);
    const uint8_t *listed = r->at;
    for (uint32_t i = 0; i < n; i++) {
        struct command *command = command_find(client, read_u32(r));
        uint64_t offsets[2] = {read_u64(r), read_u64(r)};
        if (command && !command_resume(command, offsets)) return refuse(c, REFUSE_PROTOCOL, "HELLO with impossible offsets");
    }
    abandon_unlisted(client, listed, n);
    client->connection = c;
    c->client = client;
    welcome(c, client);
}

/* --- coming in --- */

static bool parse_spawn(struct reader *r, struct request *q) {
    q->flags = read_u8(r);
    q->timeout_ms = read_u32(r);
    q->limit[0] = read_u64(r);
    q->limit[1] = read_u64(r);
    q->columns = read_u16(r);
    q->rows = read_u16(r);
    q->user = read_string(r);
    q->cwd = read_string(r);
    q->argv = read_strings(r);
    q->env = read_strings(r);
    return !r->bad && !r->left && q->argv[0];
}

static bool parse_file(struct reader *r, struct request *q) {
    q->op = read_u8(r);
    q->flags = read_u8(r);
    q->mode = (int32_t)read_u32(r);
    q->offset = read_u64(r);
    q->user = read_string(r);
    q->path = read_string(r);
    q->cwd = "";
    return !r->bad && !r->left && q->op;
}

static bool spawn(struct connection *c, uint8_t type, uint32_t id, struct reader *r) {
    struct client *client = c->client;
    struct request request = {0};
    bool good = type == F_SPAWN ? parse_spawn(r, &request) : parse_file(r, &request);
    if (good && id > client->highest) {
        client->highest = id;
        command_spawn(client, id, &request);
    } else if (good && !command_find(client, id)) {
        command_fail(client, id, ESTALE, PHASE_FORGOTTEN); /* never run a forgotten command a second time */
    }
    free(request.argv);
    free(request.env);
    return good;
}

/* False: the client broke the protocol. Frames about commands that ended meanwhile are no error. */
static bool frame(struct connection *c, uint8_t type, uint32_t id, struct reader r) {
    if (!c->client) {
        if (type != F_HELLO) return false;
        hello(c, &r);
        return true;
    }
    if (type == F_SPAWN || type == F_FILE) return spawn(c, type, id, &r);
    if (type == F_PING) {
        if (r.left <= 8) say_frame(c, F_PONG, id, r.at, r.left);
        return r.left <= 8;
    }
    struct command *command = command_find(c->client, id);
    switch (type) {
        case F_STDIN: {
            uint64_t offset = read_u64(&r);
            return !r.bad && (!command || command_input(command, offset, r.at, r.left));
        }
        case F_STDIN_EOF: {
            uint64_t total = read_u64(&r);
            return !r.bad && (!command || command_input_eof(command, total));
        }
        case F_ACK: {
            uint8_t index = read_u8(&r);
            uint64_t offset = read_u64(&r);
            return !r.bad && index < 2 && (!command || command_acknowledge(command, index, offset));
        }
        case F_EXIT_ACK:
            if (command) command_forget(command);
            return true;
        case F_SIGNAL: {
            int32_t number = (int32_t)read_u32(&r);
            bool tree = read_u8(&r);
            if (command && !r.bad && tree) command_kill(command, WHY_KILLED);
            else if (command && !r.bad) command_signal(command, number);
            return !r.bad;
        }
        case F_RESIZE: {
            uint16_t columns = read_u16(&r), rows = read_u16(&r);
            if (command && !r.bad) command_resize(command, columns, rows);
            return !r.bad;
        }
        default: return false;
    }
}

/* A large piece of a file need not be here as a whole: what has come of it goes on, and the rest past our memory. */
static bool begin_passing(struct connection *c, size_t at, size_t length) {
    size_t here = c->rx_length - at;
    if (!c->client || here < HEADER + 8 || length < here + WORTH_PASSING || c->rx[at + 4] != F_STDIN) return false;
    struct reader r = {c->rx + at + 5, here - 5, false};
    uint32_t id = read_u32(&r);
    uint64_t offset = read_u64(&r);
    struct command *command = command_find(c->client, id);
    if (!command || !command_takes(command, offset)) return false;
    if (r.left && !command_input(command, offset, r.at, r.left)) return false;
    c->passing.id = id;
    c->passing.offset = offset + r.left;
    c->passing.left = length - here;
    return true;
}

static void take_frames(struct connection *c) {
    size_t at = 0, length = 0;
    while (!c->closing && c->rx_length - at >= 4) {
        struct reader head = {c->rx + at, c->rx_length - at, false};
        length = (size_t)read_u32(&head) + 4;
        if (length < HEADER || length > MAX_FRAME) return refuse(c, REFUSE_PROTOCOL, "a frame of impossible length");
        if (c->rx_length - at < length) {
            if (!begin_passing(c, at, length)) break;
            at = c->rx_length;
            length = 0;
            break;
        }
        uint8_t type = read_u8(&head);
        uint32_t id = read_u32(&head);
        if (!frame(c, type, id, (struct reader){c->rx + at + HEADER, length - HEADER, false}))
            return refuse(c, REFUSE_PROTOCOL, "a malformed frame");
        at += length;
        length = 0;
    }
    memmove(c->rx, c->rx + at, c->rx_length - at);
    c->rx_length -= at;
    size_t room = length > c->rx_room ? length : c->rx_room;
    if (!c->rx_length && (room > RX_USUAL || c->passing.left)) room = RX_FIRST;
    else if (c->rx_length == c->rx_room && room < RX_USUAL) room *= 2;
    if (room == c->rx_room) return;
    uint8_t *rx = realloc(c->rx, room);
    if (!rx) return end_connection(c);
    c->rx = rx;
    c->rx_room = room;
}

/* The first message of a relay may carry its stdin and stdout: from then on it is out of the way. */
static void adopt(struct connection *c, const int fds[2]) {
    c->relay.fd = c->in.fd;
    watch_want(&c->in, 0);
    watch_want(&c->out, 0);
    close(c->out.fd);
    c->in.fd = fds[0];
    c->out.fd = fds[1];
    for (int i = 0; i < 2; i++) fcntl(fds[i], F_SETFL, fcntl(fds[i], F_GETFL) | O_NONBLOCK);
    watch_want(&c->in, EPOLLIN);
    watch_want(&c->relay, EPOLLRDHUP);
}

static ssize_t first_read(struct connection *c) {
    union {
        char bytes[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec v = {c->rx, c->rx_room};
    struct msghdr message = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(c->in.fd, &message, MSG_CMSG_CLOEXEC);
    if (n <= 0) return n;
    c->fresh = false;
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (!head || head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS) return n;
    int fds[2];
    size_t count = (head->cmsg_len - CMSG_LEN(0)) / sizeof *fds;
    memcpy(fds, CMSG_DATA(head), count * sizeof *fds);
    if (count != 2) { /* no relay sends that; the buffer above has room for two */
        for (size_t i = 0; i < count; i++) close(fds[i]);
        return n;
    }
    adopt(c, fds);
    errno = EAGAIN;
    return -1;
}

static void pass(struct connection *c) {
    struct command *command = command_find(c->client, c->passing.id);
    ssize_t n = command ? command_splice(command, c->passing.offset, c->in.fd, c->passing.left) : -1;
    if (n < 0) {
        n = read(c->in.fd, c->rx, c->passing.left < c->rx_room ? c->passing.left : c->rx_room);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (n <= 0) return end_connection(c);
        if (command && !command_input(command, c->passing.offset, c->rx, (size_t)n)) return refuse(c, REFUSE_PROTOCOL, "a malformed frame");
    }
    c->passing.offset += (uint64_t)n;
    c->passing.left -= (size_t)n;
}

static void readable(struct watch *watch, uint32_t events) {
    (void)events;
    struct connection *c = OWNER(watch, struct connection, in);
    if (c->passing.left) return pass(c);
    ssize_t n = c->fresh ? first_read(c) : read(c->in.fd, c->rx + c->rx_length, c->rx_room - c->rx_length);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) return end_connection(c);
    c->rx_length += (size_t)n;
    take_frames(c);
}

static void relay_gone(struct watch *watch, uint32_t events) {
    (void)events;
    end_connection(OWNER(watch, struct connection, relay));
}

/* A process of ours that connects is a command that wants to be the client: its parents lead to us. */
static bool descends_from_us(pid_t pid) {
    for (int depth = 0; pid > 1 && depth < 4096; depth++) {
        if (pid == getpid()) return true;
        char path[40], line[512];
        snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
        FILE *file = fopen(path, "re");
        char *at = file && fgets(line, sizeof line, file) ? strrchr(line, ')') : NULL;
        if (file) fclose(file);
        int parent = 0;
        if (!at || sscanf(at + 1, " %*c %d", &parent) != 1) return true; /* gone already, or hidden: not who it says */
        pid = parent;
    }
    return pid == getpid();
}

static bool trusted(int fd) {
    struct ucred peer = {0};
    socklen_t n = sizeof peer;
    if (facts.init) return true;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0) return false;
    if (peer.uid != geteuid() && peer.uid != 0) return false;
    return peer.pid == 0 || access("/proc/self/stat", R_OK) != 0 || !descends_from_us(peer.pid);
}

static size_t connection_count(void) {
    size_t n = 0;
    for (struct connection *c = connections; c; c = c->next) n++;
    return n;
}

void accept_connection(struct watch *listener, uint32_t events) {
    (void)events;
    static int spare = -1; /* at the limit of descriptors it makes room to turn a caller away, who would wake us for ever otherwise */
    if (spare < 0) spare = fcntl(listener->fd, F_DUPFD_CLOEXEC, 3); /* below are those that every minder inherits */
    int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), room = 1 << 20;
    if (fd < 0 && (errno == EMFILE || errno == ENFILE) && spare >= 0) {
        close(spare);
        close(accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC));
        spare = fcntl(listener->fd, F_DUPFD_CLOEXEC, 3);
    }
    if (fd < 0) return;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room); /* the kernel grants less, but twice what it gives unasked */
    struct connection *c = calloc(1, sizeof *c);
    uint8_t *rx = malloc(RX_FIRST);
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (!c || !rx || copy < 0 || connection_count() >= CONNECTIONS_MAX) {
        free(c);
        free(rx);
        close(copy);
        close(fd);
        return;
    }
    c->in = (struct watch){.fd = fd, .ready = readable};
    c->out = (struct watch){.fd = copy, .ready = writable};
    c->relay = (struct watch){.fd = -1, .ready = relay_gone};
    c->rx = rx;
    c->rx_room = RX_FIRST;
    c->fresh = true;
    c->since = now_ms();
    c->next = connections;
    connections = c;
    watch_want(&c->in, EPOLLIN);
    if (!trusted(fd)) refuse(c, REFUSE_PEER, "a command of this sandbox can't be its client");
}

void connections_tick(uint64_t now, uint64_t *next) {
    for (struct connection *c = connections; c; c = c->next) {
        if (c->client || c->closing) continue;
        if (now >= c->since + HANDSHAKE_MS) end_connection(c);
        else sooner(next, c->since + HANDSHAKE_MS);
    }
}
