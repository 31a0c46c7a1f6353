/* Payloads to values and back, and the byte ring: everything that touches untrusted lengths. */
#include "guest.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/uio.h>
#include <time.h>

const uint8_t *read_bytes(struct reader *r, size_t n) {
    if (r->bad || r->left < n) {
        r->bad = true;
        r->left = 0;
        return NULL;
    }
    const uint8_t *at = r->at;
    r->at += n;
    r->left -= n;
    return at;
}

uint64_t read_little(struct reader *r, int size) {
    const uint8_t *p = read_bytes(r, (size_t)size);
    uint64_t v = 0;
    for (int i = 0; p && i < size; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

uint8_t read_u8(struct reader *r) { return (uint8_t)read_little(r, 1); }
uint16_t read_u16(struct reader *r) { return (uint16_t)read_little(r, 2); }
uint32_t read_u32(struct reader *r) { return (uint32_t)read_little(r, 4); }
uint64_t read_u64(struct reader *r) { return read_little(r, 8); }

const char *read_string(struct reader *r) {
    size_t n = read_u32(r);
    const uint8_t *p = r->left > n ? read_bytes(r, n + 1) : NULL;
    if (!p || memchr(p, 0, n + 1) != p + n) {
        r->bad = true;
        r->left = 0;
        return "";
    }
    return (const char *)p;
}

char **read_strings(struct reader *r) {
    size_t n = read_u32(r);
    if (r->bad || n > r->left / 5) { /* each string takes five bytes at least */
        r->bad = true;
        return NULL;
    }
    char **list = calloc(n + 1, sizeof *list);
    if (!list) {
        r->bad = true;
        return NULL;
    }
    for (size_t i = 0; i < n; i++) list[i] = (char *)read_string(r);
    if (r->bad) {
        free(list);
        return NULL;
    }
    return list;
}

static uint8_t *put_little(uint8_t *p, uint64_t v, int size) {
    for (int i = 0; i < size; i++) *p++ = (uint8_t)(v >> (8 * i));
    return p;
}

uint8_t *put_u8(uint8_t *p, uint8_t v) { return put_little(p, v, 1); }
uint8_t *put_u16(uint8_t *p, uint16_t v) { return put_little(p, v, 2); }
uint8_t *put_u32(uint8_t *p, uint32_t v) { return put_little(p, v, 4); }
uint8_t *put_u64(uint8_t *p, uint64_t v) { return put_little(p, v, 8); }

uint8_t *put_header(uint8_t *p, uint8_t type, uint32_t id, size_t payload) {
    return put_u32(put_u8(put_u32(p, (uint32_t)(payload + HEADER - 4)), type), id);
}

size_t ring_total;

static size_t at(const struct ring *r, uint64_t offset) { return (size_t)(offset & (r->capacity - 1)); }

static int spans(const struct ring *r, uint64_t from, size_t n, struct iovec v[2]) {
    if (!n) return 0;
    size_t start = at(r, from), first = r->capacity - start < n ? r->capacity - start : n;
    v[0] = (struct iovec){r->data + start, first};
    if (first == n) return 1;
    v[1] = (struct iovec){r->data, n - first};
    return 2;
}

/* Make room for so many more bytes. Capacities are powers of two; what is held moves to its new places. */
bool ring_reserve(struct ring *r, size_t free_bytes) {
    size_t need = ring_used(r) + free_bytes, capacity = r->capacity ? r->capacity : 4096;
    if (need <= r->capacity) return true;
    while (capacity < need) capacity *= 2;
    uint8_t *data = malloc(capacity);
    if (!data) return false;
    struct ring grown = {data, capacity, r->head, r->tail};
    struct iovec v[2], w[2];
    int n = spans(r, r->head, ring_used(r), v);
    for (int i = 0; i < n; i++) {
        uint64_t offset = r->head + (i ? v[0].iov_len : 0);
        uint8_t *from = v[i].iov_base;
        int m = spans(&grown, offset, v[i].iov_len, w);
        for (int j = 0; j < m; j++) {
            memcpy(w[j].iov_base, from, w[j].iov_len);
            from += w[j].iov_len;
        }
    }
    ring_total += capacity - r->capacity;
    free(r->data);
    *r = grown;
    return true;
}

int ring_space(const struct ring *r, size_t limit, struct iovec v[2]) {
    size_t room = r->capacity - ring_used(r);
    return spans(r, r->tail, room < limit ? room : limit, v);
}

int ring_view(const struct ring *r, uint64_t from, size_t limit, struct iovec v[2]) {
    size_t n = (size_t)(r->tail - from);
    return spans(r, from, n < limit ? n : limit, v);
}

bool ring_append(struct ring *r, const uint8_t *data, size_t n) {
    struct iovec v[2];
    if (!ring_reserve(r, n)) return false;
    int spans_used = ring_space(r, n, v);
    for (int i = 0; i < spans_used; i++) {
        memcpy(v[i].iov_base, data, v[i].iov_len);
        data += v[i].iov_len;
    }
    r->tail += n;
    return true;
}

void ring_discard(struct ring *r, uint64_t up_to) {
    if (up_to > r->head && up_to <= r->tail) r->head = up_to;
}

void ring_free(struct ring *r) {
    ring_total -= r->capacity;
    free(r->data);
    r->data = NULL;
    r->capacity = 0;
}

uint64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void random_bytes(void *to, size_t n) {
    if (getrandom(to, n, 0) == (ssize_t)n) return;
    struct timespec t; /* a kernel without getrandom: unique is enough here, nothing is kept secret by it */
    clock_gettime(CLOCK_REALTIME, &t);
    for (size_t i = 0; i < n; i++) ((uint8_t *)to)[i] = (uint8_t)((uint64_t)t.tv_nsec >> (i % 4 * 8)) ^ (uint8_t)(t.tv_sec >> i % 8);
}
