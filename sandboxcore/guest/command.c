/* A command in the keeper: its pipes, the output that nobody has acknowledged yet, and how it ended. */
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

enum { FIRST_READ = 4096, FILE_PIPE = 1 << 20, ORPHAN_ROUNDS = 40 };

static struct command *quieting; /* terminals whose program has ended */

static size_t window_of(const struct command *c) {
    if (ring_total > RINGS_MAX) return c->op ? TIGHT_FILE_WINDOW : TIGHT_EXEC_WINDOW;
    return c->op ? FILE_WINDOW : EXEC_WINDOW;
}

/* --- the table --- */

struct command *command_find(struct client *client, uint32_t id) {
    struct command *c = client->buckets[id % BUCKETS];
    while (c && c->id != id) c = c->bucket_next;
    return c;
}

static struct command *add(struct client *client, uint32_t id) {
    struct command *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->client = client;
    c->id = id;
    c->control.fd = c->in.fd = -1;
    for (int i = 0; i < 2; i++) {
        c->out[i].watch.fd = -1;
        c->out[i].command = c;
        c->out[i].ended = true;
    }
    c->bucket_next = client->buckets[id % BUCKETS];
    client->buckets[id % BUCKETS] = c;
    client->command_count++;
    return c;
}

void command_queue(struct command *c) {
    if (c->queued) return;
    struct client *client = c->client;
    c->queued = true;
    c->queue_next = NULL;
    if (client->first) client->last->queue_next = c;
    else client->first = c;
    client->last = c;
}

static void unqueue(struct command *c) {
    struct command *previous = NULL;
    for (struct command *at = c->client->first; at; previous = at, at = at->queue_next) {
        if (at != c) continue;
        if (previous) previous->queue_next = c->queue_next;
        else c->client->first = c->queue_next;
        if (c->client->last == c) c->client->last = previous;
        break;
    }
    c->queued = false;
}

static void stop_quieting(struct command *c) {
    if (!c->quieting) return;
    struct command **at = &quieting;
    while (*at != c) at = &(*at)->quiet_next;
    *at = c->quiet_next;
    c->quieting = false;
}

static void close_input(struct command *c) {
    watch_close(&c->in);
    c->in_closed = true;
    c->in_ring.head = c->in_ring.tail;
    ring_free(&c->in_ring);
}

void command_forget(struct command *c) {
    struct command **at = &c->client->buckets[c->id % BUCKETS];
    while (*at != c) at = &(*at)->bucket_next;
    *at = c->bucket_next;
    c->client->command_count--;
    if (c->queued) unqueue(c);
    stop_quieting(c);
    watch_close(&c->control);
    close_input(c);
    for (int i = 0; i < 2; i++) {
        watch_close(&c->out[i].watch);
        ring_free(&c->out[i].ring);
    }
    free_later(c);
}

/* --- after the program: a grandchild may still write; closing would be a SIGPIPE for it --- */

struct drain {
    struct watch watch;
};

static void drain(struct watch *watch, uint32_t events) {
    (void)events;
    static char nothing[65536];
    ssize_t n = read(watch->fd, nothing, sizeof nothing);
    if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR))) return;
    watch_close(watch);
    free_later(OWNER(watch, struct drain, watch));
}

static void read_into_nothing(struct watch *watch) {
    int fd = watch->fd;
    struct drain *d = calloc(1, sizeof *d);
    watch_want(watch, 0);
    watch->fd = -1;
    if (!d) {
        close(fd);
        return;
    }
    d->watch = (struct watch){.fd = fd, .ready = drain};
    watch_want(&d->watch, EPOLLIN);
}

/* --- the end --- */

static void end_if_complete(struct command *c) {
    if (!c->done || !c->out[0].ended || !c->out[1].ended) return;
    if (c->abandoned) command_forget(c);
    else command_queue(c);
}

static void end_stream(struct stream *s, bool writers_left) {
    if (s->ended) return;
    s->ended = true;
    if (writers_left) read_into_nothing(&s->watch);
    else watch_close(&s->watch);
}

static bool over_limit(const struct command *c, int index) { return c->limit[index] && c->out[index].total > c->limit[index]; }

/* Keep what was read, up to the limit. */
static void took(struct stream *s, size_t n) {
    struct command *c = s->command;
    int index = s == &c->out[1];
    s->total += n;
    if (c->abandoned) return;
    bool over = over_limit(c, index);
    s->ring.tail = over ? c->limit[index] : s->ring.tail + n;
    command_queue(c);
    if (over) command_kill(c, WHY_OUTPUT);
}

