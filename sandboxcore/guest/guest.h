/* What the parts of the guest share. The guest is one static program: init or keeper, relay, minder and file worker. */
#ifndef SANDBOXCORE_GUEST_H
#define SANDBOXCORE_GUEST_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/uio.h>

/* --- The wire (protocol.py is its twin): u32 length of what follows, u8 type, u32 command id, payload; little endian. --- */

enum { PROTOCOL_VERSION = 1, HEADER = 9, MAX_FRAME = 4 << 20, CLIENT_ID = 16, BOOT_ID = 16 };

enum frame {
    /* client to guest */
    F_HELLO = 1, F_SPAWN = 2, F_FILE = 3, F_STDIN = 4, F_STDIN_EOF = 5, F_ACK = 6, F_EXIT_ACK = 7, F_SIGNAL = 8,
    F_RESIZE = 9, F_PING = 10,
    /* guest to client */
    F_WELCOME = 65, F_REFUSED = 66, F_STARTED = 67, F_OUTPUT = 68, F_STDIN_ACK = 69, F_EXIT = 70, F_FAILED = 71, F_PONG = 72,
};

enum refusal { REFUSE_VERSION = 1, REFUSE_STALE = 2, REFUSE_PEER = 3, REFUSE_FULL = 4, REFUSE_PROTOCOL = 5 };

enum why { WHY_ITSELF = 0, WHY_TIMEOUT = 1, WHY_OUTPUT = 2, WHY_KILLED = 3, WHY_LOST = 4, WHY_LEASE = 5 };

enum phase { PHASE_SPAWN = 1, PHASE_USER = 2, PHASE_CWD = 3, PHASE_EXEC = 4, PHASE_PTY = 5, PHASE_FILE = 6, PHASE_FORGOTTEN = 7 };

enum { SPAWN_PTY = 1, SPAWN_STDIN = 2 };
enum { FILE_FLAG = 1 }; /* stat: follow; mkdir: parents; remove: recursive; read: a small file, or EFBIG */
enum file_op { OP_READ = 1, OP_WRITE = 2, OP_STAT = 3, OP_LIST = 4, OP_REMOVE = 5, OP_MKDIR = 6 };

#define STDIN_CLOSED UINT64_MAX /* offset of an F_STDIN_ACK: nobody reads any more */

/* A bounded reader of a payload. After the first read past the end `bad` is set and everything reads as zero. */
struct reader {
    const uint8_t *at;
    size_t left;
    bool bad;
};
uint8_t read_u8(struct reader *r);
uint16_t read_u16(struct reader *r);
uint32_t read_u32(struct reader *r);
uint64_t read_u64(struct reader *r);
const uint8_t *read_bytes(struct reader *r, size_t n);
const char *read_string(struct reader *r); /* u32 length without the NUL that follows the bytes; never NULL */
char **read_strings(struct reader *r);     /* u32 count, strings; malloc'ed and NULL-terminated, NULL when bad */

uint8_t *put_u8(uint8_t *p, uint8_t v);
uint8_t *put_u16(uint8_t *p, uint16_t v);
uint8_t *put_u32(uint8_t *p, uint32_t v);
uint8_t *put_u64(uint8_t *p, uint64_t v);
uint8_t *put_header(uint8_t *p, uint8_t type, uint32_t id, size_t payload);

/* --- A byte ring that grows up to what its owner allows. Positions are absolute offsets in the stream. --- */

struct ring {
    uint8_t *data;
    size_t capacity;
    uint64_t head, tail; /* bytes [head, tail) are held */
};
static inline size_t ring_used(const struct ring *r) { return (size_t)(r->tail - r->head); }
bool ring_reserve(struct ring *r, size_t free_bytes);
int ring_space(const struct ring *r, size_t limit, struct iovec v[2]);
int ring_view(const struct ring *r, uint64_t from, size_t limit, struct iovec v[2]);
bool ring_append(struct ring *r, const uint8_t *data, size_t n);
void ring_discard(struct ring *r, uint64_t up_to);
void ring_free(struct ring *r);
extern size_t ring_total; /* bytes of all rings together */

/* --- What a client asks to be run --- */

struct request {
    uint8_t flags;
    uint8_t op; /* 0: a program; else enum file_op */
    uint32_t timeout_ms;
    uint64_t limit[2]; /* bytes of stdout and stderr, 0: none */
    uint16_t columns, rows;
    const char *user, *cwd;
    char **argv, **env;
    const char *path;
    uint64_t offset;
    int32_t mode;
};

/* Set once at start, read by everybody. */
struct settings {
    const char *default_user; /* "" : whoever the keeper is */
    const char *default_home; /* "" : that of the user's entry in passwd */
    char **base_env;
    struct rlimit nofile; /* what commands get back */
};
extern struct settings settings;

/* --- Minders: a process a command; speaks with the keeper over a SEQPACKET socket --- */

enum report_kind { REPORT_STARTED = 1, REPORT_EXIT = 2, REPORT_FAILED = 3 };
struct report {
    uint8_t kind, why, phase, signaled;
    int32_t value; /* pid, exit code or signal, errno */
    uint32_t unkillable;
    uint64_t user_us, system_us, max_rss_kib;
};
enum order_kind { ORDER_SIGNAL = 1, ORDER_KILL = 2, ORDER_COMMIT = 3 };
struct order {
    uint8_t kind;
    int32_t signal;
};

_Noreturn void minder_main(const struct request *request, int control, int in, int out, int err);
int kill_children(const pid_t *spare, size_t spared); /* SIGKILL each direct child; how many could not be */
void close_above(int lowest);
bool keep_only(const int *fds, int count); /* false: errno says why */

/* --- File worker --- */

_Noreturn void files_main(const struct request *request, int control, int in, int out);

/* --- Users --- */

struct identity {
    uid_t uid;
    gid_t gid;
    gid_t groups[64];
    int group_count;
    char home[1024];
    bool change; /* false: stay who we are */
};
int identify(const char *user, struct identity *who); /* 0 or errno */
int become(const struct identity *who);               /* 0 or errno; only raw system calls, usable after vfork */

/* --- Keeper and relay --- */

struct keeper_options {
    int listen, log, log_old, status;
    bool init, tty, stdin_open;
    const char *restart;
    char **argv;
};
_Noreturn void keeper_main(const struct keeper_options *options);
int relay_main(int argc, char **argv);

/* --- Small services --- */

int pause_main(void);
int connect_main(int argc, char **argv);

uint64_t now_ms(void);
void random_bytes(void *to, size_t n);

#endif
