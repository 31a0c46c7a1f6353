/* Inside the keeper: one epoll loop over connections, clients and their commands. */
#ifndef SANDBOXCORE_KEEPER_H
#define SANDBOXCORE_KEEPER_H

#include "guest.h"

enum {
    EXEC_WINDOW = 256 << 10, /* unacknowledged bytes of one stream of a command */
    FILE_WINDOW = 2 << 20,   /* the same for a file operation */
    /* What a stream gets when all rings together are over RINGS_MAX: no less than what a client acknowledges at once (a third of its
       own window, command.py), or each would wait for the other. */
    TIGHT_EXEC_WINDOW = 64 << 10,
    TIGHT_FILE_WINDOW = 512 << 10,
    RINGS_MAX = 64 << 20,
    OUTPUT_CHUNK = 64 << 10,
    QUEUE_MAX = 128 << 10, /* bytes that wait for a connection before commands are held up */
    CLIENTS_MAX = 1024,
    CONNECTIONS_MAX = 256,
    BUCKETS = 256,
    HANDSHAKE_MS = 10000,
    TERMINAL_QUIET_MS = 30,
};

struct watch {
    int fd;
    uint32_t events;
    void (*ready)(struct watch *watch, uint32_t events);
};
#define OWNER(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

void watch_want(struct watch *watch, uint32_t events); /* 0: none; also drops out of epoll, which reports a hang-up always */
void watch_close(struct watch *watch);
void free_later(void *object); /* events of this round may still point to it */

struct connection;
struct command;

struct client {
    struct client *next;
    uint8_t id[CLIENT_ID];
    uint32_t generation, highest, lease_ms;
    uint64_t gone_since;
    struct connection *connection;
    struct command *buckets[BUCKETS];
    size_t command_count;
    struct command *first, *last; /* commands with something to say, served in turn */
};

struct stream {
    struct watch watch;
    struct command *command;
    struct ring ring;
    uint64_t total, sent; /* read from the command; given to the connection */
    bool ended;
};

struct command {
    struct command *bucket_next, *queue_next, *quiet_next;
    struct client *client;
    uint32_t id;
    bool queued, started, told_started, done, told_end, killing, abandoned, terminal, quieting;
    uint8_t op, why;
    pid_t pid;
    struct watch control;
    struct report end;
    struct watch in;
    struct ring in_ring;
    uint64_t in_received, in_told;
    bool in_eof, in_closed, told_in_closed, in_half; /* half: the last line has no end */
    uint64_t limit[2];
    struct stream out[2];
    uint64_t quiet_at;
};

extern int minders_lost;

/* keeper.c */
void forget_minder(pid_t pid);
pid_t start_minder(const struct request *request, int control, int in, int out, int err);

/* connection.c */
void accept_connection(struct watch *listener, uint32_t events);
void connections_tick(uint64_t now, uint64_t *next);
void connections_flush(void);
void clients_tick(uint64_t now, uint64_t *next);
void say_frame(struct connection *c, uint8_t type, uint32_t id, const void *payload, size_t n);
size_t connection_queued(const struct connection *c);
void say_output(struct connection *c, uint32_t id, uint8_t index, uint64_t offset, const struct iovec *v, int spans, size_t n);
extern struct keeper_facts {
    bool init; /* the socket can't be reached from inside: every peer is welcome */
    uint8_t boot[BOOT_ID];
} facts;

/* command.c */
struct command *command_find(struct client *client, uint32_t id);
void command_spawn(struct client *client, uint32_t id, const struct request *request);
void command_fail(struct client *client, uint32_t id, int error, uint8_t phase);
bool command_input(struct command *c, uint64_t offset, const uint8_t *data, size_t n);
bool command_takes(const struct command *c, uint64_t offset);
ssize_t command_splice(struct command *c, uint64_t offset, int from, size_t n);
bool command_input_eof(struct command *c, uint64_t total);
bool command_acknowledge(struct command *c, uint8_t index, uint64_t offset);
void command_signal(struct command *c, int32_t number);
void command_kill(struct command *c, uint8_t why);
void command_resize(struct command *c, uint16_t columns, uint16_t rows);
bool command_resume(struct command *c, const uint64_t offsets[2]);
void command_abandon(struct command *c);
void command_forget(struct command *c);
void command_queue(struct command *c);
bool command_emit(struct command *c, struct connection *to); /* true: there is more to say */
void commands_tick(uint64_t now, uint64_t *next);

/* service.c */
void service_start(const struct keeper_options *options);
void service_tick(uint64_t now, uint64_t *next);

static inline void sooner(uint64_t *next, uint64_t at) {
    if (at < *next) *next = at;
}

#endif