/* Read once into the ring; false at the end of the stream, or when nothing is there (errno EAGAIN). */
static bool read_stream(struct stream *s, size_t most) {
    struct iovec v[2];
    size_t room = s->ring.capacity - ring_used(&s->ring);
    if (!room && !ring_reserve(&s->ring, s->ring.capacity ? 1 : FIRST_READ)) {
        errno = EAGAIN;
        return false;
    }
    int spans = ring_space(&s->ring, most, v);
    ssize_t n = readv(s->watch.fd, v, spans);
    if (n > 0) took(s, (size_t)n);
    if (n == 0) errno = 0;
    return n > 0;
}

/* The program has ended: what it wrote is in the pipe by now, all of it and no byte more is waited for. */
static void finish_pipe(struct stream *s) {
    int left = 0;
    if (s->ended) return;
    ioctl(s->watch.fd, FIONREAD, &left);
    while (left > 0) {
        uint64_t before = s->total;
        if (!ring_reserve(&s->ring, 1) || !read_stream(s, (size_t)left)) break;
        left -= (int)(s->total - before);
    }
    char more;
    ssize_t n = read(s->watch.fd, &more, 1);
    end_stream(s, n > 0 || (n < 0 && errno == EAGAIN));
}

/* What a terminal still holds can't be counted: it has spoken when its last holder closes it, or after a pause. Then it is read once
   more, as the kernel may have been late to pass on what was written. */
static void quiet_down(struct command *c) {
    if (c->out[0].ended) return;
    c->quieting = true;
    c->quiet_at = now_ms() + TERMINAL_QUIET_MS;
    c->quiet_next = quieting;
    quieting = c;
}

void commands_tick(uint64_t now, uint64_t *next) {
    for (struct command *c = quieting, *after; c; c = after) {
        after = c->quiet_next;
        size_t window = window_of(c), used = ring_used(&c->out[0].ring);
        if (now >= c->quiet_at && used < window && read_stream(&c->out[0], window - used)) c->quiet_at = now + TERMINAL_QUIET_MS;
        if (now >= c->quiet_at && (used < window || c->killing)) {
            stop_quieting(c);
            end_stream(&c->out[0], true);
            end_if_complete(c);
        } else {
            sooner(next, now >= c->quiet_at ? now + TERMINAL_QUIET_MS : c->quiet_at);
        }
    }
}

static void ended(struct command *c, const struct report *report) {
    if (c->done) return;
    c->done = true;
    c->end = *report;
    if (report->kind == REPORT_EXIT && report->why != WHY_KILLED) c->why = report->why;
    watch_close(&c->control); /* its minder goes on without us as long as there are descendants */
    close_input(c);
    if (c->terminal) quiet_down(c);
    else
        for (int i = 0; i < 2; i++) finish_pipe(&c->out[i]);
    end_if_complete(c);
}

static void lost(struct command *c) {
    struct report report = {.kind = REPORT_EXIT, .why = WHY_LOST, .signaled = 1, .value = SIGKILL};
    minders_lost = ORPHAN_ROUNDS;
    c->why = WHY_LOST;
    ended(c, &report);
}

static void control_ready(struct watch *watch, uint32_t events) {
    (void)events;
    struct command *c = OWNER(watch, struct command, control);
    struct report report;
    for (;;) {
        ssize_t n = recv(watch->fd, &report, sizeof report, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (n < 0 && errno == ECONNRESET) continue; /* it left an order unread; its report is still here */
        if (n != sizeof report) {
            watch_close(watch);
            if (!c->done) lost(c);
            return;
        }
        if (report.kind == REPORT_STARTED) {
            c->started = true;
            c->pid = report.value;
            command_queue(c);
            continue;
        }
        ended(c, &report);
        return; /* c may be forgotten; a later end of the socket is found by the next event */
    }
}

/* --- output --- */

static void update_want(struct stream *s) {
    if (s->ended) return;
    watch_want(&s->watch, ring_used(&s->ring) < window_of(s->command) ? EPOLLIN : 0);
}

static void output_ready(struct watch *watch, uint32_t events) {
    (void)events;
    struct stream *s = OWNER(watch, struct stream, watch);
    struct command *c = s->command;
    size_t window = window_of(c), used = ring_used(&s->ring);
    if (used >= window) {
        update_want(s);
        return;
    }
    uint64_t before = s->total;
    if (!read_stream(s, window - used)) {
        if (errno == EAGAIN || errno == EINTR) return;
        end_stream(s, false);
        stop_quieting(c);
        end_if_complete(c);
        return;
    }
    /* A ring that was filled to the brim grows, so that a fast writer costs few reads. */
    if (s->total - before >= s->ring.capacity / 2 && s->ring.capacity < window) ring_reserve(&s->ring, s->ring.capacity);
    if (c->quieting) c->quiet_at = now_ms() + TERMINAL_QUIET_MS;
    update_want(s);
}

bool command_acknowledge(struct command *c, uint8_t index, uint64_t offset) {
    struct stream *s = &c->out[index];
    if (offset > s->ring.tail) return false;
    ring_discard(&s->ring, offset);
    if (s->sent < offset) s->sent = offset; /* it was said on an earlier connection */
    if (!ring_used(&s->ring) && (s->ended || !c->op || ring_total > RINGS_MAX)) ring_free(&s->ring);
    update_want(s);
    if (c->quieting && !index) c->quiet_at = now_ms() + TERMINAL_QUIET_MS;
    return true;
}

/* --- what the client hears --- */

static void say_end(struct command *c, struct connection *to) {
    uint8_t payload[64], *p = payload;
    if (over_limit(c, 0) || over_limit(c, 1)) c->why = WHY_OUTPUT;
    if (c->end.kind == REPORT_FAILED) {
        p = put_u8(put_u32(p, (uint32_t)c->end.value), c->end.phase);
        p = put_u8(p, c->why);
        say_frame(to, F_FAILED, c->id, payload, (size_t)(p - payload));
        return;
    }
    p = put_u8(put_u8(p, c->end.signaled), c->why);
    p = put_u32(p, (uint32_t)c->end.value);
    p = put_u32(p, c->end.unkillable);
    p = put_u64(put_u64(p, c->out[0].total), c->out[1].total);
    p = put_u64(put_u64(put_u64(p, c->end.user_us), c->end.system_us), c->end.max_rss_kib);
    say_frame(to, F_EXIT, c->id, payload, (size_t)(p - payload));
}

static void say_stdin(struct command *c, struct connection *to) {
    uint8_t payload[8];
    uint64_t consumed = c->in_received - ring_used(&c->in_ring);
    bool closed = c->in_closed && !c->in_eof && !c->done;
    if (closed && !c->told_in_closed) {
        put_u64(payload, STDIN_CLOSED);
        c->told_in_closed = true;
    } else if (!c->in_closed && consumed - c->in_told >= (c->op ? FILE_WINDOW : EXEC_WINDOW) / 4) {
        put_u64(payload, consumed);
        c->in_told = consumed;
    } else {
        return;
    }
    say_frame(to, F_STDIN_ACK, c->id, payload, sizeof payload);
}

bool command_emit(struct command *c, struct connection *to) {
    if (c->started && !c->told_started) {
        uint8_t pid[4];
        put_u32(pid, (uint32_t)c->pid);
        say_frame(to, F_STARTED, c->id, pid, sizeof pid);
        c->told_started = true;
    }
    say_stdin(c, to);
    bool more = false;
    for (uint8_t i = 0; i < 2; i++) {
        struct stream *s = &c->out[i];
        struct iovec v[2];
        size_t n = (size_t)(s->ring.tail - s->sent);
        if (!n) continue;
        if (n > OUTPUT_CHUNK) n = OUTPUT_CHUNK;
        say_output(to, c->id, i, s->sent, v, ring_view(&s->ring, s->sent, n, v), n);
        s->sent += n;
        more |= s->sent < s->ring.tail;
    }
    if (!more && c->done && c->out[0].ended && c->out[1].ended && !c->told_end) {
        say_end(c, to);
        c->told_end = true;
    }
    return more;
}

/* A new connection: everything that the client may have missed is said again. */
bool command_resume(struct command *c, const uint64_t offsets[2]) {
    for (int i = 0; i < 2; i++) {
        struct stream *s = &c->out[i];
        if (offsets[i] < s->ring.head || offsets[i] > s->ring.tail) return false;
        ring_discard(&s->ring, offsets[i]);
        s->sent = offsets[i];
        update_want(s);
    }
    c->told_started = c->told_end = c->told_in_closed = false;
    c->in_told = 0;
    command_queue(c);
    return true;
}

/* Nobody wants to hear of it any more. */
void command_abandon(struct command *c) {
    c->abandoned = true;
    if (!c->done) command_kill(c, WHY_KILLED);
    for (int i = 0; i < 2; i++) {
        c->out[i].sent = c->out[i].ring.head = c->out[i].ring.tail;
        ring_free(&c->out[i].ring);
        update_want(&c->out[i]);
    }
    end_if_complete(c);
}

/* --- standard input --- */

static void input_broken(struct command *c) {
    close_input(c);
    command_queue(c);
}

static void input_complete(struct command *c) {
    if (c->terminal) {
        static const char ends[] = {4, 4}; /* ^D: a terminal has no end-of-file; within a line the first only hands over the line */
        struct termios mode;
        bool canonical = tcgetattr(c->in.fd, &mode) == 0 && mode.c_lflag & ICANON;
        (void)!write(c->in.fd, ends, canonical && c->in_half ? 2 : 1);
        return;
    }
    if (c->op == OP_WRITE) {
        struct order order = {.kind = ORDER_COMMIT};
        send(c->control.fd, &order, sizeof order, MSG_NOSIGNAL);
    }
    close_input(c);
}

static void push_input(struct command *c) {
    while (c->in.fd >= 0 && ring_used(&c->in_ring)) {
        struct iovec v[2];
        int spans = ring_view(&c->in_ring, c->in_ring.head, SIZE_MAX, v);
        ssize_t n = writev(c->in.fd, v, spans);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) break;
        if (n < 0) {
            input_broken(c);
            return;
        }
        ring_discard(&c->in_ring, c->in_ring.head + (uint64_t)n);
        command_queue(c); /* it may owe an acknowledgement */
    }
    if (!ring_used(&c->in_ring) && !c->op) ring_free(&c->in_ring); /* a file's next piece is on its way */
    if (c->in.fd >= 0 && !ring_used(&c->in_ring) && c->in_eof) input_complete(c);
    watch_want(&c->in, ring_used(&c->in_ring) ? EPOLLOUT : 0);
}

static void input_ready(struct watch *watch, uint32_t events) {
    struct command *c = OWNER(watch, struct command, in);
    if (events & EPOLLERR) input_broken(c);
    else push_input(c);
}

bool command_input(struct command *c, uint64_t offset, const uint8_t *data, size_t n) {
    if (offset > c->in_received || c->in_eof) return offset <= c->in_received;
    uint64_t known = c->in_received - offset; /* said again after a broken link */
    if (known >= n) return true;
    data += known;
    n -= (size_t)known;
    if (n + ring_used(&c->in_ring) > 2 * FILE_WINDOW) return false;
    c->in_received += n;
    c->in_half = data[n - 1] != '\n';
    if (c->in_closed) {
        command_queue(c);
        return true;
    }
    while (n && !ring_used(&c->in_ring)) { /* straight into the pipe as long as it takes any */
        ssize_t done = write(c->in.fd, data, n);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0 && errno == EAGAIN) break;
        if (done < 0) {
            input_broken(c);
            return true;
        }
        data += done;
        n -= (size_t)done;
    }
    if (n && !ring_append(&c->in_ring, data, n)) return false;
    watch_want(&c->in, n || ring_used(&c->in_ring) ? EPOLLOUT : 0);
    command_queue(c);
    return true;
}

/* Whether a file's next bytes could go straight into its pipe. */
bool command_takes(const struct command *c, uint64_t offset) {
    return c->op == OP_WRITE && c->in.fd >= 0 && !c->in_eof && offset == c->in_received && !ring_used(&c->in_ring);
}

/* Move them there from a descriptor without looking at them; -1 when either side has to wait, or can't do that. */
ssize_t command_splice(struct command *c, uint64_t offset, int from, size_t n) {
    if (!command_takes(c, offset)) return -1;
    ssize_t moved = splice(from, NULL, c->in.fd, NULL, n, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    if (moved <= 0) return -1;
    c->in_received += (uint64_t)moved;
    command_queue(c);
    return moved;
}

bool command_input_eof(struct command *c, uint64_t total) {
    if (total != c->in_received) return c->in_closed || total < c->in_received;
    if (c->in_eof) return true;
    c->in_eof = true;
    if (!c->in_closed) push_input(c);
    return true;
}

/* --- signals --- */

static void order(struct command *c, uint8_t kind, int32_t number) {
    struct order order = {.kind = kind, .signal = number};
    if (c->control.fd >= 0) send(c->control.fd, &order, sizeof order, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void command_signal(struct command *c, int32_t number) {
    if (!c->done && !c->op && number > 0 && number < NSIG) order(c, ORDER_SIGNAL, number);
}

void command_kill(struct command *c, uint8_t why) {
    if (!c->killing && !c->done) c->why = why;
    c->killing = true;
    if (c->done) return; /* what is left to be read of its terminal is not waited for */
    order(c, ORDER_KILL, 0);
    if (c->op) { /* a file operation ends when its pipes do */
        if (c->in.fd >= 0) close_input(c);
        for (int i = 0; i < 2; i++) end_stream(&c->out[i], false);
    }
    for (int i = 0; i < 2; i++) update_want(&c->out[i]);
}

void command_resize(struct command *c, uint16_t columns, uint16_t rows) {
    struct winsize size = {.ws_col = columns, .ws_row = rows};
    if (c->terminal && !c->out[0].ended) ioctl(c->out[0].watch.fd, TIOCSWINSZ, &size);
}

/* --- the start --- */

struct ends {
    int control[2], in[2], out[2], err[2]; /* ours first */
};

static void close_pair(int pair[2]) {
    for (int i = 0; i < 2; i++)
        if (pair[i] >= 0) close(pair[i]);
}

static void close_ends(struct ends *e) {
    close_pair(e->control);
    close_pair(e->in);
    close_pair(e->out);
    close_pair(e->err);
}

static bool make_pipe(int ends[2], bool we_read) {
    int pair[2];
    if (pipe2(pair, O_CLOEXEC) < 0) return false;
    ends[0] = pair[we_read ? 0 : 1];
    ends[1] = pair[we_read ? 1 : 0];
    return fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0;
}

static bool make_terminal(struct ends *e, const struct request *q) {
    struct winsize size = {.ws_col = q->columns, .ws_row = q->rows};
    int unlock = 0, master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (master < 0) return false;
    e->out[0] = master;
    if (ioctl(master, TIOCSPTLCK, &unlock) < 0 || ioctl(master, TIOCSWINSZ, &size) < 0) return false;
#ifdef TIOCGPTPEER
    e->out[1] = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC); /* no path in the image is involved */
#endif
    if (e->out[1] < 0) {
        char name[64];
        if (ptsname_r(master, name, sizeof name) || (e->out[1] = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0) return false;
    }
    e->in[0] = fcntl(master, F_DUPFD_CLOEXEC, 0);
    e->in[1] = fcntl(e->out[1], F_DUPFD_CLOEXEC, 0);
    e->err[1] = fcntl(e->out[1], F_DUPFD_CLOEXEC, 0);
    return e->in[0] >= 0 && e->in[1] >= 0 && e->err[1] >= 0;
}

static bool make_ends(struct ends *e, const struct request *q) {
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, e->control) < 0) return false;
    if (q->flags & SPAWN_PTY && !q->op) return make_terminal(e, q);
    if (!make_pipe(e->in, false) || !make_pipe(e->out, true)) return false;
    if (q->op) {
        fcntl(e->in[0], F_SETPIPE_SZ, FILE_PIPE);
        fcntl(e->out[0], F_SETPIPE_SZ, FILE_PIPE);
        return true;
    }
    return make_pipe(e->err, true);
}

void command_fail(struct client *client, uint32_t id, int error, uint8_t phase) {
    struct command *c = add(client, id);
    if (!c) return;
    c->done = true;
    c->end = (struct report){.kind = REPORT_FAILED, .value = error, .phase = phase};
    command_queue(c);
}

static void open_stream(struct stream *s, int fd) {
    if (fd < 0) return;
    s->watch = (struct watch){.fd = fd, .ready = output_ready};
    s->ended = false;
    watch_want(&s->watch, EPOLLIN);
}

void command_spawn(struct client *client, uint32_t id, const struct request *q) {
    struct ends e = {{-1, -1}, {-1, -1}, {-1, -1}, {-1, -1}};
    bool terminal = q->flags & SPAWN_PTY && !q->op;
    if (!make_ends(&e, q)) {
        command_fail(client, id, errno, terminal ? PHASE_PTY : PHASE_SPAWN);
        close_ends(&e);
        return;
    }
    struct command *c = add(client, id);
    pid_t minder = c ? start_minder(q, e.control[1], e.in[1], e.out[1], e.err[1]) : -1;
    if (minder < 0) {
        int error = c ? errno : ENOMEM;
        if (c) command_forget(c);
        command_fail(client, id, error, PHASE_SPAWN);
        close_ends(&e);
        return;
    }
    close(e.control[1]);
    close(e.in[1]);
    close(e.out[1]);
    if (e.err[1] >= 0) close(e.err[1]);
    c->op = q->op;
    c->terminal = terminal;
    c->limit[0] = q->limit[0];
    c->limit[1] = q->limit[1];
    c->control = (struct watch){.fd = e.control[0], .ready = control_ready};
    watch_want(&c->control, EPOLLIN);
    c->in = (struct watch){.fd = e.in[0], .ready = input_ready};
    if (!(q->flags & SPAWN_STDIN) && q->op != OP_WRITE) command_input_eof(c, 0);
    open_stream(&c->out[0], e.out[0]);
    open_stream(&c->out[1], e.err[0]);
}
